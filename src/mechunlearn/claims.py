"""The papers' claims as checks. Torch-free.

Claim        where a paper makes it, what it says in our words, which of its numbers and ours it is about
CLAIMS       those of Mechanistic Unlearning; LLM Surgery's are in operations.py
check        a study's metrics -> every claim with the paper's value and ours, its interval and a verdict
about        what a claim says
ours         what a study's metrics say of it, and the verdict
unmeasured   the same where they say nothing

Verdicts: `reproduced` where the interval of the statistic lies wholly on the claim's side of its bound, `not
reproduced` where it does not, `not measurable here` where this study lacks what the claim speaks of or the model
cannot use the format. A claim that fails is a result.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mechunlearn import published
from mechunlearn.metrics import last

PAPER = "Mechanistic Unlearning"
OBJECTIVE = "inject"  # the claims are about edits that put a new answer in
TRACING = ("causal-tracing", "causal-tracing-mlps")
ATTRIBUTION = ("attribution-patching", "attribution-patching-mlps")
RIVALS = (*TRACING, *ATTRIBUTION, "random", "random-mlps", "all-mlps", "nonlocalized")
EVERY = ("fact-lookup", *RIVALS)
ALIKE = 0.05  # so far apart P(new) in the training prompt may be for edits to count as equally strong


@dataclass(frozen=True)
class Claim:
    """A claim holds where the whole interval of its statistic lies above `bound`, or below it.

    published   what the paper says of it where it gives no number
    among       the localizations it speaks of. Where one lies on the other side with its whole interval it decides, the
                most extreme of several; else the one whose interval reaches furthest to the other side
    where       which row of the metrics is the statistic; stage `relearned` is the last relearning step
    figures     the paper's figures that show it, one for each of `published.KINDS`
    theirs      the paper's metric, and how a reader should take it
    """

    id: str
    section: str
    sentence: str
    statistic: str
    among: tuple[str, ...]
    where: dict[str, str]
    bound: float = 0.0
    above: bool = True
    published: str = "not in the paper"
    figures: tuple[str, ...] = ()
    theirs: tuple[str, str] = ("", "")


def _edited(elicitation: str, role: str, metric: str, against: str = "") -> dict[str, str]:
    return {"stage": "edited", "elicitation": elicitation, "role": role, "metric": metric, "against": against}


CLAIMS = [
    Claim(
        "standard-prompting",
        "3.1.1",
        "Asked in the training format, every localization looks edited.",
        "smallest probability of the new answer after any edit, training prompt; holds above 0.75",
        EVERY,
        _edited("completion", "forget", "p_new"),
        bound=0.75,
        figures=("28", "29", "30", "31"),
        theirs=("edit_accuracy", "edit accuracy; of athletes through a chatbot prompt"),
    ),
    Claim(
        "maintain",
        "3.1.1",
        "An edit at the lookup layers leaves other facts alone.",
        "change of the probability of the true answer of held-out facts by the fact-lookup edit; holds above -0.1",
        ("fact-lookup",),
        _edited("completion", "maintain-test", "p_true", "base"),
        bound=-0.1,
        figures=("28", "29", "30", "31"),
        theirs=("maintain_accuracy", "maintain accuracy after the edit"),
    ),
    Claim(
        "choice-transfer",
        "3.1.1",
        "Only an edit at the lookup layers carries over to multiple choice.",
        "probability of the new answer, multiple choice in words: the best rival minus fact lookup; holds below 0",
        RIVALS,
        _edited("choice-text", "forget", "p_new", "fact-lookup"),
        above=False,
        figures=("3a", "3b", "5a", "5b"),
        theirs=("mcq_edit_accuracy", "by letter"),
    ),
    Claim(
        "choice-transfer-letters",
        "3.1.1",
        "The same in the paper's own format, where options are answered by letter.",
        "probability of the new answer, multiple choice by letter: the best rival minus fact lookup; holds below 0",
        RIVALS,
        _edited("choice-letter", "forget", "p_new", "fact-lookup"),
        above=False,
        figures=("3a", "3b", "5a", "5b"),
        theirs=("mcq_edit_accuracy", "by letter"),
    ),
    Claim(
        "tracing-against-everywhere",
        "3.1.1",
        "Editing where causal tracing points is less robust than editing everywhere.",
        "probability of the new answer, multiple choice in words: the better causal tracing minus nonlocalized; "
        "holds below 0",
        TRACING,
        _edited("choice-text", "forget", "p_new", "nonlocalized"),
        above=False,
        figures=("3a", "3b", "5a", "5b"),
        theirs=("mcq_edit_accuracy", "by letter"),
    ),
    Claim(
        "relearning",
        "3.2",
        "Relearning some facts brings back least of the others where the edit was at the lookup layers.",
        "probability of the true answer of the unseen half after relearning: the smallest rival minus fact lookup; "
        "holds above 0",
        RIVALS,
        {**_edited("completion", "forget", "p_true", "fact-lookup"), "stage": "relearned"},
        published="no valid number: the released runs on CounterFact relearned the new answers",
        figures=("6", "37", "38", "39"),
        theirs=("forget_accuracy_relearned_20", "true answer after 20 steps"),
    ),
    Claim(
        "no-side-effects",
        "3.1.1",
        "Editing does no harm to general ability.",
        "largest rise of cross-entropy on held-out text after any edit, nats a token; holds below 0.05. A weak test: "
        "the edit also trains on text of this kind, so a fall is to be expected",
        EVERY,
        _edited("text", "text", "nll", "base"),
        bound=0.05,
        above=False,
        published="MMLU, drawn without numbers",
        figures=("2a", "2b", "4a", "4b"),
        theirs=("mmlu", "MMLU after the edits"),
    ),
]


def check(metrics: pd.DataFrame, tasks: Mapping[str, str], means: pd.DataFrame) -> list[dict[str, Any]]:
    """Every claim, for every model and task that was edited as the paper did, with its verdict.

    tasks   what the paper calls each task of the metrics (see published.kind)
    means   the paper's numbers (published.means)
    """
    edits = metrics[metrics.objective == OBJECTIVE]
    base = metrics[metrics.localization == "base"]
    return [
        {"paper": PAPER, "model": model, "task": task, "objective": OBJECTIVE}
        | _theirs(claim, tasks[str(task)], means)
        | ours(claim, rows, base[(base.model == model) & (base.task == task)])
        for (model, task), rows in edits.groupby(["model", "task"])
        for claim in CLAIMS
    ]


def about(claim: Claim) -> dict[str, str]:
    """What the claim says, where, and what the paper gives for it."""
    return {name: getattr(claim, name) for name in ("id", "section", "sentence", "statistic", "published")}


def _theirs(claim: Claim, kind: str, means: pd.DataFrame) -> dict[str, str]:
    """`about`, with the paper's figure and value of the statistic for a kind of task."""
    said = about(claim)
    if kind not in published.KINDS:
        return {**said, "published": "not in the paper"}
    said["section"] += f", Fig. {claim.figures[published.KINDS.index(kind)]}"
    metric, meaning = claim.theirs
    rows = means[(means.task == kind) & (means.metric == metric)].set_index("localization").value
    if rows.empty:
        return said
    values, reference = rows[list(claim.among)], claim.where["against"]
    if reference in rows.index:
        gaps = values - rows[reference]
        rival = str(gaps.idxmin() if claim.above else gaps.idxmax())
        agrees = (gaps[rival] > claim.bound) == claim.above
        gap = f"{gaps[rival]:+.3f}".replace("-", "−")
        text = f"{gap} ({meaning}; {rows[rival]:.3f}, {rival}, against {rows[reference]:.3f})"
        return {**said, "published": text if agrees else f"{text}: the paper's own means disagree"}
    low, high = f"{values.min():.3f}", f"{values.max():.3f}"
    return {**said, "published": f"{low if low == high else f'{low} to {high}'} ({meaning})"}


