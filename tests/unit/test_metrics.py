"""Metrics and intervals against loops anyone can read."""

import math
import random

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from scipy.stats import t as student

from mechunlearn import stats
from mechunlearn.artifacts import measurement_table, read_measurements, write_table
from mechunlearn.config import EvaluateSettings, ReportSettings
from mechunlearn.gate import usable
from mechunlearn.metrics import COLUMNS, NAMES, SHARES, full_strength, headline, metrics
from mechunlearn.stats import interval
from mechunlearn.study import BASE, Cell

REPORT = ReportSettings(bootstrap=200)
EVALUATE = EvaluateSettings(gate=0.6)

# intervals ------------------------------------------------------------------------------------------------


def expanded(tail, count):
    """The tail whose normal quantile is Student's, times sqrt(n / (n - 1)) (Hesterberg 2015, section 4.2.1)."""
    return norm.cdf(math.sqrt(count / (count - 1)) * student.ppf(tail, count - 1)) if count > 1 else tail


@pytest.mark.parametrize("count", [1, 2, 7, 40])
@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_an_interval_is_a_slow_bootstrap_of_the_same_draws(count, confidence):
    values = np.random.default_rng(count).normal(size=count)
    draws = np.random.default_rng(stats.SEED).integers(0, count, (300, count))
    means = sorted(sum(values[index] for index in draw) / count for draw in draws.tolist())

    def quantile(share):
        place = share * (len(means) - 1)
        low, part = math.floor(place), place - math.floor(place)
        return means[low] + part * (means[min(low + 1, len(means) - 1)] - means[low])

    tail = expanded((1 - confidence) / 2, count)
    expected = (values.mean(), quantile(tail), quantile(1 - tail))
    assert interval(values, 300, confidence, None) == pytest.approx(expected, rel=1e-12)


def test_units_are_drawn_again_whole_with_all_that_was_asked_of_them():
    rng = np.random.default_rng(3)
    units = np.array(list("abacbaddda"))  # of one, two, three and four values
    values = rng.normal(size=len(units))
    of = {unit: values[units == unit].tolist() for unit in "abcd"}
    draws = np.random.default_rng(stats.SEED).integers(0, 4, (300, 4))
    means = []
    for draw in draws.tolist():
        drawn = [value for index in draw for value in of["abcd"[index]]]
        means.append(sum(drawn) / len(drawn))
    tail = expanded(0.05, 4)
    expected = (values.mean(), *np.quantile(means, [tail, 1 - tail]))
    assert interval(values, 300, 0.9, None, units) == pytest.approx(expected)
    table = stats.resampled_means(np.stack([values, 2 * values], 1), 300, units)
    assert table == pytest.approx(np.stack([means, 2 * np.array(means)], 1))


def test_as_many_answers_of_fewer_people_say_less():
    values, people = np.tile([0.0, 1.0], 10), np.repeat(["a", "b", "c", "d"], 5)
    values[:10], values[10:] = 0, 1  # two people know everything, two nothing
    (_, low, high), (_, lower, higher) = (interval(values, 500, 0.95, stats.SHARE, each) for each in (None, people))
    assert lower < low < 0.5 < high < higher


