"""Can the forgotten answers still be read off an edited model's hidden states? (paper 3.3, Figs. 40-44)

probed   the layer whose probe is best on kept facts
"""

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mechunlearn.figures import data, style, words
from mechunlearn.figures.panels import Edit, panels
from mechunlearn.registry import figure
from mechunlearn.study import BASE

TITLE = "What probes still read"
NONE = "This study probes no edited model."
FEWEST = 8  # forgotten facts below which a curve would show chance
PLACES = {"probe-subject": "End of the subject", "probe-last": "End of the prompt"}
# (name, metric, elicitation's ending, of the base model?, colour, marker, line)
CURVES = (
    ("true answer, before the edit", "p_true", "", True, "black", "", (0, (3, 1.5))),
    ("true answer", "p_true", "", False, "#0072B2", "o", "-"),
    ("new answer", "p_new", "", False, "#D55E00", "s", "-"),
    ("true answer, control", "p_true", "-permuted", False, "#0072B2", "", ":"),
    ("new answer, before the edit", "p_new", "", True, style.SOFT, "", (0, (3, 1.5))),
    ("new answer, control", "p_new", "-permuted", False, "#D55E00", "", ":"),
)


@figure("latent-knowledge")
def draw(results: Path, metrics: pd.DataFrame) -> Figure:
    """A row an edit, a column a place: what the probes of each layer say of the forgotten facts."""
    if reason := _missing(metrics):
        return style.nothing(reason)
    edits = [(edit, panel.suffix) for panel in panels(metrics) for edit in panel.edits if _curves(metrics, edit)]
    with style.look():
        drawing = style.canvas(1.15 * len(edits) + 1.0)
        grid = drawing.subplots(len(edits), len(PLACES), squeeze=False, sharex=True, sharey=True)
        for row, (edit, suffix) in zip(grid, edits, strict=True):
            for axes, place in zip(row, PLACES, strict=True):
                _draw(axes, metrics, edit, place)
            row[0].set_title(edit.label + suffix)
        for axes, title in zip(grid[0], PLACES.values(), strict=True):
            axes.annotate(title, (1, 1.04), xycoords="axes fraction", ha="right", va="bottom", color=style.SOFT)
        for axes in grid[-1]:
            axes.set_xlabel("Layer")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        for row in grid:
            style.share_axis(row[0], "", low=-0.03)
            row[0].set_yticks([0, 0.5, 1])
        drawing.supylabel("Probability that the probe gives", fontsize=9)
        handles, labels = grid[0, 0].get_legend_handles_labels()
        drawing.legend(handles, labels, loc="outside upper center", ncols=3)
    return drawing


def _draw(axes: Axes, metrics: pd.DataFrame, edit: Edit, place: str) -> None:
    for name, metric, ending, before, color, marker, line in CURVES:
        where = {"localization": BASE, "objective": ""} if before else edit.where
        curve = _curve(metrics, metric, elicitation=place + ending, **where)
        if curve.empty:
            continue
        if not before and not ending:
            axes.fill_between(curve.layer, curve.low, curve.high, color=color, alpha=0.18, linewidth=0)
        axes.plot(curve.layer, curve.value, color=color, marker=marker, markersize=3, linestyle=line, label=name)


def _curve(metrics: pd.DataFrame, metric: str, **where: str) -> pd.DataFrame:
    """Rows of forgotten facts by layer, ascending."""
    rows = data.pick(metrics, metric, role="forget", **where)
    rows = rows[rows.stage.str.startswith("probed@")]
    return rows.assign(layer=rows.stage.str.partition("@")[2].astype(int)).sort_values("layer")


def _curves(metrics: pd.DataFrame, edit: Edit) -> bool:
    return any(not _curve(metrics, "p_true", elicitation=place, **edit.where).empty for place in PLACES)


def _missing(metrics: pd.DataFrame) -> str:
    """Why there is nothing to draw; empty where there is something."""
    rows = metrics[(metrics.role == "forget") & metrics.elicitation.isin(PLACES) & (metrics.against == "")]
    if rows.empty:
        return NONE
    most = int(rows.n.max())
    return "" if most >= FEWEST else f"Only {most} of the forgotten facts could be probed, too few for a curve."


def probed(metrics: pd.DataFrame, place: str, localization: str, objective: str) -> int | None:
    """The layer whose probe says the true answer of most kept facts; None where nothing was probed there.

    Forgotten facts do not choose it, so that what it says of them is no best of many.
    """
    where = {"localization": localization, "objective": objective, "elicitation": place}
    kept = data.pick(metrics, "accuracy_true", role="maintain-test", **where)
    if kept.empty:
        return None
    return int(str(kept.sort_values("value").stage.iloc[-1]).partition("@")[2])


def _best(metrics: pd.DataFrame, place: str, localization: str, objective: str) -> Any:
    """What the probe of that layer says of the forgotten facts; None where nothing was probed."""
    layer = probed(metrics, place, localization, objective)
    where = {"localization": localization, "objective": objective, "elicitation": place, "stage": f"probed@{layer}"}
    return data.one(metrics, "p_true", role="forget", **where)


def caption(results: Path, metrics: pd.DataFrame, level: str = "95%") -> tuple[str, str]:
    """What the probe of the layer that is best on kept facts says, and how to read the curves."""
    if reason := _missing(metrics):
        return reason, ""
    found, facts = dict[str, list[str]](), 0
    for panel in panels(metrics):
        told = found.setdefault(panel.title, [])
        for place, title in PLACES.items():
            rows = [(edit, row) for edit in panel.edits if (row := _best(metrics, place, **edit.where)) is not None]
            if not rows:
                continue
            facts = max(facts, *(row.n for _, row in rows))
            least, most = (select(rows, key=lambda each: each[1].value) for select in (min, max))
            base = _best(metrics, place, BASE, "")
            told.append(
                f"{title}: the probe of the best layer gives the true answer {words.row(least[1])} ({least[0].short}) "
                f"to {words.row(most[1])} ({most[0].short})"
                + (f"; before the edit {words.row(base)}." if base else ".")
            )
    seen = (
        "At each layer a probe learns the answers of other facts from the model's hidden states and then reads the "
        f"forgotten ones (n = {facts}; the best layer is the one whose probe is right for most kept facts). Bands: "
        f"{level} intervals over facts. Control: probes that learned the same answers dealt out anew."
    )
    return words.each(found), seen
