"""LLM Surgery's studies: what surgery costs, and the paper's claims as checks (Veldanda et al. 2024). Torch-free.

costs    tokens and seconds of every edit, beside the training of the baseline that it replaces
CLAIMS   the claims of the paper by the objective that they are about, for edits of every weight
check    a study's metrics and costs -> every claim with our value, its interval and a verdict
"""

from pathlib import Path
from typing import Any

import pandas as pd

from mechunlearn.artifacts import read_json
from mechunlearn.claims import Claim, about, ours, unmeasured
from mechunlearn.config import Study
from mechunlearn.study import home, pairs

PAPER = "LLM Surgery"
COSTS = ["model", "task", "localization", "objective", "tokens", "seconds", "baseline_tokens", "baseline_seconds"]
FULL = "nonlocalized"  # as published: every weight of attention and MLPs
TEST = {"stage": "edited", "elicitation": "quiz-test", "metric": "accuracy_true"}
ABSTRACT = [
    Claim(
        "surgery-forgetting",
        "abstract",
        "Surgery makes the model forget what is problematic.",
        "change of accuracy on unseen questions about the people to forget; holds below 0",
        (FULL,),
        {**TEST, "role": "forget", "against": "base"},
        above=False,
        published="significant forgetting (no number in the abstract)",
    ),
    Claim(
        "surgery-obsolete",
        "3, code",
        "It also forgets what is obsolete.",
        "change of accuracy on unseen questions about what was replaced; holds below 0",
        (FULL,),
        {**TEST, "role": "obsolete", "against": "base"},
        above=False,
        published="not readable",
    ),
    Claim(
        "surgery-update",
        "abstract",
        "It learns the update: 20 points more accuracy.",
        "change of accuracy on unseen questions about the update; holds above 0.2",
        (FULL,),
        {**TEST, "role": "update", "against": "base"},
        bound=0.2,
        published="+20%",
    ),
    Claim(
        "surgery-retain",
        "abstract",
        "What is to be kept stays as it was.",
        "change of accuracy on unseen questions about people in the retain term; holds above -0.1",
        (FULL,),
        {**TEST, "role": "maintain-train", "against": "base"},
        bound=-0.1,
        published="maintained",
    ),
    Claim(
        "surgery-kept",
        "ours",
        "So does what surgery never saw.",
        "change of accuracy on unseen questions about kept people in none of its terms; holds above -0.1",
        (FULL,),
        {**TEST, "role": "maintain-test", "against": "base"},
        bound=-0.1,
        published="not measured",
    ),
]
ABLATION = Claim(
    "surgery-without-ascent",
    "not known: from a summary of the paper",
    "Without the ascent, obsolete facts go on being told.",
    "change of accuracy on unseen questions about what was replaced, the ascent left out; holds above -0.1",
    (FULL,),
    {**TEST, "role": "obsolete", "against": "base"},
    bound=-0.1,
    published="obsolete facts are still answered (no number)",
)
CLAIMS = {"surgery": ABSTRACT, "surgery-no-ascent": [ABLATION]}
COST = Claim(
    "surgery-cost",
    "not known: from a summary of the paper",
    "It costs far less than training anew without what is unlearned.",
    "training seconds of the baseline over those of surgery, on the same machine; holds above 2",
    (FULL,),
    {},
    bound=2.0,
    published="35 times fewer GPU hours",
)


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
    """Every claim about an objective that was measured, with its verdict; of `surgery` also what it costs."""
    found = []
    edits, base = metrics[metrics.objective.isin(CLAIMS)], metrics[metrics.localization == "base"]
    for (model, task, objective), rows in edits.groupby(["model", "task", "objective"]):
        place = {"paper": PAPER, "model": model, "task": task, "objective": objective}
        before = base[(base.model == model) & (base.task == task)]
        found += [place | about(claim) | ours(claim, rows, before) for claim in CLAIMS[str(objective)]]
        if objective == "surgery":
            chosen = spent[(spent.model == model) & (spent.task == task) & (spent.objective == objective)]
            found.append(place | about(COST) | _cost(chosen[chosen.localization == FULL]))
    return found


def _cost(spent: pd.DataFrame) -> dict[str, Any]:
    spent = spent.dropna()
    if spent.empty:
        return unmeasured("this study trains no baseline, or not everywhere.")
    row = spent.to_dict("records")[0]
    ratio, tokens = (row[f"baseline_{name}"] / row[name] for name in ("seconds", "tokens"))
    counts = f"{row['baseline_tokens']:,.0f} against {row['tokens']:,.0f}"
    note = f"by tokens, {tokens:.1f}: {counts}. One timing, no interval."
    verdict = "reproduced" if ratio > COST.bound else "not reproduced"
    return {"value": ratio, "low": ratio, "high": ratio, "n": 0, "note": note, "verdict": verdict}
