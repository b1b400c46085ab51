"""Two runs compared, against loops anyone can read; every wrong input is one sentence."""

import math
import random
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

from mechunlearn import artifacts, compare, stats
from mechunlearn.artifacts import measurement_table, write_table
from mechunlearn.config import EvaluateSettings, ReportSettings
from mechunlearn.errors import ArtifactError
from mechunlearn.metrics import COLUMNS, metrics
from mechunlearn.study import cell_of

REPORT = ReportSettings(bootstrap=200)
ROLES = {"a": "forget", "b": "forget", "c": "forget", "d": "maintain-test", "e": "maintain-test"}
FORMATS = {"completion": 1, "choice-text": 3, "question": 1}
PLACE = ("m", "t", "fact-lookup", "inject")


def rows(rng, stages, facts, seeds):
    """Measurement rows of facts in every format, and of two texts; `question` is beyond the base model."""
    found = []
    for seed in seeds:
        for stage in stages:
            for elicitation, orders in FORMATS.items():
                for fact in facts:
                    for order in range(orders):
                        found.append(
                            {
                                "seed": seed, "stage": stage, "elicitation": elicitation, "order": order,
                                "role": ROLES[fact], "fact": fact, "p_true": rng.uniform(0, 0.8),
                                "p_new": rng.uniform(0, 0.1) if ROLES[fact] == "forget" else math.nan,
                                "p_options": 0.9, "rank": 5 if elicitation == "question" else 1,
                                "choice": rng.choice(["true", "other"]), "argmax": " x", "nll": math.nan,
                            }
                        )  # fmt: skip
            for number in range(2):
                where = {"seed": seed, "stage": stage, "elicitation": "text", "role": "text", "fact": f"text {number}"}
                found.append({**where, "order": 0, "rank": 0, "choice": "", "argmax": "", "nll": rng.uniform(2, 4)})
    return measurement_table(found)


def write(folder, seed, facts="abcde", seeds=(0,), attacks=("relearn", "quantize"), localization="fact-lookup"):
    """A study's results: the base, one edit and its attacks."""
    rng, home = random.Random(seed), folder / "m/t"
    stages = {"relearn": ["relearned@0", "relearned@5"], "quantize": ["int8"]}
    files = {
        "measurements/base.parquet": rows(rng, ["base"], facts, [0]),
        f"measurements/{localization}/inject.parquet": rows(rng, ["edited"], facts, seeds),
        **{f"attacks/{name}/{localization}/inject.parquet": rows(rng, stages[name], facts, seeds) for name in attacks},
    }
    for name, table in files.items():
        write_table(home / name, table)
    tables = {cell_of(home / name): table for name, table in files.items()}
    write_table(folder / "metrics.csv", metrics(tables, EvaluateSettings(gate=0.6), REPORT))
    return tables


@pytest.fixture
def two(tmp_path):
    """(first results, second results, their tables): with other seeds, another fact missing and one attack less."""
    first = write(tmp_path / "one", 1, facts="abcd", seeds=(0, 1))
    second = write(tmp_path / "two", 2, facts="abce", attacks=("relearn",))
    return compare.read(str(tmp_path / "one")), compare.read(str(tmp_path / "two")), first, second


def value(row, metric):
    if metric == "nll":
        return row["nll"]
    if row["elicitation"] == "text":
        return math.nan
    if metric == "accuracy_new" and math.isnan(row["p_new"]):
        return math.nan
    shares = {"p_true": row["p_true"] / 0.9, "p_new": row["p_new"] / 0.9}
    return shares.get(metric, float(row["choice"] == metric.removeprefix("accuracy_")))


def by_fact(tables, metric):
    """(cell, stage, elicitation, role) -> fact -> mean over seeds and orders."""
    found = {}
    for cell, table in tables.items():
        for row in table.to_dict("records"):
            if not math.isnan(number := value(row, metric)):
                place = (cell.localization, cell.objective, row["stage"], row["elicitation"], row["role"])
                found.setdefault(place, {}).setdefault(row["fact"], []).append(number)
    return {place: {fact: sum(v) / len(v) for fact, v in facts.items()} for place, facts in found.items()}


def slow_interval(differences):
    draws = np.random.default_rng(stats.SEED).integers(0, len(differences), (REPORT.bootstrap, len(differences)))
    means = [sum(differences[index] for index in draw) / len(differences) for draw in draws.tolist()]
    return tuple(np.quantile(means, [0.025, 0.975]))


def where(row):
    return row["localization"], row["objective"], row["stage"], row["elicitation"], row["role"]


