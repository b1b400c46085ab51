"""The leaderboard says what metrics.csv says, in the order of the worst case."""

import pandas as pd
import pytest
from synthetic_study import build, study

from mechunlearn.figures import data
from mechunlearn.latex import escaped
from mechunlearn.leaderboard import latex, leaderboard, stages

LOCALIZATIONS = ("fact-lookup", "nonlocalized", "random")


@pytest.fixture(scope="module")
def metrics(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("study"))
        build(study("board", LOCALIZATIONS, objectives=["inject", "npo"]))
        return data.read_metrics("results/board/metrics.csv")


def test_edits_are_ranked_by_their_worst_case(metrics):
    board = leaderboard(metrics)
    assert len(board) == len(LOCALIZATIONS) * 2
    for _, edits in board.groupby("objective"):
        assert list(edits["rank"]) == [1, 2, 3]
        assert edits.worst.is_monotonic_increasing
        assert set(edits.localization) == set(LOCALIZATIONS)


def test_every_number_is_one_of_the_metrics(metrics):
    board = leaderboard(metrics)
    names = stages(board)
    assert {"edited", "relearned@10", "worst", "kept"} <= set(names)
    assert "relearned@5" not in names
    assert not [name for name in names if name.startswith("probed@")]
    for row in board.to_dict("records"):
        own = metrics[(metrics.localization == row["localization"]) & (metrics.objective == row["objective"])]
        own = own[(own.metric == "p_true") & (own.against == "")]
        for name in ("edited", "relearned@10", "kept"):
            role, stage = ("maintain-test", "edited") if name == "kept" else ("forget", name)
            same = own[(own.role == role) & (own.stage == stage) & (own.elicitation == "completion")]
            found = [row[name], row[f"{name}_low"], row[f"{name}_high"]]
            assert same[["value", "low", "high"]].to_numpy().tolist() == [found]


def test_a_localization_of_ones_own_is_ranked_with_the_others(metrics):
    own = metrics[metrics.localization == "random"].assign(localization="my-own")
    own.loc[own.stage == "worst", ["value", "low", "high"]] = 0.0
    board = leaderboard(pd.concat([metrics, own]))
    assert set(board[board["rank"] == 1].localization) == {"my-own"}


def test_a_study_without_edits_has_an_empty_one(metrics):
    board = leaderboard(metrics[metrics.objective == ""])
    assert board.empty
    assert "worst" in board
    assert latex(board) == ""


def test_the_table_for_a_paper_has_every_edit_and_names_no_command(metrics):
    text = latex(leaderboard(metrics))
    assert text.count("begin{table}") == 2
    lines = [line for line in text.splitlines() if line.startswith(("fact-lookup", "nonlocalized", "random"))]
    assert len(lines) == 6
    assert all(line.count("&") == text.splitlines()[4].count("&") for line in lines)
    assert escaped("a_b & 5%") == r"a\_b \& 5\%"
