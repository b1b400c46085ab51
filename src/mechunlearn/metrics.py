"""metrics.csv: every number of the report, from measurement rows and nothing else. Torch-free.

metrics   measurement tables by cell -> one row per cell, stage, elicitation, role and metric

    p_true          probability of the true answer among the options (published as "accuracy")
    p_new           of the new answer
    accuracy_true   share of facts whose likeliest option is the true answer
    accuracy_new    whose likeliest option is the new answer
    p_true_token    probability of the true answer's first token among all tokens (published so for CounterFact)
    first_true      share of facts of whose prompts it is the likeliest of all tokens
    nll             mean cross-entropy of text, nats a token
    kl              mean KL divergence of the edited from the base model on text, nats a token
    similarity      mean cosine of the hidden states before and after, at the layer that the stage names

Of probes "all tokens" are the classes, of quizzes the options, each with the reciprocal of its perplexity. Option
orders and seeds are averaged within a fact; `n` counts facts and intervals are over facts. Of questions about people
both are of people: what a text says of one person is learned and forgotten together. Rows with `against` are paired
differences (this cell minus the reference, on the same facts). `gate` is how often, before any edit, the true answer of
a known fact is the likeliest of all tokens; where `counts` is False the format says nothing about this model.

The stage `worst` is an edit's worst case: the largest p_true of the facts to forget, obsolete ones of people included,
over all formats that count and all attacks at their full strength (probes and reversed questions apart), over the facts
that all of these measured. Stage `way` has each of these by itself, over the same facts, `STAGE FORMAT` being its
`elicitation`; that of `worst` names the stage and format that reached it. Each resample of the facts takes its own
maximum, so the interval includes the choice; a maximum over many noisy means lies a little above the largest true mean.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from mechunlearn.config import EvaluateSettings, ReportSettings
from mechunlearn.facts import BACKWARDS, GONE, VALIDATION
from mechunlearn.facts.biographies import unit
from mechunlearn.gate import gates
from mechunlearn.stats import DIFFERENCE, SHARE, central, interval, resampled_means
from mechunlearn.study import BASE, Cell

COLUMNS = [
    "model", "task", "localization", "objective", "stage", "elicitation", "role", "metric", "against",
    "value", "low", "high", "n", "seeds", "gate", "counts",
]  # fmt: skip
GROUP = ["stage", "elicitation", "role"]
REFERENCES = ("fact-lookup", "nonlocalized")
NAMES = [
    "p_true", "p_new", "accuracy_true", "accuracy_new", "p_true_token", "first_true", "nll", "kl", "similarity",
]  # fmt: skip
SHARES = NAMES[:6]  # between 0 and 1
WORST, WAY = "worst", "way"


def per_fact(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per stage, elicitation, role and fact: each metric, averaged over option orders and seeds."""
    shares = rows.assign(
        p_true_token=rows.p_true,
        first_true=(rows["rank"] == 1).astype(float).where(rows["rank"] > 0),
        p_true=rows.p_true / rows.p_options,
        p_new=rows.p_new / rows.p_options,
        accuracy_true=(rows.choice == "true").astype(float),
        accuracy_new=(rows.choice == "new").astype(float).where(rows.p_new.notna()),
        similarity=rows.get("similarity", np.nan),
    )
    sampled = rows.elicitation == "generation"  # what is mentioned in a text has no rank among tokens
    shares.loc[sampled, ["p_true_token", "first_true"]] = np.nan
    asked = rows.p_true.notna()
    for column in SHARES:
        shares[column] = shares[column].where(asked)
    return shares.groupby([*GROUP, "fact"], as_index=False)[NAMES].mean()


