"""The tables of a study of LLM Surgery, as HTML. Torch-free.

accuracies   accuracy on questions about each stream: base model, before, baseline, and every edit
costs        tokens and seconds of every edit beside the baseline's
"""

from collections.abc import Sequence

import pandas as pd

from mechunlearn.figures import data, html, words

STREAMS = {
    "forget": "Forget",
    "obsolete": "Obsolete",
    "update": "Update",
    "maintain-train": "Retain",
    "maintain-test": "Keep",
}


def accuracies(metrics: pd.DataFrame, model: str, references: Sequence[str], elicitation: str) -> str:
    """One row a model: those to compare with, the one before surgery, then every objective and localization.

    `metrics` are those of one task, of all models.
    """
    head = ["", *STREAMS.values(), "Texts: forget", "Texts: update", "Texts: keep", "General text"]
    rows = [[html.safe(name), *_cells(metrics, name, "base", "", elicitation)] for name in [*references, model]]
    groups = [("Before surgery, and models to compare with", rows)]
    own = metrics[metrics.model == model]
    for objective in data.objectives(own):
        edits = [
            [html.safe(words.localization(name)), *_cells(metrics, model, name, objective, elicitation)]
            for name in data.localizations(own)
        ]
        groups.append((html.safe(objective), edits))
    return html.table(head, groups)


def _cells(metrics: pd.DataFrame, model: str, localization: str, objective: str, elicitation: str) -> list[str]:
    where = {"model": model, "localization": localization, "objective": objective}
    where["stage"] = "base" if localization == "base" else "edited"
    asked = [
        words.row(data.one(metrics, "accuracy_true", elicitation=elicitation, role=role, **where)) for role in STREAMS
    ]
    told = [
        words.row(data.one(metrics, "nll", elicitation="biography", role=role, **where))
        for role in ("forget", "update", "maintain-test")
    ]
    return [*asked, *told, words.row(data.one(metrics, "nll", elicitation="text", role="text", **where))]


def costs(spent: pd.DataFrame) -> str:
    """What each edit took, and how many times as much the baseline did."""
    rows = []
    for row in spent.to_dict("records"):
        named = f"{row['objective']}, {words.localization(str(row['localization'])).lower()}"
        tokens = row["baseline_tokens"] / row["tokens"] if row["tokens"] else float("nan")
        numbers = f"{row['tokens']:,.0f}", f"{row['seconds']:,.0f}", f"{tokens:.1f}"
        rows.append([html.safe(named), *numbers, f"{row['baseline_seconds'] / row['seconds']:.1f}"])
    head = ["", "Tokens", "Seconds", "Baseline’s tokens, times", "Baseline’s seconds, times"]
    return html.table(head, [("What an edit costs, and how many times as much training the baseline anew", rows)])
