"""How many facts can be edited? Tasks that differ in how many facts they forget, side by side. Torch-free.

draw      each localization by the number of facts
caption   what it shows, and how to read it
"""

from typing import Any, NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mechunlearn.figures import data, style, words

TITLE = "How many facts can be edited?"


class Panel(NamedTuple):
    """One metric of an edit."""

    metric: str
    elicitation: str
    role: str
    title: str


PANELS = [
    Panel("p_new", "completion", "forget", "New answer,\ntraining prompt"),
    Panel("p_new", "paraphrase-1", "forget", "New answer,\nrephrased"),
    Panel("p_new", "choice-text", "forget", "New answer,\nmultiple choice"),
    Panel("p_true", "choice-text", "forget", "True answer,\nmultiple choice"),
    Panel("p_true", "completion", "maintain-test", "True answer,\nfacts to keep"),
]


def draw(metrics: pd.DataFrame, tasks: dict[str, int]) -> Figure:
    """A row of panels for each model and objective, a line a localization over the number of facts edited."""
    with style.look():
        rows = list(metrics[metrics.objective != ""].groupby(["model", "objective"]))
        drawing = style.canvas(2.6 * len(rows) + 0.7)
        grid = drawing.subplots(len(rows), len(PANELS), squeeze=False, sharex=True, sharey=True)
        for line, ((model, objective), _) in zip(grid, rows, strict=True):
            own = metrics[metrics.model == model]
            for axes, panel in zip(line, PANELS, strict=True):
                _panel(axes, own, str(objective), tasks, panel)
            line[0].set_ylabel(f"{model}, {objective}" if len(rows) > 1 else "Probability")
        for axes in grid[-1]:
            axes.set_xlabel("Facts edited")
        handles, names = grid[0][0].get_legend_handles_labels()
        drawing.legend(handles, names, loc="outside lower center", ncols=min(3, len(names)))
    return drawing


def _panel(axes: Axes, metrics: pd.DataFrame, objective: str, tasks: dict[str, int], panel: Panel) -> None:
    names, ordered = data.localizations(metrics), sorted(tasks, key=lambda task: tasks[task])
    for place, (name, look) in enumerate(style.looks(names).items()):
        found = [(tasks[task], edited(metrics, task, name, objective, panel)) for task in ordered]
        points = [(size, row) for size, row in found if row is not None]
        x = [size * 1.04 ** (place - (len(names) - 1) / 2) for size, _ in points]
        axes.vlines(x, [row.low for _, row in points], [row.high for _, row in points], color=look.color, linewidth=1)
        axes.plot(
            x, [row.value for _, row in points], color=look.color, marker=look.marker, linestyle=look.line,
            markersize=4.5, markeredgecolor=style.INK, markeredgewidth=0.4, label=words.localization(name),
        )  # fmt: skip
        if not points and not place:
            axes.text(0.5, 0.5, "n/a", ha="center", transform=axes.transAxes, color=style.SOFT)
    style.share_axis(axes, low=-0.02)
    axes.set_xscale("log")
    axes.set_xticks([tasks[task] for task in ordered], [str(tasks[task]) for task in ordered])
    axes.minorticks_off()
    axes.set_title(panel.title)


def edited(metrics: pd.DataFrame, task: str, name: str, objective: str, panel: Panel) -> Any:
    """The metrics row of a task's edit; None where it was not measured, or the model cannot use the format."""
    where = {"task": task, "localization": name, "objective": objective, "stage": "edited"}
    found = data.one(metrics, panel.metric, elicitation=panel.elicitation, role=panel.role, **where)
    return found if found is not None and found.counts else None


def caption(metrics: pd.DataFrame, tasks: dict[str, int], level: str = "95%") -> tuple[str, str]:
    """From the fewest facts to the most, the new answer in the training prompt, and how to read the lines."""
    fewest, most = (choose(tasks, key=lambda task: tasks[task]) for choose in (min, max))
    found = []
    for (model, objective), _ in metrics[metrics.objective != ""].groupby(["model", "objective"]):
        own, parts = metrics[metrics.model == model], []
        for name in data.localizations(own):
            ends = [edited(own, task, name, str(objective), PANELS[0]) for task in (fewest, most)]
            if None not in ends:
                parts.append(f"{words.row(ends[0])} to {words.row(ends[1])} for {words.quoted(name)}")
        if parts:
            found.append(
                f"From {tasks[fewest]} facts to {tasks[most]} ({model}, {objective}), the new answer in the training "
                f"prompt goes from {'; from '.join(parts)}."
            )
    seen = (
        f"Each task edits n = {words.listing(str(size) for size in sorted(tasks.values()))} facts of the same set "
        f"(log scale). Lines on symbols: {level} bootstrap intervals over facts; symbols are set side by side. "
        "n/a: the model cannot use the format. Kept facts are the ones that are left, fewer where more are edited."
    )
    return " ".join(found), seen
