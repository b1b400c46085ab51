"""From scores to what an edit may train."""

import random

import numpy as np
import pandas as pd
import pytest

from mechunlearn.artifacts import SCORE_COLUMNS, Component, Selection
from mechunlearn.config import LocalizeSettings, ProbeSettings, TraceSettings
from mechunlearn.errors import ConfigError, FactError, UserError
from mechunlearn.localize.select import fill, lookup_layers, rank, rise, select
from mechunlearn.models.components import MATRICES, Inventory

CHANCE = 0.374  # the commonest sport of the paper's athletes
# Accuracy of the subject probe after each layer, layers of the model, lookup layers (paper, A.2.1).
PUBLISHED = {
    "Gemma-7B": ([0.44, 0.48, 0.63, 0.85, 0.97, 0.97, 1.0], 28, (2, 7)),
    "Gemma-2-9B": ([0.50, 0.57, 0.73, 0.97, 0.99, 1.0], 42, (2, 6)),
    "Llama-3-8B": ([0.42, 0.63, 0.92, 1.0, 1.0], 32, (1, 4)),
}


def nested(curve, layers, facts=500):
    """(layers, facts): fact i is right where i < accuracy x facts; the curve's end goes on."""
    padded = np.array([*curve, *[curve[-1]] * (layers - len(curve))])
    return np.arange(facts)[None] < np.round(padded * facts)[:, None]


def layout_of(mlps, attentions, neuron=1):
    """A layout with MLPs of so many neurons and attention blocks of so many parameters, a layer each."""
    shapes = {}
    for layer, (neurons, size) in enumerate(zip(mlps, attentions, strict=True)):
        for matrix in MATRICES["mlp"]:
            shape = (neuron, neurons) if "down" in matrix else (neurons, neuron)
            shapes[f"layers.{layer}.{matrix}.weight"] = shape
        for matrix, rows in zip(MATRICES["attention"], (size - 3, 1, 1, 1), strict=True):
            shapes[f"layers.{layer}.{matrix}.weight"] = (rows, 1)
    return Inventory("layers", len(mlps), 2, shapes)


def random_layout(rng, wide_attention=False):
    layers, neuron = rng.randint(1, 4), rng.randint(1, 3)
    mlps = [rng.randint(4, 12) for _ in range(layers)]
    smallest = 3 * neuron * min(mlps)
    sizes = (smallest + 1, 4 * smallest) if wide_attention else (4, smallest)
    return layout_of(mlps, [rng.randint(*sizes) for _ in range(layers)], neuron)


def size(layout, components):
    return sum(layout.parameters(component) for component in components)


# the rule of fact lookup ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_rule_returns_the_published_layers_from_the_published_curves(name):
    curve, layers, expected = PUBLISHED[name]
    assert rise(nested(curve, layers), CHANCE) == expected


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_rule_does_not_depend_on_the_order_of_facts(name):
    curve, layers, expected = PUBLISHED[name]
    right = nested(curve, layers)
    assert rise(right[:, np.random.default_rng(0).permutation(right.shape[1])], CHANCE) == expected


@pytest.mark.parametrize("accuracy", [0.7, 1.0])
def test_a_curve_that_is_flat_above_chance_rises_at_once(accuracy):
    assert rise(nested([accuracy], 10), CHANCE) == (0, 1)


@pytest.mark.parametrize("accuracy", [0.0, CHANCE, CHANCE + 0.01])
def test_a_curve_that_never_beats_chance_names_no_layers(accuracy):
    with pytest.raises(FactError, match="finds no layer"):
        rise(nested([accuracy], 10), CHANCE)


def test_the_frequency_of_a_clear_rise_is_near_one_and_of_other_layers_near_zero():
    curve, layers, (first, last) = PUBLISHED["Llama-3-8B"]
    right = nested(curve, layers)
    rows = [(f"f{fact}", layer, "probe-subject", -1, float(x)) for (layer, fact), x in np.ndenumerate(right)]
    rows.append(("", -1, "chance", -1, CHANCE))
    found = lookup_layers(pd.DataFrame(rows, columns=["fact", "layer", "kind", "head", "effect"]), seed=0)
    assert found["layers"] == list(range(first, last + 1))
    assert all(found["frequency"][layer] > 0.8 for layer in found["layers"])
    assert max(found["frequency"][last + 2 :]) < 0.1


def test_layers_before_the_rise_shift_it_and_layers_after_do_not():
    curve, layers, (first, last) = PUBLISHED["Gemma-7B"]
    shifted = [CHANCE] * 3 + curve
    assert rise(nested(shifted, layers), CHANCE) == (first + 3, last + 3)
    assert rise(nested(curve, 60), CHANCE) == (first, last)