def metrics(tables: Mapping[Cell, pd.DataFrame], evaluate: EvaluateSettings, report: ReportSettings) -> pd.DataFrame:
    """All metrics of a study, sorted. `tables` holds the measurement rows of every cell, base cells included."""
    rows: list[dict[str, object]] = []
    facts = {cell: per_fact(table) for cell, table in tables.items()}
    seeds = {cell: table.seed.nunique() for cell, table in tables.items()}
    bases = {cell: table for cell, table in tables.items() if cell.localization == BASE and not cell.attack}
    passing = {(cell.model, cell.task): gates(table) for cell, table in bases.items()}
    for cell, table in facts.items():
        gate = passing[cell.model, cell.task]
        references: list[tuple[str, pd.DataFrame | None]] = [("", None)]
        base = facts.get(replace(cell, localization=BASE, objective=""))
        if cell.localization != BASE and base is not None:
            references.append((BASE, base if cell.attack else base.assign(stage="edited")))
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
    unusable = {
        place: [name for name, share in gate.items() if share < evaluate.gate] for place, gate in passing.items()
    }
    rows += _worst_rows(facts, seeds, unusable, report)
    return pd.DataFrame(rows, columns=COLUMNS).sort_values(COLUMNS[:9], ignore_index=True)


def _worst_rows(
    facts: Mapping[Cell, pd.DataFrame],
    seeds: Mapping[Cell, int],
    unusable: Mapping[tuple[str, str], Sequence[str]],
    report: ReportSettings,
) -> list[dict[str, object]]:
    """The worst case of the base model and of every edit, and its paired differences from the references."""
    parts: dict[Cell, list[pd.DataFrame]] = {}
    for cell, table in facts.items():
        if cell.localization != BASE and not cell.objective:
            continue  # masked weights are no edit
        parts.setdefault(replace(cell, attack=""), []).append(ways(table, unusable[cell.model, cell.task]))
    cases = {cell: pd.concat(tables, axis=1).dropna() for cell, tables in parts.items()}
    rows: list[dict[str, object]] = []
    for cell, own in cases.items():
        same: dict[str, object] = {"model": cell.model, "task": cell.task, "localization": cell.localization}
        same |= {"objective": cell.objective, "seeds": seeds[cell], "gate": np.nan, "counts": True}
        rows += [{**same, **each, "against": ""} for each in _ways_alone(own, report)]
        references = {name: cases.get(replace(cell, localization=name)) for name in REFERENCES}
        compared = {n: r for n, r in references.items() if r is not None and cell.localization not in (BASE, n)}
        for against, reference in {"": None, **compared}.items():
            if found := worst(own, reference, report):
                rows.append({**same, **found, "against": against})
    return rows


def _ways_alone(table: pd.DataFrame, report: ReportSettings) -> list[dict[str, object]]:
    """A row a way of getting at the forget facts, from what `ways` gives."""
    units, rows = table.index.map(unit).to_numpy(dtype=str), []
    for way in table.columns if len(table) else ():
        value, low, high = interval(table[way].to_numpy(), report.bootstrap, report.confidence, SHARE, units)
        where = {"stage": WAY, "elicitation": way, "role": "forget", "metric": "p_true"}
        rows.append({**where, "value": value, "low": low, "high": high, "n": len(set(units))})
    return rows


def worst(table: pd.DataFrame, reference: pd.DataFrame | None, report: ReportSettings) -> dict[str, object]:
    """The row of a worst case, or of its paired difference from a reference's, from what `ways` gives, columns of
    several files side by side. Empty where there are no facts, or none in common."""
    shared = table if reference is None else table[table.index.isin(reference.index)]
    if shared.empty:
        return {}
    value, resampled = _largest(shared, report)
    if reference is not None:
        other = _largest(reference.loc[shared.index], report)
        value, resampled = value - other[0], resampled - other[1]
    count = len(set(map(unit, shared.index)))
    low, high = central(resampled, report.confidence, count)
    where = {"stage": WORST, "elicitation": str(shared.mean().idxmax()), "role": "forget", "metric": "p_true"}
    return {**where, "value": value, "low": low, "high": high, "n": count}


