"""Killed in the middle of every phase, the study ends with the same bytes as if nothing had happened."""

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
    "localize": "logs/smoke/localize/*/causal-tracing.log",
    "edit": "logs/smoke/edit/*.log",
    "evaluate": "logs/smoke/evaluate/*/*-inject.log",
    "attack": "logs/smoke/attack/*/*.log",
    "figures": "logs/smoke/figure/*/*.log",
    "report": "logs/smoke/report.log",
}


def kill_in(folder: Path, pattern: str) -> bool:
    """Start the workflow and kill it and all its jobs once the file exists; False where it ended before."""
    for old in folder.glob(pattern):
        old.unlink()
    process = subprocess.Popen(
        ["mechunlearn", "run", "--configfile", checkout.SMOKE],
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


def test_a_job_that_outlived_its_run_is_named_and_not_run_beside(tmp_path):
    folder = checkout.copy(tmp_path)
    orphan = subprocess.Popen(["bash", "-c", "exec -a mechunlearn sleep 60"], cwd=folder)
    try:
        process = checkout.run(folder, "mechunlearn", "run", "-n", "--configfile", checkout.SMOKE)
    finally:
        orphan.kill()
        orphan.wait()
    assert process.returncode == 1
    assert f"another run still works in this folder (process {orphan.pid})" in process.stderr


@pytest.mark.study
def test_killed_in_every_phase_and_resumed_the_numbers_are_the_same(finished, tmp_path):
    folder = checkout.copy(tmp_path, finished / "models")
    killed = [phase for phase, pattern in BEGUN.items() if kill_in(folder, pattern)]
    assert killed == list(BEGUN)
    process = checkout.run(folder, "mechunlearn", "run", "--configfile", checkout.SMOKE)
    assert process.returncode == 0, process.stderr[-3000:]
    assert not list(folder.rglob("*.part")) + list(folder.rglob(".convert-*"))
    for name in ("results/smoke/metrics.csv", "results/smoke/claims.json"):
        assert (folder / name).read_bytes() == (finished / name).read_bytes()
