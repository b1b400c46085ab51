"""Facts were planted in one known MLP: which localizer finds it? Drawn once a study, from its planted.csv."""

from collections import Counter
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mechunlearn import registry
from mechunlearn.figures import style, words
from mechunlearn.stats import SHARE, interval

TITLE = "Which method finds the layer in which facts were planted?"
NONE = "This study has no planted facts."
TOP = 3
SAMPLES, CONFIDENCE = 2000, 0.95
Interval = tuple[float, float, float]


class Found(NamedTuple):
    """How one localizer did over all planted models: means with intervals over models.

    rank         the planted layer's rank among all MLPs
    first, top   how often it comes first, and among the first TOP
    models       how many models
    wrong        how often another layer comes first, and of these layers the commonest with its count
    """

    rank: Interval
    first: Interval
    top: Interval
    models: int
    wrong: tuple[int, int, int]


def draw(table: pd.DataFrame) -> Figure:
    """Left, the planted layer's rank by localizer and model; right, mean rank and shares with intervals, and chance."""
    if table.empty:
        return style.nothing(NONE)
    found = summary(table)
    with style.look():
        drawing = style.canvas(0.34 * len(found) + 1.2)
        columns = table[["model", "task"]].drop_duplicates().shape[0]
        ratios = [max(0.32 * columns, 1.6), 1.05, 1.05, 1.05]
        left, *right = drawing.subplots(1, 4, sharey=True, width_ratios=ratios)
        _ranks(left, table, list(found))
        titles = {"rank": "Mean rank", "first": "Comes first", "top": f"In first {TOP}"}
        for axes, (name, title) in zip(right, titles.items(), strict=True):
            _points(axes, found, name, chance(table)[name])
            axes.set_title(title)
        right[0].set_xlim(0.5, table.layers.max() + 0.5)
        right[0].set_xticks([1, *range(5, int(table.layers.max()) + 1, 5)])
        right[0].set_xlabel("1 is best")
        for axes in right[1:]:
            axes.set_xlim(-0.04, 1.04)
            axes.set_xticks([0, 0.5, 1], ["0", ".50", "1"])
            axes.set_xlabel("share of models")
        left.set_ylim(len(found) - 0.5, -0.5)
        drawing.legend([right[0].lines[0]], ["chance"], loc="outside lower right")
    return drawing


