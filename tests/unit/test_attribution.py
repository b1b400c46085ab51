"""Attribution patching: pairs of prompts, and gradients against derivatives of whole forwards."""

from collections import Counter
from copy import deepcopy
from dataclasses import replace

import pandas as pd
import pytest
import torch

from mechunlearn.config import AttributionSettings, LocalizeSettings
from mechunlearn.errors import FactError
from mechunlearn.facts.completion import completion
from mechunlearn.localize import attribution_patching as module
from mechunlearn.localize.attribution_patching import (
    attribute,
    attribution_patching,
    integrated_gradients,
    normalised,
)
from mechunlearn.localize.corruption import logit_difference, nodes, pairs
from mechunlearn.models.patching import Patch, Write, record, resume
from tests.unit.oracle import FEW, close, cost, costly, difference, forward, put, stirred

PLAIN = ("llama", "qwen3", "phi3", "gpt2", "gpt_neox")  # without post-norms and soft-capping


@pytest.fixture
def model(tiny, family):
    return stirred(tiny(family))


def settings(seed=0, protocol="corrected", **attribution):
    rules = AttributionSettings(**{"facts": 3, "steps": 3, **attribution})
    return LocalizeSettings(attribution=rules, seed=seed, protocol=protocol)


# pairs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("corruption", ["tokens", "swap"])
def test_a_pair_differs_in_its_subject_alone(model, athletes, corruption):
    by_id = {fact.id: fact for fact in athletes}
    found = pairs(model, athletes, corruption, 0)
    assert len(found) > 3
    for pair in found:
        assert (pair.clean, pair.subject) == model.locate(completion(by_id[pair.fact])[0])
        assert len(pair.corrupt) == len(pair.clean)
        differing = [place for place, token in enumerate(pair.clean) if pair.corrupt[place] != token]
        assert differing
        assert {*differing} <= {*pair.subject}


def test_random_words_are_single_tokens_of_ascii_letters(model, athletes):
    drawn = [pair.corrupt[place] for pair in pairs(model, athletes, "tokens", 0) for place in pair.subject]
    texts = [model.tokenizer.decode(token).strip() for token in drawn]
    assert all(text.isascii() and text.isalpha() for text in texts)
    assert len({*texts}) > len(texts) / 3


@pytest.mark.parametrize("family", FEW)
def test_a_swapped_subject_is_of_the_same_relation_and_another_answer(model, athletes):
    known = {tuple(ids[place] for place in places): fact for fact, ids, places in located(model, athletes)}
    stranger = replace(athletes[0], id="stranger", relation="birthplace", answer="golf")
    found = pairs(model, [*athletes, stranger], "swap", 0)
    by_id = {fact.id: fact for fact in athletes}
    assert {pair.fact for pair in found} <= {*by_id}
    partners = [known[tuple(pair.corrupt[place] for place in pair.subject)] for pair in found]
    assert all(other.answer != by_id[pair.fact].answer for other, pair in zip(partners, found, strict=True))
    assert len({other.id for other in partners}) > 1


def located(model, facts):
    return [(fact, *model.locate(completion(fact)[0])) for fact in facts]


