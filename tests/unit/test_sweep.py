"""A sweep: the rules against loops anyone can read, its facts, its commands on a tiny model, what a study reads."""

import json
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from mechunlearn import artifacts, stages, stats, sweep
from mechunlearn import study as layout
from mechunlearn.artifacts import Component, Selection, measurement_table
from mechunlearn.cli import app
from mechunlearn.config import (
    BiographySettings,
    EditSettings,
    ReportSettings,
    SweepSettings,
    TaskSettings,
    validate_study,
)
from mechunlearn.errors import ConfigError, FactError
from mechunlearn.facts import MEASURED, biographies, roles, sports, text, validation
from mechunlearn.facts.sets import SETS
from mechunlearn.facts.text import Passage
from mechunlearn.figures import style
from mechunlearn.figures import sweep as drawing
from mechunlearn.study import Cell
from mechunlearn.sweep import SCORE, Trial

REPORT = ReportSettings(bootstrap=150)
FORMATS = ["completion", "question", "choice-text"]
UNUSABLE = "famous"  # the base model fails in it
SMALLEST = {
    "study": "small",
    "models": {"tiny": {"source": "path:somewhere"}},
    "tasks": {"athletes": {"facts": "sports", "forget": 4}},
    "localizations": ["fact-lookup", "nonlocalized"],
}

# the rules ------------------------------------------------------------------------------------------------


def made(seed, stage="edited", seeds=(0, 1), orders=(0, 1)):
    """Rows of 6 facts to forget, 5 to keep and 4 passages, in four formats; probabilities anywhere."""
    rng = random.Random(seed)
    rows = []
    for number in seeds:
        for name in [*FORMATS, UNUSABLE, "reversed"]:
            for role, count in (("forget", 6), ("maintain-test", 5), ("neighbor-new", 2)):
                for fact in range(count):
                    for order in orders:
                        true, new, other = (rng.random() / 3 for _ in range(3))
                        rows.append(
                            {"seed": number, "stage": stage, "elicitation": name, "order": order, "role": role}
                            | {"fact": f"{role} {fact}", "p_true": true, "p_new": new, "p_options": true + new + other}
                            | {"rank": 2 if name == UNUSABLE else 1, "choice": "true", "argmax": ""}
                        )
        for passage in range(4):
            place = {"stage": stage, "elicitation": "text", "role": "text", "fact": f"passage {passage}", "rank": 0}
            rows.append({"seed": number, "order": 0, **place, "accuracy": rng.random(), "choice": "", "argmax": ""})
    return measurement_table(rows)


def mean(values):
    return sum(values) / len(values)


def by_fact(rows, role, name, column):
    """fact -> the mean over seeds and orders of a probability's share of the options'."""
    found = {}
    for row in rows[(rows.role == role) & (rows.elicitation == name)].to_dict("records"):
        value = row["accuracy"] if role == "text" else row[column] / row["p_options"]
        found.setdefault(row["fact"], []).append(value)
    return {fact: mean(values) for fact, values in sorted(found.items())}


def slow(rows, base, rule, put_in, draw=lambda values: values):
    """Every term and the score; `draw` resamples a list of facts' values."""
    return slowly(rows, base, rule, put_in, [draw])[0]


def slowly(rows, base, rule, put_in, draws):
    """The same for many ways to draw facts."""
    names = ["completion"] if rule == "paper" else FORMATS

    def measured(role, column, change):
        found = []
        for name in ["text"] if role == "text" else names:
            now, before = by_fact(rows, role, name, column), by_fact(base, role, name, column)
            found.append([change(now[fact], before[fact]) for fact in now])
        return found

    loss = (lambda now, before: now) if rule == "paper" else (lambda now, before: 1 + now - before)
    parts = {
        "text": measured("text", "accuracy", loss),
        "forget": measured("forget", "p_true", lambda now, before: 1 - now),
        "maintain": measured("maintain-test", "p_true", loss),
    }
    if put_in:
        parts["edit"] = measured("forget", "p_new", lambda now, before: now)
    found = []
    for draw in draws:
        worst = {term: min(1.0, *(mean(draw(values)) for values in part)) for term, part in parts.items()}
        found.append({**worst, SCORE: sum(worst.values())})
    return found


def compared(trials, base, objective="inject"):
    return sweep.compare("learning_rate", trials, base, objective, 0.6, REPORT)


