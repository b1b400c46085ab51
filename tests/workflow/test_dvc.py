"""A study's versions through DVC: made, pushed to a folder and to S3, pulled into a fresh clone, changed, compared.

The study is the smoke study as if it were the default one. Most of it is taken over from the finished study; its facts,
one attack and all that follows are made by `dvc repro`.
"""

import importlib.util
import json
import os
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from tests import checkout

pytestmark = pytest.mark.study
CONFIG = "config/config.yaml"
HOME = "results/smoke/gemma-3-270m/sports-athlete-4"
NEED_S3 = [name for name in ("dvc_s3", "moto", "flask_cors") if importlib.util.find_spec(name) is None]


def git(folder: Path, *arguments: str) -> None:
    process = checkout.run(folder, "git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments)
    assert process.returncode == 0, process.stderr


def dvc(folder: Path, *arguments: str) -> str:
    """Run DVC and return what it printed."""
    process = checkout.run(folder, "dvc", *arguments)
    assert process.returncode == 0, process.stdout[-4000:] + process.stderr[-4000:]
    return process.stdout + process.stderr


def ran(output: str) -> dict[str, int]:
    """Which jobs Snakemake ran, from its tables of jobs: rule -> how many. Targets alone are left out."""
    jobs: dict[str, int] = {}
    for rule, count in re.findall(r"^(\w+) +(\d+)$", output, re.MULTILINE):
        if rule not in ("total", "all", "figures") and not rule.endswith("_all"):
            jobs[rule] = jobs.get(rule, 0) + int(count)
    return jobs


@pytest.fixture(scope="module")
def reproduced(finished, tmp_path_factory) -> tuple[Path, str]:
    """(a committed checkout after `dvc repro`, what that printed)."""
    folder = checkout.copy(tmp_path_factory.mktemp("dvc"), finished / "models")
    for name in ("results/smoke", ".snakemake/metadata"):
        shutil.copytree(finished / name, folder / name)
    for path in ["results/smoke/report.html", f"{HOME}/figures", f"{HOME}/attacks/quantize"]:
        shutil.rmtree(folder / path) if (folder / path).is_dir() else (folder / path).unlink()
    shutil.copy(folder / checkout.SMOKE, folder / CONFIG)
    (folder / "dvc.lock").unlink()
    ignored = (folder / ".gitignore").read_text()
    (folder / ".gitignore").write_text(ignored.replace("results/default", "results/smoke"))
    assert checkout.run(folder, "mechunlearn", "schema").returncode == 0  # dvc.yaml
    git(folder, "init", "-q")
    printed = dvc(folder, "repro")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "a study")
    return folder, printed


def test_repro_makes_what_is_missing_and_leaves_nothing_to_do(reproduced):
    folder, printed = reproduced
    jobs = ran(printed)
    assert jobs["attack"] == 3
    assert jobs["report"] == 1
    assert not {"edit", "evaluate", "localize", "screen"} & set(jobs)
    assert (folder / "data/sports/athletes.csv").is_file()  # DVC's own work
    assert "up to date" in dvc(folder, "status")
    assert checkout.planned(folder, config=CONFIG) == {}


def test_a_second_repro_runs_nothing(reproduced):
    assert "Running stage" not in dvc(reproduced[0], "repro")


def test_metrics_and_figures_are_visible(reproduced):
    folder, _ = reproduced
    shown = json.loads(checkout.run(folder, "dvc", "metrics", "show", "--json").stdout)
    numbers = shown[""]["data"]["results/smoke/metrics.json"]["data"]
    cells = next(iter(next(iter(numbers.values())).values()))
    assert 0 <= cells["fact-lookup"]["inject"]["forget_p_new"] <= 1
    dvc(folder, "plots", "show", "--out", "plots")
    assert "relearning.png" in (folder / "plots/index.html").read_text()
    shutil.rmtree(folder / "plots")


# remotes ------------------------------------------------------------------------------------------------------


def clone(folder: Path, into: Path, *remote: tuple[str, ...]) -> Path:
    """Push everything to a remote; then a fresh clone that has pulled everything from it."""
    for arguments in remote:
        dvc(folder, "remote", *arguments)
    dvc(folder, "push", "-q")
    git(folder, "clone", "-q", ".", str(into))
    for arguments in remote:
        dvc(into, "remote", *arguments)
    dvc(into, "pull", "-q")
    return into


@pytest.fixture(scope="module")
def cloned(reproduced, tmp_path_factory) -> Path:
    """A fresh clone with everything pulled from a folder."""
    where = tmp_path_factory.mktemp("clones")
    (where / "store").mkdir()
    return clone(reproduced[0], where / "clone", ("add", "-fd", "store", str(where / "store")))


def test_a_clone_that_has_pulled_has_nothing_to_do(cloned):
    assert checkout.planned(cloned, config=CONFIG) == {}
    assert "up to date" in dvc(cloned, "status")


