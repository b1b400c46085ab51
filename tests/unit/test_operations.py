"""LLM Surgery's claims and costs, on numbers made up for the purpose."""

import pandas as pd
import pytest

from mechunlearn import artifacts, operations
from mechunlearn.artifacts import MEASUREMENT_COLUMNS, measurement_table, read_measurements, write_table
from mechunlearn.config import EvaluateSettings, ReportSettings, validate_study
from mechunlearn.errors import ConfigError
from mechunlearn.figures import people, robustness, similarity, trade_off
from mechunlearn.metrics import metrics
from mechunlearn.study import Cell, figure_files, measurement_files, pairs, references

SOURCE = {"source": "package:a"}
STUDY = {
    "study": "operated",
    "models": {"whole": SOURCE, "pre": {"source": "trained:whole@pre"}, "anew": {"source": "trained:whole@baseline"}},
    "tasks": {"people": {"facts": "biographies"}},
    "localizations": ["nonlocalized"],
    "objectives": ["surgery"],
    "attacks": [],
    "evaluate": {"elicitations": ["completion", "quiz-test"]},
}
ROLES = ("forget", "obsolete", "update", "maintain-train", "maintain-test")
BEFORE = {"forget": 36, "obsolete": 36, "update": 12, "maintain-train": 40, "maintain-test": 38}  # of 40
AFTER = {"forget": 12, "obsolete": 12, "update": 34, "maintain-train": 40, "maintain-test": 38}


def rows(right, stage):
    found = []
    for role in ROLES:
        for fact in range(40):
            hit = fact < right[role]
            found.append(
                {"seed": 0, "stage": stage, "elicitation": "quiz-test", "order": 0, "role": role}
                | {"fact": f"{role} {fact}", "p_true": 0.5, "p_options": 1.0, "rank": 1 if hit else 2}
                | {"choice": "true" if hit else "other", "argmax": ""}
            )
        text = {"seed": 0, "order": 0, "rank": 0, "choice": "", "argmax": "", "role": role, "fact": f"text of {role}"}
        found.append({**text, "stage": stage, "elicitation": "biography", "nll": 2.0})
        if stage == "edited":
            for layer in range(3):
                found.append(
                    {**text, "stage": f"layer@{layer}", "elicitation": "similarity", "similarity": 1 - layer / 4}
                )
    return measurement_table(found)


@pytest.fixture
def table():
    tables = {
        Cell("pre", "people", "base", ""): rows(BEFORE, "base"),
        Cell("anew", "people", "base", ""): rows({**AFTER, "forget": 14}, "base"),
        Cell("pre", "people", "nonlocalized", "surgery"): rows(AFTER, "edited"),
    }
    found = metrics(tables, EvaluateSettings(), ReportSettings(bootstrap=200))
    return found.fillna({"objective": "", "against": ""})


def verdicts(table, costs):
    return {each["id"]: each["verdict"] for each in operations.check(table, costs)}


def test_every_claim_holds_where_the_numbers_say_so(table):
    costs = pd.DataFrame([["pre", "people", "nonlocalized", "surgery", 100, 10, 900, 70]], columns=operations.COSTS)
    assert set(verdicts(table, costs).values()) == {"reproduced"}
    found = {each["id"]: each for each in operations.check(table, costs)}
    assert found["surgery-update"]["value"] == pytest.approx(22 / 40)
    assert found["surgery-cost"]["value"] == pytest.approx(7)
    assert "9.0: 900 against 100" in found["surgery-cost"]["note"]


def test_claims_fail_where_nothing_changed_and_are_not_measured_where_something_is_missing(table):
    unchanged = table.assign(value=0.0, low=-0.05, high=0.05)
    costs = pd.DataFrame([["pre", "people", "nonlocalized", "surgery", 100, 10, None, None]], columns=operations.COSTS)
    found = verdicts(unchanged, costs)
    assert {found.pop(f"surgery-{name}") for name in ("retain", "kept")} == {"reproduced"}
    assert found.pop("surgery-cost") == "not measurable here"
    assert set(found.values()) == {"not reproduced"}
    other = table[table.localization != "nonlocalized"].assign(objective="surgery")
    assert set(verdicts(other, costs).values()) == {"not measurable here"}


def test_a_format_that_the_model_cannot_use_decides_nothing(table):
    costs = pd.DataFrame([], columns=operations.COSTS)
    assert set(verdicts(table.assign(counts=False, gate=0.4), costs).values()) == {"not measurable here"}