@pytest.mark.parametrize("corruption", ["tokens", "swap"])
def test_corruption_depends_on_its_seed_alone(tiny, athletes, corruption):
    draws = [pairs(tiny("llama"), athletes, corruption, seed) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


def test_the_answers_token_comes_first_and_no_other_option_is_it(tiny, athletes):
    model, fact = tiny("llama"), athletes[0]
    tokens = {name: model.option(f" {name}") for name in fact.options}
    (pair,) = pairs(model, [fact], "tokens", 0)
    assert pair.tokens == [tokens[fact.answer], *(tokens[name] for name in fact.options if name != fact.answer)]
    twice = replace(fact, new_answer="", options=("golf", f"{fact.answer} x", "golf y", fact.answer))
    (pair,) = pairs(model, [twice], "tokens", 0)
    assert pair.tokens == [tokens[fact.answer], tokens["golf"]]


def test_answers_that_cannot_be_told_apart_are_refused(tiny, athletes):
    fact = replace(athletes[0], answer="golf", new_answer="", options=("golf", "golf x"))
    with pytest.raises(FactError, match=rf"all options of '{fact.id}'.*same token"):
        pairs(tiny("llama"), [fact], "tokens", 0)


def test_facts_without_a_partner_are_left_out_by_name_unless_all_are(tiny, athletes, caplog):
    model = tiny("llama")
    lengths = Counter(len(places) for _, _, places in located(model, athletes))
    lonely = replace(athletes[0], id="lonely", subject="Tom Brady " * (1 + max(lengths)))
    found = pairs(model, [*athletes, lonely], "swap", 0)
    assert "lonely" not in {pair.fact for pair in found}
    assert any("lonely" in message and "left out" in message for message in caplog.messages)
    same = [replace(fact, answer="golf") for fact in athletes]
    for facts in ([lonely], same, [athletes[0]]):
        with pytest.raises(FactError, match=r"localize\.attribution\.corruption is swap.*tokens"):
            pairs(model, facts, "swap", 0)
        assert len(pairs(model, facts, "tokens", 0)) == len(facts)


@torch.no_grad()
def test_the_metric_is_the_answers_logit_minus_the_mean_of_the_others(model, athletes):
    (pair,) = pairs(model, athletes[:1], "tokens", 0)
    expected = difference(forward(model, pair.clean)[0], pair.tokens)
    close(logit_difference(model, record(model, pair.clean, []).hidden, pair.tokens)[0], expected)


# gradients --------------------------------------------------------------------------------------------------------


def directions(model, pair, every):
    """Towards the corrupted prompt's value of each node, nothing elsewhere; the embeddings of both prompts."""
    embedded = (model.embeddings, "output")
    parts = [embedded, *(node.part for node in every)]
    with torch.no_grad():
        clean, corrupt = (forward(model, ids, keep=parts)[1] for ids in (pair.clean, pair.corrupt))
    ways = []
    for node in every:
        columns = slice(*node.columns) if node.columns else slice(None)
        way = torch.zeros_like(clean[node.part])
        way[..., columns] = (corrupt[node.part] - clean[node.part])[..., columns]
        ways.append(way)
    return ways, clean[embedded], corrupt[embedded]


def derivatives(model, pair, every, steps=1):
    """What the metric loses for each node's first step towards its corrupted value, by whole forwards.

    With several steps it is the mean over prompts whose embeddings lie k/steps of the way from corrupted to clean.
    """
    ways, clean, corrupt = directions(model, pair, every)
    total = torch.zeros(len(every))
    for step in range(1, steps + 1):
        moved = torch.zeros(len(every), requires_grad=True)
        changes = [((model.embeddings, "output"), put(corrupt + step / steps * (clean - corrupt)))]
        changes += [(node.part, move(way, share)) for node, way, share in zip(every, ways, moved, strict=True)]
        metric = difference(forward(model, pair.clean, changes)[0], pair.tokens)
        total -= torch.autograd.grad(metric, moved)[0] / steps
    return total


def move(way, share):
    """A step of that share of the way."""
    return lambda value: value + share * way


@pytest.mark.parametrize("steps", [1, 3])
def test_scores_are_derivatives_of_whole_forwards(model, athletes, steps):
    every, batch = nodes(model.layout), pairs(model, athletes[:3], "tokens", 0)
    scores, lost = attribute(model, batch, every, steps)
    for pair, found, costs in zip(batch, scores, lost, strict=True):
        close(found, derivatives(model, pair, every, steps))
        torch.testing.assert_close(costs, cost(model, pair), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox"])  # whose norms keep to float64
@torch.no_grad()
def test_scores_are_finite_differences(model, athletes):
    every, size = nodes(model.layout)[::5], 1e-4
    assert {node.kind for node in every} == {"q", "k", "v", "head", "mlp-in", "mlp"}
    (pair,) = pairs(model, athletes[:1], "tokens", 0)
    scores, _ = attribute(model, [pair], every, 1)
    exact = replace(model, network=deepcopy(model.network).double())
    found = []
    for node, way in zip(every, directions(exact, pair, every)[0], strict=True):
        before, after = (forward(exact, pair.clean, [(node.part, move(way, step))])[0] for step in (-size, size))
        found.append((difference(before, pair.tokens) - difference(after, pair.tokens)) / (2 * size))
    close(scores[0], torch.stack(found))


@pytest.mark.parametrize("family", PLAIN)
@torch.no_grad()
def test_where_the_metric_is_linear_attribution_is_patching(model, athletes):
    """Without its final norm a model's logits are linear in what the last MLP adds.

    Where attention and MLP stand side by side, they are so in the last heads and their values too.
    """
    model = replace(model, network=deepcopy(model.network))
    model.network.set_submodule(model.layout.naming.norm, torch.nn.Identity())
    last = model.layout.layers - 1
    kinds = {"mlp", "head", "v"} if model.network.config.model_type == "gpt_neox" else {"mlp"}
    every = [node for node in nodes(model.layout) if node.layer == last and node.kind in kinds]
    (pair,) = pairs(model, athletes[:1], "tokens", 0)
    clean = record(model, pair.clean, [])
    corrupt = record(model, pair.corrupt, [], [node.part for node in every])
    everywhere = tuple(range(len(pair.clean)))
    patches = [Patch((Write(last, *node.part, everywhere, corrupt.parts[node.part], node.columns),)) for node in every]
    patched = logit_difference(model, resume(model, clean, patches), pair.tokens)[:, 0]
    scores, _ = attribute(model, [pair], every, 1)
    close(scores[0], logit_difference(model, clean.hidden, pair.tokens) - patched)


# batches ----------------------------------------------------------------------------------------------------------


BEGINNINGS = {
    "at the subject": "{} plays",
    "before the subject": "Fact: Tiger Woods plays the sport of golf, yet the famous {} plays",
}


@pytest.mark.parametrize("prompt", BEGINNINGS.values(), ids=BEGINNINGS)
def test_a_batch_is_its_pairs_one_by_one(model, athletes, prompt):
    """Prompts of another length and beginning beside it, and the padding they bring, change nothing."""
    batch = pairs(model, [*athletes[:2], replace(athletes[2], prompt=prompt)], "tokens", 0)
    assert len({len(pair.clean) for pair in batch}) > 1
    every = nodes(model.layout)
    scores, lost = attribute(model, batch, every, 2)
    for number, pair in enumerate(batch):
        alone, costs = attribute(model, [pair], every, 2)
        close(scores[number], alone[0])
        torch.testing.assert_close(lost[number], costs[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FEW)
def test_tables_do_not_depend_on_the_size_of_batches(model, athletes, monkeypatch):
    facts = costly(model, athletes)
    scores = attribution_patching(model, facts, settings(facts=12))
    monkeypatch.setattr(module, "BATCH", 5)
    keys = ["fact", "layer", "kind", "head"]
    merged = scores.merge(attribution_patching(model, facts, settings(facts=12)), on=keys)
    assert len(merged) == len(scores)
    close(torch.tensor(merged.effect_x), torch.tensor(merged.effect_y))


# tables -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FEW)
@pytest.mark.parametrize("method", [attribution_patching, integrated_gradients])
def test_effects_are_shares_of_what_the_corruption_costs_on_average(model, athletes, method):
    facts, rules = costly(model, athletes), settings()
    scores, every = method(model, facts, rules), nodes(model.layout)
    assert scores.columns.tolist() == ["fact", "layer", "kind", "head", "position", "effect"]
    assert set(scores.position) == {""}
    found = pairs(model, facts[:3], "tokens", 0)
    mean = sum(cost(model, pair) for pair in found) / len(found)
    steps = 1 if method is attribution_patching else 3
    table = scores.set_index(["fact", "layer", "kind", "head"]).effect
    assert len(table) == len(found) * len(every)
    for pair in found:
        keys = [(pair.fact, node.layer, node.kind, node.head) for node in every]
        close(torch.tensor(table.loc[keys].to_numpy()), derivatives(model, pair, every, steps) / mean)


@pytest.mark.parametrize("family", FEW)
def test_one_step_of_integrated_gradients_is_attribution_patching(model, athletes):
    facts = costly(model, athletes)
    expected = attribution_patching(model, facts, settings())
    pd.testing.assert_frame_equal(integrated_gradients(model, facts, settings(steps=1)), expected)
    assert not integrated_gradients(model, facts, settings(steps=2)).effect.equals(expected.effect)


def test_a_corruption_that_costs_nothing_is_refused():
    scores = pd.DataFrame({"effect": [1.0, -3.0]})
    assert normalised(scores, [1.0, 3.0]).effect.tolist() == [0.5, -1.5]
    for lost in ([0.0, 0.0], [1.0, -3.0]):
        with pytest.raises(FactError, match=r"2 facts.*nothing to localize"):
            normalised(scores, lost)


@pytest.mark.parametrize("family", FEW)
def test_the_model_is_left_without_hooks_and_gradients(model, athletes):
    attribution_patching(model, costly(model, athletes), settings())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.network.parameters())
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in model.network.modules())