@pytest.mark.parametrize(("objective", "put_in"), [("inject", True), ("npo", False)])
def test_terms_and_scores_are_those_of_a_slow_loop(objective, put_in):
    base, trials = made(0, "base"), [Trial(10.0**-number, made(number)) for number in (1, 2, 3, 4)]
    table = compared(trials, base, objective)
    for rule in sweep.RULES:
        expected = {trial.value: slow(trial.rows, base, rule, put_in) for trial in trials}
        for value, terms in expected.items():
            own = table[(table.rule == rule) & (table.value == value)].set_index("term")
            assert own.estimate.to_dict() == pytest.approx(terms, rel=1e-12)
            counts = {"forget": 6, "edit": 6, "maintain": 5, "text": 4}
            counts = {name: count for name, count in counts.items() if name in terms}
            assert own.n.to_dict() == {**counts, SCORE: 4}
        assert sweep.chosen(table, rule) == max(expected, key=lambda value: expected[value][SCORE])


@pytest.mark.parametrize("rule", sweep.RULES)
def test_intervals_and_verdicts_are_those_of_a_slow_bootstrap(rule):
    base, trials = made(0, "base"), [Trial(10.0**-number, made(number)) for number in (1, 2, 3)]
    table = compared(trials, base)
    table = table[(table.rule == rule) & (table.term == SCORE)].set_index("value")
    places = {n: np.random.default_rng(stats.SEED).integers(0, n, (REPORT.bootstrap, n)).tolist() for n in (4, 5, 6)}
    draws = [
        lambda values, sample=sample: [values[index] for index in places[len(values)][sample]]
        for sample in range(REPORT.bootstrap)
    ]
    scores = {trial.value: [found[SCORE] for found in slowly(trial.rows, base, rule, True, draws)] for trial in trials}
    best = sweep.chosen(pd.DataFrame(table.reset_index()), rule)
    for value, resampled in scores.items():
        own = stats.central(np.array(resampled), 0.95, 4)  # as few as there are passages
        assert tuple(table.loc[value, ["low", "high"]]) == pytest.approx(own)
        low = stats.central(np.subtract(scores[best], resampled), 0.95, 4)[0]
        assert table.outcome[value] == ("chosen" if value == best else "as good" if low <= 0 else "worse")


def test_of_equal_scores_the_smallest_value_is_chosen():
    base, rows = made(0, "base"), made(1)
    table = compared([Trial(1e-3, rows), Trial(1e-5, rows), Trial(1e-4, rows)], base)
    assert [sweep.chosen(table, rule) for rule in sweep.RULES] == [1e-5, 1e-5]
    assert set(table[table.value != 1e-5].outcome) == {"as good"}


def test_what_diverged_or_is_not_finite_is_never_chosen():
    base, broken = made(0, "base"), made(1).assign(p_true=np.nan)
    table = compared([Trial(1e-5, None), Trial(1e-4, made(2)), Trial(1e-3, broken)], base)
    assert [sweep.chosen(table, rule) for rule in sweep.RULES] == [1e-4, 1e-4]
    assert set(table[table.value != 1e-4].outcome) == {"diverged"}
    assert table[table.outcome == "diverged"].estimate.isna().all()
    assert sweep.chosen(compared([Trial(1e-5, None)], base), "paper") is None


def test_the_worst_case_pays_for_what_is_lost_and_gives_nothing_for_more():
    base, rows = made(0, "base"), made(1)
    more = rows.copy()
    kept = more.role == "maintain-test"
    more.loc[kept, "p_options"] = more.loc[kept, "p_true"]  # every kept fact is known for certain
    table = compared([Trial(1.0, more)], base)
    found = table[table.term == "maintain"].set_index("rule").estimate
    assert found.to_dict() == {"worst-case": 1.0, "paper": 1.0}
    less = more.assign(p_options=more.p_options.where(~(kept & (more.elicitation == "question")), np.inf))
    table = compared([Trial(1.0, less)], base)
    found = table[table.term == "maintain"].set_index("rule").estimate
    assert found["paper"] == 1.0
    assert found["worst-case"] < 0.8


