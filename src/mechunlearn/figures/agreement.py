"""Would a method choose the same again, and do the methods choose the same as each other?"""

from collections.abc import Iterable, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mechunlearn import registry
from mechunlearn.artifacts import Selection
from mechunlearn.figures import data, style, words
from mechunlearn.registry import figure

TITLE = "Would each method choose the same again?"
NONE = "This study has no localization that is chosen from scores."
AGAIN = {"facts": "from two halves of the facts", "seeds": "from two runs"}
SAME = 0.75  # an overlap from which on two selections are called mostly the same
ROW = 0.3  # inches


@figure("agreement")
def draw(results: Path, metrics: pd.DataFrame) -> Figure:
    """Left, how far a method's own selections agree, with chance; right, the overlap of each two methods."""
    chosen = measured(results, metrics)
    if not chosen:
        return style.nothing(NONE)
    with style.look():
        drawing = style.canvas(max(2.3, ROW * len(chosen) + 1.5))
        left, right = drawing.subplots(1, 2, sharey=True, width_ratios=[1, 1.25])
        _points(left, chosen)
        _matrix(right, overlaps(chosen))
        names = [f"{words.localization(name)}   {number}" for number, name in enumerate(chosen, start=1)]
        left.set_yticks(range(len(chosen)), names)
        left.set_ylim(len(chosen) - 0.5, -0.5)
        _key(drawing, {row["what"] for selection in chosen.values() for row in stability(selection)})
    return drawing


def _points(axes: Axes, chosen: Mapping[str, Selection]) -> None:
    looks = style.looks(list(chosen))
    for place, (name, selection) in enumerate(chosen.items()):
        axes.axhline(place + 0.5, color=style.FAINT, linewidth=0.8)
        rows = stability(selection)
        if not rows:
            axes.text(0.5, place, "given by hand", ha="center", va="center", color=style.SOFT, fontsize=8)
        for row in rows:
            y = place + (0.0 if len(rows) == 1 else -0.17 if row["what"] == "facts" else 0.17)
            axes.hlines(y, row["low"], row["high"], color=style.INK, linewidth=1.1)
            axes.plot(row["value"], y, "o", markersize=6, **_mark(row["what"], looks[name].color))
            axes.vlines(row["chance"], y - 0.2, y + 0.2, color="black", linestyle=":", linewidth=1.3)
    axes.set_xlim(-0.03, 1.03)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".50", ".75", "1"])
    axes.set_title("Overlap of the same method twice")
    axes.set_xlabel("Jaccard index of two selections")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _matrix(axes: Axes, table: np.ndarray) -> None:
    below = np.where(np.tri(len(table), k=-1), table, np.nan)
    axes.imshow(below, aspect="auto", cmap="Blues", vmin=0, vmax=1)
    for column, row in combinations(range(len(table)), 2):
        text, size = f"{table[row, column]:.2f}".removeprefix("0"), 8 if len(table) <= 12 else 6.5
        color = "white" if table[row, column] > 0.6 else style.INK
        axes.text(column, row, text, ha="center", va="center", fontsize=size, color=color)
    axes.set_xlim(-0.5, max(len(table) - 1.5, 0.5))
    axes.set_xticks(range(len(table) - 1), [str(number) for number in range(1, len(table))])
    axes.set_title("Overlap of two methods" if len(table) > 1 else "")
    axes.tick_params(length=0, labelleft=False)
    axes.spines[:].set_visible(False)


def _mark(what: str, color: str) -> dict[str, Any]:
    """Filled for facts, open for runs."""
    if what == "facts":
        return {"color": color, "markeredgecolor": style.INK, "markeredgewidth": 0.7}
    return {"color": "white", "markeredgecolor": color, "markeredgewidth": 1.7}


def _key(drawing: Figure, kinds: set[str]) -> None:
    shown = {kind: text for kind, text in AGAIN.items() if kind in kinds}
    handles = [Line2D([], [], marker="o", linestyle="none", **_mark(kind, style.SOFT)) for kind in shown]
    handles.append(Line2D([], [], color="black", linestyle=":", linewidth=1.3))
    drawing.legend(handles, [*shown.values(), "chance"], loc="outside lower center", ncols=3)


def measured(results: Path, metrics: pd.DataFrame) -> dict[str, Selection]:
    """The selections made from scores, and those given by hand; none where no stability was measured."""
    chosen = data.selections(results, metrics)
    chosen = {name: selection for name, selection in chosen.items() if not registry.baseline(name)}
    return chosen if any(map(stability, chosen.values())) else {}


