"""How alike are the model's insides before and after surgery?"""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from mechunlearn.figures import data, style, words
from mechunlearn.registry import figure

TITLE = "Whose activity changes, and in which layers?"
STREAMS = {
    "forget": "Forgotten",
    "obsolete": "Obsolete",
    "update": "Update",
    "maintain-train": "Retained",
    "maintain-test": "Kept, never trained on",
}
NONE = "This study has no texts whose hidden states were compared."


@figure("similarity")
def draw(results: Path, metrics: pd.DataFrame) -> Figure:
    """Cosine of hidden states before and after, by layer: a panel a stream, a row an objective."""
    objectives = [name for name in data.objectives(metrics) if not _rows(metrics, name).empty]
    if not objectives:
        return style.nothing(NONE)
    names = data.localizations(metrics)
    looks = style.looks(names)
    with style.look():
        drawing = style.canvas(2.6 * len(objectives))
        grid = drawing.subplots(len(objectives), len(STREAMS), squeeze=False, sharey=True, sharex=True)
        for line, objective in zip(grid, objectives, strict=True):
            for axes, (role, title) in zip(line, STREAMS.items(), strict=True):
                for name in names:
                    rows = _rows(metrics, objective, localization=name, role=role)
                    if not rows.empty:
                        axes.fill_between(
                            rows.layer, rows.low, rows.high, color=looks[name].color, alpha=0.2, linewidth=0
                        )
                        axes.plot(
                            rows.layer, rows.value, color=looks[name].color, linestyle=looks[name].line,
                            label=words.short(name),
                        )  # fmt: skip
                axes.set_title(title)
                axes.grid(axis="y")
            line[0].set_ylabel(f"Cosine, {objective}")
        for axes in grid[-1]:
            axes.set_xlabel("Layer")
        grid[0][0].legend(loc="lower left")
    return drawing


def _rows(metrics: pd.DataFrame, objective: str, **where: str) -> pd.DataFrame:
    """Similarities by layer, ascending, with the layer's number."""
    rows = data.pick(metrics, "similarity", objective=objective, **where)
    layers = [int(stage.partition("@")[2]) for stage in rows.stage]
    return rows.assign(layer=layers).sort_values("layer", ignore_index=True)


def caption(results: Path, metrics: pd.DataFrame, level: str = "95%") -> tuple[str, str]:
    """The layer in which forgotten and kept texts differ most from before; two empty texts where none was measured."""
    found = dict[str, list[str]]()
    for objective in data.objectives(metrics):
        told = list[str]()
        for name in data.localizations(metrics):
            parts = []
            for role, title in (("forget", "forgotten"), ("maintain-train", "retained"), ("maintain-test", "kept")):
                rows = _rows(metrics, objective, localization=name, role=role)
                if not rows.empty:
                    least = rows.sort_values("value").to_dict("records")[0]
                    parts.append(f"{title} {words.number(least['value'])} in layer {least['layer']}")
            if parts:
                told.append(f"{', '.join(parts)} ({words.short(name)})")
        if told:
            found[objective] = [f"Least alike: {'; '.join(told)}."]
    if not found:
        return "", ""
    seen = (
        "Cosine of the residual stream before and after the edit, averaged over the tokens of each text (bands: "
        f"{level} bootstrap intervals over texts); layer l is what goes into block l. 1 means unchanged. The paper "
        "shows activities by colour and compares them by eye."
    )
    return words.each(found), seen