def test_surgerys_new_answers_are_the_updates_where_there_are_people():
    base, rows = made(0, "base"), made(1)
    facts = [sweep.terms(rows, base, name, "paper", FORMATS) for name in ("surgery-npo", "inject")]
    assert facts[0]["edit"].equals(facts[1]["edit"])
    assert "edit" not in sweep.terms(rows, base, "surgery-no-update", "paper", FORMATS)
    update = rows[rows.role == "forget"].assign(role="update")
    terms = sweep.terms(pd.concat([rows, update]), base, "surgery-npo", "paper", FORMATS)
    assert terms["edit"].to_numpy() == pytest.approx(1 - terms["forget"].to_numpy())


# the facts ------------------------------------------------------------------------------------------------


def known(count=90):
    return [sports.plays(f"athlete {number}", sports.SPORTS[number % 3]) for number in range(count)]


TASKS = {
    "forget": TaskSettings(facts="sports", forget=16, maintain_test=0.4),
    "first": TaskSettings(facts="sports", forget=16, draw="first"),
    "blocks": TaskSettings(facts="sports", forget=20, blocks=4),
    "answer": TaskSettings(facts="sports", answer="baseball", new_answer="golf"),
    "planted": TaskSettings(facts="planted", forget=9),
    "own": TaskSettings(facts="own", path="mine.csv", forget=7),
    "counterfact-upstream": TaskSettings(facts="counterfact-upstream", path="theirs.json", forget=7),
}


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("seed", range(6))
def test_no_trial_sees_a_fact_that_the_study_reports(kind, seed):
    facts = known()
    for task_seed in range(4):
        task = TASKS[kind].model_copy(update={"seed": task_seed})
        knows = [number % 10 != 0 for number in range(len(facts))]
        assigned = roles.assign(facts, knows, task, SETS["sports"].new_answer)
        drawn = validation.draw(assigned, task, SweepSettings(seed=seed), SETS["sports"].new_answer)
        reported = {fact.id for fact in assigned if fact.role in MEASURED}
        assert reported
        assert not reported & {fact.id for fact in drawn}
        assert not {fact.id for fact in assigned if fact.role == "unknown"} & {fact.id for fact in drawn}
        count = {role: sum(fact.role == role for fact in drawn) for role in validation.TRAINED + MEASURED}
        assert count["maintain-test"]
        assert count["maintain-train"]
        if task.forget:
            assert count["forget"] == task.forget
        else:
            assert min(count["forget"], count["forget-train"]) >= 2
        assert {fact.block for fact in drawn if fact.role == "forget"} == set(range(1, (task.blocks or 0) + 1)) or {0}
        assert all(fact.new_answer not in ("", fact.answer) for fact in drawn if fact.role.startswith("forget"))


@pytest.mark.parametrize("seed", range(3))
def test_of_people_no_trial_asks_a_question_for_testing(seed, tmp_path):
    found = biographies.questions(biographies.people(BiographySettings(seed=seed)))
    artifacts.write_text(tmp_path / "questions.jsonl", biographies.jsonl(found))
    facts = biographies.read(tmp_path / "questions.jsonl")
    drawn = validation.draw(facts, TaskSettings(facts="biographies"), SweepSettings(), SETS["biographies"].new_answer)
    assert {fact.role for fact in drawn} == {"forget", "obsolete", "update", "maintain-train", "maintain-test"}
    tested = {prompt.fact for fact in facts for prompt in biographies.quiz_test(fact)}
    assert not tested & {fact.id for fact in drawn}
    assert len(tested) + len(drawn) == len(facts)


def test_the_draw_follows_its_seed_and_new_answers_that_facts_brought_along():
    facts = [fact.with_role("maintain-train", "golf") for fact in known(40)]
    task, given = TASKS["own"], SETS["own"].new_answer
    first, again, other = (validation.draw(facts, task, SweepSettings(seed=seed), given) for seed in (0, 0, 1))
    assert first == again != other
    assert {fact.new_answer for fact in first if fact.role == "forget"} == {"golf"}


def test_too_few_facts_are_told_with_what_is_allowed():
    facts = [fact.with_role("maintain-train") for fact in known(10)]
    with pytest.raises(FactError, match=r"forgets 16 facts.* 10 are neither .* sweep.forget: at most 8"):
        validation.draw(facts, TASKS["forget"], SweepSettings(), SETS["sports"].new_answer)
    few = SweepSettings(forget=5)
    assert sum(fact.role == "forget" for fact in validation.draw(facts, TASKS["forget"], few, sports.wrong_sport)) == 5
    with pytest.raises(FactError, match="needs 4 facts with the answer 'baseball'"):
        validation.draw(facts[:9], TASKS["answer"], SweepSettings(), sports.wrong_sport)


