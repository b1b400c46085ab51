"""Verdicts follow from the metrics and nothing else."""

from pathlib import Path

import pandas as pd
import pytest

from mechunlearn.artifacts import read_table, write_table
from mechunlearn.claims import CLAIMS, check
from mechunlearn.config import TaskSettings
from mechunlearn.metrics import COLUMNS
from mechunlearn.published import KINDS, kind, means

MEANS = means(Path(__file__).parents[2] / "report/published")
BY_ID = {claim.id: claim for claim in CLAIMS}
ABOVE, BELOW = BY_ID["maintain"], BY_ID["no-side-effects"]
EACH = pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)


def row(claim, localization, value, low, high, **changes):
    stage = "relearned@20" if claim.where["stage"] == "relearned" else claim.where["stage"]
    place = {"model": "m", "task": "t", "localization": localization, "objective": "inject"}
    numbers = {"value": value, "low": low, "high": high, "n": 16, "seeds": 1, "gate": 0.9, "counts": True}
    return {**place, **claim.where, "stage": stage, **numbers, **changes}


def every(claim, *numbers, **changes):
    """The same row for every localization that the claim speaks of."""
    return [row(claim, name, *numbers, **changes) for name in claim.among]


def checked(table, kind="sports-athlete"):
    return check(table, dict.fromkeys(table.task, kind), MEANS)


def verdict(claim, *rows):
    found = checked(pd.DataFrame(rows, columns=COLUMNS))
    return next(result for result in found if result["id"] == claim.id)


def around(claim, offset):
    """Value, low and high on the claim's side of its bound by an offset, or beyond it."""
    middle = claim.bound + (offset if claim.above else -offset)
    return middle, middle - 0.01, middle + 0.01


def test_every_id_is_unique_and_every_claim_is_written_out():
    assert len(BY_ID) == len(CLAIMS)
    for claim in CLAIMS:
        assert all([claim.section, claim.sentence, claim.statistic, *claim.theirs, claim.among, *claim.figures])


@EACH
def test_an_interval_on_the_claims_side_reproduces_it(claim):
    result = verdict(claim, *every(claim, *around(claim, 0.02)))
    assert result["verdict"] == "reproduced"
    assert (result["value"], result["n"]) == (pytest.approx(around(claim, 0.02)[0]), 16)


@EACH
@pytest.mark.parametrize("offset", [0.005, 0.0, -0.005, -0.02], ids=["touching", "on", "across", "beyond"])
def test_an_interval_that_touches_the_bound_does_not(claim, offset):
    assert verdict(claim, *every(claim, *around(claim, offset)))["verdict"] == "not reproduced"


@EACH
def test_the_localization_that_is_hardest_for_the_claim_decides(claim):
    offsets = [0.02 + 0.01 * number for number in range(len(claim.among))]
    rows = [row(claim, name, *around(claim, off)) for name, off in zip(claim.among, offsets, strict=True)]
    assert verdict(claim, *rows[::-1])["verdict"] == "reproduced"
    against = verdict(claim, *rows[:-1], row(claim, claim.among[-1], *around(claim, -0.02)))
    assert against["verdict"] == "not reproduced"
    if len(claim.among) > 1:
        assert claim.among[-1] in against["note"]


@EACH
def test_what_is_missing_is_not_measurable(claim):
    elsewhere = every(claim, *around(claim, 0.02), metric="something else")
    other_place = row(claim, "attribution-patching", *around(claim, 0.02))
    result = verdict(claim, *elsewhere, other_place)
    assert (result["verdict"], result["value"], result["n"]) == ("not measurable here", None, 0)
    assert "no such measurement" in result["note"]


@EACH
def test_a_claim_about_several_is_not_decided_by_some(claim):
    rows = every(claim, *around(claim, 0.02))
    result = verdict(claim, *rows[1:], row(claim, "base", 0.0, 0.0, 0.0), row(claim, "other", 0.0, 0.0, 0.0))
    assert result["verdict"] == "not measurable here"
    assert claim.among[0] in result["note"]


@EACH
def test_a_format_that_the_base_model_cannot_use_is_not_measurable(claim):
    result = verdict(claim, *every(claim, *around(claim, 0.02), counts=False, gate=0.26))
    assert (result["verdict"], result["value"]) == ("not measurable here", None)
    assert "0.26" in result["note"]


