"""The tables of a study of LLM Surgery, as HTML. Torch-free.

accuracies   accuracy on questions about each stream: base model, before, baseline, and every edit
texts        how unlikely the texts of each stream have become, and other text
costs        tokens and seconds of every edit beside the baseline's
"""

from collections.abc import Sequence

import pandas as pd

from mechunlearn.figures import data, html, words
from mechunlearn.study import BASE

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
    columns = [(title, "accuracy_true", elicitation, role) for role, title in STREAMS.items()]
    return _table(metrics, model, references, columns)


def texts(metrics: pd.DataFrame, model: str, references: Sequence[str]) -> str:
    """The same rows: cross-entropy of each stream's texts, in nats a token."""
    columns = [(title, "nll", "biography", role) for role, title in STREAMS.items()]
    return _table(metrics, model, references, [*columns, ("General text", "nll", "text", "text")])


def _table(
    metrics: pd.DataFrame, model: str, references: Sequence[str], columns: Sequence[tuple[str, str, str, str]]
) -> str:
    """columns   (title, metric, elicitation, role)"""

    def cells(name: str, localization: str, objective: str) -> list[str]:
        where = {"model": name, "localization": localization, "objective": objective}
        where["stage"] = BASE if localization == BASE else "edited"
        return [
            words.row(data.one(metrics, metric, elicitation=elicitation, role=role, **where))
            for _, metric, elicitation, role in columns
        ]

    rows = [[html.safe(name), *cells(name, BASE, "")] for name in [*references, model]]
    groups = [("Before surgery, and models to compare with", rows)]
    own = metrics[metrics.model == model]
    for objective in data.objectives(own):
        edits = [
            [html.safe(words.localization(name)), *cells(model, name, objective)] for name in data.localizations(own)
        ]
        groups.append((html.safe(objective), edits))
    return html.table(["", *(title for title, *_ in columns)], groups)


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
