"""docs/adding-an-objective.md, followed word by word in a copy of the checkout: every block of code is used."""

import json
import re
import sys
from pathlib import Path

import pytest
import yaml

from tests import checkout
from tests.following import count_passed, follow_page

STUDY = "config/my-study.yaml"


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """(a copy in which the page was followed, what its commands printed)."""
    return follow_page("adding-an-objective.md", tmp_path_factory.mktemp("objective"))


def test_the_pages_own_tests_pass(followed):
    _, printed = followed
    assert count_passed(printed) >= 6


def test_the_plan_has_an_edit_more_for_every_localization(followed):
    folder, printed = followed
    study = yaml.safe_load((folder / STUDY).read_text())
    (plan,) = [text for command, text in printed.items() if command.startswith("snakemake")]
    edits = [job for job in re.split(r"^rule |^localrule ", plan, flags=re.MULTILINE) if job.startswith("edit:")]
    ours = [job for job in edits if "objective=undial" in job]
    assert len(ours) == len(study["localizations"]) == len(edits) / 2
    assert all("src/mechunlearn/edit/undial.py" in job for job in ours)
    assert not any("undial.py" in job for job in edits if job not in ours)


def test_schema_and_table_are_those_of_the_new_block(followed):
    folder, _ = followed
    schema = json.loads((folder / "config/schema.json").read_text())
    assert "undial" in schema["properties"]["objectives"]["items"]["enum"]
    assert "`edit.undial.strength`" in (folder / "config/README.md").read_text()


def test_the_code_is_in_the_projects_style(followed):
    folder, _ = followed
    names = ["src/mechunlearn/edit/undial.py", "src/mechunlearn/config", "tests/unit/test_undial.py"]
    for command in (["check"], ["format", "--check"]):
        process = checkout.run(folder, sys.executable, "-m", "ruff", *command, *names)
        assert process.returncode == 0, process.stdout


def test_the_code_has_the_types_it_says(followed):
    folder, _ = followed
    process = checkout.run(folder, sys.executable, "-m", "mypy")
    assert process.returncode == 0, process.stdout
