"""Which MLPs look a fact up: fact lookup's rules, from its scores to layers. Torch-free.

lookup           the rule that fits the scores: of probes or of path patching
lookup_layers    the layers it takes, and how often each would be among them
rise             probes: the layers over which a curve rises
lookup_per_fact  path patching, fact by fact; `same_layers` groups the facts
effects_of       scores as a table of runs and facts
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mechunlearn.config import LocalizeSettings
from mechunlearn.errors import FactError

# The rise begins where the curve has covered BEGIN of its way from chance to its top, goes on as long as a layer
# within REACH is better by a one-sided paired test at 5% (z > CRITICAL), and takes in one layer more. These values
# return the published layers from the published curves of all three models; see docs/decisions.md.
BEGIN, REACH, CRITICAL = 0.36, 2, 1.645
CENTRAL = (0.025, 0.975)
DEVIATIONS = 2
RESAMPLES = 500
BY_HAND = "localize.layers can name the layers by hand, e.g. `layers: {fact-lookup: {mlps: [2, 3]}}`."


class Lookup(NamedTuple):
    """A rule of fact lookup and what it reads.

    effects   a row for each run and fact, a column for each layer, kind and head
    layers    effects averaged over runs, (facts, columns) -> layers. Raises FactError where there is none.
    about     what a selection says of the rule
    """

    effects: pd.DataFrame
    layers: Callable[[np.ndarray], list[int]]
    about: dict[str, Any]


def effects_of(scores: pd.DataFrame, *kinds: str) -> pd.DataFrame:
    """Scores of the kinds given: a row for each run and fact, a column for each layer, kind and head."""
    rows = scores[scores.kind.isin(kinds)]
    return rows.pivot(index=["seed", "fact"], columns=["layer", "kind", "head"], values="effect")


def mean_over_runs(effects: pd.DataFrame) -> np.ndarray:
    """(facts, columns), facts in the order of their names."""
    return effects.groupby(level="fact").mean().to_numpy()


def lookup(scores: pd.DataFrame, settings: LocalizeSettings) -> Lookup:
    """The rule that fits what fact lookup's scores hold: probes, or path patching."""
    return _by_probes(scores) if "probe-subject" in set(scores.kind) else _by_paths(scores, settings)


def lookup_layers(scores: pd.DataFrame, settings: LocalizeSettings) -> dict[str, Any]:
    """The layers whose MLPs fact lookup takes, and how often each would be among them.

    `frequency` holds, for every layer, the share of RESAMPLES bootstrap draws of the facts (out-of-fold predictions
    kept) in which the rule takes that layer; draws in which it finds none take none. Raises FactError.
    """
    rule = lookup(scores, settings)
    effects = mean_over_runs(rule.effects)
    layers = rule.layers(effects)
    draws = np.random.default_rng(settings.seed).integers(0, len(effects), (RESAMPLES, len(effects)))
    taken = np.zeros(rule.effects.columns.get_level_values("layer").max() + 1)
    for draw in draws:
        with suppress(FactError):
            taken[rule.layers(effects[draw])] += 1 / RESAMPLES
    return {**rule.about, "layers": layers, "frequency": [round(float(share), 3) for share in taken]}


# probes ---------------------------------------------------------------------------------------------------------


def _by_probes(scores: pd.DataFrame) -> Lookup:
    effects = effects_of(scores, "probe-subject")
    chance = float(scores[scores.kind == "chance"].effect.iloc[0])
    layers = effects.columns.get_level_values("layer").tolist()

    def rising(right: np.ndarray) -> list[int]:
        first, last = rise(right.T, chance)
        return layers[first : last + 1]

    return Lookup(effects, rising, {"rule": "rise", "chance": chance})


