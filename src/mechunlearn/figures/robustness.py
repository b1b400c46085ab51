"""Does the edit hold when the question is asked another way?"""

from itertools import product
from pathlib import Path
from textwrap import fill

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mechunlearn.figures import data, style, words
from mechunlearn.figures.panels import Panel, between, contrast, measured, panels
from mechunlearn.registry import figure

TITLE = "Does the edit hold when the question is asked another way?"
NONE = "This study has no edit."
UNUSABLE = "The model can use none of the formats, so robustness says nothing."
PANELS = {
    "p_new": "New answer: high where the edit carries over",
    "p_true": "True answer: low where the fact is gone",
}
CROWDED = 60  # bars
GROUP = 0.82  # of the distance between two formats


@figure("robustness")
def draw(results: Path, metrics: pd.DataFrame) -> Figure:
    """Bars of the new and of the true answer by format, one per edit, with the base model's level."""
    shown, formats = panels(metrics), data.elicitations(metrics)
    if not shown:
        return style.nothing(NONE)
    if not data.counting(metrics):
        return style.nothing(UNUSABLE)
    measured = [metric for metric in PANELS if not _edited(metrics, metric).empty]
    with style.look():
        drawing = style.canvas(0.7 + 2.35 * len(measured) * len(shown))
        grid = drawing.subplots(len(measured) * len(shown), 1, squeeze=False, sharex=True)[:, 0]
        for axes, (panel, metric) in zip(grid, product(shown, measured), strict=True):
            _bars(axes, metrics, metric, panel, formats)
            axes.set_title(PANELS[metric] + panel.suffix)
        handles, labels = grid[0].get_legend_handles_labels()
        handles, labels = [*handles[1:], handles[0]], [*labels[1:], labels[0]]  # the reference last
        columns = 3 if len(labels) > 8 or max(map(len, labels)) > 26 else 4
        drawing.legend(handles, labels, loc="outside upper left", ncols=columns, handlelength=2.2, handleheight=1.1)
    return drawing


def _edited(metrics: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Forgotten facts after the edit; no new answers where a task has none (biographies)."""
    return data.pick(metrics, metric, stage="edited", role="forget")


def _bars(axes: Axes, metrics: pd.DataFrame, metric: str, panel: Panel, formats: list[str]) -> None:
    width, counts = GROUP / len(panel.edits), set(data.counting(metrics))
    for place, edit in enumerate(panel.edits):
        look, first = edit.look, True
        for slot, elicitation in enumerate(formats):
            where = {**edit.where, "stage": "edited", "role": "forget"}
            row = data.one(metrics, metric, elicitation=elicitation, **where)
            if row is None or elicitation not in counts:
                continue
            x = slot - GROUP / 2 + (place + 0.5) * width
            label = edit.label if first else "_"
            axes.bar(
                x, row.value, width * 0.92, color=look.color, hatch=look.hatch, edgecolor=style.INK, linewidth=0.6,
                label=label,
            )  # fmt: skip
            style.halo(axes, x, row.low, row.high, thin=len(panel.edits) * len(formats) > CROWDED)
            first = False
    first = True
    for slot, elicitation in enumerate(formats):
        level = data.base(metrics, metric, elicitation, "forget")
        if elicitation not in counts:
            axes.axvspan(slot - 0.45, slot + 0.45, color="#f4f4f4", linewidth=0)
            text = f"n/a\n(base {data.gate(metrics, elicitation):.2f})"
            axes.text(slot, 0.5, text, ha="center", va="center", color=style.SOFT, fontsize=8.5)
        elif level is not None:
            label = "before the edit" if first else "_"
            axes.hlines(
                level.value,
                slot - 0.47,
                slot + 0.47,
                color="black",
                linestyle=(0, (3, 1.5)),
                linewidth=1.5,
                label=label,
            )
            first = False
    style.share_axis(axes, "Probability")
    axes.set_xlim(-0.55, len(formats) - 0.45)
    letters = min(16, 115 // len(formats))  # as many as fit between two formats
    labels = [fill(words.elicitation(name), letters) for name in formats]
    axes.set_xticks(range(len(formats)), labels)
    axes.tick_params(axis="x", length=0, labelsize=8.5 if len(formats) < 8 else 7.5)


def caption(results: Path, metrics: pd.DataFrame, level: str = "95%") -> tuple[str, str]:
    """How the localizations differ by format, and how to read the bars and their gaps."""
    counts, found = data.counting(metrics), dict[str, list[str]]()
    metric = "p_true" if _edited(metrics, "p_new").empty else "p_new"
    edited, answer = _edited(metrics, metric), {"p_true": "true", "p_new": "new"}[metric]
    if edited.empty or not counts:
        return NONE if edited.empty else UNUSABLE, ""
    for panel in panels(metrics):
        told = found.setdefault(panel.title, [])
        for elicitation in [name for name in ("completion", "choice-text", "choice-letter") if name in counts]:
            where = {"stage": "edited", "elicitation": elicitation, "role": "forget"}
            if rows := measured(metrics, metric, panel, **where):
                told.append(f"{words.elicitation(elicitation)}: the {answer} answer gets {between(rows)}.")
            if elicitation != "completion":
                told.append(contrast(metrics, metric, panel, **where))
    seen = [
        f"Each group of bars is one way of asking for the forgotten facts (n = {edited.n.max()}). Lines on bars: "
        f"{level} bootstrap intervals over facts. Dashed: the model before the edit."
    ]
    seen += [
        f"{words.elicitation(name)} is n/a: before any edit the model gets only {data.gate(metrics, name):.2f} of the "
        "facts it knows right that way, so it says nothing about the edit."
        for name in data.elicitations(metrics)
        if name not in counts
    ]
    return words.each(found), " ".join(seen)
