"""A copy of this checkout in another folder, in which tests run the real workflow."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
SMOKE = "config/smoke.yaml"
CELL = [  # what a study of one cell has in common with the whole smoke study, below RESULTS
    "facts.parquet",
    "scores/fact-lookup.parquet",
    "selection/fact-lookup.json",
    "edits/fact-lookup/inject/seed0/delta.safetensors",
    "measurements/base.parquet",
    "measurements/fact-lookup/inject.parquet",
    "attacks/relearn/fact-lookup/inject.parquet",
]
RESULTS = Path("results/smoke/gemma-3-270m/sports-athlete-4")


def copy(folder: Path, models: Path = ROOT / "models") -> Path:
    """The files git knows, and the converted models, hard-linked, where there are some."""
    known = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, known.split("\0")):
        if (ROOT / name).is_file() and not name.startswith("results/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    for manifest in models.glob("*/model.json"):
        shutil.copytree(manifest.parent, folder / "models" / manifest.parent.name, copy_function=os.link)
        fresh = folder / "models" / manifest.parent.name / "model.json"
        fresh.unlink()  # a file of its own, newer than the sources it was made by
        shutil.copy(manifest, fresh)
    return folder


def one_cell(folder: Path) -> str:
    """Write the smoke study's first localization with one attack as a study, every phase of it; its path."""
    smoke = yaml.safe_load((folder / SMOKE).read_text())
    smoke |= {"localizations": ["fact-lookup"], "attacks": ["relearn"], "masking": {}}
    path = folder / "config/one-cell.yaml"
    path.write_text(yaml.safe_dump(smoke))
    return str(path.relative_to(folder))


def environment(folder: Path) -> dict[str, str]:
    """The copy's own package comes before the installed one; its commands are on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(folder / "src"), "DVC_NO_ANALYTICS": "1"}


def run(folder: Path, *command: str, timeout: float = 1800) -> subprocess.CompletedProcess[str]:
    """Run a command in the copy and return it with its output, whatever its exit status."""
    return subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=timeout)


def snakemake(folder: Path, *arguments: str, config: str = SMOKE) -> subprocess.CompletedProcess[str]:
    """Run the workflow in the copy."""
    return run(folder, "snakemake", *arguments, "--configfile", config)


def planned(folder: Path, *arguments: str, config: str = SMOKE) -> dict[str, int]:
    """What a dry run would do: rule -> number of jobs."""
    process = snakemake(folder, *arguments, "-n", "--quiet", "rules", config=config)
    assert process.returncode == 0, process.stdout + process.stderr
    jobs: dict[str, int] = {}
    for line in process.stdout.splitlines() + process.stderr.splitlines():
        parts = line.split()
        if len(parts) == 2 and parts[1].isdigit() and parts[0] != "total":
            jobs[parts[0]] = int(parts[1])
    return jobs


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy in which the smoke study has run, from fetch to report; shared, so leave it as it was."""
    folder = copy(tmp_path_factory.mktemp("finished"))
    process = snakemake(folder)
    assert process.returncode == 0, process.stdout[-6000:] + process.stderr[-6000:]
    return folder


@pytest.fixture
def source(finished: Path):
    """Change a source file of the finished study for one test: source("edit/train.py")."""
    changed: dict[Path, bytes] = {}

    def change(name: str) -> None:
        path = finished / "src" / "mechunlearn" / name
        changed[path] = path.read_bytes()
        path.write_bytes(changed[path] + b"\n# a change\n")

    yield change
    for path, content in changed.items():
        path.write_bytes(content)