def test_costs_are_read_from_histories_and_the_baseline(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = validate_study({**STUDY, "seeds": [0, 1]})
    for seed, seconds in ((0, 10.0), (1, 20.0)):
        path = f"results/operated/pre/people/edits/nonlocalized/surgery/seed{seed}/history.json"
        artifacts.write_json(path, [{"step": 0}, {"step": 1, "tokens": 400, "seconds": seconds}])
    artifacts.write_json("models/anew/training.json", {"tokens": 5000, "seconds": 60.0})
    (row,) = operations.costs(study).to_dict("records")
    assert (row["tokens"], row["seconds"], row["baseline_tokens"], row["baseline_seconds"]) == (400, 15, 5000, 60)


def test_only_the_model_before_surgery_is_edited_and_the_others_are_measured_once():
    study = validate_study(STUDY)
    assert pairs(study) == [("pre", "people")]
    assert references(study) == [("whole", "people"), ("anew", "people")]
    files = measurement_files(study)
    assert len(files) == 4
    assert sum("base.parquet" in path for path in files) == 3
    assert any("similarity" in path for path in figure_files(study))


def test_the_tables_show_every_model_and_edit(table):
    html = people.accuracies(table, "pre", ["whole", "anew"], "quiz-test")
    assert "anew" in html
    assert "0.30 [" in html  # 12 of 40
    assert "0.85 [" in html  # 34 of 40
    costs = pd.DataFrame([["pre", "people", "nonlocalized", "surgery", 100, 10, 900, 70]], columns=operations.COSTS)
    assert "9.0" in people.costs(costs)
    assert "7.0" in people.costs(costs)


def test_the_figure_shows_every_layer_and_the_caption_the_least_alike(table, tmp_path):
    own = table[table.model == "pre"]
    (axes, *_) = similarity.draw(tmp_path, own).axes
    assert list(axes.lines[0].get_ydata()) == [1.0, 0.75, 0.5]
    found, seen = similarity.caption(tmp_path, own)
    assert "forgotten 0.50 in layer 2, retained 0.50 in layer 2, kept 0.50 in layer 2" in found
    assert seen
    assert similarity.caption(tmp_path, own[own.elicitation != "similarity"]) == ("", "")


def test_figures_of_edits_do_without_new_answers_and_without_usable_formats(table, tmp_path):
    own = table[table.model == "pre"]
    (axes,) = robustness.draw(tmp_path, own).axes
    assert axes.get_title(loc="left").startswith("True answer")
    assert "n = 40" in robustness.caption(tmp_path, own)[1]
    assert len(trade_off.draw(tmp_path, own).axes) == 2
    for module in (robustness, trade_off):
        assert not module.draw(tmp_path, own.assign(counts=False)).axes
        assert module.caption(tmp_path, own.assign(counts=False)) == (module.UNUSABLE, "")


def test_the_column_of_similarities_is_only_where_some_were_measured(tmp_path):
    edited, plain = rows(AFTER, "edited"), rows(BEFORE, "base")
    assert list(edited.columns) == [*MEASUREMENT_COLUMNS, "similarity"]
    assert list(plain.columns) == list(MEASUREMENT_COLUMNS)
    again = edited[edited.similarity.isna()].to_dict("records")
    assert list(measurement_table(again).columns) == list(MEASUREMENT_COLUMNS)
    write_table(tmp_path / "rows.parquet", plain)
    cell = Cell("pre", "people", "base", "")
    found = metrics(
        {cell: read_measurements(tmp_path / "rows.parquet")}, EvaluateSettings(), ReportSettings(bootstrap=100)
    )
    assert "similarity" not in set(found.metric)
    assert set(found[found.elicitation == "biography"].metric) == {"nll"}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"objectives": ["inject"]}, "'inject' puts new answers in"),
        ({"objectives": ["rome"]}, "'rome' puts new answers in"),
        ({"localizations": ["fact-lookup-per-fact"]}, "edits facts in groups"),
        ({"tasks": {"people": {"facts": "biographies", "blocks": 2}}}, "the streams of `biographies` say who"),
        ({"tasks": {"people": {"facts": "biographies", "forget": 3}}}, "the streams of `biographies` say who"),
        ({"models": {"whole": SOURCE}}, "no model has the source `trained:MODEL@pre`"),
        ({"models": {"pre": {"source": "trained:whole@pre"}}}, "it must name one of the study's own models"),
        ({"models": {"pre": {"source": "trained:whole@after"}}}, "`trained:MODEL@pre` or `@baseline`"),
    ],
)
def test_a_study_that_cannot_be_is_refused(change, sentence):
    with pytest.raises(ConfigError, match=sentence):
        validate_study({**STUDY, **change})
