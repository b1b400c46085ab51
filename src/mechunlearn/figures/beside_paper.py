"""The paper's numbers beside ours, as an HTML table. Torch-free.

PUBLISHED   which of our metrics is the same thing as the paper's
table       the paper's values beside ours
"""

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from mechunlearn import published
from mechunlearn.artifacts import BENCHMARK
from mechunlearn.figures import data, html, words
from mechunlearn.metrics import last


class Published(NamedTuple):
    """What the paper's metric is called in report/published, and which of ours is the same thing.

    stage   `relearned`, `soft-prompt`: the attack's last one
    error   the paper gives one minus it
    """

    name: str
    title: str
    metric: str
    elicitation: str
    role: str
    stage: str = "edited"
    error: bool = False


# The paper asks athletes for the new answer as a chatbot, other facts in the training prompt.
PUBLISHED = [
    Published("forget_error", "True answer, training prompt", "p_true", "completion", "forget", error=True),
    Published("edit_accuracy", "New answer, chatbot question", "p_new", "question", "forget"),
    Published("edit_accuracy", "New answer, training prompt", "p_new", "completion", "forget"),
    Published("paraphrase_edit_accuracy", "New answer, rephrased", "p_new", "paraphrase-1", "forget"),
    Published("mcq_edit_accuracy", "New answer, multiple choice by letter", "p_new", "choice-letter", "forget"),
    Published("", "New answer, multiple choice in words", "p_new", "choice-text", "forget"),
    Published(
        "mcq_forget_error", "True answer, multiple choice by letter", "p_true", "choice-letter", "forget", error=True
    ),
    Published("maintain_accuracy", "Kept facts, training prompt", "p_true", "completion", "maintain-test"),
    Published(
        "mcq_maintain_accuracy", "Kept facts, multiple choice by letter", "p_true", "choice-letter", "maintain-test"
    ),
    Published(
        "neighborhood_edit_error", "New answer given to neighbors", "p_new", "completion", "neighbor-same", error=True
    ),
    Published(
        "forget_accuracy_relearned_20", "True answer after relearning", "p_true", "completion", "forget", "relearned"
    ),
    Published(
        "forget_accuracy_soft_prompt",
        "True answer after a soft prompt",
        "p_true",
        "completion",
        "forget",
        "soft-prompt",
    ),
    Published("mmlu", "MMLU", "accuracy_true", "mmlu", BENCHMARK),
]


def table(metrics: pd.DataFrame, objective: str, folder: Path, task: str) -> str:
    """The paper's mean over its models and sizes, and the range over them, beside ours; empty where it has none.

    `task` is what the paper calls it (see mechunlearn.published). Raises ArtifactError.
    """
    means, cells = published.means(folder), published.cells(folder)
    means, cells = means[means.task == task], cells[cells.task == task]
    if means.empty:
        return ""
    chatbot = "question" in data.elicitations(metrics)
    counting = [*data.counting(metrics), *data.benchmarks(metrics)]
    groups = []
    for each in PUBLISHED:
        if each.name == "edit_accuracy" and (each.elicitation == "question") != chatbot:
            continue
        # `edited@2` is not a stronger edit, but a task's second block.
        stage = each.stage if each.stage == "edited" else last(metrics.stage.unique(), each.stage)
        rows = []
        for localization in data.localizations(metrics):
            where = {"localization": localization, "objective": objective, "stage": stage, "role": each.role}
            ours = data.one(metrics, each.metric, elicitation=each.elicitation, **where)
            counts = each.elicitation in counting
            if ours is not None or (not counts and each.elicitation in data.elicitations(metrics)):
                theirs = _paper(means, cells, localization, each)
                mine = words.row(ours) if counts else f"n/a (base {words.number(data.gate(metrics, each.elicitation))})"
                rows.append([html.safe(words.localization(localization)), theirs, mine])
        if rows:
            groups.append((html.safe(each.title), rows))
    return html.table(["", "Paper: mean (lowest to highest)", "Here"], groups)


def _paper(means: pd.DataFrame, cells: pd.DataFrame, localization: str, of: Published) -> str:
    def values(table: pd.DataFrame) -> pd.Series:
        found = table[(table.localization == localization) & (table.metric == of.name)].value
        return 1 - found if of.error else found

    mean, each = values(means), values(cells)
    if mean.empty:
        return html.MISSING
    spread = f" ({words.number(each.min())} to {words.number(each.max())})" if len(each) else ""
    return words.number(float(mean.iloc[0])) + spread
