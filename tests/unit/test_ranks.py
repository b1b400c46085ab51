"""The rank of the planted layer, from numbers one can check by hand."""

import numpy as np
import pandas as pd
import pytest
from made_scores import nested, paths, table

from mechunlearn import artifacts, stats
from mechunlearn.localize.ranks import SAMPLES, rank_of, ranks, write_planted


def mlps(by_fact, seed=0):
    """Scores of MLPs from (facts, layers), beside heads that no rank may take up."""
    rows = [(f"f{fact}", layer, "mlp", -1, x) for fact, row in enumerate(by_fact) for layer, x in enumerate(row)]
    return table([*rows, *(("f0", layer, "head", 0, 9.0) for layer in range(len(by_fact[0])))], seed)


def probed(curve, facts=10):
    right = nested(curve, len(curve), facts)
    rows = [(f"f{fact}", layer, "probe-subject", -1, x) for (layer, fact), x in np.ndenumerate(right.astype(float))]
    return table([*rows, ("", -1, "chance", -1, 0.4), ("f0", 0, "probe-prompt", -1, 1.0)])


def only(scores, layer):
    (row,) = ranks({"any": scores}, layer).itertuples()
    return row


def test_components_rank_by_the_size_of_their_mean_effect():
    scores = mlps([[-0.5, 0.1, 0.3, 0.9], [-0.1, 0.1, 0.1, -0.9]])  # means -.3, .1, .2, 0
    assert [only(scores, layer).rank for layer in range(4)] == [1, 3, 2, 4]
    row = only(scores, 2)
    assert (row.first, row.layers, row.n) == (0, 4, 2)
    assert row.effects == pytest.approx((0.3, 0.1, 0.2, 0.0))
    assert row.effect == pytest.approx(0.2)


def test_path_patching_ranks_by_the_effect_with_its_sign():
    scores = paths([-0.3, 0.1, 0.2, 0.0], {(0, 0): 0.0})
    assert [only(scores, layer).rank for layer in range(4)] == [4, 2, 1, 3]
    assert only(scores, 0).first == 2


def test_probes_rank_by_the_rise_over_the_layer_before_and_first_over_chance():
    scores = probed([0.5, 0.9, 0.9, 0.6])  # rises .1, .4, 0, -.3
    assert [only(scores, layer).rank for layer in range(4)] == [2, 1, 3, 4]
    assert only(scores, 0).effects == pytest.approx((0.1, 0.4, 0.0, -0.3))


def test_ties_share_the_mean_rank_though_floats_differ():
    scores = probed([0.5, 0.6, 0.7, 0.7, 0.7])  # rises .1, .1, .1, 0, 0, as floats not quite equal
    assert [only(scores, layer).rank for layer in range(5)] == [2, 2, 2, 4.5, 4.5]
    assert only(scores, 2).first == 0
    assert rank_of(np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 2.0]]), 0).tolist() == [1.5, 3]


def test_runs_are_averaged_within_a_fact():
    runs = [mlps([[0.4, 0.0, 0.3]], seed=0), mlps([[-0.4, 0.1, 0.3]], seed=1)]
    row = only(pd.concat(runs, ignore_index=True), 0)
    assert (row.rank, row.first, row.n) == (3, 2, 1)


def test_the_interval_is_over_facts():
    facts = np.random.default_rng(0).normal([0.3, 0.2, 0.1, 0.0], 0.4, (12, 4))
    draws = np.random.default_rng(stats.SEED).integers(0, 12, (SAMPLES, 12))
    by_hand = [int((abs(facts[draw].mean(0)) > abs(facts[draw].mean(0)[1])).sum()) + 1 for draw in draws]
    row = only(mlps(facts.tolist()), 1)
    assert (row.low, row.high) == tuple(np.quantile(by_hand, [0.025, 0.975]))
    assert row.low < row.high
    same = only(mlps([[0.3, 0.2, 0.1]] * 5), 1)
    assert (same.low, same.rank, same.high) == (2, 2, 2)


def test_resampled_means_are_means_over_the_facts_drawn():
    values = np.random.default_rng(1).normal(size=(7, 3))
    draws = np.random.default_rng(stats.SEED).integers(0, 7, (50, 7))
    assert np.allclose(stats.resampled_means(values, 50), values[draws].mean(1))


def test_planted_csv_holds_every_localizer_of_every_model(tmp_path):
    scores = {"causal-tracing": mlps([[0.1, 0.2, 0.3]]), "fact-lookup": probed([0.9, 0.9, 0.5])}
    written = write_planted(tmp_path / "planted.csv", [("a", "t", 2, scores), ("b", "t", 0, scores)])
    read = artifacts.read_table(tmp_path / "planted.csv", artifacts.PLANTED_COLUMNS)
    assert read[["model", "layer", "localizer", "rank", "first"]].to_numpy().tolist() == [
        ["a", 2, "causal-tracing", 1, 2],
        ["a", 2, "fact-lookup", 3, 0],
        ["b", 0, "causal-tracing", 3, 2],
        ["b", 0, "fact-lookup", 1, 0],
    ]
    assert list(written.columns) == artifacts.PLANTED_COLUMNS
