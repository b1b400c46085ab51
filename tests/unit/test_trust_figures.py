"""What the figures on the methods themselves say, against numbers one can check by hand."""

import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import Rectangle
from synthetic_study import LAYERS, build, selection, study

from mechunlearn import artifacts, registry
from mechunlearn.artifacts import PLANTED_COLUMNS, SCORE_COLUMNS, Component, Selection
from mechunlearn.figures import agreement, data, estimates, planted, sentences, style, tables, tracing_map
from mechunlearn.metrics import COLUMNS

NOTHING = pd.DataFrame(columns=COLUMNS)


def write(home, name, rows):
    artifacts.write_table(home / f"scores/{name}.parquet", pd.DataFrame(rows, columns=SCORE_COLUMNS))


# causal tracing by token ----------------------------------------------------------------------------------------


def states(home, runs=1):
    """Two facts, two layers; the second middle token is the first fact's alone."""
    effects = {
        ("f0", "first subject token"): [[0.1, 0.0]],
        ("f0", "middle subject tokens"): [[0.0, 0.2], [0.0, 0.6]],
        ("f0", "last subject token"): [[0.5, 0.3]],
        ("f0", "last token"): [[0.0, 0.9]],
        ("f1", "last subject token"): [[0.7, 0.1]],
        ("f1", "last token"): [[0.2, 0.7]],
    }
    write(
        home,
        "causal-tracing",
        [
            (run, fact, layer, "state", -1, role, effect + (0.1 if run else -0.1) * (runs > 1))
            for run in range(runs)
            for (fact, role), tokens in effects.items()
            for token in tokens
            for layer, effect in enumerate(token)
        ],
    )


@pytest.mark.parametrize("runs", [1, 2])
def test_the_map_averages_tokens_and_runs_within_a_fact_then_facts(tmp_path, runs):
    states(tmp_path, runs)
    table = tracing_map.mean_map(tracing_map.by_fact(tmp_path), "state")
    assert list(table.index) == ["first subject token", "middle subject tokens", "last subject token", "last token"]
    assert np.allclose(table, [[0.1, 0.0], [0.0, 0.4], [0.6, 0.2], [0.1, 0.8]])


def test_the_maps_caption_names_both_peaks_and_its_figure_frames_the_largest(tmp_path):
    states(tmp_path)
    found, seen = tracing_map.caption(tmp_path, NOTHING)
    assert "at the last token, layer 1: 0.80 [0.70, 0.90]" in found
    assert "within the subject, at the last subject token, layer 0: 0.60 [0.50, 0.70]" in found
    assert "n = 2 facts" in seen
    (axes, _) = tracing_map.draw(tmp_path, NOTHING).axes
    (frame,) = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert frame.get_xy() == (0.5, 2.5)


def test_one_fact_gives_no_interval(tmp_path):
    write(tmp_path, "causal-tracing", [(0, "f0", layer, "state", -1, "last token", 0.1 * layer) for layer in range(3)])
    found, seen = tracing_map.caption(tmp_path, NOTHING)
    assert found == "One state brings most back at the last token, layer 2: 0.20."
    assert "One fact gives no interval." in seen


# estimates beside exact effects ---------------------------------------------------------------------------------


def twelve(home, name, values, facts=3):
    """Six layers' heads and MLPs with twelve means, equal for all facts; an input that no number takes up."""
    places = [(layer, kind, 0 if kind == "head" else -1) for layer in range(6) for kind in ("mlp", "head")]
    rows = [
        (0, f"f{fact}", *place, "", value) for fact in range(facts) for place, value in zip(places, values, strict=True)
    ]
    write(home, name, rows + [(0, f"f{fact}", 0, "q", 0, "", 99.0) for fact in range(facts)])


def test_rank_correlation_and_recall_are_what_one_computes_by_hand(tmp_path):
    sizes = np.arange(12, 0, -1) * np.array([1, -1] * 6)  # sizes count, not signs
    twelve(tmp_path, "activation-patching", sizes)
    twelve(tmp_path, "attribution-patching", [0.5, *abs(sizes[1:])])  # the largest is estimated as the smallest
    found = estimates.comparisons(tmp_path)["attribution-patching"]
    expected = 1 - 6 * (11**2 + 11) / (12 * (12**2 - 1))  # the largest is 11 ranks off, the others 1
    assert found.correlation == pytest.approx((expected,) * 3)  # all facts agree
    assert found.recall == pytest.approx((0.9,) * 3)
    assert found.missed == [("mlp", 0, -1)]
    assert found.apart["head"] == pytest.approx(1)
    assert found.apart["mlp"] == pytest.approx(1 - 6 * (5**2 + 5) / (6 * 35))
    text, seen = estimates.caption(tmp_path, NOTHING)
    assert "0.54 [0.54, 0.54] (1.00 among heads alone, 0.14 among MLPs alone)" in text
    assert "finds 90% [90%, 90%] of the 10 largest and misses MLP 0 (exact 12.00, estimated 0.50)." in text
    assert "n = 3 facts" in seen
    assert "12 heads and MLP outputs" in seen


