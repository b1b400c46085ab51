"""docs/adding-an-attack.md, followed word by word in a copy of the checkout: every block of code is used."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch
import yaml

from mechunlearn import artifacts
from mechunlearn.metrics import full_strength
from mechunlearn.models import delta
from mechunlearn.models.loading import load
from tests import checkout
from tests.following import count_passed, follow_page

STUDY = "config/my-study.yaml"


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """(a copy in which the page was followed, what its commands printed)."""
    return follow_page("adding-an-attack.md", tmp_path_factory.mktemp("attack"))


def test_the_pages_own_tests_pass(followed):
    _, printed = followed
    assert count_passed(printed) >= 4


def test_the_plan_has_a_job_more_for_every_cell(followed):
    folder, printed = followed
    study = yaml.safe_load((folder / STUDY).read_text())
    (plan,) = [text for command, text in printed.items() if command.startswith("snakemake")]
    jobs = re.split(r"^rule |^localrule ", plan, flags=re.MULTILINE)
    noise = [job for job in jobs if job.startswith("attack:") and "/attacks/noise/" in job]
    assert len(noise) == len(study["localizations"])
    assert all("src/mechunlearn/attack/noise.py" in job for job in noise)
    relearn = [job for job in jobs if job.startswith("attack:") and "/attacks/relearn/" in job]
    assert len(relearn) == len(noise)
    assert not any("src/mechunlearn/attack/noise.py" in job for job in relearn)


def test_schema_and_table_are_those_of_the_new_block(followed):
    folder, _ = followed
    schema = json.loads((folder / "config/schema.json").read_text())
    assert "noise" in schema["properties"]["attacks"]["items"]["enum"]
    assert "`noise.draws`" in (folder / "config/README.md").read_text()


def test_the_code_is_in_the_projects_style(followed):
    folder, _ = followed
    names = ["src/mechunlearn/attack/noise.py", "src/mechunlearn/config", "tests/unit/test_noise.py"]
    for command in (["check"], ["format", "--check"]):
        process = checkout.run(folder, sys.executable, "-m", "ruff", *command, *names)
        assert process.returncode == 0, process.stdout


def test_the_command_line_runs_it_on_an_edited_model(followed, manifest_of, athletes, tmp_path):
    folder, _ = followed
    manifest, edits, facts = manifest_of("llama"), tmp_path / "edits", tmp_path / "facts.parquet"
    artifacts.write_facts(facts, athletes, [1.0] * len(athletes), [1] * len(athletes))
    for seed in (0, 1):
        model = load(manifest)
        name = next(iter(model.layout.shapes))
        with torch.no_grad():
            model.network.get_parameter(name).add_(0.1)
        delta.save(edits / f"seed{seed}" / "delta.safetensors", model, [name], {})
    settings = yaml.safe_load((folder / STUDY).read_text())["noise"]
    given = ["--model", manifest, "--facts", facts, "--text", "src/mechunlearn/resources/text/passages.jsonl"]
    given += ["--method", "noise", "--settings", json.dumps(settings), "--edits", edits, "--seed", 0, "--seed", 1]
    given += ["--held-out", 8, "--out", tmp_path / "rows.parquet"]
    process = checkout.run(folder, sys.executable, "-m", "mechunlearn", "attack", *map(str, given))
    assert process.returncode == 0, process.stderr
    table = artifacts.read_measurements(tmp_path / "rows.parquet")
    measured = {fact.id for fact in athletes if fact.role in ("forget", "maintain-test")}
    stages = [f"noise-{strength:g}" for strength in settings["strengths"]]
    assert len(table) == 2 * len(stages) * settings["draws"] * len(measured)
    assert not table.duplicated(["seed", "stage", "elicitation", "order", "role", "fact"]).any()
    assert set(table.fact) == measured
    assert set(full_strength(table.stage.unique())) == set(stages)
    assert table.p_true.between(0, 1).all()
    assert (table.p_true <= table.p_options + 1e-9).all()
    assert table.groupby(["seed", "stage", "fact"]).p_true.nunique().min() > 1
