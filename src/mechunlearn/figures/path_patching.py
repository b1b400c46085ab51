"""Path patching: what brings the answer out, and which MLPs feed it? (paper A.2.2, Figs. 11 and 12)"""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mechunlearn.figures import data, style, words
from mechunlearn.figures.probe_curves import lookup_layers
from mechunlearn.registry import figure
from mechunlearn.stats import interval

TITLE = "What brings the answer out, and which MLPs feed it"
NONE = "Path patching has no part in this task's localizations."
DIRECT, MLP, CENTRAL = ["direct-head", "direct-mlp"], "MLP", 0.95


@figure("path-patching")
def draw(results: Path, metrics: pd.DataFrame) -> Figure:
    """Left, direct effects on the answer: heads and MLP by layer. Right, MLPs' effects through what brings it out."""
    scores = of_paths(results)
    if scores is None:
        return style.nothing(NONE)
    table, (curve, chance) = direct(scores), through(scores)
    with style.look():
        drawing = style.canvas(0.13 * max(12, len(table)) + 1.5)
        left, right = drawing.subplots(1, 2, width_ratios=[1, 1])
        top = float(np.abs(table.to_numpy()).max())
        image = left.imshow(table, aspect="auto", cmap="RdBu_r", vmin=-top, vmax=top)
        step = -(-(len(table) - 1) // 8)
        rows = [*range(0, len(table) - 1, step), len(table) - 1]
        left.set_yticks(rows, [table.index[row] for row in rows])
        left.tick_params(length=0)
        left.spines[:].set_visible(False)
        left.set_title("Direct effect on the answer")
        bar = drawing.colorbar(image, ax=left, fraction=0.05, pad=0.02)
        bar.ax.tick_params(labelsize=8)
        bar.outline.set_visible(False)
        for layer in lookup_layers(results):
            right.axvspan(layer - 0.5, layer + 0.5, color="#f1ecd8", linewidth=0)
        if chance:
            right.axhspan(*chance, color=style.FAINT, linewidth=0)
        right.vlines(curve.layer, curve.low, curve.high, color="#0072B2", linewidth=1.2)
        right.plot(curve.layer, curve.value, "o", color="#0072B2", markersize=4.5)
        right.axhline(0, color=style.SOFT, linewidth=0.8)
        right.set_title("MLPs, through what brings the answer out")
        right.grid(axis="y")
        for axes in (left, right):
            _layers(axes, table.shape[1])
    return drawing


def _layers(axes: Axes, count: int) -> None:
    axes.set_xticks(range(0, count, 2 if count <= 24 else 5))
    axes.set_xlabel("Layer")


def caption(results: Path, metrics: pd.DataFrame, level: str = "95%") -> tuple[str, str]:
    """The largest effects of both kinds, and how to read them."""
    scores = of_paths(results)
    if scores is None:
        return NONE, ""
    table, (curve, chance) = direct(scores), through(scores)
    order = np.argsort(-np.abs(table.to_numpy()), axis=None, kind="stable")[:3]
    places = [
        (table.index[row], table.columns[column])
        for row, column in zip(*np.unravel_index(order, table.shape), strict=True)
    ]
    named = words.listing(f"MLP {layer}" if row == MLP else f"{row} of layer {layer}" for row, layer in places)
    best = curve.sort_values("value").iloc[-1]
    found = [
        f"The answer is brought out most by {named}.",
        f"Of the MLPs, that of layer {int(best.layer)} feeds these components most "
        f"({words.number(best.value, best.low, best.high)}).",
    ]
    if layers := lookup_layers(results):
        found.append(f"Fact lookup takes {'MLP' if len(layers) == 1 else 'MLPs'} {words.ranges(layers)}.")
    seen = (
        f"n = {int(curve.n.iloc[0])} facts; 1 is as much of the difference of the answers' logits as the corrupted "
        "subject takes away. Left: what a component adds to the answer straight, red for, blue against it. Right: what "
        "an MLP adds when only the components with the largest direct effects react to it (bars: 95% bootstrap "
        "intervals over facts; shaded columns: the layers that fact lookup takes"
        + ("; grey band: central 95% of random directions' means)." if chance else ").")
    )
    return " ".join(found), seen


def of_paths(results: Path) -> pd.DataFrame | None:
    """The scores of path patching, by whichever localizer; None where there are none. Raises ArtifactError."""
    for name in ("path-patching", "fact-lookup"):
        scores = data.scores(results, name)
        if scores is not None and "lookup" in set(scores.kind):
            return scores
    return None


def direct(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean direct effects: rows head 0, head 1 ... and MLP, a column a layer."""
    means = scores[scores.kind.isin(DIRECT)].groupby(["head", "layer"]).effect.mean().unstack("layer")
    heads = means.drop(index=-1, errors="ignore").sort_index()
    table = pd.concat([heads, means.loc[means.index == -1]])
    return table.set_axis([*(f"head {head}" for head in heads.index), *[MLP] * (len(table) - len(heads))])


def through(scores: pd.DataFrame) -> tuple[pd.DataFrame, tuple[float, float] | None]:
    """(layer, value, low, high, n) of every MLP, and where random directions' means lie; None where none were drawn."""
    rows = []
    for layer, effects in scores[scores.kind == "lookup"].groupby("layer"):
        facts = effects.groupby("fact").effect.mean().to_numpy(dtype=float)
        rows.append((layer, *interval(facts, 2000, CENTRAL, None), len(facts)))
    drawn = scores[scores.kind == "random"].groupby(["seed", "layer", "head"]).effect.mean()
    tail = (1 - CENTRAL) / 2
    ends = tuple(float(end) for end in drawn.quantile([tail, 1 - tail])) if len(drawn) else None
    return pd.DataFrame(rows, columns=["layer", "value", "low", "high", "n"]), ends  # type: ignore[return-value]
