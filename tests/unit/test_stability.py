"""Would other runs, or other facts, have selected the same?"""

import numpy as np
import pandas as pd
import pytest
from made_scores import CHANCE, LOOKUP, NOTHING, layout_of, nested, paths, table

from mechunlearn.artifacts import Component
from mechunlearn.config import LocalizeSettings
from mechunlearn.localize.select import select
from mechunlearn.localize.stability import DRAWS, overlap, stability

LAYOUT = layout_of(10, neurons=20, heads=2, size=5)


def effects(signal, noise, facts=20, runs=1, seed=0):
    """Scores in which MLP l has `signal[l]`, heads have nothing, and facts and runs differ by `noise`."""
    rng = np.random.default_rng(seed)
    parts = [("mlp", -1), ("head", 0), ("head", 1)]
    return pd.concat(
        [
            table(
                [
                    (f"f{fact:02}", layer, kind, head, signal[layer] * (kind == "mlp") + noise * rng.normal())
                    for fact in range(facts)
                    for layer in range(10)
                    for kind, head in parts
                ],
                run,
            )
            for run in range(runs)
        ],
        ignore_index=True,
    )


def rows_of(scores, localization="causal-tracing", layout=LAYOUT, **settings):
    rules = LocalizeSettings(**settings)
    selection = select(localization, layout, rules, scores, LOOKUP)
    return {row["what"]: row for row in stability(selection, layout, rules, scores)}


CLEAR = [1.0, 0.9, 0.8, *[0.0] * 7]


def test_overlap_is_jaccards_index_and_parts_count_by_their_neurons():
    whole, part, other = Component(0, "mlp"), Component(0, "mlp", 5), Component(1, "attention")
    assert overlap([whole, other], [other, whole], LAYOUT) == 1
    assert overlap([whole], [other], LAYOUT) == 0
    assert overlap([whole, other], [other], LAYOUT) == 0.5
    assert overlap([whole], [part], LAYOUT) == 0.25
    assert overlap([part, other], [other], LAYOUT) == pytest.approx(1 / 1.25)
    assert overlap([Component(1, "attention", head=0)], [Component(1, "attention", head=1)], LAYOUT) == 0
    assert overlap([], [], LAYOUT) == 0


def test_a_clear_signal_is_selected_by_all_facts_and_runs():
    found = rows_of(effects(CLEAR, 0.01, runs=3))
    for what, n in (("facts", 20), ("seeds", 3)):
        row = found[what]
        assert (row["value"], row["low"], row["high"], row["n"]) == (1, 1, 1, n)


@pytest.mark.parametrize("localization", ["causal-tracing", "causal-tracing-mlps"])
@pytest.mark.parametrize("granularity", ["blocks", "heads"])
def test_noise_agrees_as_random_selections_do(localization, granularity):
    settings = {"granularity": granularity}
    seeds = [rows_of(effects([0.0] * 10, 1.0, runs=2, seed=seed), localization, **settings) for seed in range(12)]
    for what in ("facts", "seeds"):
        values = [found[what]["value"] for found in seeds]
        assert np.mean(values) == pytest.approx(seeds[0][what]["chance"], abs=0.1)
        assert all(0 <= found[what]["low"] <= found[what]["high"] <= 1 for found in seeds)


def test_chance_is_the_overlap_of_two_random_draws():
    """3 of 10 MLPs each: k in common with probability C(3,k) C(7,3-k) / C(10,3), and then k of 6 - k."""
    exact = (63 * (1 / 5) + 21 * (2 / 4) + 1) / 120
    found = [rows_of(effects(CLEAR, 0.01), "causal-tracing-mlps", seed=s)["facts"]["chance"] for s in range(10)]
    assert np.mean(found) == pytest.approx(exact, abs=0.02)


def test_one_run_has_no_row_for_seeds_and_one_fact_none_for_facts():
    assert set(rows_of(effects(CLEAR, 0.01))) == {"facts"}
    assert set(rows_of(effects(CLEAR, 0.01, facts=1, runs=2))) == {"seeds"}


def test_runs_that_disagree_show_only_between_runs():
    """Each run points elsewhere, the same for all facts: facts agree, runs do not."""
    first, second = effects(CLEAR, 0.0), effects(CLEAR[::-1], 0.0)
    found = rows_of(pd.concat([first, second.assign(seed=1)], ignore_index=True))
    assert found["facts"]["value"] == 1
    assert found["seeds"]["value"] == 0


def test_facts_that_disagree_show_between_facts():
    """Half of the facts point elsewhere; both runs agree on which."""
    one, other = effects(CLEAR, 0.0), effects(CLEAR[::-1], 0.0)
    mixed = pd.concat([one[one.fact < "f10"], other[other.fact >= "f10"]], ignore_index=True)
    found = rows_of(pd.concat([mixed, mixed.assign(seed=1)], ignore_index=True))
    assert found["facts"]["value"] < 0.7
    assert found["facts"]["low"] < found["facts"]["high"]
    assert found["seeds"]["value"] == 1


def test_the_value_is_that_of_selections_made_one_by_one():
    """Against select itself on each run's rows alone."""
    scores, rules = effects(CLEAR, 0.5, facts=6, runs=3), LocalizeSettings()
    alone = [select("causal-tracing", LAYOUT, rules, run, LOOKUP).components for _, run in scores.groupby("seed")]
    pairs = [overlap(alone[i], alone[j], LAYOUT) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert rows_of(scores)["seeds"]["value"] == pytest.approx(np.mean(pairs))


@pytest.mark.parametrize("facts", [40, 10])
def test_fact_lookup_by_probes(facts):
    right = nested([0.4, 0.5, 0.7, 0.9], 10, facts)
    rows = [(f"f{fact:02}", layer, "probe-subject", -1, float(x)) for (layer, fact), x in np.ndenumerate(right)]
    found = rows_of(table([("", -1, "chance", -1, CHANCE), *rows]), "fact-lookup")["facts"]
    assert found["n"] == facts
    assert 0 <= found["low"] <= found["value"] <= found["high"] <= 1


def test_fact_lookup_by_path_patching():
    scores = paths([0, 0.3, 0, 0, 0.2, 0, 0, 0, 0, 0], NOTHING, facts=10)
    other = paths([0, 0.3, 0, 0, 0.0, 0, 0, 0, 0, 0], NOTHING, facts=10, seed=1)
    assert rows_of(scores, "fact-lookup")["facts"]["value"] == 1
    found = rows_of(pd.concat([scores, other], ignore_index=True), "fact-lookup")
    assert found["seeds"]["value"] == 0.5
    assert rows_of(scores, "path-patching")["facts"]["value"] == 1


def test_the_same_scores_give_the_same_rows():
    scores = effects(CLEAR, 1.0, runs=2)
    assert rows_of(scores) == rows_of(scores)
    assert DRAWS >= 100
