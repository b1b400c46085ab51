"""The commands of the localize phase, on a tiny model."""

import pytest
from typer.testing import CliRunner

from mechunlearn import artifacts
from mechunlearn.cli import app
from mechunlearn.config import LocalizeSettings


@pytest.fixture
def run(tmp_path, manifest_of, athletes):
    """Run a command on the tiny model and its facts; returns the file it wrote."""
    artifacts.write_facts(tmp_path / "facts.parquet", athletes, [0.9] * len(athletes), [1] * len(athletes))

    def command(name, out, *more, facts=False):
        known = ["--facts", str(tmp_path / "facts.parquet")] if facts else []
        options = ["--model", str(manifest_of("llama")), "--out", str(tmp_path / out), *known, *map(str, more)]
        done = CliRunner().invoke(app, [name, *options])
        assert done.exit_code == 0, (done.output, done.exception)
        return tmp_path / out

    return command


def test_every_run_has_its_rows_and_the_selection_uses_them_all(run):
    settings = LocalizeSettings(seed=7, repeats=2, budget=0.3, tracing={"facts": 4, "samples": 2, "map_facts": 1})
    localizer = ("--method", "causal-tracing", "--settings", settings.for_localizer("causal-tracing"))
    scores = run("score", "scores.parquet", *localizer, facts=True)
    table = artifacts.read_table(scores)
    assert list(table.columns) == artifacts.SCORE_COLUMNS
    assert set(table.seed) == {7, 8}
    one, other = (rows.effect.to_numpy() for _, rows in table[table.kind == "mlp"].groupby("seed"))
    assert one.shape == other.shape
    assert (one != other).any()
    assert set(table[table.position != ""].kind) == {"state", "mlp-window", "attention-window"}
    handed = settings.for_selection("causal-tracing")
    selecting = ("--localization", "causal-tracing", "--settings", handed, "--scores", scores)
    selection = artifacts.read_selection(run("select", "selection.json", *selecting))
    assert {row["what"]: row["n"] for row in selection.details["stability"]} == {"facts": 4, "seeds": 2}
    assert len(selection.details["ranking"]) == 8


def test_layers_by_hand_are_selected_without_scores_and_have_no_stability(run):
    settings = LocalizeSettings(layers={"mine": {"heads": [[3, 1]], "mlps": [0]}})
    selecting = ("--localization", "mine", "--settings", settings.for_selection("mine"))
    selection = artifacts.read_selection(run("select", "mine.json", *selecting))
    assert selection.components == [
        artifacts.Component(0, "mlp"),
        artifacts.Component(3, "attention", head=1),
    ]
    assert selection.details == {"rule": "by hand"}


@pytest.mark.parametrize("name", ["random-2", "nonlocalized"])
def test_a_baseline_has_no_stability(run, name):
    settings = LocalizeSettings(budget=0.25)
    selection = artifacts.read_selection(
        run("select", "random.json", "--localization", name, "--settings", settings.for_selection(name))
    )
    assert "stability" not in selection.details
    assert selection.localization == name
