"""One look for all figures: safe for colour-blind readers, readable in grey, the same bytes every time. Torch-free.

look      what matplotlib is told: `with look(): ...`
looks     colour, marker, line and hatch of each localization of a study, the same in every figure
canvas    an empty figure of the report's width
nothing   a figure that says why there is none
share_axis  a vertical axis from 0 to 1
halo      an interval that shows on dark bars
spread    label positions that do not overlap
save      NAME.svg, NAME.png and NAME.pdf
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mechunlearn.artifacts import atomic

WIDTH = 8.4  # inches; the report's column
INK, SOFT, FAINT = "#222222", "#6b6b6b", "#e4e4e4"
RULES: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "text.color": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "grid.color": FAINT,
    "grid.linewidth": 0.7,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "hatch.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "lines.markersize": 5.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.fonttype": "path",  # letters travel as outlines, so that every reader sees the same
    "svg.hashsalt": "mechunlearn",
}


class Look(NamedTuple):
    """How one localization is drawn: an Okabe-Ito colour, and what tells it apart in grey."""

    color: str
    marker: Any
    line: Any
    hatch: str


LOOKS = {
    "fact-lookup": Look("#0072B2", "o", "-", ""),
    "causal-tracing": Look("#D55E00", "s", (0, (5, 1.5)), "////"),
    "causal-tracing-mlps": Look("#E69F00", "D", (0, (1.5, 1.2)), "...."),
    "attribution-patching": Look("#CC79A7", "^", (0, (6, 1.5, 1.5, 1.5)), "\\\\\\\\"),
    "attribution-patching-mlps": Look("#F0E442", "v", (0, (3, 1, 1, 1, 1, 1)), "xxxx"),
    "random": Look("#BBBBBB", "<", (0, (4, 3)), "||||"),
    "random-mlps": Look("#009E73", "P", (0, (4, 2)), "++++"),
    "all-mlps": Look("#56B4E9", "X", (0, (8, 2)), "----"),
    "nonlocalized": Look("#707070", "*", (0, (2, 1)), "oo"),
    "activation-patching": Look("#762A83", "p", (0, (7, 1.5, 1, 1.5)), "OO"),
    "activation-patching-mlps": Look("#B69CD0", "h", (0, (1, 1)), ".."),
    "integrated-gradients": Look("#7A1F2B", ">", (0, (5, 1, 1, 1, 1, 1)), "\\\\"),
    "integrated-gradients-mlps": Look("#F4A582", "H", (0, (2, 2)), "xx"),
    "fact-lookup-per-fact": Look("#999933", (6, 1, 0), (0, (7, 1.2)), "\\\\o"),
    "path-patching": Look("#1B3A6B", "d", (0, (9, 1.5, 2, 1.5)), "//"),
}
SPARE = [Look("#8C510A", "8", (0, (3, 1)), "**"), Look("#7FBC41", (4, 1, 0), (0, (6, 2)), "/o")]


def look() -> AbstractContextManager[None]:
    """Draw and save inside this."""
    return matplotlib.rc_context(RULES)


def looks(localizations: Sequence[str]) -> dict[str, Look]:
    """The look of each localization of a study, one for each of up to seventeen.

    A name that has none here (given by hand, or another draw) gets one that no other name of the study has.
    """
    free = [*SPARE, *(look for name, look in LOOKS.items() if name not in localizations)]
    others = [name for name in localizations if name not in LOOKS]
    return {name: LOOKS[name] if name in LOOKS else free[others.index(name) % len(free)] for name in localizations}


def canvas(height: float) -> Figure:
    """An empty figure of the report's width, `height` inches high, that keeps labels inside."""
    return Figure(figsize=(WIDTH, height), layout="constrained")


def nothing(sentence: str) -> Figure:
    """A figure that says why there is nothing to see."""
    figure = canvas(0.8)
    figure.text(0.5, 0.5, sentence, ha="center", va="center", color=SOFT)
    return figure


def share_axis(axes: Axes, label: str = "", low: float = 0.0) -> None:
    """A vertical axis for probabilities, with quiet grid lines."""
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".50", ".75", "1"])
    axes.set_ylim(low, 1.02)
    axes.grid(axis="y")
    axes.set_ylabel(label)


def halo(axes: Axes, x: float, low: float, high: float, thin: bool = False) -> None:
    """A vertical interval in ink with a white rim; thin on thin bars."""
    axes.vlines(x, low, high, color="white", linewidth=1.7 if thin else 2.6)
    axes.vlines(x, low, high, color=INK, linewidth=0.8 if thin else 1.1)


def spread(values: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """The values moved as little as needed to lie `gap` apart within [low, high], in their own order."""
    order = sorted(range(len(values)), key=lambda index: (values[index], index))
    placed = [0.0] * len(values)
    groups: list[tuple[float, list[int]]] = []  # centre and members of labels that touch
    for index in order:
        groups.append((values[index], [index]))
        while len(groups) > 1 and _touch(groups[-2], groups[-1], gap):
            (_, first), (_, second) = groups.pop(-2), groups.pop()
            members = first + second
            groups.append((sum(values[member] for member in members) / len(members), members))
    for centre, members in groups:
        half = gap * (len(members) - 1) / 2
        centre = min(max(centre, low + half), high - half)
        for place, member in enumerate(members):
            placed[member] = centre - half + gap * place
    return placed


def _touch(below: tuple[float, list[int]], above: tuple[float, list[int]], gap: float) -> bool:
    return above[0] - below[0] < gap * (len(below[1]) + len(above[1])) / 2


def save(figure: Figure, path: Path) -> list[Path]:
    """Write `path` as .svg, .png (160 dots an inch) and .pdf; equal figures give equal bytes. Raises ArtifactError."""
    written = []
    for ending, metadata in ((".svg", {"Date": None}), (".png", {"Software": None}), (".pdf", {"CreationDate": None})):
        out = path.with_suffix(ending)
        with look(), atomic(out) as temporary:
            figure.savefig(temporary, format=ending[1:], dpi=160, metadata=metadata)
        written.append(out)
    return written
