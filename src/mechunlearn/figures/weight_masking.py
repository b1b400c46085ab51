"""How many weights must go for the facts to go?"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mechunlearn.figures import data, style, words
from mechunlearn.registry import figure

TITLE = "How many weights hold the facts?"
NONE = "In this study no weights are masked."
PANELS = [  # title, metric, elicitation, role
    ("Forgotten facts, training prompt", "p_true", "completion", "forget"),
    ("Forgotten facts, multiple choice", "p_true", "choice-text", "forget"),
    ("Other facts, training prompt", "p_true", "completion", "maintain-test"),
    ("General text", "nll", "text", "text"),
]


@figure("weight-masking")
def draw(results: Path, metrics: pd.DataFrame) -> Figure:
    """Four panels over the number of weights set to zero, a line a localization."""
    sizes = data.sizes(metrics)
    panels = [panel for panel in PANELS if not data.pick(_masked(metrics), panel[1], elicitation=panel[2]).empty]
    if not sizes:
        return style.nothing(NONE)
    with style.look():
        rows = (len(panels) + 1) // 2
        drawing = style.canvas(2.5 * rows + 0.7)
        grid = drawing.subplots(rows, 2, squeeze=False).flat
        for axes, (title, metric, elicitation, role) in zip(grid, panels, strict=False):
            _lines(axes, metrics, metric, elicitation, role, sizes)
            unusable = elicitation != "text" and elicitation not in data.counting(metrics)
            axes.set_title(f"{title} (n/a)" if unusable else title)
        for axes in list(grid)[len(panels) :]:
            axes.set_axis_off()
        handles, labels = drawing.axes[0].get_legend_handles_labels()
        drawing.legend(handles, labels, loc="outside lower center", ncols=min(3, len(labels)))
    return drawing


def _masked(metrics: pd.DataFrame) -> pd.DataFrame:
    return metrics[metrics.stage.str.startswith("masked@")]


def _lines(axes: Axes, metrics: pd.DataFrame, metric: str, elicitation: str, role: str, sizes: Sequence[int]) -> None:
    """One panel; sizes stand side by side, symbols a little apart."""
    names = data.localizations(_masked(metrics))
    looks = style.looks(names)
    for place, name in enumerate(names):
        where = {"localization": name, "elicitation": elicitation, "role": role}
        rows = [data.one(metrics, metric, stage=f"masked@{size}", **where) for size in sizes]
        dodge = (place - (len(names) - 1) / 2) * 0.07
        points = [(index + dodge, row) for index, row in enumerate(rows) if row is not None]
        x, look = [at for at, _ in points], looks[name]
        axes.vlines(x, [row.low for _, row in points], [row.high for _, row in points], color=look.color, linewidth=1.1)
        axes.plot(
            x, [row.value for _, row in points], color=look.color, marker=look.marker, linestyle=look.line,
            markeredgecolor=style.INK, markeredgewidth=0.5, label=words.short(name),
        )  # fmt: skip
    if metric == "p_true":
        style.share_axis(axes, "Probability of the true answer", low=-0.02)
    else:
        axes.grid(axis="y")
        axes.set_ylabel("Cross-entropy, nats a token")
    axes.set_xticks(range(len(sizes)), [words.parameters(size) for size in sizes])
    axes.set_xlabel("Weights set to zero")


def caption(results: Path, metrics: pd.DataFrame, level: str = "95%") -> tuple[str, str]:
    """Where fewest weights had to go, and how to read the lines."""
    sizes = data.sizes(metrics)
    if not sizes:
        return NONE, ""
    found = []
    for size in (sizes[len(sizes) // 2], sizes[-1]):
        where = {"stage": f"masked@{size}", "elicitation": "completion"}
        forgot = data.pick(metrics, "p_true", role="forget", **where).sort_values("value")
        kept = data.pick(metrics, "p_true", role="maintain-test", **where).set_index("localization").value
        low, high = forgot.iloc[0], forgot.iloc[-1]
        found.append(
            f"With {size:,} weights at zero the forgotten facts' true answer stands at {words.number(low.value)} "
            f"({words.short(low.localization)}; other facts {words.number(kept[low.localization])}) to "
            f"{words.number(high.value)} ({words.short(high.localization)}; "
            f"{words.number(kept[high.localization])})."
        )
    facts = int(data.pick(_masked(metrics), "p_true", role="forget").n.max())
    seen = (
        "In each localization a mask is learned for every weight; then the weights with the smallest masks are set to "
        "zero, ever more of them, as far as masks tell weights apart, and nothing else is changed. Vertical lines: "
        f"{level} bootstrap intervals over facts (n = {facts} forgotten ones)."
    )
    return " ".join(found), seen