@pytest.mark.parametrize("count", [6, 16, 60])
def test_intervals_cover_the_truth_about_as_often_as_they_say(count):
    """Plain percentiles of 6 values do in 0.87 of such samples, of 16 in 0.93."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(500):
        _, low, high = interval(rng.normal(size=count), 1000, 0.95, None)
        hits += low <= 0.0 <= high
    assert 0.92 < hits / 500 < 0.98


def binomial_tail(successes, count, share):
    """P(at least so many successes)."""
    return sum(
        math.comb(count, number) * share**number * (1 - share) ** (count - number)
        for number in range(successes, count + 1)
    )


@pytest.mark.parametrize("count", [1, 4, 16, 64])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_unanimous_shares_have_clopper_and_pearsons_interval(count, confidence):
    """Its bounds are the shares at which the outcome has just (1 - confidence) / 2 of probability."""
    mean, low, high = interval(np.ones(count), 100, confidence, stats.SHARE)
    assert (mean, high) == (1.0, 1.0)
    assert binomial_tail(count, count, low) == pytest.approx((1 - confidence) / 2)
    mean, zero, width = interval(np.zeros(count), 100, confidence, stats.SHARE)
    assert (mean, zero, width) == (0.0, 0.0, pytest.approx(1 - low))


def test_sixteen_of_sixteen_is_not_certainty():
    assert interval(np.ones(16), 100, 0.95, stats.SHARE) == (1.0, pytest.approx(0.794, abs=5e-4), 1.0)


@pytest.mark.parametrize(("value", "low", "high"), [(0.0, -0.206, 0.206), (-1.0, -1.0, -0.588), (0.5, 0.191, 0.603)])
def test_unanimous_differences_are_no_certainty_either(value, low, high):
    """The unseen share of 0.206 that goes with 16 of 16 may differ by anything from -1 to 1."""
    found = interval(np.full(16, value), 100, 0.95, stats.DIFFERENCE)
    assert found == (value, pytest.approx(low, abs=5e-4), pytest.approx(high, abs=5e-4))
    assert interval(np.full(16, value), 100, 0.95, None) == (value, value, value)


def test_four_people_who_agree_are_four_whatever_each_was_asked():
    people = np.repeat(["a", "b", "c", "d"], 5)
    assert interval(np.zeros(20), 100, 0.95, stats.DIFFERENCE, people)[1:] == pytest.approx((-0.602, 0.602), abs=5e-4)


# metrics --------------------------------------------------------------------------------------------------

FORMATS = {"completion": 1, "choice-text": 3}
FACTS = {"a": "forget", "b": "forget", "c": "maintain-test", "d": "maintain-test", "e": "maintain-test"}


def measured(rng, stage, seeds=(0,), likely=0.8):
    """Rows of every fact and format, and of two texts."""
    rows = []
    for seed in seeds:
        for fact, role in FACTS.items():
            for elicitation, orders in FORMATS.items():
                for order in range(orders):
                    p_true, p_new = rng.uniform(0, 0.4), rng.uniform(0, 0.4) if role == "forget" else math.nan
                    right = rng.random() < (likely if elicitation == "completion" else 0.2)
                    wrong = rng.choice(["new", "other"]) if role == "forget" else "other"
                    rows.append(
                        {
                            "seed": seed, "stage": stage, "elicitation": elicitation, "order": order,
                            "role": role, "fact": fact,
                            "p_true": p_true, "p_new": p_new, "p_options": 0.9, "rank": 1 if right else 3,
                            "choice": "true" if right else wrong, "argmax": " x", "nll": math.nan,
                        }
                    )  # fmt: skip
        for number in range(2):
            place = {
                "seed": seed,
                "stage": stage,
                "elicitation": "text",
                "role": "text",
                "fact": f"text {number}",
            }
            blank = {"order": 0, "rank": 0, "choice": "", "argmax": ""}
            rows.append({**place, **blank, "nll": rng.uniform(2, 4)})
    return measurement_table(rows)


@pytest.fixture(scope="module")
def tables():
    rng, seeds = random.Random(0), (0, 1)
    edits = [*(measured(rng, f"relearned@{step}", seeds) for step in (0, 5))]
    return {
        Cell("m", "t", BASE, ""): measured(rng, "base", likely=1.0),
        Cell("m", "t", "fact-lookup", "inject"): measured(rng, "edited", seeds),
        Cell("m", "t", "nonlocalized", "inject"): measured(rng, "edited", seeds),
        Cell("m", "t", "nonlocalized", "inject", "relearn"): pd.concat(edits, ignore_index=True),
    }


@pytest.fixture(scope="module")
def computed(tables):
    return metrics(tables, EVALUATE, REPORT)


def naive(table, metric):
    """(stage, elicitation, role) -> fact -> the metric, averaged over seeds and orders."""
    found = {}
    for row in table.to_dict("records"):
        is_text = row["elicitation"] == "text"
        value = {
            "p_true": row["p_true"] / row["p_options"],
            "p_new": row["p_new"] / row["p_options"],
            "accuracy_true": math.nan if is_text else float(row["choice"] == "true"),
            "accuracy_new": math.nan if math.isnan(row["p_new"]) else float(row["choice"] == "new"),
            "p_true_token": row["p_true"],
            "first_true": math.nan if is_text else float(row["rank"] == 1),
            "nll": row["nll"],
        }[metric]
        if not math.isnan(value):
            group = found.setdefault((row["stage"], row["elicitation"], row["role"]), {})
            group.setdefault(row["fact"], []).append(value)
    return {key: {fact: sum(v) / len(v) for fact, v in facts.items()} for key, facts in found.items()}


def place_of(row):
    return row["stage"], row["elicitation"], row["role"]


def test_values_are_means_over_facts_of_means_over_seeds_and_orders(tables, computed):
    expected = {}
    for cell, table in tables.items():
        for metric in NAMES[:-2]:  # nothing here has a divergence or hidden states
            for place, facts in naive(table, metric).items():
                values = list(facts.values())
                expected[cell.localization, *place, metric] = (sum(values) / len(values), len(values))
    plain = computed[(computed.against == "") & ~computed.stage.isin(["worst", "way"])].to_dict("records")
    found = {(row["localization"], *place_of(row), row["metric"]): (row["value"], row["n"]) for row in plain}
    assert len(found) == len(plain)
    assert found == {key: (pytest.approx(value), n) for key, (value, n) in expected.items()}


def test_differences_are_paired_by_fact(tables, computed):
    base = tables[Cell("m", "t", BASE, "")].assign(stage="edited")
    lookup, everywhere = (tables[Cell("m", "t", name, "inject")] for name in ("fact-lookup", "nonlocalized"))
    pairs = {
        ("fact-lookup", "base"): (lookup, base),
        ("fact-lookup", "nonlocalized"): (lookup, everywhere),
        ("nonlocalized", "base"): (everywhere, base),
        ("nonlocalized", "fact-lookup"): (everywhere, lookup),
    }
    found = computed[(computed.against != "") & (computed.stage != "worst")]
    assert set(zip(found.localization, found.against, strict=True)) == set(pairs)
    for row in found.to_dict("records"):
        one, other = (
            naive(table, row["metric"])[place_of(row)] for table in pairs[row["localization"], row["against"]]
        )
        differences = np.array([one[fact] - other[fact] for fact in sorted(one)])
        expected = interval(
            differences, REPORT.bootstrap, REPORT.confidence, stats.DIFFERENCE if row["metric"] in SHARES else None
        )
        assert (row["value"], row["low"], row["high"]) == pytest.approx(expected)
        assert row["n"] == len(differences)


def test_the_worst_case_is_the_largest_of_all_usable_ways(tables, computed):
    """Of the edited model in the format that counts, and of relearning's last stage; by a slow bootstrap."""

    def ways(localization):
        found = {}
        for cell, table in tables.items():
            if cell.localization == localization:
                for (stage, elicitation, role), facts in naive(table, "p_true").items():
                    if role == "forget" and elicitation == "completion" and stage != "relearned@0":
                        found[f"{stage} {elicitation}"] = facts
        return found

    def largest(found, facts):
        return max((sum(values[fact] for fact in facts) / len(facts), name) for name, values in found.items())

    draws = np.random.default_rng(stats.SEED).integers(0, 2, (REPORT.bootstrap, 2))
    again = [["ab"[index] for index in draw] for draw in draws]
    plain = computed[(computed.stage == "worst") & (computed.against == "")].set_index("localization")
    for name, stages in (("base", 1), ("fact-lookup", 1), ("nonlocalized", 2)):
        assert len(ways(name)) == stages
        value, way = largest(ways(name), "ab")
        resampled = [largest(ways(name), facts)[0] for facts in again]
        row = plain.loc[name]
        assert (row.value, row.elicitation, row.n) == (pytest.approx(value), way, 2)
        assert (row.low, row.high) == pytest.approx(tuple(np.quantile(resampled, [0.025, 0.975])))
        each = computed[(computed.stage == "way") & (computed.localization == name)].set_index("elicitation")
        assert dict(each.value) == {way: pytest.approx(sum(facts.values()) / 2) for way, facts in ways(name).items()}
        assert row.value == each.value.max()
    (gap,) = computed[(computed.stage == "worst") & (computed.against == "fact-lookup")].itertuples()
    assert gap.localization == "nonlocalized"
    both = [largest(ways("nonlocalized"), facts)[0] - largest(ways("fact-lookup"), facts)[0] for facts in again]
    assert gap.value == pytest.approx(plain.loc["nonlocalized"].value - plain.loc["fact-lookup"].value)
    assert (gap.low, gap.high) == pytest.approx(tuple(np.quantile(both, [0.025, 0.975])))