def test_intervals_draw_the_facts_of_both_tables_together(tmp_path):
    rng = np.random.default_rng(0)
    rows = [(0, f"f{f}", layer, "mlp", -1, "", rng.normal(layer, 8)) for f in range(9) for layer in range(12)]
    write(tmp_path, "activation-patching", rows)
    write(tmp_path, "integrated-gradients", [(*row[:6], 3 * row[6]) for row in rows])
    found = estimates.comparisons(tmp_path)["integrated-gradients"]
    assert found.correlation == pytest.approx((1, 1, 1))  # were they drawn apart, it would fall
    noisy = [(*row[:6], row[6] + rng.normal(0, 8)) for row in rows]
    write(tmp_path, "integrated-gradients", noisy)
    value, low, high = estimates.comparisons(tmp_path)["integrated-gradients"].correlation
    exact, estimate = (
        pd.DataFrame(each, columns=SCORE_COLUMNS).groupby("layer").effect.mean() for each in (rows, noisy)
    )
    assert value == pytest.approx(exact.abs().rank().corr(estimate.abs().rank()))
    assert low < value < 1
    assert low < high


def test_estimates_have_a_point_for_every_component_and_name_what_is_missed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    home = build(study())
    left, right = estimates.draw(home, NOTHING).axes
    for axes in (left, right):
        counts = {str(line.get_label()): len(line.get_xdata()) for line in axes.lines}
        assert counts["MLP outputs"] == LAYERS
        assert counts["attention heads"] == 4 * LAYERS
    assert "MLP 3" in {text.get_text() for text in left.texts}
    assert "MLP 3" not in {text.get_text() for text in right.texts}


# agreement ------------------------------------------------------------------------------------------------------


def test_overlaps_are_jaccards_index_with_parts_and_heads():
    chosen = {
        "a": selection("fact-lookup"),  # MLPs 2, 3, 4
        "b": selection("causal-tracing"),  # MLP 3, attention 12, half of MLP 6
        "c": Selection("c", [Component(6, "mlp"), Component(12, "attention", head=1)], 1, 1, 1),
        "d": Selection("d", [Component(12, "attention", head=3)], 1, 1, 1),
    }
    table = agreement.overlaps(chosen)
    assert table[0, 1] == pytest.approx(1 / (3 + 1 + 0.5 + 4 - 1 + 0))  # attention 12 counts as its four heads
    assert table[1, 2] == pytest.approx((0.5 + 1) / (1 + 4 + 1))
    assert table[1, 3] == pytest.approx(1 / (1 + 4 + 0.5))
    assert table[2, 3] == 0
    assert np.allclose(table, table.T)
    whole = agreement.overlaps({name: chosen[name] for name in "ab"})  # no single heads: a block counts once
    assert whole[0, 1] == pytest.approx(1 / (3 + 1 + 0.5))


def agreeing(home, name, *rows):
    stability = [dict(zip(("what", "value", "low", "high", "n", "chance"), row, strict=True)) for row in rows]
    known = selection(name)
    artifacts.write_selection(
        home / "selection" / f"{name}.json",
        Selection(name, known.components, 1, 1, 1, {**known.details, "stability": stability}),
    )


def test_agreement_says_who_chooses_the_same_again(tmp_path):
    agreeing(tmp_path, "fact-lookup", ("facts", 0.9, 0.0, 1.0, 40, 0.1), ("seeds", 0.5, 0.2, 0.7, 3, 0.1))
    agreeing(tmp_path, "causal-tracing", ("facts", 0.5, 0.3, 0.8, 16, 0.05))
    agreeing(tmp_path, "path-patching", ("facts", 0.3, 0.05, 0.8, 16, 0.1))
    artifacts.write_selection(tmp_path / "selection/all-mlps.json", selection("all-mlps"))
    found, seen = agreement.caption(tmp_path, NOTHING)
    halves = re.search("two halves of the facts, two selections are (.*?)\\. Chance is 0.05 to 0.1", found)[1]
    assert halves.split("; ") == [
        "mostly the same for “Fact lookup” (0.90 [0.00, 1.00])",
        "the same in part for “Causal tracing” (0.50 [0.30, 0.80])",
        "sometimes no more so than chance for “Path patching” (0.30 [0.05, 0.80])",
    ]
    assert "two runs, two selections are the same in part for “Fact lookup” (0.50 [0.20, 0.70])" in found
    # MLPs 2, 3, 4; MLP 3, attention 12, half of MLP 6; MLPs 0, 7, 13: one shared of 4.5, then none
    mean = f"{1 / 4.5 / 3:.2f}"
    assert f"Two methods overlap by {mean} on average over 3 pairs, from 0.00" in found
    assert "to 0.22 (“Fact lookup” and “Causal tracing”)" in found
    assert "n = 16 to 40" in seen
    assert "n = 3 runs" in seen
    left, right = agreement.draw(tmp_path, NOTHING).axes
    assert [label.get_text().split("   ")[0] for label in left.get_yticklabels()] == [
        "Fact lookup", "Causal tracing", "Path patching",
    ]  # fmt: skip
    assert sum(line.get_marker() == "o" for line in left.lines) == 4  # of two kinds for fact lookup
    assert [text.get_text() for text in right.texts] == [".22", ".00", ".00"]


