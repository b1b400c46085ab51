"""Activation patching against one whole forward a node."""

from dataclasses import replace
from itertools import combinations

import pytest
import torch

from mechunlearn.config import AttributionSettings, LocalizeSettings
from mechunlearn.facts.completion import completion
from mechunlearn.localize.activation_patching import activation_patching
from mechunlearn.localize.corruption import nodes, pairs
from tests.unit.oracle import FEW, close, costly, difference, forward, put, stirred

KEYS = ["fact", "layer", "kind", "head"]


@pytest.fixture
def model(tiny, family):
    return stirred(tiny(family))


def settings(corruption="tokens"):
    return LocalizeSettings(attribution=AttributionSettings(facts=2, corruption=corruption))


@torch.no_grad()
def by_hand(model, found):
    """(fact, layer, kind, head) -> what the metric loses when that node alone is the corrupted prompt's."""
    every, effects, lost = nodes(model.layout), {}, []
    for pair in found:
        clean, _ = forward(model, pair.clean)
        corrupt, seen = forward(model, pair.corrupt, keep=[node.part for node in every])
        metric = difference(clean, pair.tokens)
        lost.append(metric - difference(corrupt, pair.tokens))
        for node in every:
            value = seen[node.part][..., slice(*node.columns) if node.columns else slice(None)]
            logits, _ = forward(model, pair.clean, [(node.part, put(value, columns=node.columns))])
            effects[pair.fact, node.layer, node.kind, node.head] = metric - difference(logits, pair.tokens)
    mean = sum(lost) / len(lost)
    return {key: float(effect / mean) for key, effect in effects.items()}


def assert_same(scores, expected):
    assert scores.columns.tolist() == [*KEYS, "position", "effect"]
    assert list(scores[KEYS].itertuples(index=False, name=None)) == list(expected)
    close(torch.tensor(scores.effect), torch.tensor([*expected.values()]))


def test_every_effect_is_that_of_a_whole_forward(model, athletes):
    facts = costly(model, athletes)
    expected = by_hand(model, pairs(model, facts[:2], "tokens", 0))
    assert_same(activation_patching(model, facts, settings()), expected)


@pytest.mark.parametrize("family", FEW)
@torch.no_grad()
def test_subjects_can_be_swapped(model, athletes):
    """Of two facts, whose answers are the options that one prompt favours most over the other."""
    located = [model.locate(completion(fact)[0]) for fact in athletes]
    one, two = next(pair for pair in combinations(range(12), 2) if len({len(located[each][1]) for each in pair}) == 1)
    change = forward(model, located[one][0])[0] - forward(model, located[two][0])[0]
    options = sorted(athletes[0].options, key=lambda option: float(change[model.option(f" {option}")]))
    facts = [replace(athletes[one], answer=options[-1]), replace(athletes[two], answer=options[0])]
    found = pairs(model, facts, "swap", 0)
    assert [pair.corrupt for pair in found] == [found[1].clean, found[0].clean]
    assert_same(activation_patching(model, facts, settings(corruption="swap")), by_hand(model, found))


def test_an_mlps_input_and_output_have_the_same_effect(model, athletes):
    """The input is all that an MLP reads, and it works token by token."""
    scores = activation_patching(model, costly(model, athletes), settings())
    inputs, outputs = (torch.tensor(scores[scores.kind == kind].effect.to_numpy()) for kind in ("mlp-in", "mlp"))
    close(inputs, outputs)