def test_questions_asked_backwards_are_no_worst_case(tables, computed):
    """Their probabilities have a floor that no forgetting can go below."""

    def backwards(table):
        asked = table[table.elicitation == "completion"]
        return pd.concat([table, asked.assign(elicitation="reversed", p_true=asked.p_options)])

    again = metrics({cell: backwards(table) for cell, table in tables.items()}, EVALUATE, REPORT)
    assert again[again.elicitation == "reversed"].counts.all()
    worst = [each[each.stage == "worst"].reset_index(drop=True) for each in (again, computed)]
    pd.testing.assert_frame_equal(*worst)


def test_the_training_prompt_is_always_usable_and_others_from_the_gate_on():
    rows = [("completion", 3), ("question", 1), ("question", 1), ("famous", 1), ("famous", 2)]
    place = {"role": "forget"}
    base = pd.DataFrame([{**place, "elicitation": name, "rank": rank} for name, rank in rows])
    assert usable(base, ["completion", "question", "famous"], 0.6) == ["completion", "question"]
    assert usable(base, ["famous", "completion"], 0.5) == ["famous", "completion"]


def test_only_an_attacks_last_stage_is_its_full_strength():
    stages = ["relearned@0", "relearned@20", "relearned@5", "edited", "int4", "soft-prompt@0", "soft-prompt@20"]
    assert sorted(full_strength(stages)) == ["edited", "int4", "relearned@20", "soft-prompt@20"]


