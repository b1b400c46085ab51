"""Killed in the middle of every phase, a study ends with the same bytes as if nothing had happened."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests import checkout

# A file that exists once a job of the phase has begun.
BEGUN = {
    "fetch": "logs/smoke/screen/*.log",
    "localize": "logs/smoke/localize/*/fact-lookup.log",
    "edit": "logs/smoke/edit/*/*.log",
    "evaluate": "logs/smoke/evaluate/*/*-inject.log",
    "attack": "logs/smoke/attack/*/*.log",
    "figures": "logs/smoke/figure/*/*.log",
    "report": "logs/smoke/report.log",
}


def kill_in(folder: Path, config: str, pattern: str) -> bool:
    """Start the workflow and kill it and all its jobs once the file exists; False where it ended before."""
    for old in folder.glob(pattern):
        old.unlink()
    process = subprocess.Popen(
        ["mechunlearn", "run", "--configfile", config],
        cwd=folder, env=checkout.environment(folder), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while process.poll() is None and not any(folder.glob(pattern)):
        time.sleep(0.02)
    time.sleep(0.5)
    ended = process.poll() is not None
    os.killpg(process.pid, signal.SIGKILL) if not ended else None
    process.wait()
    return not ended


def start_beside(folder: Path, program: str, seconds: int) -> tuple[int, subprocess.CompletedProcess[str]]:
    """Ask for a dry run while a process of that name works in the folder; its pid, and how the dry run ended."""
    other = subprocess.Popen(["bash", "-c", f"exec -a {program} sleep {seconds}"], cwd=folder)
    try:
        return other.pid, checkout.run(folder, "mechunlearn", "run", "-n", "--configfile", checkout.SMOKE)
    finally:
        other.kill()
        other.wait()


def test_a_living_run_is_named_and_not_run_beside(tmp_path):
    pid, process = start_beside(checkout.copy(tmp_path), "snakemake", 60)
    assert process.returncode == 1
    assert f"another run works in this folder (process {pid})" in process.stderr


def test_a_job_that_outlived_its_run_is_waited_for(tmp_path):
    folder = checkout.copy(tmp_path)
    (folder / ".snakemake/locks").mkdir(parents=True)
    (folder / ".snakemake/locks/0.input.lock").touch()
    pid, process = start_beside(folder, "mechunlearn", 4)
    assert process.returncode == 0, process.stderr[-2000:]
    assert f"waiting for the jobs of a killed run: process {pid}" in process.stderr
    assert not list((folder / ".snakemake/locks").glob("0.input.lock"))


def test_of_two_runs_started_at_once_one_works_and_the_other_names_it(tmp_path):
    folder, command = checkout.copy(tmp_path), ["mechunlearn", "run", "-n", "--configfile", checkout.SMOKE]
    job = subprocess.Popen(["bash", "-c", "exec -a mechunlearn sleep 10"], cwd=folder)  # for which the first waits
    both = [
        subprocess.Popen(command, cwd=folder, env=checkout.environment(folder), stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = {process.pid: process.communicate(timeout=120)[1] for process in both}
    job.wait()
    (worked,) = (process.pid for process in both if process.returncode == 0)
    (refused,) = (process.pid for process in both if process.returncode == 1)
    assert f"another run works in this folder (process {worked})" in said[refused]


@pytest.mark.study
def test_killed_in_every_phase_and_resumed_the_numbers_are_the_same(finished, tmp_path):
    folder = checkout.copy(tmp_path, finished / "models")
    config = checkout.one_cell(folder)
    killed = [phase for phase, pattern in BEGUN.items() if kill_in(folder, config, pattern)]
    assert killed == list(BEGUN)
    process = checkout.run(folder, "mechunlearn", "run", "--configfile", config)
    assert process.returncode == 0, process.stderr[-3000:]
    assert not list(folder.rglob("*.part")) + list(folder.rglob(".convert-*")) + list(folder.rglob(".checkpoints"))
    for name in checkout.CELL:
        pair = [each / checkout.RESULTS / name for each in (folder, finished)]
        assert pair[0].read_bytes() == pair[1].read_bytes(), name
    assert (folder / "results/smoke/report.html").exists()
