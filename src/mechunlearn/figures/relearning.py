"""Does training on some forgotten facts bring back the others?"""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mechunlearn.figures import data, style, words
from mechunlearn.figures.panels import Panel, between, contrast, measured, panels
from mechunlearn.registry import figure
from mechunlearn.study import BASE

TITLE = "Do the forgotten facts come back?"
PANELS = {"forget": "Facts the attack never saw", "relearn-train": "Facts it trained on"}
NONE = "This study has no relearning attack."

End = tuple[float, str, style.Look | None]  # the last value, the name, the look but for the base model's line


@figure("relearning")
def draw(results: Path, metrics: pd.DataFrame) -> Figure:
    """The true answer by relearning steps: unseen facts (wide) and the facts trained on (narrow)."""
    steps, shown = data.steps(metrics), panels(metrics)
    if not steps:
        return style.nothing(NONE)
    with style.look():
        drawing = style.canvas(3.6 * len(shown))
        grid = drawing.subplots(len(shown), 2, squeeze=False, sharey=True, width_ratios=[1.7, 1])
        for row, panel in zip(grid, shown, strict=True):
            for axes, role in zip(row, PANELS, strict=True):
                ends = _lines(axes, metrics, panel, role, steps)
                axes.set_title(PANELS[role])
                if role == "forget":
                    axes.set_title(PANELS[role] + panel.suffix)
                    _label(axes, ends)
            row[0].set_ylabel("Probability of the true answer")
            row[1].set_ylabel("")
    return drawing


def _lines(axes: Axes, metrics: pd.DataFrame, panel: Panel, role: str, steps: list[int]) -> list[End]:
    """Draw one panel; where each line ends."""
    ends, count = list[End](), len(panel.edits)
    span = max(steps[-1] - steps[0], 1)
    apart = min(0.013, 0.13 / count) * span
    for place, edit in enumerate(panel.edits):
        where = {**edit.where, "elicitation": "completion", "role": role}
        rows = [data.one(metrics, "p_true", stage=f"relearned@{step}", **where) for step in steps]
        points = [(step, row) for step, row in zip(steps, rows, strict=True) if row is not None]
        if not points:
            continue
        look = edit.look
        dodge = (place - (count - 1) / 2) * apart
        x = [step + dodge for step, _ in points]
        axes.vlines(x, [row.low for _, row in points], [row.high for _, row in points], color=look.color, linewidth=1.2)
        axes.plot(
            x, [row.value for _, row in points], color=look.color, marker=look.marker, linestyle=look.line,
            markeredgecolor=style.INK, markeredgewidth=0.5, label=edit.label,
        )  # fmt: skip
        ends.append((points[-1][1].value, edit.short, look))
    level = data.base(metrics, "p_true", "completion", "forget")
    if level is not None:
        axes.axhline(level.value, color="black", linestyle=(0, (3, 1.5)), linewidth=1.2, label="_base")
        ends.append((level.value, words.localization(BASE), None))
    style.share_axis(axes, low=-0.02)
    axes.set_xlim(steps[0] - 0.1 * span, steps[-1] + 0.1 * span)
    axes.set_xticks(steps)
    axes.set_xlabel("Steps of relearning")
    return ends


def _label(axes: Axes, ends: list[End]) -> None:
    """Name each line at its right end, labels moved apart, a thin leader where one had to move."""
    places = style.spread([value for value, *_ in ends], 0.065, 0.02, 1.0)
    for (value, text, look), place in zip(ends, places, strict=True):
        axes.annotate(
            "", (1.0, value), (1.04, place), xycoords=axes.get_yaxis_transform(),
            textcoords=axes.get_yaxis_transform(), annotation_clip=False,
            arrowprops={"arrowstyle": "-", "linewidth": 0.6, "color": style.SOFT, "shrinkA": 0, "shrinkB": 0},
        )  # fmt: skip
        if look:
            axes.plot(
                1.065, place, marker=look.marker, color=look.color, transform=axes.get_yaxis_transform(),
                clip_on=False, markeredgecolor=style.INK, markeredgewidth=0.5, label="_key",
            )  # fmt: skip
        axes.text(
            1.09 if look else 1.05,
            place,
            text,
            transform=axes.get_yaxis_transform(),
            va="center",
            fontsize=8.5,
        )


def caption(results: Path, metrics: pd.DataFrame, level: str = "95%") -> tuple[str, str]:
    """What came back of the unseen facts and whether the attack works, and how to read the lines."""
    steps = data.steps(metrics)
    if not steps:
        return NONE, ""
    found, facts = dict[str, list[str]](), 0
    before = data.base(metrics, "p_true", "completion", "forget")
    last = {"stage": f"relearned@{steps[-1]}", "elicitation": "completion"}
    for panel in panels(metrics):
        told = found.setdefault(panel.title, [])
        unseen = measured(metrics, "p_true", panel, role="forget", **last)
        if not unseen:
            continue
        facts = max(row.n for _, row in unseen)
        start = measured(metrics, "p_true", panel, role="forget", **{**last, "stage": "relearned@0"})
        told.append(
            f"For the facts the attack never saw, the true answer starts at "
            f"{words.number(min(row.value for _, row in start))} to {words.number(max(row.value for _, row in start))} "
            f"and after {steps[-1]} steps stands at {between(unseen)}; before the edit it was "
            f"{words.number(before.value)}."
        )
        told.append(contrast(metrics, "p_true", panel, role="forget", **last))
        trained = [row.value for _, row in measured(metrics, "p_true", panel, role="relearn-train", **last)]
        if trained:
            weakest = min(trained)
            works = (
                "so the attack does work"
                if weakest >= before.value / 2
                else "so the attack does not work everywhere, and a low value on the left proves little there"
            )
            told.append(
                f"On the facts it trained on it reaches {words.number(weakest)} to "
                f"{words.number(max(trained))}, {works}."
            )
    seen = (
        "The attacker trains the edited model on the true answers of half the forgotten facts. Left: the other half, "
        f"asked in the training prompt (n = {facts}). Right: the half trained on. Lines on symbols: {level} bootstrap "
        "intervals over facts; symbols are set side by side so that they can be told apart. Dashed: before the edit."
    )
    return words.each(found), seen
