"""The paper's own numbers (report/published/). Torch-free.

kind    what the paper calls a task like this one
means   by kind, localization and metric: the mean over the paper's models and sizes
cells   the same for each of these, where they are known
"""

from pathlib import Path

import pandas as pd

from mechunlearn.artifacts import read_table
from mechunlearn.config import TaskSettings

COLUMNS = ["task", "localization", "metric", "value"]
KINDS = ("sports-athlete", "full-sports", "counterfact", "sequential-counterfact")


def kind(task: TaskSettings) -> str:
    """One of KINDS; empty where the paper has no such task.

    The full-sports tasks are those where all of a sport's athletes get the new answer golf (section 2.1).
    """
    if task.facts in ("sports", "sports-upstream"):
        given = (task.answer is None, task.new_answer)
        return {(True, None): "sports-athlete", (False, "golf"): "full-sports"}.get(given, "")
    if task.facts in ("counterfact", "counterfact-upstream") and task.answer is None:
        return "sequential-counterfact" if task.blocks else "counterfact"
    return ""


def means(folder: Path) -> pd.DataFrame:
    """Columns COLUMNS. Raises ArtifactError."""
    return read_table(folder / "mechanistic_unlearning_means.csv", COLUMNS)


def cells(folder: Path) -> pd.DataFrame:
    """Columns COLUMNS, and `variant` and `model`. Raises ArtifactError."""
    return read_table(folder / "mechanistic_unlearning_cells.csv", COLUMNS)
