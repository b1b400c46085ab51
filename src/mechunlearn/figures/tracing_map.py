"""Causal tracing token by token: where one restored part of the blurred run brings the answer back."""

from pathlib import Path
from textwrap import fill

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mechunlearn.figures import data, style, words
from mechunlearn.registry import figure
from mechunlearn.stats import interval

TITLE = "Which token, in which layer, carries the answer"
NONE = "This study has no causal tracing by token."
PANELS = {"state": "One state", "mlp-window": "A window of MLPs", "attention-window": "A window of attention"}
ROLES = (
    "first subject token", "middle subject tokens", "last subject token", "first token after", "further tokens",
    "last token",
)  # fmt: skip
SUBJECT = ROLES[:3]


@figure("tracing-map")
def draw(results: Path, metrics: pd.DataFrame) -> Figure:
    """Token roles x layers, mean effect over facts: states, windows of MLPs, windows of attention; peaks framed."""
    facts = by_fact(results)
    if facts is None:
        return style.nothing(NONE)
    maps = {kind: mean_map(facts, kind) for kind in PANELS if kind in set(facts.kind)}
    top = max(float(table.to_numpy().max()) for table in maps.values())
    with style.look():
        drawing = style.canvas(0.27 * len(next(iter(maps.values()))) + 1.0)
        grid = drawing.subplots(1, len(maps), squeeze=False, sharey=True)[0]
        for axes, (kind, table) in zip(grid, maps.items(), strict=True):
            image = axes.imshow(table, aspect="auto", cmap="Blues", vmin=0, vmax=top)
            axes.set_title(PANELS[kind])
            _frame_peak(axes, table)
            _ticks(axes, table)
        bar = drawing.colorbar(image, ax=list(grid), fraction=0.03, pad=0.015)
        bar.set_label(fill("probability regained", 20), fontsize=8.5)
        bar.ax.tick_params(labelsize=8)
        bar.outline.set_visible(False)
    return drawing


def _frame_peak(axes: Axes, table: pd.DataFrame) -> None:
    role, layer = peak(table)
    place = (list(map(int, table.columns)).index(layer) - 0.5, list(map(str, table.index)).index(role) - 0.5)
    axes.add_patch(Rectangle(place, 1, 1, fill=False, edgecolor="#D55E00", linewidth=1.6, clip_on=False, zorder=3))


def _ticks(axes: Axes, table: pd.DataFrame) -> None:
    layers = table.shape[1]
    axes.set_yticks(range(len(table)), list(table.index))
    axes.set_xticks(range(0, layers, 5 if layers <= 40 else 10))
    axes.set_xlabel("Layer")
    axes.set_xticks([place - 0.5 for place in range(1, layers)], minor=True)
    axes.set_yticks([place - 0.5 for place in range(1, len(table))], minor=True)
    axes.grid(which="minor", color="white", linewidth=0.8)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)


def by_fact(results: Path) -> pd.DataFrame | None:
    """Effects by kind, layer, role and fact, averaged over runs and over a fact's tokens of one role."""
    scores = data.scores(results, "causal-tracing")
    if scores is None or not scores.kind.isin(PANELS).any():
        return None
    place = ["kind", "layer", "position", "fact"]
    return scores[scores.kind.isin(PANELS)].groupby(place).effect.mean().reset_index()


def mean_map(facts: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Token roles, in the prompt's order, x layers: the mean over the facts that have such a token."""
    table = facts[facts.kind == kind].groupby(["position", "layer"]).effect.mean().unstack("layer")
    return table.reindex([role for role in ROLES if role in table.index])


def peak(table: pd.DataFrame) -> tuple[str, int]:
    """The role and layer with the largest mean."""
    row, column = divmod(int(table.to_numpy().argmax()), table.shape[1])
    return str(table.index[row]), int(table.columns[column])


def caption(results: Path, metrics: pd.DataFrame, level: str = "95%") -> tuple[str, str]:
    """Where each map peaks, and what is restored."""
    facts = by_fact(results)
    if facts is None:
        return NONE, ""
    found, n = [], facts.fact.nunique()
    for kind in [kind for kind in PANELS if kind in set(facts.kind)]:
        table = mean_map(facts, kind)
        role, layer = peak(table)
        text = f"{PANELS[kind]} brings most back at the {role}, layer {layer}: {_value(facts, kind, role, layer)}"
        subject = table[table.index.isin(SUBJECT)]
        if role not in SUBJECT and len(subject):
            role, layer = peak(subject)
            text += f"; within the subject, at the {role}, layer {layer}: {_value(facts, kind, role, layer)}"
        found.append(f"{text}.")
    seen = (
        "The subject of the question is blurred; then, at one token, the clean state after a layer is put back, or the "
        "clean outputs of a window of MLPs or attention blocks around that layer (localize.tracing.window of them). "
        f"Colour: the probability that the answer regains, mean over n = {n} fact{'s' if n > 1 else ''}; tokens of one "
        "role are averaged within a fact first, and white is nothing or less. Framed: the largest mean of a panel. "
        + ("In brackets: 95% bootstrap intervals over facts." if n > 1 else "One fact gives no interval.")
    )
    return " ".join(found), seen


def _value(facts: pd.DataFrame, kind: str, role: str, layer: int) -> str:
    """The mean at one place, with its interval where it is one of several facts."""
    values = facts[(facts.kind == kind) & (facts.position == role) & (facts.layer == layer)].effect
    mean, low, high = interval(values.to_numpy(dtype=float), 2000, 0.95, None)
    return words.number(mean, low, high) if len(values) > 1 else words.number(mean)
