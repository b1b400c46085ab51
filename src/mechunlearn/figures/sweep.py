"""Which learning rate and weights? The score of every trial of a sweep. Torch-free.

draw   a row of panels a model, task and objective: a panel a setting, a line a localization
"""

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mechunlearn import registry
from mechunlearn.figures import style, words
from mechunlearn.sweep import CHOSEN, DIVERGED, SCORE


def draw(table: pd.DataFrame, rule: str) -> Figure:
    """The scores by one rule, with intervals; a ring marks what was chosen, a cross at the foot what diverged."""
    scores = table[(table.rule == rule) & (table.term == SCORE)]
    rows = list(scores.groupby(["model", "task", "objective"], sort=False))
    parameters = list(dict.fromkeys(scores.parameter))
    with style.look():
        drawing = style.canvas(2.9 * len(rows) + 0.7)
        grid = drawing.subplots(len(rows), len(parameters), squeeze=False, sharey="row")
        found: dict[str, Artist] = {}
        for line, (place, own) in zip(grid, rows, strict=True):
            for axes, parameter in zip(line, parameters, strict=True):
                _panel(axes, own[own.parameter == parameter])
                axes.set_title(", ".join(map(str, place)) if axes is line[0] else "")
                axes.set_xlabel(parameter.replace("_", " ").capitalize())
                handles, names = axes.get_legend_handles_labels()
                found |= dict(zip(names, handles, strict=True))
            line[0].set_ylabel(f"Score, rule {rule}")
        names = [words.localization(name) for name in registry.ordered(scores.localization.unique())]
        drawing.legend([found[name] for name in names], names, loc="outside lower center", ncols=3)
    return drawing


def _panel(axes: Axes, scores: pd.DataFrame) -> None:
    names = registry.ordered(scores.localization.unique())
    axes.set_xscale("log")
    axes.grid(axis="y")
    for place, (name, look) in enumerate(style.looks(names).items()):
        own = scores[scores.localization == name].sort_values("value")
        x = own.value * 1.03 ** (place - (len(names) - 1) / 2)
        axes.vlines(x, own.low, own.high, color=look.color, linewidth=1)
        axes.plot(
            x, own.estimate, color=look.color, marker=look.marker, linestyle=look.line, markersize=4.5,
            markeredgecolor=style.INK, markeredgewidth=0.4, label=words.localization(name),
        )  # fmt: skip
        best, lost = own.outcome == CHOSEN, own.outcome == DIVERGED
        axes.plot(x[best], own.estimate[best], "o", markersize=11, fillstyle="none", color=style.INK)
        axes.plot(x[lost], [0.02] * lost.sum(), "x", color=look.color, transform=axes.get_xaxis_transform())
    if len(scores):
        axes.set_xticks(sorted(scores.value.unique()), [f"{value:g}" for value in sorted(scores.value.unique())])
        axes.tick_params(axis="x", labelrotation=45)
    axes.minorticks_off()
