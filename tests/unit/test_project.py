"""The project's own papers agree with each other: lock, environments, links, commands."""

import hashlib
import re
import subprocess
import tomllib
from itertools import chain
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = [
    Requirement(line)
    for line in (ROOT / "envs/requirements.lock").read_text().splitlines()
    if line and not line.startswith("#")
]
PINS = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in reversed(LOCK)}
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "config/README.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))


def test_the_lock_pins_exactly_and_names_no_place():
    assert all(str(pin.specifier).startswith("==") and pin.url is None for pin in LOCK)
    assert "://" not in (ROOT / "envs/requirements.lock").read_text()


def test_the_linter_reads_every_file_of_ours():
    read = subprocess.run(
        ["ruff", "check", "--show-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    ours = {str(path) for folder in ("src", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")}
    assert ours <= set(read.splitlines())


@pytest.mark.parametrize("requirement", chain(PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()))
def test_the_lock_satisfies_every_requirement(requirement):
    wanted = Requirement(requirement)
    assert wanted.specifier.contains(PINS[canonicalize_name(wanted.name)])


@pytest.mark.parametrize("path", sorted((ROOT / "envs").glob("*.yaml")), ids=lambda path: path.name)
def test_conda_environments_agree_with_the_lock(path):
    entries = yaml.safe_load(path.read_text())["dependencies"]
    conda = [entry for entry in entries if isinstance(entry, str)]
    pins = [pin.split("=", 1) for pin in conda if "=" in pin and not pin.startswith("python=")]
    pins += [pin.split("==") for entry in entries if isinstance(entry, dict) for pin in entry["pip"]]
    assert pins
    for name, version in pins:
        assert version == PINS[canonicalize_name({"pytorch": "torch"}.get(name, name))], name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_named_files_exist(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (page.parent / target).exists(), target
    for name in re.findall(r"`((?:src|config|docs|rules|envs|tests)/[\w./-]+\.\w+)`", text):
        written = name.endswith(("my-study.yaml", "noise.py", "undial.py", "output_change.py"))  # by a reader
        assert written or (ROOT / name).exists(), name


def test_makefile_has_at_most_ten_targets_each_with_a_line_of_help():
    text = (ROOT / "Makefile").read_text()
    targets = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)[1].split()
    assert len(targets) <= 10
    assert {"setup", "reproduce", "test", "lint", "bench"} <= set(targets)
    assert set(targets) == set(re.findall(r"^(\w+):.*## ", text, re.MULTILINE))


def test_the_snakefile_stays_a_table_of_contents():
    assert len((ROOT / "Snakefile").read_text().splitlines()) < 60


def test_the_licence_is_apache_2_word_by_word():
    text = (ROOT / "LICENSE").read_bytes()
    assert PROJECT["license"] == "Apache-2.0"
    assert hashlib.sha256(text).hexdigest() == "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"


# Of the Citation File Format 1.2.0: what an entry must have, and all it may have of what we could want.
CITED = {"type", "title", "authors"}
MAY = {"year", "collection-title", "collection-type", "conference", "volume", "start", "end", "url", "identifiers"}
MAY |= {"journal", "doi"}


def test_the_citation_file_is_valid_and_cites_both_papers():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["cff-version"] == "1.2.0"
    assert cited["version"] == PROJECT["version"]
    assert cited["license"] == PROJECT["license"]
    own = {"cff-version", "message", "type", "title", "abstract", "version", "license", "authors", "keywords"}
    assert set(cited) == {*own, "references"}
    for entry in (cited, *cited["references"]):
        assert entry["authors"]
        for person in entry["authors"]:
            assert set(person) in ({"name"}, {"family-names", "given-names"})
    for entry in cited["references"]:
        assert CITED <= set(entry) <= CITED | MAY
        assert entry["type"] in ("article", "conference-paper")
        assert isinstance(entry["year"], int)
        assert entry["url"].startswith("https://")
        assert all(set(each) == {"type", "value", "description"} for each in entry["identifiers"])
    papers = {each["value"] for entry in cited["references"] for each in entry["identifiers"]}
    assert papers == {"arXiv:2410.12949", "arXiv:2409.13054"}


def test_every_public_module_is_on_a_page_of_the_site():
    """`make lint` builds the site and fails on links to nowhere; this also sees a module that no page shows."""
    package = ROOT / "src/mechunlearn"
    top = {path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    shown = re.findall(r"^::: mechunlearn\.(\w+)$", "\n".join(page.read_text() for page in PAGES), re.MULTILINE)
    assert len(shown) == len(set(shown))
    assert set(shown) == top - {"__init__", "__main__", "cli"}  # a package's page shows its modules, too


def test_every_fault_in_the_table_is_tried():
    page = (ROOT / "docs/reliability.md").read_text()
    rows = [
        row
        for row in page.splitlines()
        if row.startswith("| ") and not row.startswith(("| fault", "| attempt", "| ---"))
    ]
    known = {
        name for file in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)", file.read_text())
    }
    assert len(rows) > 20
    for row in rows:
        named = re.findall(r"`(test_\w+)`", row.split(" | ")[-1])
        assert named, row
        assert set(named) <= known, row
