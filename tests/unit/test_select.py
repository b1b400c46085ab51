"""From scores to what an edit may train."""

import random

import numpy as np
import pandas as pd
import pytest
from made_scores import CHANCE, LOOKUP, NOTHING, layout_of, nested, paths, table

from mechunlearn.artifacts import Component
from mechunlearn.config import LocalizeSettings
from mechunlearn.errors import ConfigError, FactError, UserError
from mechunlearn.localize.lookup_rules import lookup_layers, lookup_per_fact, rise, same_layers
from mechunlearn.localize.select import candidates, fill, ranker, select
from mechunlearn.models.components import KINDS

# Accuracy of the subject probe after each layer, layers of the model, lookup layers (paper, A.2.1).
PUBLISHED = {
    "Gemma-7B": ([0.44, 0.48, 0.63, 0.85, 0.97, 0.97, 1.0], 28, (2, 7)),
    "Gemma-2-9B": ([0.50, 0.57, 0.73, 0.97, 0.99, 1.0], 42, (2, 6)),
    "Llama-3-8B": ([0.42, 0.63, 0.92, 1.0, 1.0], 32, (1, 4)),
}


def random_layout(rng, wide_attention=False):
    neurons, heads, width = rng.randint(4, 12), rng.choice((2, 4)), rng.randint(1, 3)
    kv_heads = rng.choice((1, heads))
    size = 1 + (3 * neurons // (2 * heads) if wide_attention else 0)
    return layout_of(rng.randint(1, 4), neurons, heads, kv_heads, size, width)


def heads_of(layout):
    """Every candidate head by head."""
    return candidates("random", layout, LocalizeSettings(granularity="heads"))


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
    found = lookup_layers(table([*rows, ("", -1, "chance", -1, CHANCE)]), LocalizeSettings())
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


def test_runs_count_as_one_probe_that_is_right_so_often():
    """Two runs that agree change nothing; facts are what the test counts, not facts times runs."""
    right = nested([0.4, 0.5, 0.7, 0.9], 6, 60)
    rows = [(f"f{fact:02}", layer, "probe-subject", -1, float(x)) for (layer, fact), x in np.ndenumerate(right)]
    once = table([*rows, ("", -1, "chance", -1, CHANCE)])
    twice = pd.concat([once, once.assign(seed=1)], ignore_index=True)
    assert lookup_layers(twice, LocalizeSettings()) == lookup_layers(once, LocalizeSettings())
    half = np.mean([right, np.zeros_like(right)], axis=0)  # right in one of two runs: never above chance
    with pytest.raises(FactError):
        rise(half, CHANCE)


# fact lookup by path patching -----------------------------------------------------------------------------


def by(rule="interval", **more):
    return LocalizeSettings(paths={"rule": rule}, **more)


def test_the_interval_takes_what_lies_above_the_central_95_percent_of_random_directions():
    found = lookup_layers(paths([0.0044, 0.0046, -0.5, 0.3], NOTHING), by())
    assert found["layers"] == [1, 3]
    assert found["rule"] == "interval"
    assert found["interval"] == pytest.approx([-0.0045, 0.0045])
    assert found["frequency"] == [0, 1, 0, 1]


def test_the_threshold_is_signed_and_as_published_of_either_sign():
    scores = paths([0.019, 0.021, -0.5, 0.3], NOTHING)
    found = lookup_layers(scores, by("threshold"))
    assert (found["layers"], found["rule"], found["threshold"]) == ([1, 3], "threshold", 0.02)
    assert lookup_layers(scores, by("threshold", protocol="published"))["layers"] == [1, 2, 3]
    assert lookup_layers(scores, by("interval", protocol="published"))["layers"] == [0, 1, 3]


@pytest.mark.parametrize(("rule", "limit"), [("interval", "0.0045"), ("threshold", "0.0200")])
def test_an_effect_that_never_stands_out_is_named_with_a_way_out(rule, limit):
    with pytest.raises(FactError, match=rf"8 facts .* is 0\.0040 \(layer 2\).* exceed {limit}.*localize\.paths\.facts"):
        lookup_layers(paths([0.001, 0.002, 0.004, -0.5], NOTHING), by(rule))


def test_every_run_has_random_directions_of_its_own():
    """Averaged over two runs with opposite directions, nothing would be left of the interval."""
    opposite = {key: -mean for key, mean in NOTHING.items()}
    scores = pd.concat([paths([0.004, 0.3], NOTHING), paths([0.004, 0.3], opposite, seed=1)], ignore_index=True)
    assert lookup_layers(scores, by())["layers"] == [1]


def test_the_frequency_tells_a_clear_effect_from_an_uncertain_one():
    found = lookup_layers(paths([0.0, 0.004, 0.3], NOTHING, facts=30, noise=0.01), by())
    assert found["frequency"][2] == 1
    assert 0 < found["frequency"][1] < 1


def test_each_fact_has_the_mlps_that_exceed_its_own_mean_by_two_deviations():
    rng = np.random.default_rng(0)
    effects = {f"f{fact}": rng.normal(size=20) for fact in range(6)}
    effects["f1"][[3, 7]], effects["f4"][[3, 7]], effects["f5"][:] = 9, 9, 1.0
    rows = [(fact, layer, "lookup", -1, x) for fact, values in effects.items() for layer, x in enumerate(values)]
    found = lookup_per_fact(table(rows))
    for fact, values in effects.items():
        assert found[fact] == [i for i, x in enumerate(values) if x > np.mean(values) + 2 * np.std(values)]
    assert found["f1"] == [3, 7]
    assert found["f5"] == []
    groups = same_layers(found)
    assert groups[3, 7] == ["f1", "f4"]
    assert sorted(fact for facts in groups.values() for fact in facts) == sorted(effects)
    assert [len(facts) for facts in groups.values()] == sorted(map(len, groups.values()), reverse=True)


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
    return table([(fact, *key, means[key] + offset) for key in means for fact, offset in offsets.items()])


TWO = layout_of(2)
ATTENTION, MLP = ([Component(layer, kind) for layer in (0, 1)] for kind in ("attention", "mlp"))


def ranked(scores, localization="causal-tracing", layout=TWO, **settings):
    effects, rank = ranker(localization, layout, LocalizeSettings(**settings), scores)
    return rank(effects.groupby(level="fact").mean().to_numpy())


def test_absolute_head_effects_add_up(scores):
    assert ranked(scores) == [ATTENTION[0], MLP[1], ATTENTION[1], MLP[0]]


def test_signed_head_effects_cancel_as_published(scores):
    assert ranked(scores, protocol="published") == [MLP[1], ATTENTION[1], MLP[0], ATTENTION[0]]


def test_only_the_kinds_asked_for_are_ranked(scores):
    assert ranked(scores, "causal-tracing-mlps") == [MLP[1], MLP[0]]


def test_inputs_count_only_as_published(scores):
    """q, k, v and mlp-in change nothing by default; published, they add up with the outputs, sign by sign."""
    inputs = [("a", 0, "q", 0, 2.0), ("a", 0, "k", 0, -0.5), ("a", 0, "v", 1, 0.3), ("a", 1, "mlp-in", -1, -0.6)]
    rows = pd.concat([scores, table(inputs + [("b", *row[1:]) for row in inputs])], ignore_index=True)
    assert ranked(rows) == ranked(scores)
    assert ranked(rows, protocol="published") == [ATTENTION[0], ATTENTION[1], MLP[0], MLP[1]]  # 1.8, .4, .3, 0


def test_maps_and_random_directions_are_not_ranked(scores):
    places = ["first subject token", "last token", "last token"]
    maps = table([("a", 0, kind, -1, 9.0) for kind in ("state", "mlp-window", "attention-window")])
    rows = pd.concat([scores, maps.assign(position=places), maps.assign(position=places)], ignore_index=True)
    assert ranked(rows) == ranked(scores)


def head(layer, number):
    return Component(layer, "attention", head=number)


def test_heads_are_ranked_one_by_one(scores):
    expected = [MLP[1], head(0, 0), head(0, 1), MLP[0], head(1, 0), head(1, 1)]
    assert ranked(scores, granularity="heads") == expected


def test_as_published_a_head_counts_with_the_keys_and_values_of_its_group():
    layout = layout_of(1, heads=4, kv_heads=2)
    heads = [("a", 0, "head", number, 0.1 * number) for number in range(4)]
    keys = [("a", 0, "k", 0, 1.0), ("a", 0, "v", 1, -2.0), ("a", 0, "q", 3, 1.5)]
    found = ranked(table(heads + keys), layout=layout, granularity="heads", protocol="published")
    effects = {0: 1.0, 1: 1.1, 2: 0.2 - 2.0, 3: 0.3 - 2.0 + 1.5}
    assert [part.head for part in found] == sorted(effects, key=lambda number: -abs(effects[number]))


def test_path_patching_ranks_by_signed_effects():
    found = ranked(paths([0.1, -0.9, 0.3], NOTHING), "path-patching", layout_of(3))
    assert [part.layer for part in found] == [2, 0, 1]
    assert {part.kind for part in found} == {"mlp"}


@pytest.mark.parametrize("protocol", ["corrected", "published"])
@pytest.mark.parametrize("seed", range(5))
def test_the_ranking_is_that_of_plain_sums(seed, protocol):
    rng = np.random.default_rng(seed)
    layout, kinds = layout_of(5, heads=4, kv_heads=2), {"head": 4, "q": 4, "k": 2, "v": 2, "mlp": 0, "mlp-in": 0}
    keys = [(layer, kind, n) for layer in range(5) for kind in kinds for n in (range(kinds[kind]) or [-1])]
    runs = [table([(fact, *key, rng.normal()) for fact in "abc" for key in keys], run) for run in range(2)]
    rows, sizes = pd.concat(runs, ignore_index=True), {}
    for (layer, kind, _), group in rows.groupby(["layer", "kind", "head"]):
        block = (layer, "mlp" if kind.startswith("mlp") else "attention")
        if protocol == "published":
            sizes[block] = sizes.get(block, 0) + group.effect.mean()
        elif kind in ("head", "mlp"):
            sizes[block] = sizes.get(block, 0) + abs(group.effect.mean())
    expected = sorted(sizes, key=lambda block: -abs(sizes[block]))
    found = ranked(rows, "attribution-patching", layout, protocol=protocol)
    assert [(part.layer, part.kind) for part in found] == expected


# budgets --------------------------------------------------------------------------------------------------


def test_fill_takes_whole_components_in_order_then_part_of_an_mlp():
    layout = layout_of(3, neurons=10, size=2)  # an MLP has 30 parameters, 3 a neuron; an attention block 16
    ranking = [Component(2, "mlp"), Component(0, "attention"), Component(1, "mlp"), Component(0, "mlp")]
    assert fill(ranking, layout, 46 + 17) == [*ranking[:2], Component(1, "mlp", 5)]
    assert fill(ranking, layout, 76) == ranking[:3]
    assert fill(ranking, layout, 40) == [
        ranking[0],
        Component(1, "mlp", 3),
    ]  # the attention block does not fit


@pytest.mark.parametrize("granularity", ["blocks", "heads"])
@pytest.mark.parametrize("seed", range(20))
def test_fill_is_within_a_neuron_of_every_budget(seed, granularity):
    """Never above it, nothing twice, and less than a neuron left while an MLP is to spare."""
    rng = random.Random(seed)
    layout = random_layout(rng)
    ranking = layout.all(*KINDS) if granularity == "blocks" else heads_of(layout)
    rng.shuffle(ranking)
    neuron = layout.parameters(Component(0, "mlp", 1))
    for budget in range(layout.parameters(*ranking) + 5):
        chosen = fill(ranking, layout, budget)
        assert layout.parameters(*chosen) <= budget
        assert len({(part.layer, part.kind, part.head) for part in chosen}) == len(chosen)
        if any(part.kind == "mlp" and part not in chosen for part in ranking):
            assert budget - layout.parameters(*chosen) < neuron


def test_heads_of_a_group_pay_for_their_keys_and_values_once():
    layout = layout_of(1, neurons=4, heads=4, kv_heads=2, size=1, width=1)  # a head: q and o, and k and v of its group
    ranking = [head(0, number) for number in range(4)]
    assert fill(ranking, layout, 6) == ranking[:2]  # 4 and 2 more
    assert fill(ranking, layout, 9) == ranking[:2]
    assert fill(ranking, layout, 10) == ranking[:3]
    assert fill(ranking, layout, 12) == ranking
    assert layout.parameters(*ranking) == layout.parameters(Component(0, "attention")) == 12


def test_fill_goes_on_after_an_attention_block_that_is_larger_than_an_mlp():
    layout = layout_of(3, size=12)  # attention: 96 parameters
    ranking = [Component(0, "attention"), *(Component(layer, "mlp") for layer in range(3))]
    assert layout.parameters(*fill(ranking, layout, 70)) > 67


@pytest.mark.parametrize("seed", range(10))
def test_fill_never_exceeds_the_budget_whatever_the_layout(seed):
    rng = random.Random(seed)
    layout = random_layout(rng, wide_attention=True)
    for every in (layout.all(*KINDS), heads_of(layout)):
        ranking = rng.sample(every, len(every))
        for budget in range(0, layout.parameters(*ranking) + 5, 3):
            assert layout.parameters(*fill(ranking, layout, budget)) <= budget


@pytest.mark.parametrize("seed", range(10))
def test_as_published_the_component_that_crosses_the_budget_is_the_last_and_whole(seed):
    rng = random.Random(seed)
    layout = random_layout(rng)
    for every in (layout.all(*KINDS), heads_of(layout)):
        ranking = rng.sample(every, len(every))
        for budget in range(1, layout.parameters(*ranking) + 5):
            chosen = fill(ranking, layout, budget, "published")
            assert chosen == ranking[: len(chosen)]
            assert layout.parameters(*chosen[:-1]) < budget
            assert layout.parameters(*chosen) >= min(budget, layout.parameters(*ranking))


# localizations --------------------------------------------------------------------------------------------

LAYOUT = layout_of(10, neurons=20, heads=2, size=5)  # an MLP: 60 parameters, an attention block: 40
TOTAL = 10 * (60 + 40)


def probes(curve, layers=10, facts=500):
    right = nested(curve, layers, facts)
    rows = [
        (f"fact {fact:03}", layer, kind, -1, float(right[layer, fact]))
        for kind in ("probe-subject", "probe-prompt")
        for layer in range(layers)
        for fact in range(facts)
    ]
    return table([("", -1, "chance", -1, CHANCE), *rows])


def test_fact_lookup_selects_the_mlps_of_the_rise():
    curve, _, (first, last) = PUBLISHED["Gemma-2-9B"]
    selection = select("fact-lookup", LAYOUT, LocalizeSettings(), probes(curve))
    assert selection.components == [Component(layer, "mlp") for layer in range(first, last + 1)]
    assert selection.parameters == selection.budget == 60 * len(selection.components)
    assert selection.total == TOTAL


def test_fact_lookup_selects_what_path_patching_finds():
    selection = select("fact-lookup", LAYOUT, by(), paths([0, 0.3, 0, 0, 0.2, 0, 0, 0, 0, 0], NOTHING))
    assert selection.components == [Component(1, "mlp"), Component(4, "mlp")]
    assert selection.details["rule"] == "interval"


@pytest.mark.parametrize("localization", ["random", "random-mlps", "all-mlps", "nonlocalized"])
@pytest.mark.parametrize("granularity", ["blocks", "heads"])
def test_a_baseline_needs_no_scores(localization, granularity):
    selection = select(localization, LAYOUT, LocalizeSettings(granularity=granularity), lookup=LOOKUP)
    whole = localization in ("all-mlps", "nonlocalized")
    kinds = {"mlp"} if "mlps" in localization else set(KINDS)
    if whole:
        assert set(selection.components) == set(LAYOUT.all(*kinds))
        assert selection.parameters == selection.budget
    else:
        assert {part.kind for part in selection.components} <= kinds
        assert LOOKUP.parameters - 3 < selection.parameters <= selection.budget == LOOKUP.parameters


def test_random_mlps_are_seeded_and_as_large_as_fact_lookup():
    def drawn(seed):
        return select("random-mlps", LAYOUT, LocalizeSettings(seed=seed), lookup=LOOKUP)

    assert drawn(3) == drawn(3)
    assert len({tuple(drawn(seed).components) for seed in range(20)}) > 10
    assert {component.layer for seed in range(40) for component in drawn(seed).components} == set(range(10))
    for seed in range(20):
        assert drawn(seed).parameters == drawn(seed).budget == LOOKUP.parameters
        assert {component.kind for component in drawn(seed).components} == {"mlp"}


@pytest.mark.parametrize("family", ["random", "random-mlps"])
def test_every_draw_is_another_one_and_always_the_same(family):
    names = [family, *(f"{family}-{number}" for number in range(2, 30))]
    drawn = [select(name, LAYOUT, LocalizeSettings(), lookup=LOOKUP) for name in names]
    assert len({tuple(selection.components) for selection in drawn}) > 20
    assert drawn == [select(name, LAYOUT, LocalizeSettings(), lookup=LOOKUP) for name in names]
    assert [selection.localization for selection in drawn] == names
    assert all(part.kind == "mlp" for s in drawn for part in s.components) == (family == "random-mlps")


def test_random_draws_heads_where_heads_are_selected():
    settings = LocalizeSettings(granularity="heads")
    parts = [part for seed in range(20) for part in _random(settings, seed).components]
    assert {part.head for part in parts if part.kind == "attention"} == {0, 1}


def _random(settings, seed):
    return select("random", LAYOUT, settings.model_copy(update={"seed": seed}), lookup=LOOKUP)


@pytest.fixture
def traced():
    rng = np.random.default_rng(0)
    parts = [("mlp", -1), ("head", 0), ("head", 1)]
    keys = [(fact, layer, *part) for fact in "abc" for layer in range(10) for part in parts]
    return table([(*key, rng.normal()) for key in keys])


@pytest.mark.parametrize("granularity", ["blocks", "heads"])
@pytest.mark.parametrize("localization", ["causal-tracing", "causal-tracing-mlps", "random", "random-mlps"])
@pytest.mark.parametrize(
    ("budget", "expected"),
    [("fact-lookup", 180), (0.25, 250), (1.0, TOTAL), (333, 333)],
)
def test_budgets_by_lookup_fraction_and_number(traced, localization, granularity, budget, expected):
    settings = LocalizeSettings(budget=budget, granularity=granularity)
    selection = select(localization, LAYOUT, settings, traced, LOOKUP)
    assert selection.budget == expected
    everything = LAYOUT.all("mlp") if localization.endswith("-mlps") else LAYOUT.all(*KINDS)
    assert min(expected, LAYOUT.parameters(*everything)) - 3 < selection.parameters <= expected
    assert selection.parameters == LAYOUT.parameters(*selection.components)


def test_the_published_budget_overshoots(traced):
    settings = LocalizeSettings(budget=0.25, protocol="published")
    selection = select("causal-tracing", LAYOUT, settings, traced)
    assert 250 < selection.parameters < 250 + 60
    assert selection.budget == 250
    assert all(part.neurons is None for part in selection.components)


def test_mlps_form_selects_no_attention(traced):
    everything = LocalizeSettings(budget=0.5)
    kinds = {c.kind for c in select("causal-tracing-mlps", LAYOUT, everything, traced).components}
    assert kinds == {"mlp"}
    assert {c.kind for c in select("causal-tracing", LAYOUT, everything, traced).components} == set(KINDS)


def test_the_protocol_decides_how_heads_add_up(scores):
    def first(protocol):
        settings = LocalizeSettings(budget=30, protocol=protocol)
        return select("causal-tracing", TWO, settings, scores).components[0]

    assert (first("corrected"), first("published")) == (ATTENTION[0], MLP[1])


def test_a_budget_below_one_neuron_is_refused(traced):
    with pytest.raises(UserError, match="budget"):
        select("causal-tracing-mlps", LAYOUT, LocalizeSettings(budget=2), traced)


# given by hand --------------------------------------------------------------------------------------------

# Layers, neurons, heads, key-value heads, head size, width (reference: paper, section 2.1).
MODELS = {
    "gemma-7b": layout_of(28, 24576, 16, 16, 256, 3072),
    "gemma-2-9b": layout_of(42, 14336, 16, 8, 256, 3584),
    "llama-3-8b": layout_of(32, 14336, 32, 8, 128, 4096),
}
GIVEN = [  # published selections and their parameters, in billions
    ("gemma-7b", {"mlps": [2, 3, 4, 5, 6, 7]}, 1.358954496),
    ("gemma-2-9b", {"mlps": [2, 3, 4, 5, 6]}, 0.770703360),
    ("llama-3-8b", {"mlps": [1, 2, 3, 4]}, 0.704643072),
    ("gemma-7b", {"mlps": [1, 3, 4, 6, 9, 17, 18, 19]}, 1.812),
    ("gemma-7b", {"mlps": [21, 22, 23, 25, 27], "attention": [6, 12, 13, 17, 20, 21, 25]}, 1.485),
    ("gemma-7b", {"mlps": [21, 23, 25, 26, 27], "attention": [18, 20, 22, 25, 27]}, 1.384),
    ("gemma-2-9b", {"attention": [3, 4, 8, 10, 12, 14, 19, 23, 24, 26, 28, 34, 35, 36, 37, 38, 39, 41]}, 0.793),
    ("gemma-2-9b", {"mlps": [28, 31, 33, 35, 41], "attention": [25, 33]}, 0.859),
    ("llama-3-8b", {"attention": [1, 3, 7, 10, 12, 14, 16, 18, 19, 22, 24, 26, 27, 28, 29, 30, 31]}, 0.713),
    ("llama-3-8b", {"mlps": [21, 22, 30, 31], "attention": [15, 21, 31]}, 0.830),
]


@pytest.mark.parametrize(("model", "given", "billions"), GIVEN)
def test_every_published_selection_is_one_line(model, given, billions):
    settings = LocalizeSettings(layers={"published": given}, budget=2)
    selection = select("published", MODELS[model], settings)
    assert selection.parameters / 1e9 == pytest.approx(billions, abs=6e-4)
    assert selection.budget == selection.parameters
    for key, kind in (("mlps", "mlp"), ("attention", "attention")):
        assert [part.layer for part in selection.components if part.kind == kind] == given.get(key, [])


def test_given_by_hand_fact_lookup_needs_no_scores_and_sets_the_budget():
    settings = LocalizeSettings(layers={"fact-lookup": {"mlps": [1, 7]}})
    lookup = select("fact-lookup", LAYOUT, settings)
    assert lookup.components == [Component(1, "mlp"), Component(7, "mlp")]
    assert lookup.details == {"rule": "by hand"}
    assert select("random-mlps", LAYOUT, settings, lookup=lookup).budget == 120


def test_heads_by_hand_share_keys_and_values():
    layout = layout_of(2, heads=4, kv_heads=2)
    settings = LocalizeSettings(layers={"mine": {"heads": [[1, 2], [1, 3]], "mlps": [0]}})
    selection = select("mine", layout, settings)
    assert selection.components == [Component(0, "mlp"), head(1, 2), head(1, 3)]
    assert selection.parameters == 30 + 6


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"mlps": [10]}, r"mine\.mlps names layer 10; the model has layers 0 to 9"),
        ({"mlps": [3], "attention": [3, 99]}, r"mine\.attention names layer 99; the model has layers 0 to 9"),
        ({"heads": [[10, 0]]}, r"mine\.heads names layer 10; the model has layers 0 to 9"),
        ({"heads": [[0, 2]]}, r"mine\.heads names head 2; the model has heads 0 to 1"),
    ],
)
def test_what_the_model_does_not_have_is_refused(given, sentence):
    with pytest.raises(ConfigError, match=rf"localize\.layers\.{sentence}"):
        select("mine", LAYOUT, LocalizeSettings(layers={"mine": given}))