def stability(selection: Selection) -> list[dict[str, Any]]:
    """How far selections like this one agree: a row for each of AGAIN that was measured."""
    rows: list[dict[str, Any]] = selection.details.get("stability", [])
    return rows


def overlaps(chosen: Mapping[str, Selection]) -> np.ndarray:
    """Jaccard's index of every two selections, as their stability measures it: part of an MLP counts in part.

    Where any selection names single heads, an attention block counts as all heads that are named anywhere.
    """
    heads = max(
        (c.head for selection in chosen.values() for c in selection.components if c.head is not None), default=-1
    )
    parts = [_parts(selection, heads + 1) for selection in chosen.values()]
    return np.array([[_jaccard(one, other) for other in parts] for one in parts])


def _parts(selection: Selection, heads: int) -> dict[tuple[int, str, int | None], float]:
    """(layer, kind, head) -> how much of it is selected."""
    found: dict[tuple[int, str, int | None], float] = {}
    for each in selection.components:
        whole = each.kind == "attention" and each.head is None and heads
        for head in range(heads) if whole else [each.head]:
            found[each.layer, each.kind, head] = data.share(selection, each)
    return found


def _jaccard(one: Mapping[Any, float], other: Mapping[Any, float]) -> float:
    pairs = [(one.get(key, 0.0), other.get(key, 0.0)) for key in {**one, **other}]
    return sum(map(min, pairs)) / sum(map(max, pairs)) if pairs else 0.0


def caption(results: Path, metrics: pd.DataFrame, level: str = "95%") -> tuple[str, str]:
    """Which methods choose the same again, how far they choose the same as each other, and what overlap is."""
    chosen = measured(results, metrics)
    if not chosen:
        return NONE, ""
    rows = {
        kind: {name: row for name, one in chosen.items() for row in stability(one) if row["what"] == kind}
        for kind in AGAIN
    }
    found = [_again(kind, found) for kind, found in rows.items() if found]
    found.append(between(chosen))
    seen = (
        "Overlap (Jaccard's index): how much both selections take of what either takes, 1 where they are the same. "
        f"Points: its mean over random halves of the facts ({_counts(rows['facts'].values())}); lines: the central "
        "95% of the splits, not an interval of the mean."
    )
    if rows["seeds"]:
        runs = _counts(rows["seeds"].values())
        seen += f" Open points: single runs with other seeds ({runs} runs); lines: 95% bootstrap intervals over facts."
    return " ".join(
        filter(None, found)
    ), f"{seen} Dotted: random selections of the same size. Right: the selections from all facts."


def between(chosen: Mapping[str, Selection]) -> str:
    """How far different methods choose the same, as a sentence; empty where there is only one."""
    pairs, table = list(combinations(chosen, 2)), overlaps(chosen)
    values = dict(zip(pairs, table[np.triu_indices(len(table), 1)].tolist(), strict=True))
    if len(pairs) < 2:
        return "".join(f"Two methods overlap by {_pair(pair, values)}." for pair in pairs)
    if len(set(values.values())) == 1:
        return f"Each two of the {len(chosen)} methods overlap by {words.number(values[pairs[0]])}."
    least, most = (_pair(choose(pairs, key=lambda pair: values[pair]), values) for choose in (min, max))
    mean = words.number(sum(values.values()) / len(values))
    return f"Two methods overlap by {mean} on average over {len(pairs)} pairs, from {least} to {most}."


def _again(kind: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Which localizations choose the same, part of the same, and sometimes nothing better than chance."""
    groups: dict[str, list[str]] = {
        "mostly the same": [],
        "the same in part": [],
        "sometimes no more so than chance": [],
    }
    for name, row in rows.items():
        mostly, partly, hardly = groups.values()
        group = mostly if round(row["value"], 2) >= SAME else partly if row["low"] > row["chance"] else hardly
        group.append(f"{words.quoted(name)} ({words.number(row['value'], row['low'], row['high'])})")
    parts = [f"{group} for {words.listing(names)}" for group, names in groups.items() if names]
    chance = words.span(round(row["chance"], 2) for row in rows.values())
    return f"Chosen {AGAIN[kind]}, two selections are {'; '.join(parts)}. Chance is {chance}."


def _pair(pair: tuple[str, str], values: Mapping[tuple[str, str], float]) -> str:
    return f"{words.number(values[pair])} ({words.listing(map(words.quoted, pair))})"


def _counts(rows: Iterable[Mapping[str, Any]]) -> str:
    return f"n = {words.span(row['n'] for row in rows)}"