# the commands ---------------------------------------------------------------------------------------------

PASSAGES = [
    Passage(str(number), "sport", f"{name} plays the sport of {sport}.")
    for number, (name, sport) in enumerate(
        [("José", "golf"), ("Tiger Woods", "golf"), *[("Babe Ruth", "baseball")] * 6]
    )
]


@pytest.fixture
def trial(tmp_path, manifest_of, athletes):
    """(parameter, value, more options) -> the trial's rows and record, on a tiny model."""
    artifacts.write_facts(tmp_path / "facts.parquet", athletes, [0.9] * len(athletes), [1] * len(athletes))
    artifacts.write_text(tmp_path / "text.jsonl", text.lines(PASSAGES))
    artifacts.write_selection(tmp_path / "selection.json", Selection("by hand", [Component(1, "mlp")], 0, 0, 0))
    settings = SweepSettings(elicitations=["completion", "question"], texts=3).model_dump_json()
    shared = {"model": manifest_of("llama"), "facts": tmp_path / "facts.parquet", "text": tmp_path / "text.jsonl"}
    shared |= {"settings": settings, "held-out": 2}
    edit = EditSettings(steps=3, batch=2, texts=1, text_tokens=8, learning_rate=1e-9)

    def run(command, **options):
        words = [word for name, value in (shared | options).items() for word in (f"--{name}", str(value))]
        done = CliRunner().invoke(app, [command, *words])
        assert done.exit_code == 0, (done.output, done.exception)

    run("sweep-base", out=tmp_path / "base.parquet")

    def tried(parameter, value, **more):
        out = tmp_path / parameter / f"{value}.parquet"
        options = {"edit": edit.for_cell("inject", "by hand"), "objective": "inject", "gate": 0.0}
        options |= {"selection": tmp_path / "selection.json", "base": tmp_path / "base.parquet"}
        run("sweep-trial", **options, parameter=parameter, value=value, out=out, **more)
        return artifacts.read_measurements(out), artifacts.read_json(out.with_suffix(".json"))

    return tried


def test_a_trial_measures_its_facts_and_text_that_it_was_not_trained_on(trial, tmp_path):
    rows, about = trial("learning_rate", 1e-2)
    base = artifacts.read_measurements(tmp_path / "base.parquet")
    assert about["settings"] == {"learning_rate": 1e-2}
    assert not about["diverged"]
    assert set(rows.elicitation) == {"completion", "question", "text"}
    assert {role for role in rows.role if not role.startswith("neighbor")} == {"forget", "maintain-test", "text"}
    training, reported = text.split(PASSAGES, 2)
    assert set(rows[rows.role == "text"].fact) == {passage.id for passage in text.split(training, 3)[1]}
    assert not set(rows.fact) & {passage.id for passage in reported}
    assert rows[rows.role == "text"].accuracy.between(0, 1).all()
    same = rows.merge(base, on=["elicitation", "order", "role", "fact"])
    assert len(same) == len(rows) == len(base)
    assert (same.p_true_x != same.p_true_y).any()


def test_text_accuracy_is_the_share_of_tokens_that_the_whole_model_puts_first(tiny):
    import torch

    from mechunlearn.evaluate.trial import text_accuracy
    from mechunlearn.models.scoring import text_hidden

    for family in ("llama", "gemma2"):
        model = tiny(family)
        expected = []
        for passage in PASSAGES:
            ids = model.encode(passage.text)
            with torch.no_grad():
                logits = model.network(input_ids=torch.tensor([ids])).logits[0]
            hits = [int(logits[place].argmax()) == ids[place + 1] for place in range(len(ids) - 1)]
            expected.append(mean(hits))
        assert text_accuracy(model, PASSAGES, text_hidden(model, PASSAGES)) == pytest.approx(expected)