def test_the_last_relearning_step_decides():
    claim = BY_ID["relearning"]
    early = every(claim, *around(claim, 0.5), stage="relearned@5")
    late = every(claim, *around(claim, -0.5), stage="relearned@10")
    assert verdict(claim, *late, *early)["verdict"] == "not reproduced"


def test_blocks_measured_on_the_way_do_not_take_the_finished_edits_place():
    """A task in blocks has the stages `edited@1`, `edited@2` ... of roles of their own beside `edited`."""
    on_the_way = [
        row(claim, name, *around(claim, -0.5), stage=f"edited@{block}", role=f"block-{block}")
        for claim in CLAIMS
        for name in claim.among
        for block in (1, 2)
    ]
    rows = [row(claim, name, *around(claim, 0.02)) for claim in CLAIMS for name in claim.among]
    found = checked(pd.DataFrame([*on_the_way, *rows], columns=COLUMNS), "sequential-counterfact")
    assert {result["verdict"] for result in found} == {"reproduced"}


def test_every_model_and_task_has_every_verdict():
    rows = [
        row(ABOVE, "fact-lookup", *around(ABOVE, offset), model=model, task=task)
        for model, task, offset in [("a", "x", 0.05), ("a", "y", -0.05), ("b", "x", 0.05)]
    ]
    rows.append(row(ABOVE, "base", 1.0, 1.0, 1.0, stage="base", objective=""))
    found = checked(pd.DataFrame(rows, columns=COLUMNS))
    assert len(found) == 3 * len(CLAIMS)
    maintain = {(item["model"], item["task"]): item["verdict"] for item in found if item["id"] == ABOVE.id}
    assert maintain == {("a", "x"): "reproduced", ("a", "y"): "not reproduced", ("b", "x"): "reproduced"}


def test_edits_of_unequal_strength_are_told_beside_the_verdict():
    claim = BY_ID["choice-transfer"]
    rows = every(claim, -0.2, -0.3, -0.1)
    asked = {"stage": "edited", "elicitation": "completion", "role": "forget", "metric": "p_new", "against": ""}
    for strengths, warned in (((0.99, 0.96), False), ((0.88, 0.88), False), ((0.88, 0.99), True)):
        learned = [
            {**row(claim, name, value, value, value), **asked}
            for name, value in zip(("fact-lookup", claim.among[0]), strengths, strict=True)
        ]
        note = verdict(claim, *rows, *learned)["note"]
        assert ("not equally strong" in note) == warned, note


def test_verdicts_are_the_same_from_the_file(tmp_path):
    rows = [row(claim, name, *around(claim, 0.02)) for claim in CLAIMS for name in claim.among]
    rows[-1] |= {"gate": float("nan")}
    table = pd.DataFrame(rows, columns=COLUMNS)
    write_table(tmp_path / "metrics.csv", table)
    again = checked(read_table(tmp_path / "metrics.csv", COLUMNS))
    assert (
        [item["verdict"] for item in again]
        == [item["verdict"] for item in checked(table)]
        == ["reproduced"] * len(CLAIMS)
    )


def test_every_rivals_interval_must_lie_on_the_claims_side():
    """Bound 0.05: 0.02 with [0.01, 0.03] decides, though 0.01 with [-0.08, 0.10] is beyond the bound."""
    rows = every(BELOW, 0.02, 0.01, 0.03)
    assert verdict(BELOW, *rows)["verdict"] == "reproduced"
    rows[-1] = row(BELOW, BELOW.among[-1], 0.01, -0.08, 0.10)
    assert verdict(BELOW, *rows)["verdict"] == "not reproduced"


def test_other_objectives_are_not_judged():
    rows = [row(ABOVE, "fact-lookup", *around(ABOVE, 0.05), objective="something-else")]
    assert checked(pd.DataFrame(rows, columns=COLUMNS)) == []


# the paper's own numbers -----------------------------------------------------------------------------------------


def published(claim_id, kind):
    claim = BY_ID[claim_id]
    found = checked(pd.DataFrame(every(claim, *around(claim, 0.02)), columns=COLUMNS), kind)
    return next(result for result in found if result["id"] == claim_id)