@pytest.mark.parametrize("name", ["agreement", "estimates", "tracing-map"])
def test_a_study_without_the_data_is_told_so(tmp_path, name):
    figure = registry.load("figure", name)(tmp_path, NOTHING)
    assert not figure.axes
    assert figure.texts[0].get_text().startswith("This study has no")


# planted facts --------------------------------------------------------------------------------------------------


def ranked(**localizers):
    """planted.csv from (rank, first) by model, of facts planted in layers 0, 1, 2, 3 of 9."""
    rows = [
        (f"m{layer}", "task", layer, name, rank, rank, rank, 9, first, 12)
        for name, pairs in localizers.items()
        for layer, (rank, first) in enumerate(pairs)
    ]
    return pd.DataFrame(rows, columns=PLANTED_COLUMNS).replace(
        {"localizer": {"causal": "causal-tracing", "path": "path-patching"}}
    )


TABLE = ranked(
    causal=[(4, 3), (5, 3), (8, 3), (1, 3)],  # always names layer 3
    path=[(1, 0), (1, 1), (1, 2), (2, 0)],
)


def test_the_summary_is_what_one_counts_by_hand():
    found = planted.summary(TABLE)
    assert list(found) == ["path-patching", "causal-tracing"]  # the best first
    path, causal = found.values()
    assert (path.rank[0], path.first[0], path.top[0], path.models) == (1.25, 0.75, 1, 4)
    assert path.top[1] == pytest.approx(1 - (1 - 0.025 ** (1 / 4)))  # exact where all agree
    assert (causal.rank[0], causal.first[0], causal.top[0]) == (4.5, 0.25, 0.25)
    assert (path.wrong, causal.wrong) == ((1, 0, 1), (3, 3, 3))
    assert planted.chance(TABLE) == pytest.approx({"rank": 5, "first": 1 / 9, "top": 1 / 3})


def test_the_caption_names_who_finds_the_layer_and_who_always_points_to_the_same():
    found, seen = planted.caption(TABLE)
    assert "Path patching 3 (mean rank 1.2 [1.0, 2.0]) and Causal tracing 1 (mean rank 4.5" in found
    assert "Chance would give 0.4 and a mean rank of 5." in found
    assert "Not clearly better than chance: “Causal tracing”." in found
    assert found.endswith("it is mostly the same one: MLP 3 by “Causal tracing” (3 of 3).")
    assert "n = 12 facts" in seen
    assert planted.answer(TABLE) == (
        "The layer in which facts were planted is ranked highest by “Path patching” (mean rank 1.2 [1.0, 2.0], first "
        "in 3 of 4 models), lowest by “Causal tracing” (mean rank 4.5 [1.0, 8.0], first in 1 of 4 models); by chance, "
        "the mean rank would be 5."
    )


def test_the_figure_has_a_cell_a_rank_and_a_point_a_mean():
    grid, *sides = planted.draw(TABLE).axes
    assert [text.get_text() for text in grid.texts] == ["1", "1", "1", "2", "4", "5", "8", "1"]
    assert [label.get_text() for label in grid.get_xticklabels()] == ["0", "1", "2", "3"]
    assert [line.get_xdata()[0] for line in sides[0].lines if line.get_marker() == "o"] == [1.25, 4.5]
    assert [axes.lines[0].get_xdata()[0] for axes in sides] == pytest.approx([5, 1 / 9, 1 / 3])
    assert not planted.draw(TABLE[:0]).axes


def test_the_planted_table_ends_with_chance():
    text = tables.planted(TABLE)
    assert text.index("Path patching") < text.index("Causal tracing") < text.index("Chance")
    assert "MLP 3: 3 of 3" in text
    assert "<td>5</td><td>0.11</td><td>0.33</td>" in text


def test_many_localizations_still_fit(tmp_path):
    names = [name for name in registry.localizations() if not registry.baseline(name)]
    for name in names:
        agreeing(tmp_path, name, ("facts", 0.5, 0.3, 0.8, 16, 0.05))
    wide = pd.concat([TABLE.assign(layer=TABLE.layer + 4 * i, model=TABLE.model + str(i)) for i in range(4)])
    for figure in (agreement.draw(tmp_path, NOTHING), planted.draw(wide)):
        with style.look():
            figure.draw_without_rendering()
            box = figure.get_tightbbox()
        assert box.x0 >= -0.05
        assert box.x1 <= style.WIDTH + 0.05


def test_facts_seen_counts_facts_maps_and_runs(tmp_path):
    states(tmp_path, runs=2)
    write(tmp_path, "fact-lookup", [(0, "", -1, "chance", -1, "", 0.4), (0, "f0", 0, "probe-subject", -1, "", 1.0)])
    seen = sentences.facts_seen(tmp_path, ["fact-lookup", "causal-tracing", "path-patching"])
    assert seen == "fact lookup 1 and causal tracing 2 (2 of them token by token, 2 runs)"
    assert data.scores(tmp_path, "path-patching") is None
