"""Hidden states of the base model, kept for the KL divergence of its edits."""

from dataclasses import replace

import pytest
import torch

from mechunlearn.errors import ArtifactError
from mechunlearn.facts.text import Passage
from mechunlearn.models.scoring import text_hidden
from mechunlearn.models.text_states import read, save

PASSAGES = [Passage("b", "sport", "Tiger Woods plays golf."), Passage("a", "sport", "José Altuve plays baseball.")]


def test_states_come_back_bit_for_bit_in_the_order_asked(tiny, tmp_path):
    model, path = tiny("llama"), tmp_path / "base-text.safetensors"
    hidden = text_hidden(model, PASSAGES)
    save(path, model, PASSAGES, hidden)
    for passages, expected in ((PASSAGES, hidden), (PASSAGES[::-1], hidden[::-1])):
        found = read(path, model, passages)
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    first = path.read_bytes()
    save(path, model, PASSAGES[::-1], hidden[::-1])
    assert path.read_bytes() == first


def test_states_of_another_model_or_text_are_refused(tiny, tmp_path):
    model, path = tiny("llama"), tmp_path / "base-text.safetensors"
    with pytest.raises(ArtifactError, match="is missing"):
        read(path, model, PASSAGES)
    save(path, model, PASSAGES, text_hidden(model, PASSAGES))
    with pytest.raises(ArtifactError, match="of other text"):
        read(path, model, [Passage("c", "sport", "Nobody plays.")])
    other = replace(model, manifest=replace(model.manifest, sha256="0" * 64))
    with pytest.raises(ArtifactError, match="made from the base"):
        read(path, other, PASSAGES)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ArtifactError, match="damaged"):
        read(path, model, PASSAGES)
