"""The papers' claims as checks. Torch-free.

CLAIMS   each claim: where the paper makes it, what it says in our words, the published value, what we measure
check    a study's metrics -> every claim with our value, its interval and a verdict

Verdicts: `reproduced` where the interval of the statistic lies wholly on the claim's side of its bound, `not
reproduced` where it does not, `not measurable here` where this study lacks what the claim speaks of or the model
cannot use the format. A claim that fails is a result.
"""

from dataclasses import dataclass
from typing import Any

import pandas as pd

PAPER = "Mechanistic Unlearning"
TRACING = ("causal-tracing", "causal-tracing-mlps")
ATTRIBUTION = ("attribution-patching", "attribution-patching-mlps")
RIVALS = (*TRACING, *ATTRIBUTION, "random", "random-mlps", "all-mlps", "nonlocalized")
EVERY = ("fact-lookup", *RIVALS)


@dataclass(frozen=True)
class Claim:
    """A claim holds where the whole interval of its statistic lies above `bound`, or below it.

    among   the localizations it speaks of; the one whose interval reaches furthest to the other side decides
    where   which row of the metrics is the statistic; stage `relearned` is the last relearning step
    """

    id: str
    section: str
    sentence: str
    statistic: str
    published: str
    among: tuple[str, ...]
    where: dict[str, str]
    bound: float = 0.0
    above: bool = True


CLAIMS = [
    Claim(
        "standard-prompting",
        "3.1.1, Fig. 28",
        "Asked in the training format, every localization looks edited.",
        "smallest probability of the new answer after any edit, training prompt; holds above 0.75",
        ".75 to .99 (athletes, edit accuracy, chatbot prompt)",
        EVERY,
        {"stage": "edited", "elicitation": "completion", "role": "forget", "metric": "p_new", "against": ""},
        bound=0.75,
    ),
    Claim(
        "maintain",
        "3.1.1, Fig. 28",
        "An edit at the lookup layers leaves other facts alone.",
        "probability of the true answer of held-out facts after the fact-lookup edit; holds above 0.9",
        ".992 (athletes)",
        ("fact-lookup",),
        {"stage": "edited", "elicitation": "completion", "role": "maintain-test", "metric": "p_true", "against": ""},
        bound=0.9,
    ),
    Claim(
        "choice-transfer",
        "3.1.1, Fig. 3a",
        "Only an edit at the lookup layers carries over to multiple choice.",
        "probability of the new answer, multiple choice in words: the best rival minus fact lookup; holds below 0",
        "-.23 (athletes: .632, random MLPs, against .862; by letter)",
        RIVALS,
        {
            "stage": "edited",
            "elicitation": "choice-text",
            "role": "forget",
            "metric": "p_new",
            "against": "fact-lookup",
        },
        above=False,
    ),
    Claim(
        "choice-transfer-letters",
        "3.1.1, Fig. 3a",
        "The same in the paper's own format, where options are answered by letter.",
        "probability of the new answer, multiple choice by letter: the best rival minus fact lookup; holds below 0",
        "-.23 (athletes: .632, random MLPs, against .862)",
        RIVALS,
        {
            "stage": "edited",
            "elicitation": "choice-letter",
            "role": "forget",
            "metric": "p_new",
            "against": "fact-lookup",
        },
        above=False,
    ),
    Claim(
        "tracing-against-everywhere",
        "3.1.1, Fig. 3a",
        "Editing where causal tracing points is less robust than editing everywhere.",
        "probability of the new answer, multiple choice in words: the better causal tracing minus nonlocalized; "
        "holds below 0",
        "+.04 (athletes: .371 against .327: the paper's own numbers disagree)",
        TRACING,
        {
            "stage": "edited",
            "elicitation": "choice-text",
            "role": "forget",
            "metric": "p_new",
            "against": "nonlocalized",
        },
        above=False,
    ),
    Claim(
        "relearning",
        "3.2, Fig. 6",
        "Relearning some facts brings back least of the others where the edit was at the lookup layers.",
        "probability of the true answer of the unseen half after relearning: the smallest rival minus fact lookup; "
        "holds above 0",
        "+.07 (athletes: .264, random MLPs, against .199)",
        RIVALS,
        {
            "stage": "relearned",
            "elicitation": "completion",
            "role": "forget",
            "metric": "p_true",
            "against": "fact-lookup",
        },
    ),
    Claim(
        "no-side-effects",
        "3.1.1, Fig. 2a",
        "Editing does no harm to general ability.",
        "largest rise of cross-entropy on held-out text after any edit, nats a token; holds below 0.05. A weak test: "
        "the edit also trains on text of this kind, so a fall is to be expected",
        "MMLU within .015 of each other",
        EVERY,
        {"stage": "edited", "elicitation": "text", "role": "text", "metric": "nll", "against": "base"},
        bound=0.05,
        above=False,
    ),
]


def check(metrics: pd.DataFrame) -> list[dict[str, Any]]:
    """Every claim, for every model, task and objective of the metrics, with its verdict."""
    edits = metrics[metrics.localization != "base"]
    base = metrics[metrics.localization == "base"]
    return [
        {"paper": PAPER, "model": model, "task": task, "objective": objective}
        | _check(claim, rows, base[(base.model == model) & (base.task == task)])
        for (model, task, objective), rows in edits.groupby(["model", "task", "objective"])
        for claim in CLAIMS
    ]


def _check(claim: Claim, metrics: pd.DataFrame, base: pd.DataFrame) -> dict[str, Any]:
    about = {name: getattr(claim, name) for name in ("id", "section", "sentence", "statistic", "published")}
    unmeasured = {"value": None, "low": None, "high": None, "n": 0, "verdict": "not measurable here"}
    rows = metrics[metrics.localization.isin(claim.among)]
    for column, value in claim.where.items():
        rows = rows[rows[column].fillna("") == (_last(metrics) if value == "relearned" else value)]
    asked = pd.concat([rows, base[base.elicitation == claim.where["elicitation"]]])
    if not asked.counts.all():
        note = f"the base model answers in this format at {asked[~asked.counts].gate.iloc[0]:.2f}, too near chance."
        return {**about, **unmeasured, "note": note}
    missing = [name for name in claim.among if name not in set(rows.localization)]
    if missing:
        return {**about, **unmeasured, "note": f"this study has no such measurement of {', '.join(missing)}."}
    row = rows.sort_values("low" if claim.above else "high", ascending=claim.above).iloc[0]
    holds = row.low > claim.bound if claim.above else row.high < claim.bound
    return {
        **about,
        "value": float(row.value),
        "low": float(row.low),
        "high": float(row.high),
        "n": int(row.n),
        "note": f"decided by {row.localization}." if len(claim.among) > 1 else "",
        "verdict": "reproduced" if holds else "not reproduced",
    }


def _last(metrics: pd.DataFrame) -> str:
    """The stage after the last relearning step."""
    stages = [stage for stage in metrics.stage.unique() if str(stage).startswith("relearned@")]
    return max(stages, key=lambda stage: int(stage.split("@")[1]), default="relearned")
