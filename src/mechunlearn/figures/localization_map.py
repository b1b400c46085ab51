"""Where each method looks: effects of every component, and what each localization may train."""

from collections import Counter
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from mechunlearn.artifacts import Selection
from mechunlearn.figures import data, style, words
from mechunlearn.registry import budgeted, figure

TITLE = "Where each method points"
LOST = "how much of the answer is lost when one component's output comes from a question about another subject"
METHODS = {
    "causal-tracing": "the probability that the answer regains when causal tracing blurs the subject of the question "
    "and puts one component's clean output back",
    "activation-patching": LOST,
    "attribution-patching": f"{LOST}, estimated from gradients",
    "integrated-gradients": f"{LOST}, estimated from gradients along the way",
}
PANEL, ROW = 0.95, 0.36  # inches


@figure("localization-map")
def draw(results: Path, metrics: pd.DataFrame) -> Figure:
    """Above, effects by layer of attention and MLP; below, a row per localization with what it trains."""
    chosen, traced = data.selections(results, metrics), data.tracings(results, metrics)
    if not chosen:
        return style.nothing("This study has no localization.")
    layers = layer_count(chosen, traced)
    heights = [PANEL] * len(traced) + [ROW * len(chosen)]
    with style.look():
        drawing = style.canvas(sum(heights) + 1.0)
        grid = drawing.add_gridspec(len(heights), 2, height_ratios=heights, width_ratios=[1, 0.17])
        for place, (name, (effects, _)) in enumerate(traced.items()):
            axes = drawing.add_subplot(grid[place, 0])
            _effects(axes, drawing.add_subplot(grid[place, 1]), name, effects)
        _selections(drawing.add_subplot(grid[-1, 0]), drawing.add_subplot(grid[-1, 1]), chosen, layers)
        _key(drawing)
    return drawing


def caption(results: Path, metrics: pd.DataFrame, level: str = "95%") -> tuple[str, str]:
    """How far the methods agree, and how to read the map."""
    chosen, traced = data.selections(results, metrics), data.tracings(results, metrics)
    found, seen = [], []
    for name, (effects, facts) in traced.items():
        ranked = sorted(
            ((float(effects.loc[layer, kind]), kind, layer) for kind in data.KINDS for layer in effects.index),
            reverse=True,
        )
        top = [f"{_part(kind)} {layer} ({value:.3f})" for value, kind, layer in ranked[:3]]
        found.append(f"{words.short(name)} points to {words.listing(top)}.")
        what = METHODS.get(name, f"the effect of each component by {words.short(name).lower()}")
        seen.append(
            f"Shaded boxes: {what}, size of the mean over n = {facts} facts (no interval); for an attention block, the "
            "sum over its heads."
        )
    seen.append("Rows below: what each method trains, and how many parameters that is.")
    if (lookup := chosen.get("fact-lookup")) is not None:
        layers = {component.layer for component in lookup.components}
        found.append(f"Fact lookup trains {words.components(lookup)}.")
        those = "this MLP" if len(layers) == 1 else f"these {len(layers)} MLPs"
        shared = [
            f"{len(layers & {c.layer for c in selection.components if c.kind == 'mlp'})} with {words.quoted(name)}"
            for name, selection in chosen.items()
            if budgeted(name)
        ]
        found.append(f"Of {those} it shares {words.listing(shared)}." if shared else "")
    return " ".join(filter(None, found)), " ".join(seen)


def layer_count(chosen: dict[str, Selection], traced: dict[str, tuple[pd.DataFrame, int]]) -> int:
    """How many layers the model has, as far as scores and selections tell."""
    seen = [component.layer for selection in chosen.values() for component in selection.components]
    seen += [int(effects.index.max()) for effects, _ in traced.values()]
    return max(seen) + 1


def _part(kind: str) -> str:
    return "MLP" if kind == "mlp" else kind


def _effects(axes: Axes, side: Axes, name: str, effects: pd.DataFrame) -> None:
    table = effects[list(data.KINDS)].T
    image = axes.imshow(table, aspect="auto", cmap="Blues", vmin=0, origin="lower")
    axes.set_yticks([0, 1], ["attention", "MLP"])
    axes.set_title(f"{words.localization(name)}: effect of each component")
    _layer_axis(axes, table.shape[1])
    axes.set_xticklabels([])
    axes.set_xticks([place - 0.5 for place in range(1, table.shape[1])], minor=True)
    axes.set_yticks([0.5], minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    side.set_axis_off()
    bar = axes.figure.colorbar(image, cax=side.inset_axes((0.04, 0.02, 0.1, 0.96)))
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)


def _selections(axes: Axes, side: Axes, chosen: dict[str, Selection], layers: int) -> None:
    looks = style.looks(list(chosen))
    for row, (name, selection) in enumerate(chosen.items()):
        color = looks[name].color
        axes.axhline(row + 0.5, color=style.FAINT, linewidth=0.8)
        heads = Counter(component.layer for component in selection.components if component.head is not None)
        drawn = Counter[int]()
        for component in selection.components:
            if component.head is not None:  # side by side above their layer
                drawn[component.layer] += 1
                x = component.layer + 0.76 * (drawn[component.layer] / (heads[component.layer] + 1) - 0.5)
                axes.plot(x, row - 0.26, "o", color=color, markersize=2.5)
                continue
            if component.kind == "attention":
                axes.plot(component.layer, row - 0.26, "o", color=color, markersize=5, markeredgecolor=style.INK)
                continue
            place = (component.layer - 0.38, row - 0.06)
            part = data.share(selection, component)
            axes.add_patch(Rectangle(place, 0.76 * part, 0.38, color=color, linewidth=0))
            axes.add_patch(Rectangle(place, 0.76, 0.38, fill=False, edgecolor=style.INK, linewidth=0.8))
        share = f"{words.parameters(selection.parameters)} ({selection.parameters / selection.total:.0%})"
        side.text(0.02, row, share, va="center", fontsize=8.5)
    for each in (axes, side):
        each.set_ylim(len(chosen) - 0.5, -0.5)
    side.set_axis_off()
    side.set_title("Parameters")
    axes.set_title("What each localization trains")
    axes.set_yticks(range(len(chosen)), [words.localization(name) for name in chosen])
    axes.tick_params(axis="y", length=0)
    _layer_axis(axes, layers)
    axes.set_xlabel("Layer")
    axes.spines[["left", "bottom"]].set_visible(False)


def _key(drawing: Figure) -> None:
    whole = Patch(facecolor="#bbbbbb", edgecolor=style.INK, linewidth=0.8)
    block = Line2D([], [], marker="o", markeredgecolor=style.INK, markerfacecolor="#bbbbbb", linestyle="none")
    labels = ["MLP (filled in part: so many neurons)", "attention block (small dots: single heads)"]
    drawing.legend([whole, block], labels, loc="outside lower center", ncols=2)


def _layer_axis(axes: Axes, layers: int) -> None:
    every = 1 if layers <= 24 else 2 if layers <= 48 else 5
    axes.set_xlim(-0.5, layers - 0.5)
    axes.set_xticks(range(0, layers, every))
