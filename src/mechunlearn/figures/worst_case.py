"""How much of the forgotten answers does the most successful attack get back?"""

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mechunlearn.figures import data, style, words
from mechunlearn.figures.panels import Edit, Panel, contrast, measured, panels
from mechunlearn.metrics import WAY, WORST
from mechunlearn.registry import figure
from mechunlearn.study import BASE

TITLE = "What does the best attack get back?"
NONE = "This study has no edit."


@figure("worst-case")
def draw(results: Path, metrics: pd.DataFrame) -> Figure:
    """One row an edit: the true answer in every format and attack, the largest one with interval and name."""
    shown = panels(metrics)
    if not shown:
        return style.nothing(NONE)
    with style.look():
        drawing = style.canvas(sum(0.46 * (1 + len(panel.edits)) + 1.0 for panel in shown))
        ratios = [2 + len(panel.edits) for panel in shown]
        grid = drawing.subplots(len(shown), 1, squeeze=False, height_ratios=ratios)[:, 0]
        for axes, panel in zip(grid, shown, strict=True):
            _rows(axes, metrics, panel)
            axes.set_title(panel.title)
    return drawing


def ways(metrics: pd.DataFrame, localization: str, objective: str) -> pd.DataFrame:
    """The rows whose largest value is the worst case, `STAGE FORMAT` being their elicitation."""
    return data.pick(metrics, "p_true", localization=localization, objective=objective, stage=WAY)


def worst(metrics: pd.DataFrame, localization: str, objective: str) -> Any:
    """The row of the worst case; None where nothing was measured."""
    return data.one(metrics, "p_true", localization=localization, objective=objective, stage=WORST)


def _rows(axes: Axes, metrics: pd.DataFrame, panel: Panel) -> None:
    rows = [Edit(words.localization(BASE), "", BASE, "", style.Look("white", "o", "-", "")), *panel.edits]
    for row, edit in enumerate(rows):
        each, largest = ways(metrics, **edit.where).value, worst(metrics, **edit.where)
        if largest is None:
            continue
        look = edit.look
        axes.hlines(row, each.min(), largest.value, color=style.FAINT, linewidth=5)
        axes.plot(each, [row] * len(each), "|", color=style.SOFT, markersize=8)
        axes.hlines(row, largest.low, largest.high, color=look.color if edit.objective else "black", linewidth=1.6)
        axes.plot(
            largest.value, row, marker=look.marker, color=look.color, markersize=9 if look.marker == "*" else 7,
            markeredgecolor=style.INK, markeredgewidth=0.7,
        )  # fmt: skip
        side = "right" if largest.value > 0.6 else "left"
        axes.annotate(
            words.way(largest.elicitation), (largest.value, row), (0, -12), textcoords="offset points",
            ha=side, va="center", fontsize=7.5,
        )  # fmt: skip
    axes.set_yticks(range(len(rows)), [edit.label for edit in rows])
    axes.set_ylim(len(rows) - 0.35, -0.5)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("Probability of the true answer, forgotten facts")
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def caption(results: Path, metrics: pd.DataFrame, level: str = "95%") -> tuple[str, str]:
    """Which edit's worst case is least and most, by what it is reached, and what is counted."""
    shown, found, facts, tried = panels(metrics), dict[str, list[str]](), 0, set[str]()
    if not shown:
        return NONE, ""
    for panel in shown:
        cases = measured(metrics, "p_true", panel, stage=WORST)
        if not cases:
            continue
        cases.sort(key=lambda case: case[1].value)
        facts = max(row.n for _, row in cases)
        ends = [
            f"{words.row(row)} ({edit.short}; {words.way(row.elicitation)})"
            for edit, row in ([cases[0], cases[-1]] if len(cases) > 1 else cases)
        ]
        found[panel.title] = [
            f"In its worst case an edit leaves the true answer {' to '.join(ends)}.",
            contrast(metrics, "p_true", panel, stage=WORST),
        ]
        tried |= set(ways(metrics, **cases[0][0].where).elicitation.str.partition(" ")[0])
    attacks = words.listing(words.stage(name) for name in sorted(tried - {"edited"}))
    seen = (
        f"Each tick is one way of getting at the forgotten facts (n = {facts}): a format the model can use, or an "
        f"attack at its full strength ({attacks}). The symbol is the largest, named below it, with its {level} "
        "interval; each resample of the facts takes its own largest, and the largest of several noisy means lies a "
        "little too high. Probes are not counted here: they choose among fewer answers."
    )
    return words.each(found), seen
