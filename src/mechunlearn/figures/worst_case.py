"""How much of the forgotten answers does the most successful attack get back?"""

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mechunlearn.figures import data, style, words
from mechunlearn.metrics import WORST, full_strength
from mechunlearn.registry import figure

TITLE = "What does the best attack get back?"
NONE = "This study has no edit."


@figure("worst-case")
def draw(results: Path, metrics: pd.DataFrame) -> Figure:
    """One row a localization: the true answer in every format and attack, the largest one with interval and name."""
    objectives, names = data.objectives(metrics), ["base", *data.localizations(metrics)]
    if not objectives:
        return style.nothing(NONE)
    with style.look():
        drawing = style.canvas((0.46 * len(names) + 1.0) * len(objectives))
        grid = drawing.subplots(len(objectives), 1, squeeze=False)[:, 0]
        for axes, objective in zip(grid, objectives, strict=True):
            _rows(axes, metrics, objective, names)
            if len(objectives) > 1:
                axes.set_title(objective)
    return drawing


def ways(metrics: pd.DataFrame, localization: str, objective: str) -> pd.DataFrame:
    """The rows whose largest value is the worst case: p_true of forget facts by usable format and full attack."""
    rows = data.pick(metrics, "p_true", localization=localization, objective=objective, role="forget")
    rows = rows[(rows.stage != WORST) & rows.counts.astype(bool) & ~rows.stage.str.startswith("probed@")]
    return rows[rows.stage.isin(full_strength(rows.stage.unique()))]


def worst(metrics: pd.DataFrame, localization: str, objective: str) -> Any:
    """The row of the worst case; None where nothing was measured."""
    return data.one(metrics, "p_true", localization=localization, objective=objective, stage=WORST)


def _rows(axes: Axes, metrics: pd.DataFrame, objective: str, names: list[str]) -> None:
    looks = style.looks([name for name in names if name != "base"])
    for row, name in enumerate(names):
        of = "" if name == "base" else objective
        each, largest = ways(metrics, name, of).value, worst(metrics, name, of)
        if largest is None:
            continue
        look = looks.get(name, style.Look("white", "o", "-", ""))
        axes.hlines(row, each.min(), largest.value, color=style.FAINT, linewidth=5)
        axes.plot(each, [row] * len(each), "|", color=style.SOFT, markersize=8)
        axes.hlines(row, largest.low, largest.high, color=look.color if name != "base" else "black", linewidth=1.6)
        axes.plot(
            largest.value, row, marker=look.marker, color=look.color, markersize=9 if look.marker == "*" else 7,
            markeredgecolor=style.INK, markeredgewidth=0.7,
        )  # fmt: skip
        side = "right" if largest.value > 0.6 else "left"
        axes.annotate(
            words.way(largest.elicitation), (largest.value, row), (0, -12), textcoords="offset points",
            ha=side, va="center", fontsize=7.5,
        )  # fmt: skip
    axes.set_yticks(range(len(names)), [words.localization(name) for name in names])
    axes.set_ylim(len(names) - 0.35, -0.5)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("Probability of the true answer, forgotten facts")
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def caption(results: Path, metrics: pd.DataFrame, level: str = "95%") -> tuple[str, str]:
    """Which edit's worst case is least and most, by what it is reached, and what is counted."""
    objectives, found, facts = data.objectives(metrics), dict[str, list[str]](), 0
    if not objectives:
        return NONE, ""
    tried = set[str]()
    for objective in objectives:
        rows = [worst(metrics, name, objective) for name in data.localizations(metrics)]
        rows = sorted((row for row in rows if row is not None), key=lambda row: row.value)
        if not rows:
            continue
        least, most, facts = rows[0], rows[-1], max(row.n for row in rows)
        ends = [
            f"{words.row(row)} ({words.short(row.localization)}; {words.way(row.elicitation)})"
            for row in ([least, most] if len(rows) > 1 else [least])
        ]
        found[objective] = [
            f"In its worst case an edit leaves the true answer {' to '.join(ends)}.",
            words.contrast(metrics, "p_true", objective=objective, stage=WORST),
        ]
        tried |= set(ways(metrics, least.localization, objective).stage)
    attacks = words.listing(words.stage(name) for name in sorted(tried - {"edited"}))
    seen = (
        f"Each tick is one way of getting at the forgotten facts (n = {facts}): a format the model can use, or an "
        f"attack at its full strength ({attacks}). The symbol is the largest, named below it, with its {level} "
        "interval; each resample of the facts takes its own largest, and the largest of several noisy means lies a "
        "little too high. Probes are not counted here: they choose among fewer answers."
    )
    return words.each(found), seen
