"""The pages of docs/: their code, and what the site makes of docstrings. `make lint` builds the site itself."""

import importlib.util
import re
from pathlib import Path

import pytest
import typer
import yaml

from mechunlearn.cli import app
from mechunlearn.config import Study

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "config/README.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))
FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^ {4}.*\n)+", re.MULTILINE)
COMMAND = re.compile(r"^(make|mechunlearn|snakemake|dvc|pytest|ruff|git|python|hf)\b.*$", re.MULTILINE)
TARGETS = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()


def commands(text):
    """The lines of code blocks that are commands of a shell."""
    blocks = [code for language, code in FENCED.findall(text) if language == "sh"]
    blocks += [re.sub("^    ", "", block, flags=re.MULTILINE) for block in INDENTED.findall(FENCED.sub("", text))]
    return [found[0] for block in blocks for found in COMMAND.finditer(block)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_on_a_page_is_code(page):
    text = page.read_text()
    keys = {*Study.model_fields, *re.findall(r'^@\w+\("([\w-]+)"\)$', text, re.MULTILINE)}  # and what the page adds
    for language, code in FENCED.findall(text):
        if language == "python":
            compile(code if not code.startswith("    ") else f"class Block:\n{code}", page.name, "exec")
        elif language == "yaml":
            assert set(yaml.safe_load(code)) <= keys, code
        else:
            assert language == "sh", language


def test_commands_on_pages_exist():
    ours = set(typer.main.get_command(app).commands)
    said = [command for page in PAGES for command in commands(page.read_text())]
    assert len(said) > 20
    for command in said:
        program, *words = command.split("#")[0].split()
        if program == "make":
            assert words[0] in TARGETS, command
        elif program == "mechunlearn":
            assert words[0] in ours, command
        for word in words:
            assert not word.startswith("config/") or "my-study" in word or (ROOT / word).exists(), command


def test_the_site_lists_aligned_lines_and_links_to_its_own_pages_alone():
    pytest.importorskip("griffe", reason="the site's libraries are not installed (pip install '.[docs]')")
    place = importlib.util.spec_from_file_location("site_parts", ROOT / "docs/site_parts.py")
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    text = "What.\n\nselect   a name -> b\nfill, rank   the rest,\n             in order\nAnd this."
    html = "What.\n\n- `select`: a name -> b\n- `fill, rank`: the rest,\n  in order\n\nAnd this."
    assert module.as_lists(text) == html
    assert module.on_page_markdown("[a](../b.py) [c](d.md)") == "a [c](d.md)"
    assert module.as_lists("One sentence.\n\n    code  of two columns") == "One sentence.\n\n    code  of two columns"
