"""`mechunlearn localize`: a user's own model and facts, from the command line to the figures."""

import json

import pytest
from typer.testing import CliRunner

from mechunlearn import artifacts
from mechunlearn.cli import app
from mechunlearn.errors import ConfigError, FactError, SourceError
from mechunlearn.models.sources import locate
from mechunlearn.standalone import components

ROWS = [
    ("Tom Brady", "football"),
    ("LeBron James", "basketball"),
    ("Babe Ruth", "baseball"),
    ("Jerry Rice", "football"),
    ("Kobe Bryant", "basketball"),
    ("Mookie Betts", "baseball"),
]
SMALL = {
    "tracing": {"facts": 2, "samples": 2, "map_facts": 1},
    "attribution": {"facts": 4},
    "paths": {"facts": 3, "draws": 2, "extraction": 3},
    "probes": {"folds": 2, "facts": 10},
}


@pytest.fixture
def own(write_model, tmp_path, monkeypatch):
    """A folder with a user's model and facts."""
    monkeypatch.chdir(tmp_path)
    write_model("llama", tmp_path / "mine")
    lines = [f"{name},{{}} plays the sport of,{sport}" for name, sport in ROWS]
    (tmp_path / "facts.csv").write_text("\n".join(["subject,prompt,answer", *lines]) + "\n")
    return tmp_path


def run(*more, method="path-patching", settings=SMALL, model="mine"):
    options = ["--model", model, "--facts", "facts.csv", "--method", method, "--threshold", "0", "--dtype", "float32"]
    result = CliRunner().invoke(app, ["localize", *options, "--settings", json.dumps(settings), *more])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


@pytest.fixture
def knowing(monkeypatch):
    """Let the random model know everything, and see the first facts, which it reads off their subjects by chance."""
    monkeypatch.setattr("mechunlearn.localize.score.shuffled", lambda facts, *_: list(facts))
    monkeypatch.setattr(
        "mechunlearn.evaluate.measure.screen", lambda model, facts, threshold: ([True] * len(facts), [1.0] * 6, [1] * 6)
    )


@pytest.mark.parametrize(
    ("method", "scorer", "figures"),
    [
        ("path-patching", "path-patching", {"localization-map", "path-patching"}),
        ("causal-tracing-mlps", "causal-tracing", {"localization-map", "tracing-map"}),
        ("attribution-patching", "attribution-patching", {"localization-map"}),
        ("random-mlps", None, {"localization-map"}),
    ],
)
def test_scores_selection_and_figures_of_a_users_own_model(own, knowing, method, scorer, figures):
    output = run(method=method)
    assert "knows 6 of 6 facts" in output
    home = own / "localization"
    selection = artifacts.read_selection(home / "selection" / f"{method}.json")
    assert selection.localization == method
    assert 0 < selection.parameters <= 0.1 * selection.total
    assert {path.stem for path in (home / "figures").glob("*.png")} == figures
    scores = sorted((home / "scores").glob("*.parquet"))
    assert [path.stem for path in scores] == ([scorer] if scorer else [])
    if scorer:
        table = artifacts.read_table(scores[0], artifacts.SCORE_COLUMNS)
        best = components(table).iloc[0]
        assert f"{best.value:+.3f}" in output
        assert set(table.fact) <= {name for name, _ in ROWS}


def test_components_are_means_over_facts_with_the_largest_first(own, knowing):
    run(method="attribution-patching")
    table = artifacts.read_table(own / "localization/scores/attribution-patching.parquet")
    found = components(table)
    rows = table[table.kind.isin(["head", "mlp"])].groupby(["kind", "layer", "head"]).effect.mean()
    assert len(found) == len(rows) == 4 * (4 + 1)
    for row in found.itertuples():
        assert row.value == pytest.approx(rows[row.kind, row.layer, row.head])
        assert row.low <= row.value <= row.high
    assert list(abs(found.value)) == sorted(abs(found.value), reverse=True)


def test_a_method_that_is_none_and_facts_that_are_unknown_are_refused(own):
    with pytest.raises(ConfigError, match=r"unknown name 'causal-trace'.*did you mean 'causal-tracing'"):
        run(method="causal-trace")
    with pytest.raises(FactError, match="knows none of the 6 facts"):
        run("--threshold", "0.99")


def test_a_model_is_a_folder_or_a_name_on_the_hub(tmp_path, monkeypatch):
    assert locate(str(tmp_path)) == f"path:{tmp_path}"
    commit = "0" * 40
    assert locate(f"owner/name@{commit}") == f"hub:owner/name@{commit}"
    with pytest.raises(SourceError, match="'nothing here'"):
        locate("nothing here")

    def unreachable(self, name):
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unreachable)
    with pytest.raises(SourceError, match=r"'owner/name'.*Offline, give the folder"):
        locate("owner/name")
