"""The papers' claims as checks. Torch-free.

CLAIMS   each claim: id, where the paper makes it, what it says in our words, the published value
check    a study's metrics -> every claim with our value, its interval and a verdict

Verdicts: `reproduced` where the interval of the statistic lies wholly on the claim's side of its bound, `not
reproduced` where it does not, `not measurable here` where this study lacks what the claim speaks of or the model
cannot use the format. A claim that fails is a result.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

PAPER = "Mechanistic Unlearning"
REFERENCE = "fact-lookup"
TRACING = ("causal-tracing", "causal-tracing-mlps")
RIVALS = (*TRACING, "all-mlps", "nonlocalized")


@dataclass(frozen=True)
class Evidence:
    """A statistic with its interval; `value` is None where it cannot be measured, and `note` says why."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    note: str = ""


@dataclass(frozen=True)
class Claim:
    """A claim holds where its statistic's whole interval lies above (or below) `bound`."""

    id: str
    section: str
    sentence: str
    statistic: str
    published: str
    evidence: Callable[[pd.DataFrame], Evidence]
    bound: float = 0.0
    above: bool = True


def _value(metrics: pd.DataFrame, **where: str) -> Evidence:
    """The one row that matches, or why there is none."""
    rows = metrics
    for column, value in where.items():
        rows = rows[rows[column].fillna("") == value]
    if rows.empty:
        return Evidence(note=f"this study has no {where.get('localization', 'such')} measurement.")
    row = rows.iloc[0]
    if not row.counts:
        return Evidence(note=f"the base model answers {where['elicitation']} at {row.gate:.2f}, too near chance.")
    return Evidence(float(row.value), float(row.low), float(row.high), int(row.n))


def _hardest(metrics: pd.DataFrame, localizations: tuple[str, ...], largest: bool, **where: str) -> Evidence:
    """Among the localizations, the row that is worst for the claim: largest, or smallest, in value."""
    found = [(name, _value(metrics, localization=name, **where)) for name in localizations]
    measured = [(name, evidence) for name, evidence in found if evidence.value is not None]
    if not measured:
        return found[0][1]
    name, worst = (max if largest else min)(measured, key=lambda item: item[1].value or 0.0)
    return Evidence(worst.value, worst.low, worst.high, worst.n, f"hardest rival: {name}.")


def _choice_gap(metrics: pd.DataFrame) -> Evidence:
    return _hardest(
        metrics,
        RIVALS,
        True,
        stage="edited",
        elicitation="choice-text",
        role="forget",
        metric="p_new",
        against=REFERENCE,
    )


def _letter_gap(metrics: pd.DataFrame) -> Evidence:
    return _hardest(
        metrics,
        RIVALS,
        True,
        stage="edited",
        elicitation="choice-letter",
        role="forget",
        metric="p_new",
        against=REFERENCE,
    )


def _relearn_gap(metrics: pd.DataFrame) -> Evidence:
    stages = [stage for stage in metrics.stage.unique() if str(stage).startswith("relearned@")]
    last = max(stages, key=lambda stage: int(stage.split("@")[1]), default="relearned")
    return _hardest(
        metrics,
        RIVALS,
        False,
        stage=last,
        elicitation="completion",
        role="forget",
        metric="p_true",
        against=REFERENCE,
    )


def _tracing_gap(metrics: pd.DataFrame) -> Evidence:
    return _hardest(
        metrics, TRACING, True,
        stage="edited", elicitation="choice-text", role="forget", metric="p_new", against="nonlocalized",
    )  # fmt: skip


def _edit_success(metrics: pd.DataFrame) -> Evidence:
    return _hardest(
        metrics, (REFERENCE, *RIVALS), False,
        stage="edited", elicitation="completion", role="forget", metric="p_new", against="",
    )  # fmt: skip


def _maintain(metrics: pd.DataFrame) -> Evidence:
    return _value(
        metrics, localization=REFERENCE, stage="edited", elicitation="completion", role="maintain-test",
        metric="p_true", against="",
    )  # fmt: skip


def _text(metrics: pd.DataFrame) -> Evidence:
    return _hardest(
        metrics,
        (REFERENCE, *RIVALS),
        True,
        stage="edited",
        elicitation="text",
        role="text",
        metric="nll",
        against="base",
    )


CLAIMS = [
    Claim(
        "standard-prompting",
        "3.1.1, Fig. 28",
        "Asked in the training format, every localization looks edited.",
        "the smallest probability of the new answer after any edit, training prompt; holds above 0.75",
        ".75 to .99 (edit accuracy, chatbot prompt)",
        _edit_success,
        bound=0.75,
    ),
    Claim(
        "maintain",
        "3.1.1, Fig. 28",
        "An edit at the lookup layers leaves other athletes' sports alone.",
        "probability of the true sport of held-out athletes after the fact-lookup edit; holds above 0.9",
        ".992",
        _maintain,
        bound=0.9,
    ),
    Claim(
        "choice-transfer",
        "3.1.1, Fig. 3a",
        "Only an edit at the lookup layers carries over to multiple choice.",
        "probability of the new sport in options-as-text multiple choice: the best rival minus fact lookup; "
        "holds below 0",
        "-.49 (.371 against .862, options by letter)",
        _choice_gap,
        above=False,
    ),
    Claim(
        "choice-transfer-letters",
        "3.1.1, Fig. 3a",
        "The same with the paper's own format, where options are answered by letter.",
        "as above, letters; holds below 0",
        "-.49 (.371 against .862)",
        _letter_gap,
        above=False,
    ),
    Claim(
        "tracing-worse-than-nothing",
        "3.1.1, Fig. 3a",
        "Editing where output tracing points is less robust than editing everywhere.",
        "probability of the new sport in options-as-text multiple choice: the better causal tracing minus "
        "nonlocalized; holds below 0",
        "+.04 (.371 against .327: mixed in the paper's own data)",
        _tracing_gap,
        above=False,
    ),
    Claim(
        "relearning",
        "3.2, Fig. 6",
        "Relearning some facts brings back least of the others where the edit was at the lookup layers.",
        "probability of the true sport of the unseen half after relearning: the smallest rival minus fact lookup; "
        "holds above 0",
        "+.08 (.275 against .199)",
        _relearn_gap,
    ),
    Claim(
        "no-side-effects",
        "3.1.1, Fig. 2a",
        "Editing does no harm to general ability.",
        "largest rise of cross-entropy on held-out text after any edit, nats a token; holds below 0.05",
        "MMLU within .015 of each other",
        _text,
        bound=0.05,
        above=False,
    ),
]


def check(metrics: pd.DataFrame) -> list[dict[str, Any]]:
    """Every claim, for every model, task and objective of the metrics, with its verdict."""
    edits = metrics[metrics.localization != "base"]
    results = []
    for (model, task, objective), rows in edits.groupby(["model", "task", "objective"]):
        for claim in CLAIMS:
            evidence = claim.evidence(rows)
            values = {key: value for key, value in asdict(claim).items() if key not in ("evidence", "above", "bound")}
            results.append(
                {"paper": PAPER, "model": model, "task": task, "objective": objective, **values}
                | asdict(evidence)
                | {"verdict": _verdict(claim, evidence)}
            )
    return results


def _verdict(claim: Claim, evidence: Evidence) -> str:
    if evidence.value is None or evidence.low is None or evidence.high is None:
        return "not measurable here"
    holds = evidence.low > claim.bound if claim.above else evidence.high < claim.bound
    return "reproduced" if holds else "not reproduced"
