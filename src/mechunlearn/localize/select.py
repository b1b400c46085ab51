"""From scores to what an edit may train. Torch-free.

select      a localization's name -> Selection
candidates  what a localization chooses among
ranker      how its scores put them in order
fill        the first components of a ranking that make up a budget

The rules by which fact lookup takes its layers are in `lookup_rules`.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mechunlearn.artifacts import Component, Selection
from mechunlearn.config import LocalizeSettings
from mechunlearn.errors import ConfigError
from mechunlearn.localize.lookup_rules import effects_of, lookup_layers, mean_over_runs
from mechunlearn.models.components import KINDS, Inventory
from mechunlearn.registry import baseline, mlps_only

# The kinds of scores that make up a component's effect; as published also those of what goes into it.
OUTPUTS = {"attention": ("head",), "mlp": ("mlp",)}
PUBLISHED = {"attention": ("head", "q", "k", "v"), "mlp": ("mlp", "mlp-in")}
PATHS = {"mlp": ("lookup",)}


def select(
    localization: str,
    layout: Inventory,
    settings: LocalizeSettings,
    scores: pd.DataFrame | None = None,
    lookup: Selection | None = None,
) -> Selection:
    """The components that a localization trains.

    scores   of the localizer that it selects by; None for a baseline and what is given by hand
    lookup   fact lookup's selection, where it sets the budget

    Raises ConfigError for components that the model does not have and for a budget too small for any, FactError
    where fact lookup finds none.
    """
    total = layout.parameters(*layout.all(*KINDS))

    def selected(components: list[Component], budget: int | None = None, **details: Any) -> Selection:
        count = layout.parameters(*components)
        parts = [component.neurons / layout.width for component in components if component.neurons is not None]
        details |= {"part": parts[0]} if parts else {}
        return Selection(localization, components, count, count if budget is None else budget, total, details)

    if localization in settings.layers:
        return selected(_by_hand(localization, layout, settings), rule="by hand")
    if localization == "fact-lookup":
        assert scores is not None
        details = lookup_layers(scores, settings)
        return selected([Component(layer, "mlp") for layer in details["layers"]], **details)
    if localization in ("all-mlps", "nonlocalized"):
        return selected(layout.all("mlp") if mlps_only(localization) else layout.all(*KINDS))
    budget = _budget(settings.budget, total, lookup)
    if baseline(localization):
        among = candidates(localization, layout, settings)
        ranking = random.Random(f"{localization}-{settings.seed}").sample(among, len(among))
    else:
        assert scores is not None
        effects, rank = ranker(localization, layout, settings, scores)
        ranking = rank(mean_over_runs(effects))
    components = fill(ranking, layout, budget, settings.protocol)
    if not components:
        raise ConfigError(
            f"localize.budget is {budget} parameters, too few for any part of {localization}; "
            f"one neuron of this model has {layout.parameters(Component(0, 'mlp', 1))}."
        )
    return selected(components, budget, ranking=[_label(component) for component in ranking])


def candidates(localization: str, layout: Inventory, settings: LocalizeSettings) -> list[Component]:
    """What a localization chooses among: MLPs alone, or attention too, as blocks or head by head."""
    if mlps_only(localization):
        return layout.all("mlp")
    if settings.granularity == "blocks":
        return layout.all(*KINDS)
    places = [(layer, head) for layer in range(layout.layers) for head in range(layout.heads)]
    return [*(Component(layer, "attention", head=head) for layer, head in places), *layout.all("mlp")]


def ranker(
    localization: str, layout: Inventory, settings: LocalizeSettings, scores: pd.DataFrame
) -> tuple[pd.DataFrame, Callable[[np.ndarray], list[Component]]]:
    """The effects that a localization reads, and how they rank its candidates, largest first.

    The effects have a row for each run and fact; the ranking takes them averaged over runs, (facts, columns), so that
    a part of the facts or a single run can be ranked too. Corrected, a component counts by the sum of its parts'
    absolute mean effects; published, by the absolute sum of its parts' mean effects, in which they may cancel. Path
    patching counts effects with their sign.
    """
    by_path, published = localization == "path-patching", settings.protocol == "published"
    parts = PATHS if by_path else PUBLISHED if published else OUTPUTS
    among = candidates(localization, layout, settings)
    effects = effects_of(scores, *(part for kind in {component.kind for component in among} for part in parts[kind]))
    columns: dict[Any, int] = {column: place for place, column in enumerate(effects.columns)}
    places = [[columns[part] for part in _parts(component, layout, parts) if part in columns] for component in among]
    members = np.zeros((len(among), len(columns)))
    for row, place in enumerate(places):
        members[row, place] = 1

    def rank(found: np.ndarray) -> list[Component]:
        means = np.nanmean(found, axis=0)
        sizes = members @ means if by_path else abs(members @ means) if published else members @ abs(means)
        return [among[place] for place in np.argsort(-sizes, kind="stable") if places[place]]

    return effects, rank


def fill(
    ranking: Sequence[Component],
    layout: Inventory,
    budget: int,
    protocol: str = "corrected",
    sizes: dict[tuple[Component, bool], int] | None = None,
) -> list[Component]:
    """Components in order of rank while they fit; then neurons of the best MLPs left, until the budget is used up.

    An attention block or head is taken whole or not at all, and one that does not fit ends the whole picks: what
    follows are the best ranked MLPs that have not been taken, the last of them in part. So the count is within one
    neuron of the budget wherever the ranking has an MLP to spare. Published, the component that crosses the budget is
    taken whole and is the last.

    Heads of a group share keys and values, which count once. `sizes` remembers from call to call what it counted.
    """
    chosen: list[Component] = []
    left, sizes, groups = budget, {} if sizes is None else sizes, set[tuple[int, int]]()
    for component in ranking:
        group = None if component.head is None else (component.layer, component.head * layout.kv_heads // layout.heads)
        key = component, group in groups
        if key not in sizes:
            beside = [other for other in chosen if other.layer == component.layer and other.head is not None]
            sizes[key] = layout.parameters(*beside, component) - layout.parameters(*beside)
        more = sizes[key]
        if left <= 0 or (more > left and protocol == "corrected"):
            break
        chosen.append(component)
        left -= more
        if group:
            groups.add(group)
    if protocol == "published":
        return chosen
    for part in [component for component in ranking if component.kind == "mlp" and component not in chosen]:
        neurons = min(layout.width, left * layout.width // layout.parameters(part))
        if neurons == 0:
            break
        chosen.append(part if neurons == layout.width else Component(part.layer, "mlp", neurons))
        left -= layout.parameters(chosen[-1])
    return chosen


def _parts(component: Component, layout: Inventory, parts: Mapping[str, Sequence[str]]) -> Iterator[tuple]:
    """(layer, kind, head) of the scores that make up a component."""
    for kind in parts[component.kind]:
        count = layout.kv_heads if kind in ("k", "v") else layout.heads
        if component.kind == "mlp":
            heads = range(-1, 0)
        elif component.head is None:
            heads = range(count)
        else:
            own = component.head * count // layout.heads
            heads = range(own, own + 1)
        yield from ((component.layer, kind, head) for head in heads)


def _by_hand(localization: str, layout: Inventory, settings: LocalizeSettings) -> list[Component]:
    """The components that the configuration names."""
    given = settings.layers[localization]
    layers = {"mlps": given.mlps, "attention": given.attention, "heads": [layer for layer, _ in given.heads]}
    heads = [head for _, head in given.heads]
    checks = [(key, "layer", numbers, layout.layers) for key, numbers in layers.items()]
    for key, what, numbers, count in [*checks, ("heads", "head", heads, layout.heads)]:
        if max(numbers, default=0) >= count:
            raise ConfigError(
                f"localize.layers.{localization}.{key} names {what} {max(numbers)}; "
                f"the model has {what}s 0 to {count - 1}."
            )
    return [
        *(Component(layer, "mlp") for layer in given.mlps),
        *(Component(layer, "attention") for layer in given.attention),
        *(Component(layer, "attention", head=head) for layer, head in given.heads),
    ]


def _budget(budget: str | float | int, total: int, lookup: Selection | None) -> int:
    if budget == "fact-lookup":
        assert lookup is not None
        return lookup.parameters
    return round(total * budget) if isinstance(budget, float) else int(budget)


def _label(component: Component) -> str:
    """`mlp 3`, `attention 3`, or `head 3.0`: the first head of layer 3."""
    if component.head is None:
        return f"{component.kind} {component.layer}"
    return f"head {component.layer}.{component.head}"