@pytest.mark.parametrize("kind", KINDS)
@EACH
def test_the_published_value_is_the_claims_own_statistic_of_the_papers_means(claim, kind):
    """Against a loop over the file's rows."""
    metric = claim.theirs[0]
    values = {m.localization: m.value for m in MEANS.itertuples() if (m.task, m.metric) == (kind, metric)}
    text = published(claim.id, kind)["published"]
    if not values:
        assert text == claim.published
    elif (reference := claim.where["against"]) in values:
        gaps = [values[name] - values[reference] for name in claim.among]
        gap = min(gaps) if claim.above else max(gaps)
        assert float(text.split()[0].replace("\N{MINUS SIGN}", "-")) == pytest.approx(gap, abs=6e-4)
        assert ("disagree" in text) == (gap <= 0 if claim.above else gap >= 0)
    else:
        numbers = [values[name] for name in claim.among]
        assert text.startswith(f"{min(numbers):.3f}")
        assert (f" to {max(numbers):.3f}" in text) == (len(numbers) > 1)


def test_numbers_of_the_paper_by_hand():
    expected = {
        ("choice-transfer", "sports-athlete"): "−0.230 (by letter; 0.632, random-mlps, against 0.862)",
        ("choice-transfer", "full-sports"): "−0.027 (by letter; 0.460, all-mlps, against 0.487)",
        ("choice-transfer", "counterfact"): "−0.309 (by letter; 0.236, random-mlps, against 0.545)",
        ("maintain", "counterfact"): "0.969 (maintain accuracy after the edit)",
        ("relearning", "counterfact"): BY_ID["relearning"].published,
        ("relearning", ""): "not in the paper",
    }
    assert {asked: published(*asked)["published"] for asked in expected} == expected
    assert published("maintain", "full-sports")["section"] == "3.1.1, Fig. 29"
    assert published("maintain", "")["section"] == "3.1.1"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"facts": "sports", "forget": 16}, "sports-athlete"),
        ({"facts": "sports-upstream", "path": "a.csv", "forget": 64}, "sports-athlete"),
        ({"facts": "sports", "answer": "baseball", "new_answer": "golf"}, "full-sports"),
        ({"facts": "sports", "answer": "baseball"}, ""),
        ({"facts": "sports", "forget": 16, "new_answer": "golf"}, ""),
        ({"facts": "counterfact", "forget": 16}, "counterfact"),
        ({"facts": "counterfact", "forget": 64, "blocks": 4}, "sequential-counterfact"),
        ({"facts": "own", "path": "a.csv", "forget": 16}, ""),
        ({"facts": "planted", "forget": 9}, ""),
    ],
)
def test_which_of_the_papers_tasks_a_task_is(settings, expected):
    assert kind(TaskSettings(**settings)) == expected


def test_a_wide_interval_does_not_hide_one_that_refutes_the_claim():
    claim = BY_ID["standard-prompting"]
    rows = every(claim, 0.95, 0.9, 1.0)
    rows[1] = row(claim, claim.among[1], 0.78, 0.5, 0.96)  # open
    rows[2] = row(claim, claim.among[2], 0.6, 0.55, 0.65)  # below 0.75 with all of its interval
    found = verdict(claim, *rows)
    assert (found["value"], found["high"], found["verdict"]) == (0.6, 0.65, "not reproduced")
    assert claim.among[2] in found["note"]
    assert verdict(claim, *rows[:2], *rows[3:], row(claim, claim.among[2], 0.95, 0.9, 1.0))["value"] == 0.78


@pytest.mark.parametrize("claim", [BY_ID["choice-transfer"], BY_ID["relearning"]], ids=lambda claim: claim.id)
def test_what_trains_the_same_as_fact_lookup_is_no_rival(claim):
    same = row(claim, claim.among[0], 0.0, 0.0, 0.0)
    rows = every(claim, *around(claim, 0.02))
    assert verdict(claim, same, *rows[1:])["verdict"] == "reproduced"
    assert f"{claim.among[0]} trains the same as fact-lookup." in verdict(claim, same, *rows[1:])["note"]
    alone = verdict(claim, *(row(claim, name, 0.0, 0.0, 0.0) for name in claim.among))
    assert alone["verdict"] == "not measurable here"