def test_the_rise_lies_within_the_model_and_reaches_the_top_at_its_end():
    rng = np.random.default_rng(0)
    for _ in range(200):
        layers = int(rng.integers(1, 20))
        accuracy = np.sort(rng.random(layers))
        accuracy[-1] = 0.9  # a curve that never beats chance is refused
        first, last = rise(rng.random((layers, 50)) < accuracy[:, None], CHANCE)
        assert 0 <= first <= last < layers
    assert rise(nested([0.4, 0.6, 0.8, 1.0], 4), CHANCE)[1] == 3


def test_a_better_last_layer_never_shortens_the_rise():
    for top in np.linspace(0.8, 1.0, 9):
        shorter = rise(nested([0.4, 0.6, 0.8], 12), CHANCE)[1]
        assert rise(nested([0.4, 0.6, 0.8, float(top)], 12), CHANCE)[1] >= shorter


# ranking --------------------------------------------------------------------------------------------------


@pytest.fixture
def scores():
    """Layer 0: heads that cancel; layer 1: heads that agree; MLPs in between. Means over two facts."""
    means = {
        (0, "head", 0): 0.5, (0, "head", 1): -0.5,
        (1, "head", 0): 0.2, (1, "head", 1): 0.2,
        (0, "mlp", -1): -0.3, (1, "mlp", -1): 0.6,
    }  # fmt: skip
    offsets = {"a": 0.1, "b": -0.1}
    rows = [(fact, *key, means[key] + offset) for key in means for fact, offset in offsets.items()]
    return pd.DataFrame(rows, columns=SCORE_COLUMNS)


ATTENTION, MLP = (
    [Component(layer, "attention") for layer in (0, 1)],
    [Component(layer, "mlp") for layer in (0, 1)],
)


def test_absolute_head_effects_add_up(scores):
    assert rank(scores, tuple(MATRICES), "absolute") == [ATTENTION[0], MLP[1], ATTENTION[1], MLP[0]]


def test_signed_head_effects_cancel(scores):
    assert rank(scores, tuple(MATRICES), "signed") == [MLP[1], ATTENTION[1], MLP[0], ATTENTION[0]]


def test_only_the_kinds_asked_for_are_ranked(scores):
    assert rank(scores, ("mlp",), "absolute") == [MLP[1], MLP[0]]


# budgets --------------------------------------------------------------------------------------------------


def test_fill_takes_whole_components_in_order_then_part_of_an_mlp():
    layout = layout_of([10, 10, 10], [20, 20, 20])  # an MLP has 30 parameters, 3 a neuron
    ranking = [Component(2, "mlp"), Component(0, "attention"), Component(1, "mlp"), Component(0, "mlp")]
    assert fill(ranking, layout, 50 + 17) == [*ranking[:2], Component(1, "mlp", 5)]
    assert fill(ranking, layout, 80) == ranking[:3]
    assert fill(ranking, layout, 40) == [
        ranking[0],
        Component(1, "mlp", 3),
    ]  # the attention block does not fit


@pytest.mark.parametrize("seed", range(20))
def test_fill_is_within_a_neuron_of_every_budget(seed):
    """Never above it, nothing twice, and less than a neuron left while an MLP is to spare."""
    rng = random.Random(seed)
    layout = random_layout(rng)
    ranking = layout.all(*MATRICES)
    rng.shuffle(ranking)
    for budget in range(size(layout, ranking) + 5):
        chosen = fill(ranking, layout, budget)
        assert size(layout, chosen) <= budget
        assert len({(component.layer, component.kind) for component in chosen}) == len(chosen)
        spare = [component for component in ranking if component.kind == "mlp" and component not in chosen]
        if spare:
            neuron = layout.parameters(Component(spare[0].layer, "mlp", 1))  # the same in every layer
            assert budget - size(layout, chosen) < neuron


def test_fill_goes_on_after_an_attention_block_that_is_larger_than_an_mlp():
    layout = layout_of([10, 10, 10], [100, 100, 100])
    ranking = [Component(0, "attention"), *(Component(layer, "mlp") for layer in range(3))]
    assert size(layout, fill(ranking, layout, 70)) > 67


@pytest.mark.parametrize("seed", range(10))
def test_fill_never_exceeds_the_budget_whatever_the_layout(seed):
    rng = random.Random(seed)
    layout = random_layout(rng, wide_attention=True)
    ranking = rng.sample(layout.all(*MATRICES), 2 * layout.layers)
    for budget in range(0, size(layout, ranking) + 5, 3):
        assert size(layout, fill(ranking, layout, budget)) <= budget


# localizations --------------------------------------------------------------------------------------------

LAYOUT = layout_of([20] * 10, [40] * 10)
TOTAL = 10 * (60 + 40)
LOOKUP = Selection("fact-lookup", [Component(layer, "mlp") for layer in (2, 3, 4)], 180, 180, TOTAL)


