"""Causal tracing against ROME's loop: one part, one noise sample, one whole forward at a time."""

from contextlib import suppress
from itertools import combinations
from random import Random

import pandas as pd
import pytest
import torch

from mechunlearn.config import LocalizeSettings, TraceSettings
from mechunlearn.errors import FactError
from mechunlearn.facts.completion import completion
from mechunlearn.localize.causal_tracing import causal_tracing, corrupted_runs, roles, states
from mechunlearn.models.components import KINDS
from tests.unit.oracle import FEW, close, forward, likely, put, stirred

KEYS = ["fact", "layer", "kind", "head", "position"]


@pytest.fixture
def model(tiny, family):
    return stirred(tiny(family))


def settings(protocol="corrected", seed=0, **tracing):
    rules = TraceSettings(**{"facts": 2, "samples": 2, "map_facts": 0, "noise": 2.0, **tracing})
    return LocalizeSettings(tracing=rules, protocol=protocol, seed=seed)


def spread(model, facts):
    """Standard deviation of what the network embeds all subjects' tokens as."""
    tokens = [ids[place] for ids, subject in (model.locate(completion(fact)[0]) for fact in facts) for place in subject]
    return model.network.get_input_embeddings()(torch.tensor(tokens)).std()


@torch.no_grad()
def romes_loop(model, fact, rules, scale, answers, mapped, seed=0):
    """(rows of the scores, P lost by the noise): each effect by whole forwards, one a noise sample."""
    layout, (ids, subject) = model.layout, model.locate(completion(fact)[0])
    drawn = torch.Generator().manual_seed(Random(f"{seed}/{fact.id}").getrandbits(63))  # another for every fact
    noise = scale * torch.randn(rules.samples, len(subject), model.width, generator=drawn)
    heads = [(layout.module(layer, "o"), "input") for layer in range(layout.layers)]
    outputs = {kind: [(layout.module(layer, kind), "output") for layer in range(layout.layers)] for kind in KINDS}
    stream = [(layout.module(layer), "input") for layer in range(1, layout.layers + 1)]
    logits, clean = forward(model, ids, keep=[*heads, *outputs["mlp"], *outputs["attention"], *stream])

    def probability(logits):
        return float(logits.softmax(-1)[answers].sum())

    def corrupted(restored):
        total = 0.0
        for sample in noise:

            def blur(embedded, sample=sample):
                embedded[0, subject] += sample
                return embedded

            total += probability(forward(model, ids, [((model.embeddings, "output"), blur), *restored])[0])
        return total / len(noise)

    def restore(parts, places, columns=None):
        wide = slice(*columns) if columns else slice(None)
        changes = [(part, put(clean[part][0, places, wide], places, columns)) for part in parts]
        return corrupted(changes) - base

    base, rows = corrupted([]), []
    everywhere = subject if rules.restore == "subject" else list(range(len(ids)))
    for layer in range(layout.layers):
        rows.append((fact.id, layer, "mlp", -1, "", restore([outputs["mlp"][layer]], everywhere)))
        for head, columns in enumerate(layout.columns("head")):
            rows.append((fact.id, layer, "head", head, "", restore([heads[layer]], everywhere, columns)))
    if mapped:
        names = roles(len(ids) - subject[0], [place - subject[0] for place in subject])
        for name, place in zip(names, range(subject[0], len(ids)), strict=True):
            for layer in range(layout.layers):
                rows.append((fact.id, layer, "state", -1, name, restore([stream[layer]], [place])))
                # causal_trace.py of ROME, trace_important_window
                first, stop = max(0, layer - rules.window // 2), min(layout.layers, layer - (-rules.window // 2))
                for kind in KINDS:
                    effect = restore(outputs[kind][first:stop], [place])
                    rows.append((fact.id, layer, f"{kind}-window", -1, name, effect))
    return rows, probability(logits) - base


def by_hand(model, facts, settings):
    """The whole table, by ROME's loop."""
    rules, published = settings.tracing, settings.protocol == "published"
    chosen = facts[: rules.facts]
    scale = (rules.noise * spread(model, chosen)) ** (0.5 if published else 1)
    own = [model.option(f" {fact.answer}") for fact in chosen]
    found = [
        romes_loop(model, fact, rules, scale, [*{*own}] if published else [answer], number < rules.map_facts)
        for number, (fact, answer) in enumerate(zip(chosen, own, strict=True))
    ]
    table = pd.DataFrame([row for rows, _ in found for row in rows], columns=[*KEYS, "effect"])
    return table.assign(effect=table.effect / (sum(lost for _, lost in found) / len(found) if published else 1))


def assert_same(scores, expected):
    assert scores.columns.tolist() == [*KEYS, "effect"]
    pd.testing.assert_frame_equal(scores[KEYS], expected[KEYS], check_dtype=False)
    close(torch.tensor(scores.effect), torch.tensor(expected.effect))


# effects ----------------------------------------------------------------------------------------------------------


def test_every_component_has_the_effect_of_romes_loop(model, athletes):
    rules = settings()
    assert_same(causal_tracing(model, likely(model, athletes), rules), by_hand(model, likely(model, athletes), rules))


@pytest.mark.parametrize("family", FEW)
def test_every_state_and_window_has_the_effect_of_romes_loop(model, athletes):
    rules, facts = settings(facts=1, map_facts=1, window=2), likely(model, athletes)
    assert_same(causal_tracing(model, facts, rules), by_hand(model, facts, rules))


@pytest.mark.parametrize("family", FEW)
def test_components_can_be_restored_at_the_subject_alone(model, athletes):
    rules, facts = settings(restore="subject"), likely(model, athletes)
    assert_same(causal_tracing(model, facts, rules), by_hand(model, facts, rules))


@pytest.mark.parametrize("family", FEW)
def test_the_published_protocol_pools_answers_and_takes_shares_of_what_noise_costs(model, athletes):
    rules = settings("published", facts=3)
    for facts in combinations(likely(model, athletes), 3):
        if len({fact.answer for fact in facts}) > 1:
            with suppress(FactError):  # of a random model noise may raise the answers' probability
                found = causal_tracing(model, facts, rules)
                break
    assert_same(found, by_hand(model, facts, rules))


# rules ------------------------------------------------------------------------------------------------------------


def test_roles_are_those_of_figure_2():
    first, middle, last = "first subject token", "middle subject tokens", "last subject token"
    after, further, end = "first token after", "further tokens", "last token"
    assert roles(8, [0, 1, 2, 3]) == [first, middle, middle, last, after, further, further, end]
    assert roles(4, [0, 1]) == [first, last, after, end]
    assert roles(3, [0]) == [last, after, end]
    assert roles(2, [0]) == [last, end]
    assert roles(2, [0, 1]) == [first, last]


@pytest.mark.parametrize(
    ("window", "layers"),
    [
        (1, [[0], [1], [2], [3]]),
        (2, [[0], [0, 1], [1, 2], [2, 3]]),
        (3, [[0, 1], [0, 1, 2], [1, 2, 3], [2, 3]]),
        (10, [[0, 1, 2, 3]] * 4),
    ],
)
def test_windows_are_cut_off_at_the_models_ends(tiny, athletes, window, layers):
    model = tiny("llama")
    ids, subject = model.locate(completion(athletes[0])[0])
    clean, _ = corrupted_runs(model, ids, subject, torch.zeros(1, len(subject), model.width))
    found = states(model, clean, ["token"], window)
    for kind in KINDS:
        covered = [[write.layer for write in site.patch.writes] for site in found if site.kind == f"{kind}-window"]
        assert covered == layers


def test_a_map_has_a_row_for_every_token_from_the_subject_on(model, athletes):
    scores = causal_tracing(model, athletes, settings(facts=3, samples=1, map_facts=2))
    assert scores.fact.unique().tolist() == [fact.id for fact in athletes[:3]]
    for number, fact in enumerate(athletes[:3]):
        ids, subject = model.locate(completion(fact)[0])
        tokens = len(ids) - subject[0] if number < 2 else 0
        counts = scores[scores.fact == fact.id].groupby(["kind", "layer"]).size().unstack().T
        assert counts.columns[counts.nunique() > 1].empty
        expected = {"head": model.layout.heads, "mlp": 1}
        expected |= dict.fromkeys(["state", "mlp-window", "attention-window"], tokens) if tokens else {}
        assert counts.iloc[0].to_dict() == expected


@pytest.mark.parametrize("family", FEW)
def test_it_depends_on_its_seed_and_settings_alone(model, athletes):
    scores = causal_tracing(model, athletes, settings())
    assert scores.equals(causal_tracing(model, athletes, settings()))
    assert not scores.effect.equals(causal_tracing(model, athletes, settings(seed=1)).effect)
    for name, value in (("samples", 3), ("noise", 1.0), ("restore", "subject")):
        assert not scores.effect.equals(causal_tracing(model, athletes, settings(**{name: value})).effect)
