"""The panels of a figure about edits: what each shows, and how its edits are called and drawn.

panels     metrics -> panels of edits that are compared with one another
measured   the edits of a panel of which a metric was measured
between    the least and the most of them, with their names
contrast   how a panel's edits differ from fact lookup, as a sentence
"""

from collections.abc import Sequence
from itertools import cycle
from typing import Any, NamedTuple

import pandas as pd

from mechunlearn.figures import data, style, words


class Edit(NamedTuple):
    """One edit, called by what sets it apart from the others of its panel: in full, and within a sentence."""

    label: str
    short: str
    localization: str
    objective: str
    look: style.Look

    @property
    def where(self) -> dict[str, str]:
        """Its columns in metrics.csv."""
        return {"localization": self.localization, "objective": self.objective}


class Panel(NamedTuple):
    """Edits that share an objective or a localization, which is the title where there are several panels."""

    title: str
    edits: list[Edit]

    @property
    def suffix(self) -> str:
        """What the titles of its axes end with."""
        return f" ({self.title})" if self.title else ""


def panels(metrics: pd.DataFrame) -> list[Panel]:
    """A panel an objective, with an edit a localization; the other way round where objectives are more."""
    names, objectives = data.localizations(metrics), data.objectives(metrics)
    if len(objectives) > len(names):
        looks = dict(zip(objectives, cycle(style.LOOKS.values()), strict=False))
        found = {words.short(name): [Edit(o, o, name, o, looks[o]) for o in objectives] for name in names}
    else:
        looks, called = style.looks(names), {name: (words.localization(name), words.short(name)) for name in names}
        found = {o: [Edit(*called[name], name, o, looks[name]) for name in names] for o in objectives}
    return [Panel(title if len(found) > 1 else "", edits) for title, edits in found.items()]


def measured(metrics: pd.DataFrame, metric: str, panel: Panel, **where: str) -> list[tuple[Edit, Any]]:
    """The edits of which a metric was measured, and its rows."""
    return [(edit, row) for edit in panel.edits if (row := data.one(metrics, metric, **edit.where, **where))]


def between(found: Sequence[tuple[Edit, Any]]) -> str:
    """`0.12 (Fact lookup) to 0.93 (All MLPs)`: the least and the most of some rows."""
    ends = [select(found, key=lambda each: each[1].value) for select in (min, max)]
    return " to ".join(f"{words.number(row.value)} ({edit.short})" for edit, row in ends)


def contrast(metrics: pd.DataFrame, metric: str, panel: Panel, **where: str) -> str:
    """`words.contrast` of a panel's edits; empty where they are of several objectives."""
    shared = {edit.objective for edit in panel.edits}
    return words.contrast(metrics, metric, objective=shared.pop(), **where) if len(shared) == 1 else ""