def test_paired_differences_are_those_of_a_slow_loop(two):
    first, second, tables, others = two
    table = compare.compare(first, second, REPORT)
    seen = 0
    for metric in ("p_true", "p_new", "accuracy_true", "accuracy_new", "nll"):
        one, other = by_fact(tables, metric), by_fact(others, metric)
        for row in table[(table.metric == metric) & ~table.stage.isin(["worst", "way"]) & table.paired].to_dict(
            "records"
        ):
            facts = sorted(set(one[where(row)]) & set(other[where(row)]))
            a, b = ([each[where(row)][fact] for fact in facts] for each in (one, other))
            differences = [y - x for x, y in zip(a, b, strict=True)]
            low, high = slow_interval(differences)
            expected = [np.mean(a), np.mean(b), np.mean(differences), low, high, len(facts)]
            found = [row[name] for name in ("first", "second", "difference", "low", "high", "n")]
            assert found == pytest.approx(expected, abs=1e-9)
            seen += 1
        expected_rows = {place for place in one if set(one[place]) & set(other.get(place, ()))}
        assert expected_rows == {
            where(row)
            for row in table[(table.metric == metric) & table.paired & ~table.stage.isin(["worst", "way"])].to_dict(
                "records"
            )
        }
    assert seen > 30


def test_rows_without_a_fact_in_common_are_joined_as_independent(two):
    """The maintained facts are d in one study and e in the other."""
    first, second, *_ = two
    table = compare.compare(first, second, REPORT)
    kept = table[table.role == "maintain-test"]
    assert len(kept) > 5
    assert not kept.paired.any()
    for row in kept.to_dict("records"):
        (a, la, ua), (b, lb, ub) = (
            results.metrics.set_index(compare.KEY).loc[tuple(row[k] for k in compare.KEY), ["value", "low", "high"]]
            for results in (first, second)
        )
        low, high = (
            (b - a) - math.sqrt((b - lb) ** 2 + (ua - a) ** 2),
            (b - a) + math.sqrt((ub - b) ** 2 + (a - la) ** 2),
        )
        assert (row["difference"], row["low"], row["high"]) == pytest.approx((b - a, low, high))


def test_joined_intervals_cover_the_truth_about_as_often_as_they_say():
    rng, runs, hits = np.random.default_rng(0), 400, 0
    for _ in range(runs):
        given = {}
        for name, mean in (("first", 0.3), ("second", 0.5)):
            sample = rng.beta(4 * mean, 4 * (1 - mean), size=40)
            given |= dict(
                zip(
                    (f"value_{name}", f"low_{name}", f"high_{name}"),
                    stats.interval(sample, 300, 0.95, stats.SHARE),
                    strict=True,
                )
            )
            given[f"n_{name}"] = 40
        *_, low, high, _, _ = compare._joined(pd.DataFrame([given]))
        hits += float(low.iloc[0]) <= 0.2 <= float(high.iloc[0])
    assert 0.90 < hits / runs < 0.98


def test_a_worst_case_is_over_the_attacks_and_facts_of_both(two):
    """The formats that count, at full strength, of the edit and of the attack that both ran."""
    first, second, tables, others = two
    row = compare.compare(first, second, REPORT).query("stage == 'worst' and localization == 'fact-lookup'")
    assert len(row) == 1
    row = row.to_dict("records")[0]
    allowed = [(stage, name) for stage in ("edited", "relearned@5") for name in ("completion", "choice-text")]
    columns = []
    for each in (by_fact(tables, "p_true"), by_fact(others, "p_true")):
        columns.append([[each["fact-lookup", "inject", *way, "forget"][fact] for fact in "abc"] for way in allowed])
    one, other = (np.array(each) for each in columns)
    draws = np.random.default_rng(stats.SEED).integers(0, 3, (REPORT.bootstrap, 3))
    changes = [max(w[draw].mean() for w in other) - max(w[draw].mean() for w in one) for draw in draws]
    expected = [one.mean(1).max(), other.mean(1).max(), other.mean(1).max() - one.mean(1).max()]
    assert [row["first"], row["second"], row["difference"]] == pytest.approx(expected)
    assert (row["low"], row["high"]) == pytest.approx(tuple(np.quantile(changes, [0.025, 0.975])))


