"""metrics.csv: every number of the report, from measurement rows and nothing else. Torch-free.

metrics   measurement tables by cell -> one row per cell, stage, elicitation, role and metric

    p_true          probability of the true answer among the options (published as "accuracy")
    p_new           of the new answer
    accuracy_true   share of facts whose likeliest option is the true answer
    accuracy_new    whose likeliest option is the new answer
    nll             mean cross-entropy of text, nats a token

Option orders and seeds are averaged within a fact; `n` counts facts and intervals are over facts. Rows with
`against` are paired differences (this cell minus the reference, on the same facts). `gate` is how
often, before any edit, the true answer of a known fact is the likeliest of all tokens; where `counts` is False the
format says nothing about this model.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from mechunlearn.config import EvaluateSettings, ReportSettings
from mechunlearn.stats import interval
from mechunlearn.study import BASE, Cell

COLUMNS = [
    "model", "task", "localization", "objective", "stage", "elicitation", "role", "metric", "against",
    "value", "low", "high", "n", "seeds", "gate", "counts",
]  # fmt: skip
GROUP = ["stage", "elicitation", "role"]
REFERENCES = ("fact-lookup", "nonlocalized")


def per_fact(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per stage, elicitation, role and fact: each metric, averaged over option orders and seeds."""
    shares = rows.assign(
        p_true=rows.p_true / rows.p_options,
        p_new=rows.p_new / rows.p_options,
        accuracy_true=(rows.choice == "true").astype(float),
        accuracy_new=(rows.choice == "new").astype(float).where(rows.p_new.notna()),
    )
    is_text = shares.elicitation == "text"
    for column in ("p_true", "p_new", "accuracy_true", "accuracy_new"):
        shares[column] = shares[column].where(~is_text)
    names = ["p_true", "p_new", "accuracy_true", "accuracy_new", "nll"]
    return shares.groupby([*GROUP, "fact"], as_index=False)[names].mean()


def gates(base: pd.DataFrame) -> dict[str, float]:
    """From the base model's rows: how often the true answer is the likeliest of all tokens, by elicitation."""
    asked = base[base.elicitation != "text"]
    facts = (asked["rank"] == 1).groupby(asked.elicitation).mean()
    return {str(name): float(value) for name, value in facts.items()}


def metrics(tables: Mapping[Cell, pd.DataFrame], evaluate: EvaluateSettings, report: ReportSettings) -> pd.DataFrame:
    """All metrics of a study, sorted. `tables` holds the measurement rows of every cell, base cells included."""
    rows: list[dict[str, object]] = []
    facts = {cell: per_fact(table) for cell, table in tables.items()}
    seeds = {cell: table.seed.nunique() for cell, table in tables.items()}
    for cell, table in facts.items():
        base = facts[Cell(cell.model, cell.task, BASE, "")]
        gate = gates(tables[Cell(cell.model, cell.task, BASE, "")])
        references: list[tuple[str, pd.DataFrame | None]] = [("", None)]
        if cell.localization != BASE and not cell.attack:
            references.append((BASE, base.assign(stage="edited")))
        for name in REFERENCES if cell.localization != BASE else ():
            other = facts.get(Cell(cell.model, cell.task, name, cell.objective, cell.attack))
            if name != cell.localization and other is not None:
                references.append((name, other))
        for against, reference in references:
            for row in _rows(table, reference, report):
                passed = gate.get(str(row["elicitation"]), 1.0)
                place = {"model": cell.model, "task": cell.task, "localization": cell.localization}
                rows.append(
                    {**place, "objective": cell.objective, **row, "against": against, "seeds": seeds[cell]}
                    | {"gate": gate.get(str(row["elicitation"]), np.nan), "counts": passed >= evaluate.gate}
                )
    return pd.DataFrame(rows, columns=COLUMNS).sort_values(COLUMNS[:9], ignore_index=True)


def _rows(table: pd.DataFrame, reference: pd.DataFrame | None, report: ReportSettings) -> Sequence[dict[str, object]]:
    names = ["p_true", "p_new", "accuracy_true", "accuracy_new", "nll"]
    if reference is not None:
        table = table.merge(reference, on=[*GROUP, "fact"], suffixes=("", " reference"))
        table = table.assign(**{name: table[name] - table[f"{name} reference"] for name in names})
    rows = []
    for key, group in table.groupby(GROUP):
        for name in names:
            values = group[name].dropna().to_numpy(dtype=float)
            if len(values):
                share = name != "nll" and reference is None
                value, low, high = interval(values, report.bootstrap, report.confidence, share)
                where = dict(zip(GROUP, key, strict=True))
                rows.append({**where, "metric": name, "value": value, "low": low, "high": high, "n": len(values)})
    return rows


def headline(table: pd.DataFrame) -> dict[str, object]:
    """model -> task -> localization -> the few numbers that tell the story, for `dvc metrics`.

    All through the training prompt but `choice`, which is options-as-text multiple choice; `relearned` is p_true of
    the unseen half after the last relearning step.
    """
    plain = table[table.against.fillna("") == ""]
    relearned = [stage for stage in plain.stage.unique() if stage.startswith("relearned@")]
    last = max(relearned, key=lambda stage: int(stage.split("@")[1]), default="")
    wanted = {
        "forget_p_new": ("edited", "completion", "forget", "p_new"),
        "forget_p_true": ("edited", "completion", "forget", "p_true"),
        "maintain_p_true": ("edited", "completion", "maintain-test", "p_true"),
        "choice_p_new": ("edited", "choice-text", "forget", "p_new"),
        "relearned_p_true": (last, "completion", "forget", "p_true"),
        "text_nll": ("edited", "text", "text", "nll"),
    }
    found: dict[str, object] = {}
    for name, (stage, elicitation, role, metric) in wanted.items():
        rows = plain[
            (plain.stage == stage)
            & (plain.elicitation == elicitation)
            & (plain.role == role)
            & (plain.metric == metric)
        ]
        for row in rows.to_dict("records"):
            place = found
            for key in (row["model"], row["task"], row["localization"], row["objective"]):
                place = place.setdefault(str(key), {})  # type: ignore[assignment]
            place[name] = round(float(row["value"]), 6)
    return found
