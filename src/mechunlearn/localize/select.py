"""From scores to what an edit may train. Torch-free.

select          a localization's name -> Selection
lookup_layers   fact lookup's layers, and how often each would be among them
rise            the rule: the layers over which a probe curve rises
rank            components by their effect
fill            the first components of a ranking that make up a budget
"""

import random
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd

from mechunlearn.artifacts import Component, Selection
from mechunlearn.config import LocalizeSettings
from mechunlearn.errors import ConfigError, FactError
from mechunlearn.models.components import MATRICES, Inventory
from mechunlearn.registry import BASELINES

# The rise begins where the curve has covered BEGIN of its way from chance to its top, goes on as long as a layer
# within REACH is better by a one-sided paired test at 5% (z > CRITICAL), and takes in one layer more. These values
# return the published layers from the published curves of all three models; see docs/decisions.md.
BEGIN, REACH, CRITICAL = 0.36, 2, 1.645
RESAMPLES = 500


def select(
    localization: str,
    layout: Inventory,
    settings: LocalizeSettings,
    scores: pd.DataFrame | None = None,
    lookup: Selection | None = None,
) -> Selection:
    """The components that a localization trains.

    scores   of the localizer that it ranks; None for a baseline
    lookup   fact lookup's selection, which sets the budget and how many MLPs random-mlps draws
    """
    total = sum(layout.parameters(component) for component in layout.all(*MATRICES))

    def selected(components: list[Component], budget: int, **details: Any) -> Selection:
        count = sum(layout.parameters(component) for component in components)
        if not components:
            raise ConfigError(
                f"localize.budget is {budget} parameters, too few for any part of {localization}; "
                f"one neuron of this model has {layout.parameters(Component(0, 'mlp', 1))}."
            )
        for part in components:
            if part.neurons is not None:
                details["part"] = part.neurons / layout.width(part.layer)
        return Selection(localization, components, count, budget, total, details)

    if localization == "fact-lookup":
        assert scores is not None
        by_hand = settings.probes.layers
        details: dict[str, Any] = (
            {"rule": "by hand", "layers": by_hand} if by_hand else lookup_layers(scores, settings.seed)
        )
        components = [Component(layer, "mlp") for layer in details["layers"]]
        if any(component.layer not in range(layout.layers) for component in components):
            raise ConfigError(
                f"localize.probes.layers is {settings.probes.layers}; the model has layers 0 to {layout.layers - 1}."
            )
        count = sum(layout.parameters(component) for component in components)
        return selected(components, count, **details)
    if localization in ("all-mlps", "nonlocalized"):
        components = layout.all(*(("mlp",) if localization == "all-mlps" else MATRICES))
        return selected(components, sum(layout.parameters(component) for component in components))
    budget = _budget(settings.budget, total, lookup)
    if localization in BASELINES:
        layers = random.Random(f"random-mlps-{settings.seed}").sample(range(layout.layers), layout.layers)
        ranking = [Component(layer, "mlp") for layer in layers]
    else:
        assert scores is not None
        kinds = ("mlp",) if localization.endswith("-mlps") else tuple(MATRICES)
        ranking = rank(scores, kinds, settings.tracing.head_sum)
    return selected(fill(ranking, layout, budget), budget, ranking=[f"{c.kind} {c.layer}" for c in ranking])


def rank(scores: pd.DataFrame, kinds: Sequence[str], head_sum: str) -> list[Component]:
    """Components by the size of their effect, averaged over facts; an attention block's effect is its heads' sum.

    head_sum   `absolute`: a head counts by the size of its mean effect; `signed`: heads of opposite sign cancel
    """
    means = scores.groupby(["layer", "kind", "head"], as_index=False).effect.mean()
    if head_sum == "absolute":
        means = means.assign(effect=means.effect.abs())
    means = means.assign(kind=means.kind.replace({"head": "attention"}))
    effects = means.groupby(["layer", "kind"]).effect.sum().abs()
    effects = effects[effects.index.get_level_values("kind").isin(kinds)]
    ordered = effects.sort_values(ascending=False, kind="stable").index
    return [Component(int(layer), str(kind)) for layer, kind in ordered]


def fill(ranking: Sequence[Component], layout: Inventory, budget: int) -> list[Component]:
    """Components in order of rank while they fit; then neurons of the best MLPs left, until the budget is used up.

    An attention block is taken whole or not at all, and one that does not fit ends the whole picks: what follows
    are the best ranked MLPs that have not been taken, the last of them in part. So the count is within one neuron
    of the budget wherever the ranking has an MLP to spare.
    """
    chosen: list[Component] = []
    left = budget
    for component in ranking:
        if layout.parameters(component) > left:
            break
        chosen.append(component)
        left -= layout.parameters(component)
    for part in [component for component in ranking if component.kind == "mlp" and component not in chosen]:
        width = layout.width(part.layer)
        neurons = min(width, left * width // layout.parameters(part))
        if neurons:
            chosen.append(part if neurons == width else Component(part.layer, "mlp", neurons))
            left -= layout.parameters(chosen[-1])
    return chosen


def rise(right: np.ndarray, chance: float) -> tuple[int, int]:
    """The first and last layer over which a probe's accuracy rises.

    right   (layers, facts), True where the probe of that layer is right about that fact
    chance  accuracy of always answering the commonest answer

    Raises FactError where the curve's top is not above chance, by a one-sided test at 5%.
    """
    accuracy = right.mean(1)
    if accuracy.max() - chance <= CRITICAL * (chance * (1 - chance) / right.shape[1]) ** 0.5:
        raise FactError(
            f"fact lookup finds no layer: over {right.shape[1]} facts the probe is right for at most "
            f"{accuracy.max():.2f}, and always giving the commonest answer for {chance:.2f}. "
            "localize.probes.layers can name the layers by hand."
        )
    threshold = chance + BEGIN * (accuracy.max() - chance)
    first = last = int(np.argmax(accuracy >= threshold))
    while any(_better(right[last], right[later]) for later in range(last + 1, min(last + 1 + REACH, len(right)))):
        last += 1
    return first, min(last + 1, len(right) - 1)


def _better(before: np.ndarray, after: np.ndarray) -> bool:
    """Is `after` right more often? McNemar's test without continuity correction."""
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    return gained > lost and (gained - lost) / (gained + lost) ** 0.5 > CRITICAL


def lookup_layers(scores: pd.DataFrame, seed: int) -> dict[str, Any]:
    """The layers over which the name's probe rises, and how often each would be among them.

    `frequency` holds, for every layer, the share of RESAMPLES bootstrap draws of the facts (out-of-fold predictions
    kept) in which the rule takes that layer; draws without a rise take none.
    """
    probes = scores[scores.kind == "probe-subject"]
    right = probes.pivot(index="layer", columns="fact", values="effect").to_numpy() > 0.5
    chance = float(scores[scores.kind == "chance"].effect.iloc[0])
    first, last = rise(right, chance)
    draws = np.random.default_rng(seed).integers(0, right.shape[1], (RESAMPLES, right.shape[1]))
    taken = np.zeros(len(right))
    for draw in draws:
        with suppress(FactError):
            begin, end = rise(right[:, draw], chance)
            taken[begin : end + 1] += 1 / RESAMPLES
    layers = list(range(first, last + 1))
    return {"rule": "rise", "layers": layers, "chance": chance, "frequency": [round(float(x), 3) for x in taken]}


def _budget(budget: str | float | int, total: int, lookup: Selection | None) -> int:
    if budget == "fact-lookup":
        assert lookup is not None
        return lookup.parameters
    return round(total * budget) if isinstance(budget, float) else int(budget)
