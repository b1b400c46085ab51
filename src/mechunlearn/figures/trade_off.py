"""Forgetting against keeping: what does each edit cost the facts it should leave alone?"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mechunlearn.facts import BACKWARDS
from mechunlearn.figures import data, style, words
from mechunlearn.figures.panels import Edit, between, panels
from mechunlearn.registry import figure
from mechunlearn.study import BASE

TITLE = "Forgetting against keeping"
NONE = "This study has no edit."
UNUSABLE = "The model can use none of the formats, so forgetting is not weighed against keeping."


class Point(NamedTuple):
    """A mean over formats with its interval, and the values it is made of by format."""

    value: float
    low: float
    high: float
    formats: dict[str, float]


@figure("trade-off")
def draw(results: Path, metrics: pd.DataFrame) -> Figure:
    """Left, one point per edit; right, its forgetting through each format, the worst one named."""
    shown = panels(metrics)
    if not shown:
        return style.nothing(NONE)
    if not _formats(metrics):
        return style.nothing(UNUSABLE)
    with style.look():
        drawing = style.canvas(sum(max(3.4, 0.42 * len(panel.edits) + 1.0) for panel in shown))
        grid = drawing.subplots(len(shown), 2, squeeze=False, width_ratios=[1, 1])
        before = (forgetting(metrics, BASE, ""), keeping(metrics, BASE, ""))
        for (left, right), panel in zip(grid, shown, strict=True):
            points = [(edit, forgetting(metrics, **edit.where), keeping(metrics, **edit.where)) for edit in panel.edits]
            _plane(left, points, before)
            _rows(right, points)
            left.set_title(f"Each edit: better is up and right{panel.suffix}")
    return drawing


def forgetting(metrics: pd.DataFrame, localization: str, objective: str) -> Point:
    """One minus the true answer's probability, forgotten facts."""
    return _mean(metrics, localization, objective, "forget", lambda value: 1 - value)


def keeping(metrics: pd.DataFrame, localization: str, objective: str) -> Point:
    """The true answer's probability, facts to keep that no training saw."""
    return _mean(metrics, localization, objective, "maintain-test", lambda value: value)


def _formats(metrics: pd.DataFrame) -> list[str]:
    """The formats that the model can use in which forgotten facts and those to keep were asked for their answers."""
    rows = data.pick(metrics, "p_true", stage="edited")
    asked = [set(rows[rows.role == role].elicitation) for role in ("forget", "maintain-test")]
    return [name for name in data.counting(metrics) if name != BACKWARDS and all(name in each for each in asked)]


def _mean(metrics: pd.DataFrame, localization: str, objective: str, role: str, turn: Callable[[float], float]) -> Point:
    """Mean over the formats of `_formats`. The interval is the mean of theirs.

    They ask for the same facts, so this interval is at most too wide (as if they all erred together).
    """
    stage = BASE if localization == BASE else "edited"
    where = {"localization": localization, "objective": objective, "stage": stage, "role": role}
    rows = data.pick(metrics, "p_true", **where)
    rows = rows[rows.elicitation.isin(_formats(metrics))].set_index("elicitation")
    low, high = sorted((turn(float(rows.low.mean())), turn(float(rows.high.mean()))))
    formats = {str(name): turn(float(value)) for name, value in rows.value.items()}
    return Point(turn(float(rows.value.mean())), low, high, formats)


