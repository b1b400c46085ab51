"""What a probe can read at each layer: the curve from which fact lookup takes its layers."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from mechunlearn.artifacts import read_selection
from mechunlearn.figures import data, style, words
from mechunlearn.registry import figure
from mechunlearn.stats import SHARE, interval

TITLE = "In which layers the model looks facts up"
NONE = "This study has no fact lookup by probes."
KINDS = {
    "probe-subject": ("after the name alone", "#0072B2", "o", "-"),
    "probe-prompt": ("after the whole prompt", "#D55E00", "s", "--"),
}


@figure("probe-curves")
def draw(results: Path, metrics: pd.DataFrame) -> Figure:
    """Two curves of probe accuracy by layer with bands, chance, and the lookup layers shaded."""
    found = curves(results)
    if found is None:
        return style.nothing(NONE)
    table, chance = found
    with style.look():
        drawing = style.canvas(3.4)
        axes = drawing.subplots()
        if lookup := lookup_layers(results):
            axes.axvspan(lookup[0] - 0.5, lookup[-1] + 0.5, color="#f1ecd8", linewidth=0)
            label = f"lookup layers {words.ranges(lookup)}"
            axes.text((lookup[0] + lookup[-1]) / 2, 1.035, label, ha="center", va="bottom", fontsize=8.5)
        ends = {"chance": (chance, style.SOFT)}
        for kind, (name, color, marker, line) in KINDS.items():
            curve = table[table.kind == kind]
            axes.fill_between(curve.layer, curve.low, curve.high, color=color, alpha=0.2, linewidth=0)
            axes.plot(curve.layer, curve.value, color=color, marker=marker, linestyle=line, label=kind)
            ends[name] = (float(curve.value.iloc[-1]), color)
        axes.axhline(chance, color=style.SOFT, linestyle=":", linewidth=1.2)
        last = table.layer.max()
        style.share_axis(axes, "Share of facts the probe gets right", max(0.0, round(chance - 0.2, 1)))
        places = style.spread([value for value, _ in ends.values()], 0.07 * (1 - axes.get_ylim()[0]), 0, 1)
        for (name, (_, color)), place in zip(ends.items(), places, strict=True):
            axes.text(last + 0.8, place, name, color=color, va="center", fontsize=8.5)
        axes.set_xlim(-0.5, last + 0.5)
        axes.set_xticks(range(0, last + 1, 1 if last < 24 else 2))
        axes.set_xlabel("Layer")
    return drawing


def caption(results: Path, metrics: pd.DataFrame, level: str = "95%") -> tuple[str, str]:
    """Where each curve rises and what the rule made of it, and what the probes are."""
    known = curves(results)
    if known is None:
        return NONE, ""
    table, chance = known
    subject, prompt = (table[table.kind == kind].set_index("layer") for kind in KINDS)
    found = [
        f"After the name alone, the answer can be read off for {words.number(subject.value.iloc[0])} of the facts at "
        f"layer 0 and at best for {words.number(subject.value.max())}, at layer {subject.value.idxmax()}; chance is "
        f"{words.number(chance)}."
    ]
    never = prompt.index[prompt.low <= chance]
    above = prompt[prompt.index > never.max()] if len(never) else prompt
    if above.empty:
        found.append("After the whole prompt, it never clearly beats chance.")
    else:
        found.append(
            f"After the whole prompt, where the model must answer, it clearly beats chance from layer {above.index[0]} "
            f"on and reaches {words.number(prompt.value.max())} at layer {prompt.value.idxmax()}."
        )
    if lookup := lookup_layers(results):
        by_hand = read_selection(results / "selection" / "fact-lookup.json").details.get("rule") == "by hand"
        how = "were given by hand" if by_hand else "are where the curve of the name rises"
        found.append(f"The lookup layers {words.ranges(lookup)} {how}.")
        if share := read_selection(results / "selection" / "fact-lookup.json").details.get("frequency"):
            often = words.listing(f"{share[layer]:.0%} (layer {layer})" for layer in lookup)
            other = {layer: value for layer, value in enumerate(share) if layer not in lookup and value >= 0.1}
            more = words.listing(f"layer {layer} in {value:.0%}" for layer, value in other.items())
            found.append(
                f"Drawn again at random, the same number of facts would choose them in {often} of draws"
                + (f", and would also take {more}." if more else ".")
            )
    seen = (
        "A probe is a small classifier that tries to read the answer off the model's inner state after a layer. It is "
        f"always scored on facts it was not trained on (n = {int(subject.n.iloc[0])}). Bands: 95% bootstrap intervals "
        "over facts. Chance: always the commonest answer. Shaded: the lookup layers."
    )
    return " ".join(found), seen


def curves(results: Path) -> tuple[pd.DataFrame, float] | None:
    """(kind, layer, value, low, high, n) of both probes, and chance; None where no probe was trained."""
    scores = data.scores(results, "fact-lookup")
    if scores is None or not scores.kind.isin(KINDS).any():
        return None
    rows = []
    facts = scores[scores.kind.isin(KINDS)].groupby(["kind", "layer", "fact"]).effect.mean()  # over runs
    for (kind, layer), group in facts.groupby(["kind", "layer"]):
        value, low, high = interval(group.to_numpy(dtype=float), 2000, 0.95, SHARE)
        rows.append((kind, layer, value, low, high, len(group)))
    chance = float(scores[scores.kind == "chance"].effect.iloc[0])
    return pd.DataFrame(rows, columns=["kind", "layer", "value", "low", "high", "n"]), chance


def lookup_layers(results: Path) -> list[int]:
    """The layers fact lookup selected; empty where it selected none."""
    path = results / "selection" / "fact-lookup.json"
    return sorted({c.layer for c in read_selection(path).components}) if path.is_file() else []