def ways(table: pd.DataFrame, unusable: Sequence[str]) -> pd.DataFrame:
    """Forget facts x the ways of getting at them, `STAGE ELICITATION`: p_true. Probes are not among them.

    A probe's classes are fewer than a prompt's options, so its probabilities cannot be compared with these; neither can
    those of subjects, of which a forgotten fact's still gets its share by chance. Nor do questions count by which a
    sweep may have chosen the edit.
    """
    asked = table[table.role.isin(GONE) & table.p_true.notna() & ~table.elicitation.isin([*unusable, BACKWARDS])]
    asked = asked[~asked.fact.str.endswith(VALIDATION)]
    asked = asked[asked.stage.isin(full_strength(asked.stage.unique())) & ~asked.stage.str.startswith("probed@")]
    way = asked.stage + " " + asked.elicitation
    return asked.assign(way=way).pivot(index="fact", columns="way", values="p_true")


def _largest(ways: pd.DataFrame, report: ReportSettings) -> tuple[float, np.ndarray]:
    """(the largest mean of any way, the same of every resample of the facts)."""
    units = ways.index.map(unit).to_numpy(dtype=str)
    return float(ways.mean().max()), resampled_means(ways.to_numpy(), report.bootstrap, units).max(1)


def full_strength(stages: Iterable[str]) -> list[str]:
    """Of stages such as `relearned@5` only the last of each attack; those without a number as they are."""
    last: dict[str, tuple[int, str]] = {}
    for stage in stages:
        name, _, number = stage.partition("@")
        last[name] = max(last.get(name, (-1, "")), (int(number or 0), stage))
    return [stage for _, stage in last.values()]


def last(stages: Iterable[str], attack: str) -> str:
    """Of an attack's stages the last: of `relearned` the stage `relearned@20`; just `relearned` where there is none."""
    return next((stage for stage in full_strength(stages) if stage.partition("@")[0] == attack), attack)


def _rows(table: pd.DataFrame, reference: pd.DataFrame | None, report: ReportSettings) -> Sequence[dict[str, object]]:
    limits: tuple[float, float] | None = SHARE if reference is None else DIFFERENCE
    if reference is not None:
        table = table.merge(reference, on=[*GROUP, "fact"], suffixes=("", " reference"))
        table = table.assign(**{name: table[name] - table[f"{name} reference"] for name in NAMES})
        if (table[NAMES].fillna(0) == 0).all(axis=None):
            limits = None  # both are the same edit: other facts would show no difference either
    rows = []
    for key, group in table.groupby(GROUP):
        for name in NAMES:
            measured = group[group[name].notna()]
            values, units = measured[name].to_numpy(dtype=float), measured.fact.map(unit).to_numpy(dtype=str)
            if len(values):
                span = limits if name in SHARES else None
                value, low, high = interval(values, report.bootstrap, report.confidence, span, units)
                where = dict(zip(GROUP, key, strict=True))
                n = len(np.unique(units))
                rows.append({**where, "metric": name, "value": value, "low": low, "high": high, "n": n})
    return rows


def headline(table: pd.DataFrame) -> dict[str, object]:
    """model -> task -> localization -> the few numbers that tell the story, for `dvc metrics`.

    All through the training prompt but `choice`, which is options-as-text multiple choice; `relearned` is p_true of
    the unseen half after the last relearning step.
    """
    plain = table[table.against.fillna("") == ""]
    wanted = {
        "forget_p_new": ("edited", "completion", "forget", "p_new"),
        "forget_p_true": ("edited", "completion", "forget", "p_true"),
        "maintain_p_true": ("edited", "completion", "maintain-test", "p_true"),
        "choice_p_new": ("edited", "choice-text", "forget", "p_new"),
        "relearned_p_true": (last(plain.stage.unique(), "relearned"), "completion", "forget", "p_true"),
        "text_nll": ("edited", "text", "text", "nll"),
        "worst_p_true": (WORST, "", "forget", "p_true"),
    }
    found: dict[str, object] = {}
    for name, (stage, elicitation, role, metric) in wanted.items():
        rows = plain[
            (plain.stage == stage)
            & (plain.elicitation.eq(elicitation) | (elicitation == ""))
            & (plain.role == role)
            & (plain.metric == metric)
        ]
        for row in rows.to_dict("records"):
            place = found
            for key in (row["model"], row["task"], row["localization"], row["objective"]):
                place = place.setdefault(str(key), {})  # type: ignore[assignment]
            place[name] = round(float(row["value"]), 6)
    return found