def test_a_format_counts_where_the_base_model_can_use_it(tables, computed):
    base = tables[Cell("m", "t", BASE, "")]
    for elicitation in FORMATS:
        right = [row["rank"] == 1 for row in base.to_dict("records") if row["elicitation"] == elicitation]
        rows = computed[computed.elicitation == elicitation]
        assert rows.gate.tolist() == pytest.approx([sum(right) / len(right)] * len(rows))
        assert set(rows.counts) == {sum(right) / len(right) >= EVALUATE.gate}
    assert set(computed[computed.elicitation == "completion"].counts) == {True}
    assert set(computed[computed.elicitation == "choice-text"].counts) == {False}
    assert set(computed[computed.elicitation == "text"].counts) == {True}


def test_intervals_hold_their_values_and_rows_are_sorted(computed):
    assert list(computed.columns) == COLUMNS
    assert (computed.low <= computed.value + 1e-12).all()
    assert (computed.value <= computed.high + 1e-12).all()
    assert computed.equals(computed.sort_values(COLUMNS[:9], ignore_index=True))
    assert computed.set_index("localization").seeds.groupby(level=0).max().to_dict() == {
        "base": 1, "fact-lookup": 2, "nonlocalized": 2,
    }  # fmt: skip


def test_metrics_do_not_depend_on_the_order_of_cells_or_rows(tables, computed):
    shuffled = {cell: table.sample(frac=1, random_state=0) for cell, table in reversed(tables.items())}
    pd.testing.assert_frame_equal(metrics(shuffled, EVALUATE, REPORT), computed)


def test_the_headline_is_a_few_rows_of_the_metrics(computed):
    numbers = headline(computed)["m"]["t"]["nonlocalized"]["inject"]
    assert set(numbers) == {
        "forget_p_new", "forget_p_true", "maintain_p_true", "choice_p_new", "relearned_p_true", "text_nll",
        "worst_p_true",
    }  # fmt: skip
    rows = computed[(computed.localization == "nonlocalized") & (computed.against == "")]
    last = rows[(rows.stage == "relearned@5") & (rows.elicitation == "completion") & (rows.role == "forget")]
    assert numbers["relearned_p_true"] == pytest.approx(last[last.metric == "p_true"].value.item(), abs=1e-6)


def test_a_study_without_attacks_has_a_headline(computed):
    assert "m" in headline(computed[~computed.stage.str.contains("@")])


def test_only_relearning_is_the_headlines_relearned(computed):
    last = computed[computed.stage == "relearned@5"]
    others = [last.assign(stage=stage, value=0.123) for stage in ("probed@17", "int4")]
    assert headline(pd.concat([computed, *others])) == headline(computed)


def test_an_attack_that_can_measure_nothing_has_no_metrics(tables, computed, tmp_path):
    path = tmp_path / "none.parquet"
    write_table(path, measurement_table([]))
    cells = [Cell("m", "t", name, "inject", "probe") for name in ("fact-lookup", "nonlocalized")]
    more = tables | {cell: read_measurements(path) for cell in cells}
    pd.testing.assert_frame_equal(metrics(more, EVALUATE, REPORT), computed)


def test_an_edit_that_is_the_same_as_another_does_not_differ_from_it(tables):
    own = tables[Cell("m", "t", "fact-lookup", "inject")]
    found = metrics({**tables, Cell("m", "t", "nonlocalized", "inject"): own}, EVALUATE, REPORT)
    same = found[(found.against == "fact-lookup") & (found.stage == "edited")]
    assert len(same)
    assert (same[["value", "low", "high"]] == 0).all(axis=None)


def test_a_format_that_the_base_was_never_asked_in_is_not_usable(tables):
    base = tables[Cell("m", "t", BASE, "")]
    assert usable(base, ["completion", "paraphrase"], 0.5) == ["completion"]