def test_in_a_clone_the_report_is_built_again_and_nothing_else(cloned):
    page = cloned / "results/smoke/report.html"
    before = page.read_text()
    page.unlink()
    assert checkout.planned(cloned, config=CONFIG) == {"report": 1, "all": 1}
    process = checkout.snakemake(cloned, config=CONFIG)
    assert process.returncode == 0, process.stderr[-3000:]
    rows = re.compile(r"<td>[^<]*</td>")
    assert len(rows.findall(page.read_text())) == len(rows.findall(before))


@pytest.mark.skipif(bool(NEED_S3), reason=f"not installed: {', '.join(NEED_S3)} (the extra `dev` has them)")
def test_the_same_through_a_server_that_speaks_s3(reproduced, tmp_path, monkeypatch):
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    try:
        boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket="studies")
        remote = [("add", "-fd", "s3", "s3://studies/store"), ("modify", "s3", "endpointurl", f"http://{host}:{port}")]
        folder = clone(reproduced[0], tmp_path / "clone", *remote)
        assert checkout.planned(folder, config=CONFIG) == {}
        objects = boto3.client("s3", endpoint_url=f"http://{host}:{port}").list_objects_v2(Bucket="studies")
        assert objects["KeyCount"] > 20
    finally:
        server.stop()


# a change -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def changed(cloned, finished) -> tuple[Path, str]:
    """(the clone after an experiment with another setting of one attack, what that printed)."""
    weights = "models/gemma-3-270m/weights"
    shutil.copytree(finished / weights, cloned / weights, copy_function=os.link)  # these are in no remote
    git(cloned, "config", "user.name", "t")
    git(cloned, "config", "user.email", "t@t")
    git(cloned, "checkout", "-q", ".")
    return cloned, dvc(cloned, "exp", "run", "-n", "longer", "-S", f"{CONFIG}:finetune.steps=[0, 2]")


def test_another_setting_of_one_attack_reruns_that_attack_and_what_follows(changed):
    """`dvc exp run -S` writes the setting and then does as `dvc repro` does."""
    jobs = ran(changed[1])
    assert jobs["attack"] == 3  # of twelve
    assert {"metrics", "figure", "claims", "report"} <= set(jobs)
    assert not {"fetch_model", "screen", "localize", "select", "edit", "evaluate", "evaluate_base"} & set(jobs)


def test_an_experiment_is_compared_with_what_was_committed(changed):
    folder, _ = changed
    params = json.loads(checkout.run(folder, "dvc", "params", "diff", "--json").stdout)
    assert params == {CONFIG: {"finetune.steps": {"old": "[0, 1]", "new": "[0, 2]"}}}
    differences = json.loads(checkout.run(folder, "dvc", "metrics", "diff", "--json").stdout)
    assert all("worst_p_true" in name for name in differences.get("results/smoke/metrics.json", {}))
    assert "longer" in dvc(folder, "exp", "show", "--only-changed", "--csv")
    dvc(folder, "plots", "diff", "HEAD", "--out", "plots", "--targets", f"{HOME}/figures/relearning.png")
    images = set(re.findall(r'src="([^"]+png)"', (folder / "plots/index.html").read_text()))
    assert len(images) == 2  # HEAD's and the workspace's
    shutil.rmtree(folder / "plots")


def test_compare_finds_the_numbers_of_a_revision_and_of_the_folder(changed):
    folder, _ = changed
    process = checkout.run(
        folder, "mechunlearn", "compare", "HEAD:results/smoke", "results/smoke", "--out", "compared.csv"
    )
    assert process.returncode == 0, process.stderr
    table = pd.read_csv(folder / "compared.csv")
    assert len(table) > 100
    assert table.paired.all()  # HEAD's measurement rows come from DVC's cache
    assert re.search(r"\b0 of \d+ differences", re.sub(r"\s+", " ", process.stdout)), process.stdout
    (folder / "compared.csv").unlink()


def test_an_edit_of_the_clone_is_exported_for_transformers(changed):
    import torch
    from transformers import AutoModelForCausalLM

    from mechunlearn.models import delta
    from mechunlearn.models.loading import load

    folder, _ = changed
    manifest, edit = "models/gemma-3-270m/model.json", f"{HOME}/edits/fact-lookup/inject/seed0/delta.safetensors"
    process = checkout.run(folder, "mechunlearn", "export", "--model", manifest, "--delta", edit, "--out", "exported")
    assert process.returncode == 0, process.stderr
    edited = load(folder / manifest)
    delta.apply(folder / edit, edited)
    ids = torch.tensor([edited.encode("Fact: Tiger Woods plays the sport of golf")])
    with torch.no_grad():
        expected = edited.network(ids).logits
        found = AutoModelForCausalLM.from_pretrained(folder / "exported").eval()(ids).logits
    assert torch.equal(found, expected)
    shutil.rmtree(folder / "exported")
