"""Gradients only estimate what patching measures: how well?"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mechunlearn.figures import data, style, words
from mechunlearn.registry import figure
from mechunlearn.stats import central, resampled_means

TITLE = "Do the estimates from gradients agree with exact patching?"
NONE = "This study has no estimate from gradients beside exact patching."
EXACT, ESTIMATES = "activation-patching", ("attribution-patching", "integrated-gradients")
COMPONENTS = {"head": ("attention heads", "#0072B2", "o"), "mlp": ("MLP outputs", "#D55E00", "s")}
INPUTS = ("q", "k", "v", "mlp-in")
TOP, NAMED = 10, 3
SAMPLES, CONFIDENCE = 2000, 0.95


class Comparison(NamedTuple):
    """An estimate beside the exact effects of the same facts.

    means         a row for each kind, layer and head: `exact` and `estimate`
    correlation   Spearman's, of the effects' sizes, heads and MLP outputs together, with its interval
    recall        the share of the TOP exact ones that are among the estimate's, with its interval
    apart         the correlation among heads alone and among MLP outputs alone
    missed        those that are not, largest first
    """

    means: pd.DataFrame
    correlation: tuple[float, float, float]
    recall: tuple[float, float, float]
    apart: dict[str, float]
    missed: list[tuple[str, int, int]]
    facts: int


@figure("estimates")
def draw(results: Path, metrics: pd.DataFrame) -> Figure:
    """A panel per estimate: every component's estimated against its exact effect, with the line of agreement."""
    found = comparisons(results)
    if not found:
        return style.nothing(NONE)
    with style.look():
        drawing = style.canvas(4.7)
        low, high = _span(list(found.values()))
        grid = drawing.subplots(1, len(ESTIMATES), squeeze=False, sharex=True, sharey=True)[0]
        for axes, name in zip(grid, ESTIMATES, strict=True):
            if name not in found:
                axes.set_axis_off()
                continue
            _panel(axes, found[name])
            axes.set_title(words.localization(name))
            axes.set_xlabel("Exact effect")
            axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
        grid[0].set_ylabel("Estimated effect")
        handles, labels = next(axes for axes in grid if axes.axison).get_legend_handles_labels()
        order = [1, 2, 0, 3]  # the quiet points are drawn first
        handles, labels = [handles[place] for place in order], [labels[place] for place in order]
        drawing.legend(handles, labels, loc="outside lower center", ncols=len(labels), columnspacing=1.4)
    return drawing


def _span(found: Sequence[Comparison]) -> tuple[float, float]:
    """From the smallest to the largest mean, with room for names on the right."""
    values = np.concatenate([one.means.to_numpy().ravel() for one in found])
    low, high = float(values.min()), float(values.max())
    return low - 0.04 * (high - low), high + 0.14 * (high - low)


def _panel(axes: Axes, found: Comparison) -> None:
    means = found.means
    quiet = means[means.index.isin(INPUTS, level="kind")]
    label = "their inputs (q, k, v, MLP inputs)"
    axes.plot(quiet.exact, quiet.estimate, ".", color="#c4c4c4", markersize=4, label=label)
    for kind, (label, color, marker) in COMPONENTS.items():
        part = means[means.index.isin([kind], level="kind")]
        look: Any = {"color": color, "marker": marker, "markeredgecolor": style.INK, "markeredgewidth": 0.5}
        axes.plot(part.exact, part.estimate, linestyle="none", label=label, **look)
    axes.axline((0, 0), slope=1, color="black", linestyle=(0, (3, 1.5)), linewidth=1, label="exact = estimate")
    named = means.loc[found.missed[:NAMED]]
    gap = 0.05 * float(np.ptp(means.to_numpy()))
    heights = style.spread(named.estimate.tolist(), gap, -np.inf, np.inf)
    for place, height in zip(named.index, heights, strict=True):
        axes.annotate(
            component(*place), (named.exact[place], height), (6, 0),
            textcoords="offset points", fontsize=8.5, va="center",
        )  # fmt: skip
    text = (
        f"rank correlation {words.number(*found.correlation)}\n"
        f"{found.recall[0]:.0%} of the top {TOP} found [{found.recall[1]:.0%}, {found.recall[2]:.0%}]"
    )
    axes.text(0.03, 0.97, text, transform=axes.transAxes, va="top", fontsize=8.5)
    axes.grid()


def comparisons(results: Path) -> dict[str, Comparison]:
    """By estimate; empty in a study without exact patching."""
    exact = _by_fact(data.scores(results, EXACT))
    estimates = {name: _by_fact(data.scores(results, name)) for name in ESTIMATES}
    return {
        name: _compare(exact, table) for name, table in estimates.items() if table is not None and exact is not None
    }