def _ranks(axes: Axes, table: pd.DataFrame, names: list[str]) -> None:
    grid = table.sort_values(["layer", "model", "task"]).pivot(
        index="localizer", columns=["layer", "model", "task"], values="rank"
    )
    values = grid.loc[names].to_numpy()
    layers = int(table.layers.max())
    axes.imshow(values, aspect="auto", cmap="Blues_r", vmin=1, vmax=layers)
    for (row, column), rank in np.ndenumerate(values):
        if not np.isnan(rank):
            color = "white" if rank < 0.45 * layers else style.INK
            axes.text(column, row, f"{rank:g}", ha="center", va="center", fontsize=8.5, color=color)
    axes.set_yticks(range(len(names)), [words.localization(name) for name in names])
    axes.set_xticks(range(values.shape[1]), [str(layer) for layer in grid.columns.get_level_values("layer")])
    axes.set_xticks([place - 0.5 for place in range(1, values.shape[1])], minor=True)
    axes.set_yticks([place - 0.5 for place in range(1, len(names))], minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("Rank of the planted MLP")
    axes.set_xlabel("Layer in which the facts were planted")


def _points(axes: Axes, found: dict[str, Found], what: str, chance: float) -> None:
    looks = style.looks(list(found))
    axes.axvline(chance, color="black", linestyle=(0, (3, 1.5)), linewidth=1)
    for row, (name, one) in enumerate(found.items()):
        value, low, high = getattr(one, what)
        axes.hlines(row, low, high, color=style.INK, linewidth=1.1)
        axes.plot(value, row, "o", color=looks[name].color, markeredgecolor=style.INK, markeredgewidth=0.7)
    axes.tick_params(axis="y", which="both", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")


def summary(table: pd.DataFrame) -> dict[str, Found]:
    """How each localizer did, the best mean rank first."""
    found = {}
    for name in registry.ordered(set(table.localizer)):
        rows = table[table.localizer == name]
        rank = rows["rank"].to_numpy(dtype=float)
        first, top = (interval((rank <= limit).astype(float), SAMPLES, CONFIDENCE, SHARE) for limit in (1, TOP))
        others = Counter(int(layer) for layer in rows["first"][rows["first"] != rows.layer])
        layer, often = min(others.items(), key=lambda each: (-each[1], each[0]), default=(-1, 0))
        mean = interval(rank, SAMPLES, CONFIDENCE, None)
        found[name] = Found(mean, first, top, len(rows), (others.total(), layer, often))
    return dict(sorted(found.items(), key=lambda item: item[1].rank[0]))


def chance(table: pd.DataFrame) -> dict[str, float]:
    """What a random order of the MLPs would give."""
    layers = table.layers.to_numpy(dtype=float)
    return {
        "rank": float((layers + 1).mean() / 2),
        "first": float((1 / layers).mean()),
        "top": float((TOP / layers).clip(max=1).mean()),
    }


def caption(table: pd.DataFrame) -> tuple[str, str]:
    """Which localizers find the planted layer, what the others name instead, and how ranks are made."""
    if table.empty:
        return NONE, ""
    found, expected = summary(table), chance(table)
    models = max(one.models for one in found.values())
    parts = [
        f"{words.short(name)} {round(one.first[0] * one.models)} (mean rank {rank(one)})" for name, one in found.items()
    ]
    text = [
        f"Facts were planted in one known MLP of n = {models} models. In how many does each method rank it first? "
        f"{words.listing(parts)}. Chance would give {expected['first'] * models:.1f} and a mean rank of "
        f"{expected['rank']:g}."
    ]
    blind = [words.quoted(name) for name, one in found.items() if one.rank[2] >= expected["rank"]]
    if blind:
        text.append(f"Not clearly better than chance: {words.listing(blind)}.")
    stuck = [
        f"MLP {layer} by {words.quoted(name)} ({often} of {count})"
        for name, one in found.items()
        for count, layer, often in [one.wrong]
        if 2 * often > count > 1
    ]
    if stuck:
        text.append(f"Where another layer comes first, it is mostly the same one: {words.listing(stuck)}.")
    seen = (
        "Fictitious facts were trained into the MLP of one layer, once for each column, and every method ranked all "
        f"{words.span(table.layers)} MLPs by what it measures on these facts (n = {words.span(table.n)} facts): probes "
        "by the rise of the name's accuracy over the layer before, path patching by the effect with its sign, the "
        "others by the size of the mean effect; equal ones share a rank. Right: means over models with 95% bootstrap "
        "intervals over models; dashed: what a random order would give."
    )
    return " ".join(text), seen


def answer(table: pd.DataFrame) -> str:
    """Which localizers find planted facts best and worst, in a sentence."""
    found, expected = summary(table), chance(table)

    def said(rank_is: float, how: str) -> str:
        names = [name for name, one in found.items() if one.rank[0] == rank_is]
        one = found[names[0]]
        firsts = words.span(round(found[name].first[0] * found[name].models) for name in names)
        return (
            f"{how} by {words.listing(map(words.quoted, names))} (mean rank {rank(one)}, first in {firsts} of "
            f"{one.models} models)"
        )

    means = [one.rank[0] for one in found.values()]
    text = f"The layer in which facts were planted is ranked {said(means[0], 'highest')}"
    worst = f", {said(means[-1], 'lowest')}" if means[-1] > means[0] else ""
    return f"{text}{worst}; by chance, the mean rank would be {expected['rank']:g}."


def rank(one: Found) -> str:
    """The mean rank with its interval."""
    value, low, high = one.rank
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"