def probes(curve, layers=10, facts=500):
    right = nested(curve, layers, facts)
    rows = [
        (f"fact {fact:03}", layer, kind, -1, float(right[layer, fact]))
        for kind in ("probe-subject", "probe-prompt")
        for layer in range(layers)
        for fact in range(facts)
    ]
    return pd.DataFrame([("", -1, "chance", -1, CHANCE), *rows], columns=SCORE_COLUMNS)


def test_fact_lookup_selects_the_mlps_of_the_rise():
    curve, _, (first, last) = PUBLISHED["Gemma-2-9B"]
    selection = select("fact-lookup", LAYOUT, LocalizeSettings(), probes(curve))
    assert selection.components == [Component(layer, "mlp") for layer in range(first, last + 1)]
    assert selection.parameters == selection.budget == 60 * len(selection.components)
    assert selection.total == TOTAL


def test_layers_by_hand():
    settings = LocalizeSettings(probes=ProbeSettings(layers=[1, 7]))
    selection = select("fact-lookup", LAYOUT, settings, probes([1.0]))
    assert selection.components == [Component(1, "mlp"), Component(7, "mlp")]
    assert selection.details["rule"] == "by hand"


@pytest.mark.parametrize("layers", [[10], [3, 99]])
def test_layers_that_the_model_does_not_have_are_refused(layers):
    settings = LocalizeSettings(probes=ProbeSettings(layers=layers))
    with pytest.raises(ConfigError, match=r"localize\.probes\.layers is .*layers 0 to 9"):
        select("fact-lookup", LAYOUT, settings, probes([1.0]))


@pytest.mark.parametrize("kinds", [("mlp",), tuple(MATRICES)])
def test_baselines_without_a_budget_take_everything(kinds):
    selection = select("all-mlps" if len(kinds) == 1 else "nonlocalized", LAYOUT, LocalizeSettings())
    assert set(selection.components) == set(LAYOUT.all(*kinds))
    assert selection.parameters == selection.budget == size(LAYOUT, LAYOUT.all(*kinds))


def test_random_mlps_are_seeded_and_as_large_as_fact_lookup():
    def drawn(seed):
        return select("random-mlps", LAYOUT, LocalizeSettings(seed=seed), lookup=LOOKUP)

    assert drawn(3) == drawn(3)
    assert len({tuple(drawn(seed).components) for seed in range(20)}) > 10
    assert {component.layer for seed in range(40) for component in drawn(seed).components} == set(range(10))
    for seed in range(20):
        assert drawn(seed).parameters == drawn(seed).budget == LOOKUP.parameters
        assert {component.kind for component in drawn(seed).components} == {"mlp"}


@pytest.fixture
def traced():
    rng = np.random.default_rng(0)
    parts = [("mlp", -1), ("head", 0), ("head", 1)]
    keys = [(fact, layer, *part) for fact in "abc" for layer in range(10) for part in parts]
    return pd.DataFrame([(*key, rng.normal()) for key in keys], columns=SCORE_COLUMNS)


@pytest.mark.parametrize("localization", ["causal-tracing", "causal-tracing-mlps", "random-mlps"])
@pytest.mark.parametrize(
    ("budget", "expected"),
    [("fact-lookup", 180), (0.25, 250), (1.0, TOTAL), (333, 333)],
)
def test_budgets_by_lookup_fraction_and_number(traced, localization, budget, expected):
    settings = LocalizeSettings(budget=budget)
    selection = select(localization, LAYOUT, settings, traced, LOOKUP)
    assert selection.budget == expected
    everything = LAYOUT.all(*(MATRICES if localization == "causal-tracing" else ("mlp",)))
    assert min(expected, size(LAYOUT, everything)) - 3 < selection.parameters <= expected
    assert selection.parameters == size(LAYOUT, selection.components)


def test_mlps_form_selects_no_attention(traced):
    everything = LocalizeSettings(budget=0.5)
    kinds = {c.kind for c in select("causal-tracing-mlps", LAYOUT, everything, traced).components}
    assert kinds == {"mlp"}
    assert {c.kind for c in select("causal-tracing", LAYOUT, everything, traced).components} == set(MATRICES)


def test_the_head_sum_is_the_settings(scores):
    layout = layout_of([10, 10], [20, 20])

    def first(how):
        settings = LocalizeSettings(budget=30, tracing=TraceSettings(head_sum=how))
        return select("causal-tracing", layout, settings, scores).components[0]

    assert (first("absolute"), first("signed")) == (ATTENTION[0], MLP[1])


def test_a_budget_below_one_neuron_is_refused(traced):
    with pytest.raises(UserError, match="budget"):
        select("causal-tracing-mlps", layout_of([20] * 10, [40] * 10), LocalizeSettings(budget=2), traced)