def _plane(axes: Axes, points: Sequence[tuple[Edit, Point, Point]], before: tuple[Point, Point]) -> None:
    for edit, forgot, kept in points:
        look = edit.look
        axes.hlines(kept.value, forgot.low, forgot.high, color=look.color, linewidth=1.1)
        axes.vlines(forgot.value, kept.low, kept.high, color=look.color, linewidth=1.1)
        axes.plot(
            forgot.value, kept.value, marker=look.marker, color=look.color, linestyle="none",
            markersize=9 if look.marker == "*" else 7, markeredgecolor=style.INK, markeredgewidth=0.7,
            label=edit.label,
        )  # fmt: skip
    x, y = (point.value for point in before)
    axes.axhline(y, color="black", linestyle=(0, (3, 1.5)), linewidth=1)
    axes.plot(x, y, "o", markerfacecolor="white", markeredgecolor="black", markersize=7, label="_base")
    # The unedited model forgets far less than any edit: its level is drawn, its point only where the edits come near.
    worst = min(forgot.low for _, forgot, _ in points)
    left = max(worst - 0.3 * (1.02 - worst), -0.02)
    axes.set_xlim(min(left, x - 0.02) if x > worst - 0.2 else left, 1.01)
    axes.annotate(
        f"before the edit (forgetting {words.number(x)})", (0.02, y), (0, -12),
        xycoords=("axes fraction", "data"), textcoords="offset points", fontsize=8.5,
    )  # fmt: skip
    everyone = [before[1], *(kept for *_, kept in points)]
    low = min(kept.low for kept in everyone)
    top = min(max(kept.high for kept in everyone) + 0.06, 1.02)
    axes.set_ylim(max(min(low - 0.04, top - 0.25), 0), top)  # a small difference must look small
    axes.set_xlabel("Forgetting (1 − true answer, forgotten facts)")
    axes.set_ylabel("Keeping (true answer, facts to keep)")
    axes.grid()


def _rows(axes: Axes, points: Sequence[tuple[Edit, Point, Point]]) -> None:
    lowest = min(min(point.formats.values()) for _, point, _ in points)
    for row, (edit, point, _) in enumerate(points):
        look = edit.look
        worst = min(point.formats, key=lambda key: point.formats[key])
        axes.hlines(row, min(point.formats.values()), max(point.formats.values()), color=style.FAINT, linewidth=5)
        axes.plot(list(point.formats.values()), [row] * len(point.formats), "|", color=style.INK, markersize=8)
        axes.plot(
            point.value, row, marker=look.marker, color=look.color, markersize=9 if look.marker == "*" else 7,
            markeredgecolor=style.INK, markeredgewidth=0.7,
        )  # fmt: skip
        side = "left" if point.formats[worst] < 0.5 + min(lowest, 0.6) / 2 else "right"
        axes.annotate(
            words.elicitation(worst), (point.formats[worst], row), (0, -12), textcoords="offset points",
            ha=side, va="center", fontsize=7.5,
        )  # fmt: skip
    axes.set_yticks(range(len(points)), [edit.label for edit, *_ in points])
    axes.set_ylim(len(points) - 0.4, -0.5)
    axes.set_xlim(max(min(lowest - 0.06, 0.6), -0.02), 1.02)
    axes.set_title("By format, the worst named")
    axes.set_xlabel("Forgetting")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def caption(results: Path, metrics: pd.DataFrame, level: str = "95%") -> tuple[str, str]:
    """Which edits forget and keep most and least, and what the axes mean."""
    shown, formats, found = panels(metrics), _formats(metrics), dict[str, list[str]]()
    if not shown:
        return NONE, ""
    if not formats:
        return UNUSABLE, ""
    before = keeping(metrics, BASE, "")
    for panel in shown:
        parts = [
            f"{what} runs from {between([(edit, measure(metrics, **edit.where)) for edit in panel.edits])}"
            for what, measure in (("Forgetting", forgetting), ("keeping", keeping))
        ]
        found[panel.title] = [f"{parts[0]}, {parts[1]}; before the edit, {words.number(before.value)} was kept."]
    facts = [data.pick(metrics, "p_true", stage="edited", role=role).n.max() for role in ("forget", "maintain-test")]
    seen = (
        f"Each edit as a mean over the {len(formats)} formats the model can use. Forgetting: one minus the true "
        f"answer's probability, forgotten facts (n = {facts[0]}). Keeping: the true answer's probability for "
        f"other facts, never trained on (n = {facts[1]}). Crosses: the mean of the formats' {level} bootstrap "
        "intervals over facts, which is at most too wide. Right: a tick for each format, the symbol at their mean, "
        "the format that leaks most by name."
    )
    return words.each(found), seen