def test_without_measurement_rows_the_metrics_say_what_they_can(two, tmp_path):
    first, second, *_ = two
    for path in (tmp_path / "two").rglob("*.parquet"):
        path.unlink()
    table = compare.compare(first, compare.read(str(tmp_path / "two")), REPORT)
    paired = compare.compare(first, second, REPORT)
    assert not table.paired.any()
    assert len(table) == (~paired.stage.isin(["worst", "way"])).sum()


def test_a_study_does_not_differ_from_itself(two):
    first, *_ = two
    table = compare.compare(first, first, REPORT)
    assert len(table) == (first.metrics.stage != "way").sum()
    assert (table[["difference", "low", "high"]] == 0).all(axis=None)
    assert set(table[table.elicitation == "question"].counts) == {False}


def test_swapping_the_studies_turns_the_sign(two):
    first, second, *_ = two
    one, other = compare.compare(first, second, REPORT), compare.compare(second, first, REPORT)
    both = one.merge(other, on=["localization", "stage", "elicitation", "role", "metric"])
    both = both[~both.stage.isin(["worst", "way"])]
    assert both.difference_x.to_numpy() == pytest.approx(-both.difference_y.to_numpy())
    assert both.low_x.to_numpy() == pytest.approx(-both.high_y.to_numpy(), abs=0.02)


def test_what_is_printed_is_what_differs(two, capsys):
    first, second, *_ = two
    table = compare.compare(first, second, REPORT)
    compare.show(table, first, second, ["nll"], every=True)
    shown = capsys.readouterr().out
    assert "edited" in shown
    assert "only in" in shown
    compare.show(compare.compare(first, first, REPORT), first, first, ["p_true"], every=False)
    shown = capsys.readouterr().out
    assert "edited" not in shown
    assert "0 of" in shown
    with pytest.raises(ArtifactError, match=r"--metric is 'p_tru'; allowed: .*p_true"):
        compare.show(table, first, second, ["p_tru"], every=False)


# wrong input ----------------------------------------------------------------------------------------------


def test_studies_of_other_cells_are_refused_with_what_each_has(tmp_path):
    write(tmp_path / "one", 1)
    artifacts.write_table(
        tmp_path / "two/metrics.csv", pd.read_csv(tmp_path / "one/metrics.csv").assign(task="other")[COLUMNS]
    )
    first, second = (compare.read(str(tmp_path / name)) for name in ("one", "two"))
    with pytest.raises(ArtifactError, match=r"no number in common: the first has m/t .*, the second m/other with"):
        compare.compare(first, second, REPORT)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("results/nothing", "'results/nothing' is no folder; allowed: a folder of results"),
        (":results/default", "is no folder; allowed"),
        ("empty", "'empty' has no metrics.csv; allowed"),
        ("no-such-revision:results/default", "no-such-revision:results/default cannot be read: .*; allowed: a commit"),
        ("HEAD:results/nothing", "HEAD:results/nothing: the revision HEAD has no such folder"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(repository, name, sentence):
    with pytest.raises(ArtifactError, match=sentence):
        compare.read(name)


@pytest.fixture(scope="module")
def committed(tmp_path_factory):
    """A git repository with DVC, whose one commit has results: metrics.csv in git, measurement rows in DVC."""
    folder = tmp_path_factory.mktemp("repository")
    (folder / "empty").mkdir()
    write(folder / "results/default", 1)
    for command in (
        "git init -q",
        "dvc init -q",
        "dvc config core.site_cache_dir .dvc/site_cache",
        "dvc add -q results/default/m/t/measurements results/default/m/t/attacks",
        "git add -A",
        "git -c user.name=t -c user.email=t@t commit -qm first",
    ):
        subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def repository(committed, tmp_path, monkeypatch):
    """A copy of it, in which one stands."""
    monkeypatch.chdir(shutil.copytree(committed, tmp_path / "copy"))
    return tmp_path / "copy"


def test_a_revision_has_its_own_numbers_and_rows(repository):
    before = compare.read("results/default")
    write(repository / "results/default", 2)
    now, then = compare.read("results/default"), compare.read("HEAD:results/default")
    assert then.facts.keys() == before.facts.keys()
    assert (compare.compare(before, then, REPORT).difference == 0).all()
    table = compare.compare(then, now, REPORT)
    assert table.paired.all()
    assert (table.difference != 0).any()


def test_a_revision_whose_rows_are_gone_still_has_its_metrics(repository, caplog):
    shutil.rmtree(repository / ".dvc/cache")
    then = compare.read("HEAD:results/default")
    assert then.facts == {}
    assert "measurement rows are not at hand" in caplog.text
    assert not compare.compare(then, compare.read("results/default"), REPORT).paired.any()
