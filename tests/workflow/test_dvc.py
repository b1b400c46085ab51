"""The default study's stages through DVC, at smoke scale, from a fresh clone without a remote."""

import json
from pathlib import Path

import pytest
import yaml

from mechunlearn.config import load_study, validate_study
from tests import checkout

pytestmark = pytest.mark.study


@pytest.fixture(scope="module")
def reproduced(finished, tmp_path_factory) -> Path:
    """A clone whose default study is as small as the smoke study, after `dvc repro`."""
    folder = checkout.copy(tmp_path_factory.mktemp("dvc"), finished / "models")
    smoke = yaml.safe_load((folder / checkout.SMOKE).read_text())
    task = next(iter(load_study(folder / "config/config.yaml").tasks))
    small = validate_study({**smoke, "study": "default", "tasks": {task: next(iter(smoke["tasks"].values()))}})
    (folder / "config/config.yaml").write_text(yaml.safe_dump(small.model_dump(exclude_none=True)))
    assert checkout.run(folder, "mechunlearn", "schema").returncode == 0  # dvc.yaml for this study's one task
    checkout.run(folder, "git", "init", "-q")
    checkout.run(folder, "git", "add", "-A")
    checkout.run(folder, "git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "clone")
    process = checkout.run(folder, "dvc", "repro")
    assert process.returncode == 0, process.stdout[-4000:] + process.stderr[-4000:]
    return folder


def test_it_regenerates_everything_and_leaves_nothing_to_do(reproduced):
    assert (reproduced / "results/default/report.html").exists()
    status = checkout.run(reproduced, "dvc", "status")
    assert "up to date" in status.stdout, status.stdout
    assert checkout.planned(reproduced, config="config/config.yaml") == {}


def test_a_second_repro_runs_nothing(reproduced):
    process = checkout.run(reproduced, "dvc", "repro")
    assert "Running stage" not in process.stdout


def test_metrics_and_figures_are_visible(reproduced):
    shown = json.loads(checkout.run(reproduced, "dvc", "metrics", "show", "--json").stdout)
    numbers = shown[""]["data"]["results/default/metrics.json"]["data"]
    cells = next(iter(next(iter(numbers.values())).values()))
    assert 0 <= cells["fact-lookup"]["inject"]["forget_p_new"] <= 1
    plots = checkout.run(reproduced, "dvc", "plots", "show", "--out", "plots")
    assert plots.returncode == 0, plots.stderr
    assert "relearning.png" in (reproduced / "plots/index.html").read_text()