def test_a_diverged_trial_is_recorded_and_the_sweep_goes_on(trial, tmp_path):
    rows, about = trial("learning_rate", 1e38)
    assert rows.empty
    assert "loss" in about["diverged"]
    assert about["settings"] == {"learning_rate": 1e38}
    _, fine = trial("learning_rate", 1e-3)
    assert not fine["diverged"]
    paths = [str(tmp_path / "learning_rate" / f"{value}.parquet") for value in (1e38, 1e-3)]
    choice, table = choose(tmp_path, "learning_rate", paths)
    assert choice["settings"] == {"learning_rate": 1e-3}
    assert set(table[table.value == 1e38].outcome) == {"diverged"}


def choose(folder, parameter, paths, start=1.0, **more):
    out = {"out": folder / f"{parameter}.json", "table": folder / f"{parameter}.csv"}
    options = {"parameter": parameter, "objective": "inject", "start": start, "base": folder / "base.parquet"}
    options |= {"gate": 0.0, "rule": "paper", "settings": REPORT.model_dump_json(), **out, **more}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    done = CliRunner().invoke(app, ["sweep-choose", *paths, *words])
    assert done.exit_code == 0, (done.output, done.exception)
    return artifacts.read_json(out["out"]), artifacts.read_table(out["table"], sweep.STAGE)


def test_a_second_setting_is_tried_with_the_first_ones_best_and_against_it(trial, tmp_path):
    trial("learning_rate", 1e-3)
    trial("learning_rate", 1e-2)
    rates = [str(tmp_path / "learning_rate" / f"{value}.parquet") for value in (1e-3, 1e-2)]
    first, _ = choose(tmp_path, "learning_rate", rates)
    former = tmp_path / "learning_rate.json"
    _, about = trial("forget_weight", 5.0, former=former)
    assert about["settings"] == {**first["settings"], "forget_weight": 5.0}
    weights = [str(tmp_path / "forget_weight/5.0.parquet")]
    second, table = choose(tmp_path, "forget_weight", weights, former=former)
    assert set(table.value) == {1.0, 5.0}
    assert second["settings"]["learning_rate"] == first["settings"]["learning_rate"]
    kept = table[(table.value == 1.0) & (table.rule == "paper")].set_index("term").estimate
    before = artifacts.read_table(tmp_path / "learning_rate.csv")
    best = before[(before.outcome == "chosen") & (before.rule == "paper")].set_index("term").estimate
    pd.testing.assert_series_equal(kept, best)
    worse = {"settings": first["settings"], "trial": first["trial"], "edge": False}
    if second["settings"]["forget_weight"] == 1.0:
        assert second["trial"] == worse["trial"]


def test_tables_gather_every_cell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grids = {"learning_rate": [1e-5, 1e-4], "forget_weight": [0.5, 1.0, 2.0]}
    study = validate_study({**SMALLEST, "sweep": {"grids": grids}, "report": {"bootstrap": 100}})
    base = made(0, "base")
    for number, cell in enumerate(layout.sweep_cells(study)):
        settings = {}
        for name, values in grids.items():
            lost = number == 1
            trials = [Trial(value, None if lost else made(f"{value}{number}")) for value in values]
            table = sweep.compare(name, trials, base, "inject", 0.6, study.report)
            artifacts.write_table(layout.sweep_home(study.study, cell) / f"{name}.csv", table)
            settings |= {} if lost else {name: sweep.chosen(table, study.sweep.rule)}
            artifacts.write_json(layout.sweep_home(study.study, cell) / f"{name}.json", {"settings": settings})
    out = {name: f"sweep.{name}" for name in ("csv", "tex", "yaml", "svg")}
    options = ["--out", out["csv"], "--latex", out["tex"], "--chosen", out["yaml"], "--figure", out["svg"]]
    done = CliRunner().invoke(app, ["sweep-tables", "--study-config", study.model_dump_json(), *options])
    assert done.exit_code == 0, (done.output, done.exception)
    table = artifacts.read_table(out["csv"], sweep.COLUMNS)
    assert set(table.localization) == {"fact-lookup", "nonlocalized"}
    assert set(table[table.localization == "nonlocalized"].outcome) == {"diverged"}
    tex = Path(out["tex"]).read_text()
    assert tex.count(r"\begin{table}") == 3
    assert tex.count(r"\textbf") == 2
    reading = {**SMALLEST, "swept": out["yaml"]}
    chosen = yaml.safe_load(Path(out["yaml"]).read_text())["tiny"]["athletes"]
    assert list(chosen) == ["fact-lookup"]
    own, other = (
        json.loads(validate_study(reading).edit_settings("tiny", "athletes", place, "inject"))
        for place in ("fact-lookup", "nonlocalized")
    )
    assert {name: own[name] for name in grids} == chosen["fact-lookup"]["inject"]
    assert (other["learning_rate"], other["forget_weight"]) == (1e-4, 1.0)