def rise(right: np.ndarray, chance: float) -> tuple[int, int]:
    """The first and last layer over which a probe's accuracy rises.

    right   (layers, facts), the share of runs in which the probe of that layer is right about that fact
    chance  accuracy of always answering the commonest answer

    Raises FactError where the curve's top is not above chance, by a one-sided test at 5%.
    """
    accuracy = right.mean(1)
    if accuracy.max() - chance <= CRITICAL * (chance * (1 - chance) / right.shape[1]) ** 0.5:
        raise FactError(
            f"fact lookup finds no layer: over {right.shape[1]} facts the probe is right for at most "
            f"{accuracy.max():.2f}, and always giving the commonest answer for {chance:.2f}. {BY_HAND}"
        )
    threshold = chance + BEGIN * (accuracy.max() - chance)
    first = last = int(np.argmax(accuracy >= threshold))
    while any(_better(right[last], right[later]) for later in range(last + 1, min(last + 1 + REACH, len(right)))):
        last += 1
    return first, min(last + 1, len(right) - 1)


def _better(before: np.ndarray, after: np.ndarray) -> bool:
    """Is `after` right more often? For one run this is McNemar's test without continuity correction."""
    gain = after.astype(float) - before
    return bool(gain.sum() > CRITICAL * (gain**2).sum() ** 0.5)


# path patching --------------------------------------------------------------------------------------------------


def _by_paths(scores: pd.DataFrame, settings: LocalizeSettings) -> Lookup:
    """MLPs whose mean effect through the extraction components is above a limit.

    The limit is the upper end of the central 95% of random directions' mean effects, one mean for each run, layer
    and draw; or the published threshold, which in the published protocol an effect of either sign may exceed.
    """
    rules, draws = settings.paths, scores[scores.kind == "random"].groupby(["seed", "head"]).ngroup()
    numbered = scores.assign(head=draws.reindex(scores.index, fill_value=-1))  # a run's directions are its own
    effects = effects_of(numbered, "lookup", "random")
    mlps = effects.columns.get_level_values("kind") == "lookup"
    layers = effects.columns.get_level_values("layer")[mlps]
    by_threshold = rules.rule == "threshold"
    either_sign = by_threshold and settings.protocol == "published"

    def outstanding(found: np.ndarray) -> list[int]:
        means = np.nanmean(found, axis=0)
        sizes = abs(means[mlps]) if either_sign else means[mlps]
        limit = rules.threshold if by_threshold else float(np.quantile(means[~mlps], CENTRAL[1]))
        if sizes.max() <= limit:
            raise FactError(
                f"fact lookup finds no layer: over {len(found)} facts the largest mean effect of an MLP is "
                f"{sizes.max():.4f} (layer {layers[sizes.argmax()]}), and it must exceed {limit:.4f}. More facts "
                f"(localize.paths.facts) or another rule (localize.paths.rule) may find some; {BY_HAND}"
            )
        return layers[sizes > limit].tolist()

    if by_threshold:
        return Lookup(effects, outstanding, {"rule": "threshold", "threshold": rules.threshold})
    ends = np.quantile(np.nanmean(mean_over_runs(effects), axis=0)[~mlps], CENTRAL)
    return Lookup(effects, outstanding, {"rule": "interval", "interval": [round(float(end), 6) for end in ends]})


def lookup_per_fact(scores: pd.DataFrame, at_least_one: bool = False) -> dict[str, list[int]]:
    """For each fact the layers whose MLP's effect exceeds the fact's mean over MLPs by 2 standard deviations.

    This is the localization of editing at scale (paper, 3.4), where every fact has its own. A fact in which no MLP
    stands out so far has none, or with `at_least_one` that of the largest effect.
    """
    effects = effects_of(scores, "lookup")
    layers, found = effects.columns.get_level_values("layer"), mean_over_runs(effects)
    limits = found.mean(1) + DEVIATIONS * found.std(1)
    if at_least_one:
        limits = np.minimum(limits, np.nextafter(found.max(1), -np.inf))
    facts = effects.index.get_level_values("fact").unique().sort_values()
    return {
        str(fact): layers[effect > limit].tolist() for fact, effect, limit in zip(facts, found, limits, strict=True)
    }


def same_layers(selected: Mapping[str, list[int]]) -> dict[tuple[int, ...], list[str]]:
    """The facts of each selection, those with the most facts first; facts of one group are edited together."""
    groups: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for fact, layers in selected.items():
        groups[tuple(layers)].append(fact)
    return dict(sorted(groups.items(), key=lambda group: (-len(group[1]), group[0])))
