"""A study through profiles/slurm on a real Slurm of one node, with what goes wrong on clusters.

The smoke study's first localization with one attack: every phase, and cells that the local run of the whole smoke
study computed, too.
"""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import checkout
from tests.one_node import Cluster, missing, one_node, wait_for

pytestmark = pytest.mark.study
CONFIG = "config/one-cell.yaml"
PROFILE = ("--workflow-profile", "profiles/slurm", "--slurm-init-seconds-before-status-checks", "10")
LIMIT = 1800.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if absent := missing():
        pytest.skip(f"not installed: {', '.join(absent)} (Debian: apt install slurmctld slurmd slurm-client)")
    with one_node(tmp_path_factory.mktemp("slurm")) as here:
        yield here


@dataclass
class Run:
    """A finished run through Slurm: its folder, what it printed, the jobs that were planned and those that ended."""

    folder: Path
    output: str
    planned: dict[str, int]
    ended: list[dict[str, str]]
    cancelled: str


def start(folder: Path, cluster: Cluster, *arguments: str) -> subprocess.Popen[bytes]:
    environment = {**checkout.environment(folder), "SLURM_CONF": cluster.environment["SLURM_CONF"]}
    environment["PATH"] = f"{cluster.folder / 'bin'}:{environment['PATH']}"
    with open(folder / "output.log", "wb") as log:
        return subprocess.Popen(
            ["snakemake", *PROFILE, "--configfile", CONFIG, *arguments],
            cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip


def finish(process: subprocess.Popen[bytes], folder: Path) -> tuple[int, str]:
    try:
        code = process.wait(LIMIT)
    finally:
        process.kill()
    return code, (folder / "output.log").read_text()


def wait_for_job(rule: str, folder: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until a job of a rule works on its node: its log is there. Raises AssertionError where the run has ended."""
    logs = folder / "logs" / "smoke" / rule
    wait_for(f"a job of {rule}", lambda: list(logs.rglob("*.log")) or process.poll() is not None, LIMIT)
    assert process.poll() is None, (folder / "output.log").read_text()[-4000:]


@pytest.fixture(scope="module")
def run(cluster: Cluster, finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The study; while facts are screened the controller restarts, and the edit is cancelled in its midst."""
    folder = checkout.copy(tmp_path_factory.mktemp("cluster"), finished / "models")
    assert checkout.one_cell(folder) == CONFIG
    planned = checkout.planned(folder, config=CONFIG)
    process = start(folder, cluster)
    try:
        wait_for_job("screen", folder, process)
        cluster.stop("slurmctld")
        cluster.start("slurmctld")
        wait_for_job("edit", folder, process)
        cancelled = cluster.running("edit")
        cluster.ask("scancel", cancelled)
    finally:
        code, output = finish(process, folder)
    assert code == 0, output[-6000:]
    return Run(folder, output, planned, cluster.ended(), cancelled)


def test_every_job_went_through_sbatch(run):
    local = {"all", "figures"}
    expected = sum(count for rule, count in run.planned.items() if rule not in local)
    assert expected >= 20
    assert len([job for job in run.ended if job["state"] == "COMPLETED"]) == expected


def test_figures_were_one_array(run):
    found = re.search(r"Submitted array job with Snakemake IDs ([\d,]+)", run.output)
    assert found
    assert len(found[1].split(",")) == run.planned["figure"]


def test_a_cancelled_job_ran_again_and_asked_for_twice_the_memory(run):
    assert f"SLURM-job '{run.cancelled}' failed, SLURM status is: 'CANCELLED'" in run.output
    (first,) = [job for job in run.ended if job["state"] != "COMPLETED"]
    assert (first["id"], first["state"]) == (run.cancelled, "CANCELLED")
    again = [int(job["memory"][:-1]) for job in run.ended if job["state"] == "COMPLETED" and job["memory"][-1] == "M"]
    assert 2 * int(first["memory"][:-1]) in again


def test_the_controllers_restart_was_survived(cluster, run):
    assert (cluster.folder / "slurmctld.log").read_text().count("slurmctld version") == 2
    assert run.output.count("Trying to restart job") == 1  # the cancelled one


def test_results_are_those_of_a_local_run_byte_for_byte(finished, run):
    for name in checkout.CELL:
        pair = [folder / checkout.RESULTS / name for folder in (run.folder, finished)]
        assert pair[0].read_bytes() == pair[1].read_bytes(), name
    assert (run.folder / "results/smoke/report.html").exists()


def test_nothing_is_left_to_do(run):
    assert checkout.planned(run.folder, config=CONFIG) == {}
    assert checkout.planned(run.folder, "--workflow-profile", "profiles/slurm", config=CONFIG) == {}


def test_a_job_that_fails_is_reported_with_its_log(cluster, run):
    cell = "results/smoke/gemma-3-270m/sports-athlete-4"
    delta = run.folder / cell / "edits/fact-lookup/inject/seed0/delta.safetensors"
    whole = delta.read_bytes()
    delta.write_text("no tensors")
    try:
        target = f"{cell}/measurements/fact-lookup/inject.parquet"
        code, output = finish(start(run.folder, cluster, "--retries", "0", target), run.folder)
    finally:
        delta.write_bytes(whole)
    assert code == 1
    assert "SLURM status is: 'FAILED'" in output
    assert "logs/smoke/evaluate/gemma-3-270m-sports-athlete-4" in output
    assert "mechunlearn: " in output  # the log's own sentence
    assert "delta.safetensors" in output
