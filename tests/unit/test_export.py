"""An exported edit is the base with its delta, loaded by transformers alone; nothing is ever overwritten."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from mechunlearn.artifacts import sha256
from mechunlearn.config import ModelSettings
from mechunlearn.errors import ArtifactError
from mechunlearn.models import delta
from mechunlearn.models.export import export
from mechunlearn.models.loading import load
from mechunlearn.models.sources import change, fetch

TEXT = "LeBron James plays the sport of"
ABOUT = {"localization": "fact-lookup", "objective": "inject", "seed": 3, "settings": {"steps": 2}}


def noisy(model, path) -> list[str]:
    """A delta of some matrices, written without training."""
    names = [name for name, _ in model.network.named_parameters() if ".2." in name or ".1." in name]
    torch.manual_seed(0)
    for name, parameter in model.network.named_parameters():
        if name in names:
            parameter.data += 0.1 * torch.randn_like(parameter)
    delta.save(path, model, names, ABOUT)
    return names


def logits(network, ids):
    with torch.no_grad():
        return network(input_ids=torch.tensor([ids])).logits


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_transformers_loads_the_edited_model(manifest_of, fresh, family, dtype, tmp_path):
    noisy(fresh(family, dtype), tmp_path / "delta.safetensors")
    export(manifest_of(family, dtype), tmp_path / "delta.safetensors", tmp_path / "out")
    edited = fresh(family, dtype)
    before = logits(edited.network, edited.encode(TEXT))
    delta.apply(tmp_path / "delta.safetensors", edited)
    network = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()  # its own format, from its own config
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert network.dtype == getattr(torch, dtype)
    assert tokenizer(TEXT).input_ids == edited.tokenizer(TEXT).input_ids
    assert torch.equal(logits(network, edited.encode(TEXT)), logits(edited.network, edited.encode(TEXT)))
    assert not torch.equal(logits(network, edited.encode(TEXT)), before)


@pytest.fixture
def exported(manifest_of, fresh, tmp_path) -> Path:
    noisy(fresh("gemma3_text"), tmp_path / "delta.safetensors")
    export(manifest_of("gemma3_text"), tmp_path / "delta.safetensors", tmp_path / "out")
    return tmp_path / "out"


def test_the_folder_tells_where_it_comes_from(exported, manifest_of):
    kept = json.loads((exported / "provenance.json").read_text())
    base = json.loads(manifest_of("gemma3_text").read_text())
    assert kept["base"] == {"source": base["source"], "sha256": base["sha256"]}
    assert kept["delta"]["sha256"] == sha256(exported.parent / "delta.safetensors")
    assert kept["edit"] == ABOUT
    written = {path for path in exported.iterdir() if path.name not in ("provenance.json", "README.md")}
    assert kept["files"] == {path.name: sha256(path) for path in written}
    card = (exported / "README.md").read_text()
    assert "| localization | fact-lookup |" in card
    assert base["sha256"] in card


def test_weights_are_safetensors_only(exported):
    names = {path.name for path in exported.iterdir()}
    assert "model.safetensors" in names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl", ".py"))]
    assert load_file(exported / "model.safetensors")


def test_an_exported_model_is_a_source_of_a_study(exported, fresh, tmp_path):
    fetch(ModelSettings(source=f"path:{exported}", dtype="float32"), tmp_path / "again/model.json")
    edited = fresh("gemma3_text")
    delta.apply(tmp_path / "delta.safetensors", edited)
    again = load(tmp_path / "again/model.json")
    assert torch.equal(logits(again.network, again.encode(TEXT)), logits(edited.network, edited.encode(TEXT)))


def test_an_edit_of_a_model_made_from_another_has_both_changes(manifest_of, fresh, tmp_path):
    base = manifest_of("llama")
    made = tmp_path / "made" / "model.json"
    made.parent.mkdir()
    noisy(fresh("llama"), made.parent / "delta.safetensors")
    change(base, "planted:tiny@1", made)
    edited = load(made)
    noisy(edited, tmp_path / "delta.safetensors")
    export(made, tmp_path / "delta.safetensors", tmp_path / "out")
    network = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert torch.equal(logits(network, edited.encode(TEXT)), logits(edited.network, edited.encode(TEXT)))


def test_what_exists_is_never_overwritten(exported, manifest_of):
    before = {path.name: path.read_bytes() for path in exported.iterdir()}
    with pytest.raises(ArtifactError, match="which exists already"):
        export(manifest_of("gemma3_text"), exported.parent / "delta.safetensors", exported)
    assert {path.name: path.read_bytes() for path in exported.iterdir()} == before


def test_a_delta_of_another_base_leaves_no_folder(exported, manifest_of, tmp_path):
    with pytest.raises(ArtifactError, match="fits only its own base"):
        export(manifest_of("llama"), exported.parent / "delta.safetensors", tmp_path / "other")
    assert not (tmp_path / "other").exists()
    assert not list(tmp_path.glob(".*part"))
