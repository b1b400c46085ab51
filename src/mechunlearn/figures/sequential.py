"""Do facts that were edited first stay edited while others follow?"""

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mechunlearn.figures import data, style, words
from mechunlearn.registry import figure

TITLE = "Do earlier blocks stay edited?"
METRICS = {"p_new": "New answer", "p_true": "True answer"}
NONE = "This task is not edited in blocks."


@figure("sequential")
def draw(results: Path, metrics: pd.DataFrame) -> Figure:
    """A column for each block: its answers before the first edit and after each block, a line a localization."""
    blocks, objectives = data.blocks(metrics), data.objectives(metrics)
    if not blocks:
        return style.nothing(NONE)
    with style.look():
        drawing = style.canvas(3.9 * len(objectives) + 0.7)
        rows = [(objective, metric) for objective in objectives for metric in METRICS]
        grid = drawing.subplots(len(rows), len(blocks), squeeze=False, sharex=True, sharey=True)
        for row, (objective, metric) in zip(grid, rows, strict=True):
            for axes, block in zip(row, blocks, strict=True):
                _lines(axes, metrics, objective, metric, block, blocks)
            suffix = f" ({objective})" if len(objectives) > 1 else ""
            row[0].set_ylabel(METRICS[metric] + suffix)
        for axes, block in zip(grid[0], blocks, strict=True):
            axes.set_title(f"Block {block}")
        for axes in grid[-1]:
            axes.set_xlabel("After block")
        handles, names = grid[0][0].get_legend_handles_labels()
        drawing.legend(handles, names, loc="outside lower center", ncols=min(3, len(names)))
    return drawing


def _lines(axes: Axes, metrics: pd.DataFrame, objective: str, metric: str, block: int, blocks: list[int]) -> None:
    names = data.localizations(metrics)
    axes.axvspan(block - 0.5, block + 0.5, color=style.FAINT, linewidth=0)  # its own edit
    for place, (name, look) in enumerate(style.looks(names).items()):
        rows = [(after, after_block(metrics, metric, name, objective, block, after)) for after in [0, *blocks]]
        points = [(after, row) for after, row in rows if row is not None]
        dodge = (place - (len(names) - 1) / 2) * min(0.09, 0.6 / len(names))
        x = [after + dodge for after, _ in points]
        axes.vlines(x, [row.low for _, row in points], [row.high for _, row in points], color=look.color, linewidth=1)
        axes.plot(
            x, [row.value for _, row in points], color=look.color, marker=look.marker, linestyle=look.line,
            markersize=4.5, markeredgecolor=style.INK, markeredgewidth=0.4, label=words.localization(name),
        )  # fmt: skip
    style.share_axis(axes, low=-0.02)
    axes.set_xticks([0, *blocks], ["–", *map(str, blocks)])
    axes.set_xlim(-0.6, blocks[-1] + 0.6)


def after_block(metrics: pd.DataFrame, metric: str, name: str, objective: str, block: int, after: int) -> Any:
    """The metrics row of a block's facts once the block `after` is edited; 0: before any."""
    where = {"localization": name, "objective": objective, "stage": f"edited@{after}", "role": f"block-{block}"}
    return data.one(metrics, metric, elicitation="completion", **where)


def caption(results: Path, metrics: pd.DataFrame, level: str = "95%") -> tuple[str, str]:
    """How much of the first block's new answers is left in the end, and how to read the lines."""
    blocks = data.blocks(metrics)
    if not blocks:
        return NONE, ""
    found, facts = [], 0
    for objective in data.objectives(metrics):
        parts = []
        for name in data.localizations(metrics):
            own, end = (after_block(metrics, "p_new", name, objective, blocks[0], after) for after in (1, blocks[-1]))
            if own is None or end is None:
                continue
            facts = end.n
            parts.append(f"{words.row(own)} to {words.row(end)} for {words.quoted(name)}")
        if parts:
            suffix = f" ({objective})" if len(data.objectives(metrics)) > 1 else ""
            found.append(
                f"From right after its own edit to after block {blocks[-1]}, the new answer of block {blocks[0]} goes "
                f"from {'; from '.join(parts)}{suffix}."
            )
    seen = (
        f"The forgotten facts are edited in {len(blocks)} blocks (n = {facts} each), one after another; each is "
        "localized by itself and trained with a fresh optimizer, and earlier blocks are not trained again. A column "
        "for each block, asked in the training prompt before the first edit (–) and after each block; grey: its own "
        f"edit. Lines on symbols: {level} bootstrap intervals over the block's facts; symbols are set side by side."
    )
    return " ".join(found), seen
