"""LLM Surgery's studies: what surgery costs, and the paper's claims as checks (Veldanda et al. 2024). Torch-free.

costs    tokens and seconds of every edit, beside the training of the baseline that it replaces
CLAIMS   the claims of the abstract
check    a study's metrics and costs -> every claim with our value, its interval and a verdict
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mechunlearn.artifacts import read_json
from mechunlearn.config import Study
from mechunlearn.study import home, pairs

PAPER = "LLM Surgery"
COSTS = ["model", "task", "localization", "objective", "tokens", "seconds", "baseline_tokens", "baseline_seconds"]
FULL = "nonlocalized"  # as published: every weight of attention and MLPs
TEST = {"stage": "edited", "elicitation": "quiz-test", "metric": "accuracy_true"}


@dataclass(frozen=True)
class Claim:
    """A claim about edits of every weight (FULL): it holds where the whole interval of its statistic is above `bound`,
    or below it.

    published   what the paper says of it
    where       which row of the metrics is the statistic
    """

    id: str
    section: str
    sentence: str
    statistic: str
    published: str
    where: dict[str, str]
    bound: float = 0.0
    above: bool = True


CLAIMS = [
    Claim(
        "surgery-forgetting",
        "abstract",
        "Surgery makes the model forget what is problematic.",
        "change of accuracy on unseen questions about the people to forget; holds below 0",
        "significant forgetting (no number in the abstract)",
        {**TEST, "role": "forget", "against": "base"},
        above=False,
    ),
    Claim(
        "surgery-obsolete",
        "3, code",
        "It also forgets what is obsolete.",
        "change of accuracy on unseen questions about what was replaced; holds below 0",
        "not readable",
        {**TEST, "role": "obsolete", "against": "base"},
        above=False,
    ),
    Claim(
        "surgery-update",
        "abstract",
        "It learns the update: 20 points more accuracy.",
        "change of accuracy on unseen questions about the update; holds above 0.2",
        "+20%",
        {**TEST, "role": "update", "against": "base"},
        bound=0.2,
    ),
    Claim(
        "surgery-retain",
        "abstract",
        "What is to be kept stays as it was.",
        "change of accuracy on unseen questions about people in the retain term; holds above -0.1",
        "maintained",
        {**TEST, "role": "maintain-train", "against": "base"},
        bound=-0.1,
    ),
    Claim(
        "surgery-kept",
        "ours",
        "So does what surgery never saw.",
        "change of accuracy on unseen questions about kept people in none of its terms; holds above -0.1",
        "not measured",
        {**TEST, "role": "maintain-test", "against": "base"},
        bound=-0.1,
    ),
]
COST = {
    "id": "surgery-cost",
    "section": "not known: from a summary of the paper",
    "sentence": "It costs far less than training anew without what is unlearned.",
    "statistic": "training seconds of the baseline over those of surgery, on the same machine; holds above 2",
    "published": "35 times fewer GPU hours",
}


def costs(study: Study) -> pd.DataFrame:
    """One row an edit of a trained model; seconds and tokens are means over seeds. COSTS names the columns.

    The baseline is the model trained on the update from the same base; missing where the study has none.
    """
    rows = []
    for model, task in pairs(study):
        trained = study.models[model].trained
        if not trained:
            continue
        baselines = [name for name, each in study.models.items() if each.trained == (trained[0], "baseline")]
        whole = read_json(Path("models") / baselines[0] / "training.json") if baselines else {}
        for localization in study.localizations:
            for objective in study.objectives:
                folder = home(study.study, model, task) / "edits" / localization / objective
                ends = [read_json(folder / f"seed{seed}" / "history.json")[-1] for seed in study.seeds]
                spent = [sum(end[name] for end in ends) / len(ends) for name in ("tokens", "seconds")]
                anew = [whole.get("tokens"), whole.get("seconds")]
                rows.append([model, task, localization, objective, *spent, *anew])
    return pd.DataFrame(rows, columns=COSTS)


def check(metrics: pd.DataFrame, spent: pd.DataFrame) -> list[dict[str, Any]]:
    """Every claim for every objective whose name begins with `surgery`, with its verdict."""
    found = []
    edits = metrics[metrics.objective.fillna("").str.startswith("surgery")]
    for (model, task, objective), rows in edits.groupby(["model", "task", "objective"]):
        place = {"paper": PAPER, "model": model, "task": task, "objective": objective}
        for claim in CLAIMS:
            found.append(place | _check(claim, rows))
        chosen = spent[(spent.model == model) & (spent.task == task) & (spent.objective == objective)]
        found.append(place | _cost(chosen[chosen.localization == FULL]))
    return found


def _check(claim: Claim, rows: pd.DataFrame) -> dict[str, Any]:
    for column, value in {**claim.where, "localization": FULL}.items():
        rows = rows[rows[column].fillna("") == value]
    about = {name: getattr(claim, name) for name in ("id", "section", "sentence", "statistic", "published")}
    return about | _verdict(list(rows.itertuples()), claim.bound, claim.above)


def _verdict(rows: Sequence[Any], bound: float, above: bool) -> dict[str, Any]:
    row = next(iter(rows), None)
    if row is None:
        note = f"this study has no such measurement of {FULL}."
        return {"value": None, "low": None, "high": None, "n": 0, "note": note, "verdict": "not measurable here"}
    if not row.counts:
        note = f"the base model answers in this format at {row.gate:.2f}, too near chance."
        return {"value": None, "low": None, "high": None, "n": 0, "note": note, "verdict": "not measurable here"}
    holds = row.low > bound if above else row.high < bound
    verdict = "reproduced" if holds else "not reproduced"
    values = {"value": float(row.value), "low": float(row.low), "high": float(row.high)}
    return {**values, "n": int(row.n), "note": "", "verdict": verdict}


def _cost(spent: pd.DataFrame) -> dict[str, Any]:
    spent = spent.dropna()
    if spent.empty:
        note = "this study trains no baseline, or not everywhere."
        nothing = {"value": None, "low": None, "high": None, "n": 0, "verdict": "not measurable here"}
        return {**COST, **nothing, "note": note}
    row = spent.to_dict("records")[0]
    ratio, tokens = (row[f"baseline_{name}"] / row[name] for name in ("seconds", "tokens"))
    counts = f"{row['baseline_tokens']:,.0f} against {row['tokens']:,.0f}"
    note = f"by tokens, {tokens:.1f}: {counts}. One timing, no interval."
    verdict = "reproduced" if ratio > 2 else "not reproduced"
    return {**COST, "value": ratio, "low": ratio, "high": ratio, "n": 0, "note": note, "verdict": verdict}
