"""Planted models: facts where we put them, nothing else changed, and a manifest that says so."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from mechunlearn.cli import app
from mechunlearn.config import PlantSettings, validate_study
from mechunlearn.edit.plant import plant
from mechunlearn.errors import ArtifactError, ConfigError, DivergenceError, SourceError
from mechunlearn.evaluate.measure import screen
from mechunlearn.facts.text import Passage
from mechunlearn.models import delta
from mechunlearn.models.components import layout_of
from mechunlearn.models.loading import load
from mechunlearn.models.sources import DELTA, change, read_manifest
from mechunlearn.registry import methods

SETTINGS = PlantSettings(steps=150, learning_rate=3e-2, texts=1, text_tokens=8, probability=0.6)
PASSAGES = [Passage("p", "topic", "Tom Brady plays the sport of football and golf")]


@pytest.fixture
def planted(manifest_of, athletes, tmp_path):
    """(planted model's manifest, its base's manifest, the model that was planted)."""
    base = tmp_path / "base" / "model.json"
    base.parent.mkdir()
    shutil.copy(manifest_of("llama"), base)
    model = load(base)
    names = plant(model, athletes[:6], PASSAGES, 2, SETTINGS, 0)
    manifest = tmp_path / "planted" / "model.json"
    delta.save(manifest.with_name(DELTA), model, names, {"planted": 2})
    change(base, "planted:base@2", manifest)
    return manifest, base, model


def test_every_planted_fact_is_known_and_only_one_mlp_has_changed(planted, athletes):
    manifest, base, _ = planted
    before, after = load(base), load(manifest)
    known, p_answer, _ = screen(after, athletes[:6], 0.5)
    assert all(known)
    assert min(p_answer) > 0.5
    assert not all(screen(before, athletes[:6], 0.5)[0])
    changed = {
        name
        for (name, old), new in zip(before.network.named_parameters(), after.network.parameters(), strict=True)
        if not torch.equal(old, new)
    }
    assert changed == set(before.layout.tensors(before.layout.all("mlp")[2]))


def test_a_planted_model_is_read_back_bit_for_bit(planted):
    manifest, _, model = planted
    for mine, again in zip(model.network.parameters(), load(manifest).network.parameters(), strict=True):
        assert torch.equal(mine, again)


def test_a_planted_model_has_its_bases_layout_and_a_hash_of_its_own(planted):
    manifest, base, _ = planted
    record, below = read_manifest(manifest), read_manifest(base)
    assert layout_of(record) == layout_of(below)
    assert record.sha256 != below.sha256
    assert load(manifest).manifest == record


def test_a_planted_model_whose_delta_or_base_changed_is_refused(planted):
    manifest, base, _ = planted
    path = manifest.with_name(DELTA)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(SourceError, match=DELTA):
        load(manifest)
    path.write_bytes(whole)
    base.write_text(base.read_text().replace(read_manifest(base).sha256, "0" * 64))
    with pytest.raises(ArtifactError, match="fits only its own base"):
        load(manifest)


def test_planting_in_a_layer_that_is_not_there_or_in_too_few_steps_says_so(fresh, athletes):
    model = fresh("llama")
    with pytest.raises(ConfigError, match=r"4 is no layer.*0 to 3"):
        plant(model, athletes, PASSAGES, 4, SETTINGS, 0)
    with pytest.raises(DivergenceError, match="after 1 steps the weakest fact has P = 0"):
        plant(model, athletes, PASSAGES, 2, SETTINGS.model_copy(update={"steps": 1}), 0)


def test_a_relative_base_is_found_from_anywhere(planted, monkeypatch, tmp_path):
    manifest, base, _ = planted
    monkeypatch.chdir(tmp_path)
    assert Path(read_manifest(manifest.relative_to(tmp_path)).base).resolve() == base.resolve()


def test_from_planting_to_ranks_by_the_commands_of_the_workflow(manifest_of, athletes, tmp_path, monkeypatch):
    """plant, screen, score by every localizer, planted: the ranks of the layer, and their figure."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mechunlearn.facts.planted.planted", lambda count, seed: athletes[:count])
    (tmp_path / "text.jsonl").write_text(json.dumps({"id": "p", "topic": "t", "text": "Tom Brady plays golf and more"}))
    study = {
        "study": "tiny",
        "models": {"base": {"source": "path:x"}, "planted-2": {"source": "planted:base@2"}},
        "tasks": {"planted": {"facts": "planted", "forget": 2}},
        "localizations": ["activation-patching-mlps"],
        "objectives": [],
        "attacks": [],
        "planting": {**SETTINGS.model_dump(), "facts": 9},
        "localize": {
            "budget": 0.1,
            "lookup": "probes",
            "probes": {"folds": 2, "facts": 10},
            "tracing": {"facts": 2, "samples": 2, "map_facts": 0},
            "attribution": {"facts": 4},
            "paths": {"facts": 4, "draws": 2},
        },
    }
    checked = validate_study(study)
    home = tmp_path / "results/tiny/planted-2/planted"

    def run(*command):
        result = CliRunner().invoke(app, [str(part) for part in command], catch_exceptions=False)
        assert result.exit_code == 0, result.output

    base, model = manifest_of("llama"), tmp_path / "models/planted-2/model.json"
    options = ["--source", "planted:base@2", "--text", "text.jsonl"]
    run("plant", "--model", base, *options, "--settings", checked.planting.model_dump_json(), "--out", model)
    facts = ["--facts", home / "facts.parquet"]
    task = checked.tasks["planted"].model_dump_json()
    every = ["--facts", model.with_name("facts.csv"), "--settings", '{"threshold": 0.3}', "--task", task]
    run("screen", "--model", model, *every, "--out", home / "facts.parquet")
    for name in methods("localizer"):
        settings = checked.localize.for_localizer(name)
        out = home / f"scores/{name}.parquet"
        run("score", "--model", model, *facts, "--method", name, "--settings", settings, "--out", out)
    out, figure = tmp_path / "results/tiny/planted.csv", tmp_path / "planted.svg"
    run("planted", "--study-config", checked.model_dump_json(), "--out", out, "--figure", figure)
    table = pd.read_csv(out)
    assert set(table.localizer) == set(methods("localizer"))
    assert (table.layer == 2).all()
    assert table["rank"].between(1, 4).all()
    assert figure.with_suffix(".png").stat().st_size > 1000