def test_the_figure_is_the_same_twice_and_shows_what_diverged(tmp_path):
    base, parts = made(0, "base"), []
    for place in ("fact-lookup", "nonlocalized"):
        trials = [Trial(1e-5, made(place)), Trial(1e-4, made(1)), Trial(1e-3, None)]
        parts.append(compared(trials, base).assign(model="tiny", task="athletes", localization=place, objective="npo"))
    table = pd.concat(parts)
    first, again = (style.save(drawing.draw(table, "paper"), tmp_path / f"{n}.svg")[0].read_bytes() for n in (1, 2))
    assert first == again


# what a study reads ---------------------------------------------------------------------------------------


def reading(tmp_path, content, **more):
    (tmp_path / "swept.yaml").write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return validate_study({**SMALLEST, "swept": str(tmp_path / "swept.yaml"), **more})


def test_a_swept_value_comes_before_all_that_edit_says(tmp_path):
    content = {"tiny": {"athletes": {"nonlocalized": {"inject": {"learning_rate": 3e-6, "text_weight": 2.0}}}}}
    rates = {"learning_rate": 1e-3, "learning_rates": {"nonlocalized": 2e-3}}
    edit = {**rates, "objectives": {"inject": {"learning_rates": {"nonlocalized": 4e-3}}}}
    study = reading(tmp_path, content, edit=edit)
    own = EditSettings.model_validate_json(study.edit_settings("tiny", "athletes", "nonlocalized", "inject"))
    other = EditSettings.model_validate_json(study.edit_settings("tiny", "athletes", "fact-lookup", "inject"))
    assert (own.learning_rate, own.text_weight, own.forget_weight) == (3e-6, 2.0, 1.0)
    assert other.learning_rate == 1e-3
    again = type(study).model_validate_json(study.model_dump_json())
    assert again.edit_settings("tiny", "athletes", "nonlocalized", "inject") == own.model_dump_json(
        exclude={"learning_rates", "optimizers", "objectives", *study.edit.others("inject")}
    )
    cell = Cell("tiny", "athletes", "nonlocalized", "inject")
    assert layout.sweep_start(study, cell)["learning_rate"] == 4e-3  # a sweep starts from the study, not from the last


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"tiny": {"athletes": {"nonlocalised": {"inject": {}}}}}, ["localization", "did you mean 'nonlocalized'?"]),
        ({"tiny": {"athletes": {"random-3": {"injekt": {}}}}}, ["objective", "did you mean 'inject'?"]),
        ({"tiny": {"athletes": {"random": {"rome": {}}}}}, ["objective", "unknown name 'rome'"]),
        (
            {"tiny": {"athletes": {"random": {"surgery": {"text_weight": 2.0}}}}},
            ["text_weight of surgery", "allowed: "],
        ),
        ({"tiny": {"athlete": {}}}, ["task", "did you mean 'athletes'?"]),
        ({"huge": {}}, ["model", "unknown name 'huge'", "Known: tiny"]),
        ({"tiny": {"athletes": {"random": {"inject": {"rate": 1}}}}}, ["random.inject.rate", "allowed: learning_rate"]),
        ({"tiny": {"athletes": {"random": {"inject": {"learning_rate": 0}}}}}, ["learning_rate` is 0", "greater than"]),
        ("[", ["not valid YAML"]),
        ("", ["the file", "None"]),
    ],
)
def test_mistakes_in_a_swept_file_are_one_sentence(tmp_path, content, words):
    with pytest.raises(ConfigError) as error:
        reading(tmp_path, content)
    message = str(error.value)
    assert all(word in message for word in [*words, "swept.yaml"]), message