def _by_fact(scores: pd.DataFrame | None) -> pd.DataFrame | None:
    """Facts x (kind, layer, head), averaged over runs."""
    if scores is None:
        return None
    return scores.groupby(["fact", "kind", "layer", "head"]).effect.mean().unstack(["kind", "layer", "head"])


def _compare(exact: pd.DataFrame, estimate: pd.DataFrame) -> Comparison:
    columns = exact.columns.intersection(estimate.columns).sort_values()
    facts = exact.index.intersection(estimate.index)
    tables = [table.loc[facts, columns] for table in (exact, estimate)]
    means = pd.DataFrame({"exact": tables[0].mean(), "estimate": tables[1].mean()})
    among = {kind: columns.get_level_values("kind") == kind for kind in COMPONENTS}
    both = among["head"] | among["mlp"]
    sizes = [np.abs(table.to_numpy()[:, both].mean(0, keepdims=True)) for table in tables]
    draws = [np.abs(resampled_means(table.to_numpy()[:, both], SAMPLES)) for table in tables]

    def measured(statistic: Any) -> tuple[float, float, float]:
        return float(statistic(*sizes)[0]), *central(statistic(*draws), CONFIDENCE, len(facts))

    apart = {
        kind: float(spearman(*(np.abs(table.to_numpy()[:, chosen].mean(0, keepdims=True)) for table in tables))[0])
        for kind, chosen in among.items()
        if chosen.any()
    }
    first = [means[both][column].abs().nlargest(TOP).index for column in ("exact", "estimate")]
    missed = [place for place in first[0] if place not in first[1]]
    return Comparison(means, measured(spearman), measured(recall), apart, missed, len(facts))


def spearman(exact: np.ndarray, estimate: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation row by row: (rows, components) twice -> (rows,)."""
    ranks = [pd.DataFrame(values).rank(axis=1).to_numpy() for values in (exact, estimate)]
    one, other = (each - each.mean(1, keepdims=True) for each in ranks)
    scale = np.sqrt((one**2).sum(1) * (other**2).sum(1))
    return np.divide((one * other).sum(1), scale, out=np.zeros_like(scale), where=scale > 0)


def recall(exact: np.ndarray, estimate: np.ndarray) -> np.ndarray:
    """The share of each row's TOP largest exact values that are among its TOP largest estimates."""
    count = min(TOP, exact.shape[1])
    tops = [np.argsort(-values, axis=1, kind="stable")[:, :count] for values in (exact, estimate)]
    shares: np.ndarray = (tops[0][:, :, None] == tops[1][:, None, :]).any(2).mean(1)
    return shares


def component(kind: str, layer: int, head: int) -> str:
    """`MLP 3`, or `head 12.2`: the third head of layer 12."""
    return f"MLP {layer}" if kind == "mlp" else f"head {layer}.{head}"


def caption(results: Path, metrics: pd.DataFrame, level: str = "95%") -> tuple[str, str]:
    """How far each estimate can be relied on and what it misses, and what the points are."""
    compared = comparisons(results)
    if not compared:
        return NONE, ""
    found = []
    for name, one in compared.items():
        share, low, high = one.recall
        alone = {"head": "heads", "mlp": "MLPs"}
        apart = ", ".join(f"{words.number(value)} among {alone[kind]} alone" for kind, value in one.apart.items())
        text = (
            f"The order in which {words.localization(name).lower()} puts components agrees with that of exact patching "
            f"to a rank correlation of {words.number(*one.correlation)} ({apart}); it finds {share:.0%} "
            f"[{low:.0%}, {high:.0%}] of the {TOP} largest"
        )
        if one.missed:
            lost = [
                f"{component(*place)} (exact {words.number(one.means.exact[place])}, estimated "
                f"{words.number(one.means.estimate[place])})"
                for place in one.missed[:NAMED]
            ]
            text += f" and misses{' among others' * (len(one.missed) > NAMED)} {words.listing(lost)}"
        found.append(f"{text}.")
    facts = max(one.facts for one in compared.values())
    count = max(int(one.means.index.isin(COMPONENTS, level="kind").sum()) for one in compared.values())
    seen = (
        f"A point is one component, mean over the same n = {facts} facts; 1 is as much as the whole corruption takes. "
        f"Dashed: where estimate and exact effect are equal. Rank correlation (Spearman's, of sizes) and the share of "
        f"the {TOP} largest are over the {count} heads and MLP outputs, in brackets 95% bootstrap intervals over facts."
    )
    return " ".join(found), seen
