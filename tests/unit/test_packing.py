"""Sequences packed into one row: as each alone."""

import random

import pytest
import torch

from mechunlearn.models import packing
from mechunlearn.models.attention import grouped
from mechunlearn.models.interventions import capture
from mechunlearn.models.packing import last_hidden, packed, text_states

BEGIN = [2, 300, 301]
SEQUENCES = {
    "one": [[2, 300, 301, 302]],
    "one token": [[2]],
    "twice the same": [[2, 300, 301], [2, 300, 301]],
    "one begins another": [[2, 300, 301], [2, 300], [2, 300, 301, 302, 303]],
    "nothing in common": [[2, 300, 301], [5, 300, 301, 302]],
    "longer than windows": [[*BEGIN, *range(310, 322)], [*BEGIN, 310, 330], [*range(340, 360)]],
    "many": [[*BEGIN, *random.Random(seed).choices(range(302, 308), k=1 + seed)] for seed in range(20)],
}


def alone(model, sequences):
    return [model.network.base_model(input_ids=torch.tensor([ids])).last_hidden_state[0] for ids in sequences]


@pytest.mark.parametrize("row", [1, 16, 512])
@pytest.mark.parametrize("sequences", SEQUENCES.values(), ids=SEQUENCES)
@torch.no_grad()
def test_states_are_those_of_each_sequence_alone(model, sequences, row, monkeypatch):
    monkeypatch.setattr(packing, "ROW", row)
    for attention in (False, True):
        with grouped(model) if attention else torch.no_grad():
            hidden, paths = packed(model, sequences)
            last, texts = last_hidden(model, sequences), text_states(model, [[*ids, 7] for ids in sequences])
        for expected, path, end, text in zip(alone(model, sequences), paths, last, texts, strict=True):
            torch.testing.assert_close(hidden[path], expected, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(end, expected[-1], rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(text, expected, rtol=1e-4, atol=1e-4)


def test_a_common_beginning_is_run_once_and_rows_end_in_time(tiny, monkeypatch):
    model, seen = tiny("llama"), []
    monkeypatch.setattr(packing, "ROW", 24)
    run = packing._run
    monkeypatch.setattr(packing, "_run", lambda *rest: seen.append(len(rest[1])) or run(*rest))
    with capture(model, [(model.layout.module(0), "input")]) as inputs:
        hidden, paths = packed(model, [[*BEGIN, 310 + number, 320] for number in range(10)] + [[2, *range(330, 380)]])
    # Each prompt after the first adds two tokens to the three that all share; the long text has a row of its own.
    assert seen == [3 + 2 * 9, 3 + 2, 51]
    assert inputs[model.layout.module(0), "input"].shape[:2] == (1, 51)
    assert len(hidden) == sum(seen)
    assert paths[0] == [0, 1, 2, 3, 4]
    assert paths[1] == [0, 1, 2, 5, 6]


def test_what_stands_beside_a_sequence_has_no_part_in_its_gradient(fresh, family):
    model = fresh(family)
    weight = model.network.get_input_embeddings().weight.requires_grad_(True)
    last_hidden(model, [[2, 300, 301], [2, 310, 311], [320, 321]])[1, 0].backward()
    moved = weight.grad.abs().sum(-1).nonzero()[:, 0].tolist()
    assert moved == [2, 310, 311]
