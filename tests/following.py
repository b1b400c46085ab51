"""Following a page of docs/ word by word, in a copy of this checkout: every block of code is used."""

import re
from pathlib import Path

import yaml

from tests import checkout

BLOCK = re.compile(r"((?:^[^\n]+\n)*)\n```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
WRITE = re.compile(r"write `([^`]+)`:$", re.IGNORECASE)
ADD = re.compile(r"in `([^`]+)`, above `([^`]+)`, add$", re.IGNORECASE)
SET = re.compile(r"copy `([^`]+)` to `([^`]+)`, and set$", re.IGNORECASE)


def follow_page(page: str, place: Path) -> tuple[Path, dict[str, str]]:
    """(a copy of the checkout, below `place`, in which a page of docs/ was followed; what its commands printed)."""
    folder = checkout.copy(place, models=Path("none"))
    return folder, follow((checkout.ROOT / "docs" / page).read_text(), folder)


def count_passed(printed: dict[str, str]) -> int:
    """How many tests the page's one pytest command passed; none of them failed or was skipped."""
    (tests,) = [text for command, text in printed.items() if command.startswith("pytest")]
    passed = re.search(r"(\d+) passed", tests)
    assert passed
    assert "failed" not in tests
    assert "skipped" not in tests
    return int(passed[1])


def follow(text: str, folder: Path) -> dict[str, str]:
    """Do in a folder what the page says, from top to bottom; command -> what it printed.

    A block is used as the end of the paragraph above it says; one of `sh` is run. Raises ValueError where that end
    says nothing that is understood.
    """
    printed = {}
    blocks = BLOCK.findall(text)
    assert len(blocks) == text.count("\n```") / 2
    for paragraph, language, code in blocks:
        said = " ".join(paragraph.split())
        if language == "sh":
            for command in code.splitlines():
                process = checkout.run(folder, *command.split())
                printed[command] = process.stdout + process.stderr
                assert process.returncode == 0, f"{command}\n{printed[command][-6000:]}"
        elif found := WRITE.search(said):
            assert not (folder / found[1]).exists()
            (folder / found[1]).write_text(code)
        elif found := ADD.search(said):
            lines = (folder / found[1]).read_text().splitlines(keepends=True)
            (place,) = [number for number, line in enumerate(lines) if line.strip() == found[2]]
            (folder / found[1]).write_text("".join([*lines[:place], code, *lines[place:]]))
        elif found := SET.search(said):
            values = {**yaml.safe_load((folder / found[1]).read_text()), **yaml.safe_load(code)}
            (folder / found[2]).write_text(yaml.safe_dump(values, sort_keys=False))
        else:
            raise ValueError(f"what is to be done with the block after {said[-80:]!r}?")
    return printed
