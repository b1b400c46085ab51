"""Which learning rate and weights? Trials on facts that no report sees, and the rule that chooses. Torch-free.

terms     a trial's rows -> what it forgot, put in, kept and left of text: tables of facts x formats, 1 is best
compare   the trials of one setting -> a table of terms and scores, with n, intervals and what became of each
chosen    the setting's value that such a table chose
values    every cell's choice, as the file that a study reads as `swept`
latex     the tables of the paper's appendix (4 and 5: terms by value; 6 and 7: choices)

The score is the paper's (appendix A.6): (1 - true answer of the forgotten facts) + their new answer + kept facts +
text, each a mean over facts. Where an objective puts no new answer in, that term is left out.

rule `paper`        in the training prompt; kept facts and text as they are
rule `worst-case`   each term in the format that is worst for it, among those that the base model can use; of kept facts
                    and text counts what is lost against the base model, so that an edit is not rewarded for training
                    on more of the same
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import yaml

from mechunlearn.config import ReportSettings
from mechunlearn.config.edit import puts_in
from mechunlearn.facts import BACKWARDS, GONE
from mechunlearn.facts.biographies import unit
from mechunlearn.gate import usable
from mechunlearn.latex import escaped, tabular
from mechunlearn.metrics import per_fact
from mechunlearn.stats import central, resampled_means
from mechunlearn.study import Cell

RULES = ("worst-case", "paper")
SCORE = "score"
CHOSEN, AS_GOOD, WORSE, DIVERGED = "chosen", "as good", "worse", "diverged"
STAGE = ["parameter", "value", "rule", "term", "estimate", "low", "high", "n", "outcome"]
CELL = ["model", "task", "localization", "objective"]
COLUMNS = [*CELL, *STAGE]
TITLES = {"text": "Text", "forget": "Forget", "edit": "Edit", "maintain": "Maintain", SCORE: "Score"}
SAME = 1e-9  # scores that differ by less are equal


@dataclass(frozen=True)
class Trial:
    """One value tried: its measurement rows (role `text` with `accuracy`), or None where training diverged."""

    value: float
    rows: pd.DataFrame | None


def formats(base: pd.DataFrame, gate: float) -> list[str]:
    """Of the formats asked those that count in the worst case: the base model can use them, and chance is no answer."""
    asked = [str(name) for name in base[base.p_true.notna()].elicitation.unique() if name != BACKWARDS]
    return usable(base, asked, gate)


def terms(
    rows: pd.DataFrame, base: pd.DataFrame, objective: str, rule: str, usable_formats: Sequence[str]
) -> dict[str, pd.DataFrame]:
    """By term: facts x formats, higher is better; a term that the objective does not have is left out."""
    names = ["completion"] if rule == "paper" else list(usable_formats)
    now, before = per_fact(rows), per_fact(base)

    def asked(table: pd.DataFrame, column: str, *roles: str) -> pd.DataFrame:
        chosen = table[table.role.isin(roles) & table.elicitation.isin(names)]
        return chosen.pivot(index="fact", columns="elicitation", values=column).reindex(columns=names).dropna()

    kept, text = asked(now, "p_true", "maintain-test"), _text(rows)
    if rule != "paper":
        kept = (1 + kept - asked(before, "p_true", "maintain-test")).dropna()
        text = 1 + text - _text(base)
    found = {
        "text": text.to_frame(),
        "forget": 1 - asked(now, "p_true", *GONE),
        "maintain": kept,
    }
    if puts_in(objective):
        people = (now.role == "update").any()
        found["edit"] = asked(now, "p_true", "update") if people else asked(now, "p_new", "forget")
    return {name: found[name] for name in TITLES if name in found}


def _text(rows: pd.DataFrame) -> pd.Series:
    """The share of each passage's tokens that come first, averaged over seeds, by passage."""
    means: pd.Series = rows[rows.role == "text"].groupby("fact").accuracy.mean()
    return means.sort_index()


def _worst(values: np.ndarray) -> np.ndarray:
    """(..., formats) means -> the lowest of them, never above 1."""
    return np.minimum(values.min(-1), 1.0)


