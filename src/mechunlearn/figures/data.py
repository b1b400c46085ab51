"""The tables that figures and report read, as they need them. Torch-free.

read_metrics    metrics.csv, or one model's and task's part of it
pick            the rows of one metric (no paired differences unless asked for)
one             the one row that matches, or None
localizations   the study's localizations, in the order every figure keeps; likewise objectives, elicitations
benchmarks      the benchmarks of general ability that were measured
steps           after how many steps relearning was measured
sizes           with how many weights masked it was measured
blocks          the numbers of a sequential task's blocks
selections      what each localization trains
share           how much of a component it trains
scores          a localizer's scores, if the study has them
tracings        component effects by tracing localizer: a table of layer x (attention, mlp)
"""

from pathlib import Path
from typing import Any

import pandas as pd

from mechunlearn import registry
from mechunlearn.artifacts import BENCHMARK, SCORE_COLUMNS, Component, Selection, read_selection, read_table
from mechunlearn.metrics import COLUMNS
from mechunlearn.study import BASE

KINDS = ("attention", "mlp")


def read_metrics(path: str | Path, model: str | None = None, task: str | None = None) -> pd.DataFrame:
    """Metrics with empty names as empty strings. Raises ArtifactError."""
    table = read_table(path, COLUMNS).fillna({"objective": "", "against": ""})
    for column, value in (("model", model), ("task", task)):
        if value is not None:
            table = table[table[column] == value]
    return table.reset_index(drop=True)


def pick(metrics: pd.DataFrame, metric: str, against: str = "", **where: str) -> pd.DataFrame:
    """Rows of one metric; `where` names columns and their values."""
    chosen = (metrics.metric == metric) & (metrics.against == against)
    for column, value in where.items():
        chosen &= metrics[column] == value
    return metrics[chosen]


def one(metrics: pd.DataFrame, metric: str, against: str = "", **where: str) -> Any:
    """The row of one metric as a named tuple with value, low, high, n, gate and counts; None where there is none."""
    rows = pick(metrics, metric, against, **where)
    return next(rows.itertuples(index=False), None)


def localizations(metrics: pd.DataFrame) -> list[str]:
    """Every localization measured, in the registry's order; those given by hand last."""
    return registry.ordered(set(metrics.localization) - {BASE})


def objectives(metrics: pd.DataFrame) -> list[str]:
    """Every objective measured, by name."""
    return sorted(set(metrics.objective) - {""})


def elicitations(metrics: pd.DataFrame) -> list[str]:
    """Every format measured, the training prompt first, free generation last."""
    return [name for name in [*registry.methods("elicitation"), "generation"] if name in set(metrics.elicitation)]


def benchmarks(metrics: pd.DataFrame) -> list[str]:
    """Every benchmark of general ability measured, by name."""
    return sorted(metrics[metrics.role == BENCHMARK].elicitation.unique())


def counting(metrics: pd.DataFrame) -> list[str]:
    """The formats that the base model can use."""
    passed = set(metrics[metrics.counts.astype(bool)].elicitation)
    return [name for name in elicitations(metrics) if name in passed]


def gate(metrics: pd.DataFrame, elicitation: str) -> float:
    """The base model's accuracy through a format."""
    return float(metrics[metrics.elicitation == elicitation].gate.iloc[0])


def base(metrics: pd.DataFrame, metric: str, elicitation: str, role: str) -> Any:
    """A metric of the model before any edit."""
    return one(metrics, metric, localization=BASE, stage=BASE, elicitation=elicitation, role=role)


def steps(metrics: pd.DataFrame) -> list[int]:
    """After how many steps relearning was measured, ascending."""
    return _numbers(metrics, "relearned")


def sizes(metrics: pd.DataFrame) -> list[int]:
    """How many weights were masked, ascending."""
    return _numbers(metrics, "masked")


def _numbers(metrics: pd.DataFrame, stage: str) -> list[int]:
    """Of the stages `stage`@NUMBER the numbers, ascending."""
    parts = metrics.stage.astype(str).str.partition("@")
    return sorted({int(number) for number in parts[parts[0] == stage][2]})


def blocks(metrics: pd.DataFrame) -> list[int]:
    """The numbers of the blocks that were edited one after another, ascending; none where all was edited at once."""
    return sorted(int(role.partition("-")[2]) for role in metrics.role.unique() if str(role).startswith("block-"))


def selections(results: Path, metrics: pd.DataFrame) -> dict[str, Selection]:
    """What each localization trains; all selections in a study without edits. Raises ArtifactError."""
    names = localizations(metrics) or registry.ordered(path.stem for path in (results / "selection").glob("*.json"))
    return {name: read_selection(results / "selection" / f"{name}.json") for name in names}


def share(selection: Selection, component: Component) -> float:
    """How much of a component is trained: all of it, or the first neurons of an MLP."""
    part = selection.details["part"] if component.neurons is not None else 1.0
    return float(part[str(component.layer)] if isinstance(part, dict) else part)


def scores(results: Path, localizer: str) -> pd.DataFrame | None:
    """A localizer's scores; None where the study did not run it. Raises ArtifactError."""
    path = results / "scores" / f"{localizer}.parquet"
    return read_table(path, SCORE_COLUMNS) if path.is_file() else None


def tracings(results: Path, metrics: pd.DataFrame) -> dict[str, tuple[pd.DataFrame, int]]:
    """By localizer of components: its effects, layers x (attention, mlp), and the number of facts traced.

    An effect is the size of the mean over facts and runs; an attention block's is the sum of its heads' sizes, as the
    selection ranks them by default.
    """
    found = {}
    for name in dict.fromkeys(filter(None, map(registry.scorer, selections(results, metrics)))):
        table = scores(results, name)
        if table is None or "mlp" not in set(table.kind):
            continue
        table = table[table.kind.isin(["mlp", "head"])]
        means = table.groupby(["layer", "kind", "head"], as_index=False).effect.mean()
        means = means.assign(effect=means.effect.abs(), kind=means.kind.replace({"head": "attention"}))
        effects = means.groupby(["layer", "kind"]).effect.sum().unstack("kind")
        found[name] = (effects.reindex(columns=list(KINDS)).fillna(0.0), int(table.fact.nunique()))
    return found