def test_a_swept_file_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match=r"swept is 'nothing.yaml': it must be a file as `snakemake sweep` writes it"):
        validate_study({**SMALLEST, "swept": "nothing.yaml"})


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ({"grids": {"learning_rat": [1, 2]}}, ["sweep.grids.learning_rat", "'learning_rate'"]),
        ({"grids": {"learning_rate": [1e-5]}}, ["sweep.grids.learning_rate", "at least 2"]),
        ({"grids": {"learning_rate": [1e-5, 1e-5]}}, ["every value of learning_rate"]),
        ({"grids": {"learning_rate": [0, 1e-5]}}, ["greater than 0"]),
        ({"grids": {}}, ["sweep.grids", "at least 1"]),
        ({"rule": "best"}, ["'worst-case' or 'paper'"]),
        ({"localizations": ["random"]}, ["sweep.localizations", "unknown name 'random'"]),
        ({"objectives": ["npo"]}, ["sweep.objectives", "unknown name 'npo'", "Known: inject"]),
        ({"objectives": ["rome"]}, ["sweep.objectives", "unknown name 'rome'"]),
        ({"elicitations": ["question"]}, ["`completion`"]),
        ({"elicitations": ["completion", "reversed"]}, ["sweep.elicitations", "unknown name 'reversed'"]),
        ({"seeds": [1, 1]}, ["sweep.seeds"]),
        ({"forget": 3}, ["sweep.forget is 3", "2 equal blocks"]),
        ({"forget": 1}, ["greater than or equal to 2"]),
    ],
)
def test_mistakes_in_a_sweep_are_one_sentence(block, words):
    tasks = {"athletes": {"facts": "sports", "forget": 4, "blocks": 2}}
    with pytest.raises(ConfigError) as error:
        validate_study({**SMALLEST, "tasks": tasks, "objectives": ["inject", "rome"], "sweep": block})
    assert all(word in str(error.value) for word in words), str(error.value)


def place(objective):
    return layout.Cell("tiny", "athletes", "nonlocalized", objective)


def test_a_sweep_tries_what_has_an_effect_and_nothing_twice():
    grids = {"learning_rate": [1e-5, 1e-4], "forget_weight": [0.5, 1.0], "text_weight": [1.0, 3.0]}
    study = validate_study({**SMALLEST, "objectives": ["npo", "memit"], "sweep": {"grids": grids}})
    cells = layout.sweep_cells(study)
    assert [(cell.localization, cell.objective) for cell in cells] == [("fact-lookup", "npo"), ("nonlocalized", "npo")]
    values = {name: layout.sweep_values(study, cells[0], name) for name in grids}
    assert values == {"learning_rate": [1e-5, 1e-4], "forget_weight": [0.5], "text_weight": [3.0]}
    assert layout.sweep_parameters(study, place("surgery-npo")) == ["learning_rate"]


def test_surgerys_weights_are_swept_in_its_own_block():
    grids = {"learning_rate": [1e-5, 1e-4], "update_weight": [1.0, 2.0], "retain_weight": [0.5, 4.0]}
    study = validate_study({**SMALLEST, "sweep": {"grids": {**grids, "unlearn_weight": [0.1, 1.0]}}})
    swept = {name: layout.sweep_parameters(study, place(name)) for name in ("surgery", "surgery-no-update", "inject")}
    assert swept["surgery"] == list(grids)  # only people may be forgotten without an update
    assert swept["surgery-no-update"] == swept["inject"] == ["learning_rate", "retain_weight"]
    assert layout.sweep_parameters(study, place("gradient-ascent")) == ["learning_rate"]
    start = layout.sweep_start(study, place("surgery"))
    assert (start["update_weight"], start["retain_weight"]) == (2.0, 0.5)
    chosen = study.edit.having("surgery-npo", {"learning_rate": 1e-5, "retain_weight": 4.0})
    assert (chosen.learning_rate, chosen.retain_weight, chosen.surgery.retain_weight) == (1e-5, 1.0, 4.0)
    assert study.edit.having("inject", {"retain_weight": 4.0}).surgery == study.edit.surgery
    cell = json.loads(study.edit.for_cell("surgery", "nonlocalized", {"update_weight": 1.0}))
    assert cell["surgery"]["update_weight"] == 1.0
    assert "retain_weight" not in cell  # it reads its own block's


def test_dvcs_stages_depend_on_the_file_that_the_study_reads(tmp_path):
    study = reading(tmp_path, {"tiny": {"athletes": {}}})
    found = yaml.safe_load(stages.text(study))["stages"]
    assert all(study.swept in stage["deps"] for stage in found.values())
    assert study.swept not in stages.text(validate_study(SMALLEST))
