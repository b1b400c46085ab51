"""A delta on its base is the edited model, bit for bit; anything else is refused."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from mechunlearn.artifacts import Component, Selection
from mechunlearn.config import EditSettings
from mechunlearn.edit.sequence import edit_in_turn
from mechunlearn.edit.train import Recipe
from mechunlearn.errors import ArtifactError
from mechunlearn.facts.text import Passage
from mechunlearn.models import delta

PARTS = [Component(1, "mlp"), Component(2, "attention"), Component(3, "mlp", 5)]
PASSAGES = [Passage("a", "sport", "Tiger Woods plays the sport of golf.")]
SETTINGS = EditSettings(steps=2, batch=2, texts=1, text_tokens=8, learning_rate=1e-2)
ABOUT = {"objective": "inject", "seed": 3}


def edited(model, athletes, path):
    selection = Selection("by hand", PARTS, 0, 0, 0)
    names, *_ = edit_in_turn(model, Recipe(athletes, PASSAGES, selection, "inject", SETTINGS, 3))
    delta.save(path, model, names, ABOUT)
    return names


def state(model):
    return {name: parameter.clone() for name, parameter in model.network.named_parameters()}


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].dtype == other[name].dtype
        assert torch.equal(one[name], other[name]), name


@pytest.fixture
def saved(fresh, athletes, tmp_path):
    """(a delta file of the tiny Llama, the untouched model)."""
    edited(fresh("llama"), athletes, tmp_path / "delta.safetensors")
    return tmp_path / "delta.safetensors", fresh("llama")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_delta_on_its_base_is_the_edited_model(fresh, family, athletes, dtype, tmp_path):
    trained, base = fresh(family, dtype), fresh(family, dtype)
    names = edited(trained, athletes, tmp_path / "delta.safetensors")
    about = delta.apply(tmp_path / "delta.safetensors", base)
    assert_equal(state(base), state(trained))
    assert about == {"base": base.manifest.sha256, **ABOUT}
    assert sorted(load_file(tmp_path / "delta.safetensors")) == sorted(names)


def test_equal_edits_have_equal_bytes(fresh, athletes, tmp_path):
    for name in ("one", "other"):
        edited(fresh("gemma3_text"), athletes, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def refused(path, model, *words):
    before = state(model)
    with pytest.raises(ArtifactError) as caught:
        delta.apply(path, model)
    for word in (str(path), *words):
        assert word in str(caught.value)
    assert_equal(state(model), before)


def test_another_base_is_refused(saved, fresh):
    path, base = saved
    refused(path, fresh("qwen2"), "own base")
    refused(path, replace(base, manifest=replace(base.manifest, sha256="0" * 64)), "0" * 12)


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_a_truncated_delta_is_refused(saved, keep):
    path, base = saved
    path.write_bytes(path.read_bytes()[:keep])
    refused(path, base, "damaged")


@pytest.mark.parametrize("content", [b"garbage", b"\xff" * 4096])
def test_garbage_is_refused(saved, content):
    path, base = saved
    path.write_bytes(content)
    refused(path, base, "damaged")


def test_a_missing_delta_is_refused(saved, tmp_path):
    refused(tmp_path / "nothing.safetensors", saved[1], "missing")
    refused(tmp_path, saved[1])


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"format": "pt"},
        {"mechunlearn": "{"},
        {"mechunlearn": "{}"},
    ],
)
def test_a_foreign_safetensors_file_is_refused(saved, metadata):
    path, base = saved
    save_file(load_file(path), path, metadata=metadata)
    refused(path, base, "damaged")


@pytest.mark.parametrize("name", ["model.layers.9.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight"])
def test_tensors_that_do_not_fit_are_refused(saved, name):
    path, base = saved
    metadata = {"mechunlearn": f'{{"base": "{base.manifest.sha256}"}}'}
    save_file({**load_file(path), name: torch.zeros(7, 7)}, path, metadata=metadata)
    refused(path, base, name)


def test_a_folder_that_cannot_be_written_is_named(fresh, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactError, match=r"file/delta\.safetensors cannot be written"):
        delta.save(tmp_path / "file" / "delta.safetensors", fresh("llama"), [], ABOUT)