def ours(claim: Claim, metrics: pd.DataFrame, base: pd.DataFrame) -> dict[str, Any]:
    """What was measured here of a model and task, and the verdict; `base` are the base model's rows."""
    rows = metrics[metrics.localization.isin(claim.among)]
    where = dict(claim.where)
    if where["stage"] == "relearned":  # `edited@2` is not a stronger edit, but a task's second block
        where["stage"] = last(metrics.stage.unique(), "relearned")
    for column, value in where.items():
        rows = rows[rows[column].fillna("") == value]
    asked = pd.concat([rows, base[base.elicitation == claim.where["elicitation"]]])
    if not asked.counts.all():
        note = f"the base model answers in this format at {asked[~asked.counts].gate.iloc[0]:.2f}, too near chance."
        return unmeasured(note)
    missing = [name for name in claim.among if name not in set(rows.localization)]
    if missing:
        return unmeasured(f"this study has no such measurement of {', '.join(missing)}.")
    # Of an edit that is the same as its reference every difference is 0, and so is its interval: no rival of its own.
    same = rows[(rows.low == 0) & (rows.high == 0) & (claim.where["against"] in EVERY)]
    rows = rows.drop(same.index)
    alike = "".join(f" {name} trains the same as {claim.where['against']}." for name in same.localization)
    if rows.empty:
        return unmeasured(alike.strip())
    refuted = rows[rows.high <= claim.bound] if claim.above else rows[rows.low >= claim.bound]
    deciding = ("value", refuted) if len(refuted) else ("low" if claim.above else "high", rows)
    row = deciding[1].sort_values(deciding[0], ascending=claim.above).iloc[0]
    holds = row.low > claim.bound if claim.above else row.high < claim.bound
    decided = f"decided by {row.localization}." if len(claim.among) > 1 else ""
    return {
        "value": float(row.value),
        "low": float(row.low),
        "high": float(row.high),
        "n": int(row.n),
        "note": decided + alike + _strengths(metrics, claim, row),
        "verdict": "reproduced" if holds else "not reproduced",
    }


def _strengths(metrics: pd.DataFrame, claim: Claim, row: Any) -> str:
    """A warning where the edits that a claim compares have not put the new answers in alike."""
    rows = metrics[metrics.localization.isin((claim.where["against"], row.localization))]
    for column, value in _edited("completion", "forget", "p_new").items():
        rows = rows[rows[column].fillna("") == value]
    if len(rows) < 2 or rows.value.max() - rows.value.min() <= ALIKE:
        return ""
    values = " and ".join(f"{each.value:.2f} ({each.localization})" for each in rows.itertuples())
    return f" The edits are not equally strong: in the training prompt P(new) is {values}."


def unmeasured(note: str) -> dict[str, Any]:
    """What stands in the place of a value where there is none, and why."""
    return {"value": None, "low": None, "high": None, "n": 0, "note": note, "verdict": "not measurable here"}