def compare(
    parameter: str,
    trials: Sequence[Trial],
    base: pd.DataFrame,
    objective: str,
    gate: float,
    report: ReportSettings,
) -> pd.DataFrame:
    """The trials of one setting, by both rules: columns STAGE, a row a term and one for the score.

    Intervals resample facts, or the people whom questions are about, the same for every trial, and let each resample
    take its own worst formats. `outcome`: of each rule the trial with the highest score is `chosen`, of equal ones that
    with the smallest value; `as good` where its score's paired difference from the chosen one may be 0; `worse`;
    `diverged` where training diverged or what came out is not finite.
    """
    rows: list[dict[str, Any]] = []
    asked = formats(base, gate)
    for rule in RULES:
        found = {trial.value: _measure(trial, base, objective, rule, asked, report) for trial in trials}
        valid = {value: scores for value, scores in found.items() if scores is not None}
        best = _best({value: scores[SCORE][0] for value, scores in valid.items()})
        for value in sorted(found):
            place = {"parameter": parameter, "value": value, "rule": rule}
            if value not in valid:
                rows.append({**place, "term": SCORE, "n": 0, "outcome": DIVERGED})
                continue
            outcome = CHOSEN
            if value != best:
                difference = valid[best][SCORE][1] - valid[value][SCORE][1]  # type: ignore[index]
                n = valid[best][SCORE][2]  # type: ignore[index]
                outcome = AS_GOOD if central(difference, report.confidence, n)[0] <= 0 else WORSE
            for term, (estimate, resampled, n) in valid[value].items():
                low, high = central(resampled, report.confidence, n)
                rows.append(
                    {**place, "term": term, "estimate": estimate, "low": low, "high": high, "n": n, "outcome": outcome}
                )
    return pd.DataFrame(rows, columns=STAGE)


def _best(scores: Mapping[float, float]) -> float | None:
    """The value of the highest score, of equal ones the smallest; None where there is none."""
    highest = max(scores.values(), default=0.0)
    return min((value for value, score in scores.items() if highest - score < SAME), default=None)


def _measure(
    trial: Trial, base: pd.DataFrame, objective: str, rule: str, asked: Sequence[str], report: ReportSettings
) -> dict[str, tuple[float, np.ndarray, int]] | None:
    """By term, score last: (estimate, the same of every resample, n); None where it is not finite.

    The score's n is that of its smallest term, whose facts its interval must count with.
    """
    if trial.rows is None:
        return None
    parts, found = terms(trial.rows, base, objective, rule, asked), {}
    for name, part in parts.items():
        values, units = part.to_numpy(), part.index.map(unit).to_numpy(dtype=str)
        if not len(values) or not np.isfinite(values).all():
            return None
        resampled = _worst(resampled_means(values, report.bootstrap, units))
        found[name] = float(_worst(values.mean(0))), resampled, len(set(units))
    estimates, resamples, sizes = zip(*found.values(), strict=True)
    return {**found, SCORE: (sum(estimates), np.sum(resamples, axis=0), min(sizes))}


def chosen(table: pd.DataFrame, rule: str) -> float | None:
    """The value that a table of `compare` chose by a rule; None where all trials diverged."""
    found = table[(table.rule == rule) & (table.term == SCORE) & (table.outcome == CHOSEN)].value
    return float(found.iloc[0]) if len(found) else None


def values(choices: Mapping[Cell, Mapping[str, float]]) -> dict[str, Any]:
    """model -> task -> localization -> objective -> what was chosen; cells without a choice are left out."""
    tree: dict[str, Any] = {}
    for cell, settings in choices.items():
        if settings:
            place = tree.setdefault(cell.model, {}).setdefault(cell.task, {}).setdefault(cell.localization, {})
            place[cell.objective] = dict(settings)
    return tree


def to_yaml(choices: Mapping[Cell, Mapping[str, float]], about: str) -> str:
    """The same as YAML, under a line of comment."""
    return f"# {about}\n{yaml.safe_dump(values(choices), sort_keys=False)}"


def latex(table: pd.DataFrame, choices: Mapping[Cell, Mapping[str, float]], rule: str) -> str:
    """Tables for a paper, with booktabs: the terms of every trial, a table a setting; then what was chosen."""
    parts = []
    own = table[table.rule == rule]
    for parameter, trials in own.groupby("parameter", sort=False):
        names = [name for name in TITLES if name in set(trials.term)]
        body = [
            [*map(escaped, place), f"{value:g}", *_cells(rows, names)]
            for (*place, value), rows in trials.groupby([*CELL, "value"], sort=False)
        ]
        head = ["Model", "Task", "Localization", "Objective", escaped(parameter), *(TITLES[name] for name in names)]
        parts.append(tabular(head, body, f"Sweep of {escaped(parameter)}, rule {rule}.", len(CELL)))
    settings = list(dict.fromkeys(name for choice in choices.values() for name in choice))
    body = [
        [escaped(getattr(cell, name)) for name in CELL]
        + [f"{choice[name]:g}" if name in choice else "--" for name in settings]
        for cell, choice in choices.items()
    ]
    head = ["Model", "Task", "Localization", "Objective", *map(escaped, settings)]
    return "\n".join([*parts, tabular(head, body, "Chosen settings.", len(CELL))])


def _cells(rows: pd.DataFrame, names: Sequence[str]) -> list[str]:
    found = rows.set_index("term")
    if found.outcome.iloc[0] == DIVERGED:
        return ["--"] * (len(names) - 1) + [DIVERGED]
    cells = [f"{found.estimate[name]:.3f}" if name in found.index else "--" for name in names]
    return [*cells[:-1], rf"\textbf{{{cells[-1]}}}"] if found.outcome.iloc[0] == CHOSEN else cells
