"""Would other runs, or other facts, have selected the same? Torch-free.

stability   a selection and the scores it was made from -> how well such selections agree
overlap     Jaccard's index of two selections
"""

import random
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from mechunlearn.artifacts import Component, Selection
from mechunlearn.config import LocalizeSettings
from mechunlearn.errors import FactError
from mechunlearn.localize.lookup_rules import lookup, mean_over_runs
from mechunlearn.localize.select import candidates, fill, ranker
from mechunlearn.models.components import Inventory

DRAWS = 100
CENTRAL = (0.025, 0.975)


def stability(
    selection: Selection, layout: Inventory, settings: LocalizeSettings, scores: pd.DataFrame
) -> list[dict[str, Any]]:
    """How well selections like this one agree, at its budget; a row for each thing that can differ.

    what     `facts`: two selections from disjoint random halves of the facts, over DRAWS splits. `seeds`: selections
             from single runs of the localizer, over all pairs of runs, where there are several.
    value    the mean overlap; 1 where all agree
    low, high   its central 95%, over the splits or over DRAWS bootstrap draws of the facts
    n        how many facts, or runs
    chance   the mean overlap of random selections among the same components

    A part of the facts in which fact lookup finds no layer agrees with no other.
    """
    rng = np.random.default_rng(settings.seed)
    chance = _chance(selection, layout, settings)

    def row(what: str, n: int, value: float, values: Sequence[float]) -> dict[str, Any]:
        low, high = (float(end) for end in np.quantile(values, CENTRAL))
        return {"what": what, "value": value, "low": low, "high": high, "n": n, "chance": chance}

    rows = []
    found, choose = _chooser(selection, layout, settings, scores)
    half = len(found) // 2
    if half:
        splits = [rng.permutation(len(found)) for _ in range(DRAWS)]
        halves = [(choose(found[order[:half]]), choose(found[order[half : 2 * half]])) for order in splits]
        values = [overlap(first, second, layout) for first, second in halves]
        rows.append(row("facts", len(found), float(np.mean(values)), values))
    runs = [_chooser(selection, layout, settings, run) for _, run in scores.groupby("seed")]
    if len(runs) > 1:

        def agreement(facts: np.ndarray) -> float:
            chosen = [choose(found[facts]) for found, choose in runs]
            return float(np.mean([overlap(first, second, layout) for first, second in combinations(chosen, 2)]))

        count = len(found)
        values = [agreement(rng.integers(0, count, count)) for _ in range(DRAWS)]
        rows.append(row("seeds", len(runs), agreement(np.arange(count)), values))
    return rows


def overlap(first: Sequence[Component], second: Sequence[Component], layout: Inventory) -> float:
    """Jaccard's index of two sets of components; part of an MLP counts by its share of neurons."""
    one, other = (
        {(c.layer, c.kind, c.head): 1.0 if c.neurons is None else c.neurons / layout.width for c in components}
        for components in (first, second)
    )
    pairs = [(one.get(key, 0.0), other.get(key, 0.0)) for key in one | other]
    return sum(map(min, pairs)) / sum(map(max, pairs)) if pairs else 0.0


def _chooser(
    selection: Selection, layout: Inventory, settings: LocalizeSettings, scores: pd.DataFrame
) -> tuple[np.ndarray, Callable[[np.ndarray], list[Component]]]:
    """Effects averaged over runs, (facts, columns), and what the localization selects by any facts of them."""
    if selection.localization == "fact-lookup":
        rule = lookup(scores, settings)

        def by_rule(found: np.ndarray) -> list[Component]:
            try:
                return [Component(layer, "mlp") for layer in rule.layers(found)]
            except FactError:
                return []

        return mean_over_runs(rule.effects), by_rule
    effects, rank = ranker(selection.localization, layout, settings, scores)
    sizes: dict[tuple[Component, bool], int] = {}
    return mean_over_runs(effects), lambda found: fill(rank(found), layout, selection.budget, settings.protocol, sizes)


def _chance(selection: Selection, layout: Inventory, settings: LocalizeSettings) -> float:
    """The mean overlap of DRAWS pairs of random selections."""
    among, rng = candidates(selection.localization, layout, settings), random.Random(settings.seed)
    sizes: dict[tuple[Component, bool], int] = {}

    def drawn() -> list[Component]:
        return fill(rng.sample(among, len(among)), layout, selection.budget, settings.protocol, sizes)

    return float(np.mean([overlap(drawn(), drawn(), layout) for _ in range(DRAWS)]))
