"""Where facts have selections of their own: one a block of a sequential task, or one a fact. Torch-free.

select_groups   a localization's name and the facts to edit -> Selection with the groups that are edited in turn
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import pandas as pd

from mechunlearn.artifacts import Component, Group, Selection
from mechunlearn.config import LocalizeSettings
from mechunlearn.errors import FactError
from mechunlearn.facts import Fact, trained
from mechunlearn.localize.lookup_rules import lookup_per_fact, same_layers
from mechunlearn.localize.select import select
from mechunlearn.models.components import KINDS, Inventory


def select_groups(
    localization: str,
    layout: Inventory,
    settings: LocalizeSettings,
    facts: Sequence[Fact],
    scores: pd.DataFrame | None = None,
    lookup: Selection | None = None,
) -> Selection:
    """The groups of facts to edit, in turn, each with its own components; arguments as in `select`.

    A block is selected by its own scores (column `block`) and under its own budget, as if there were no other;
    baselines draw anew for each. Fact by fact, every fact is localized by itself, and facts with the same MLPs are a
    group, the largest first (Guo et al. 2025, section 3.4). Raises ConfigError and FactError as `select` does, and
    FactError for facts without scores.
    """
    own, groups = trained(facts), list[Group]()
    for block in sorted({fact.block for fact in own}):
        ids = [fact.id for fact in own if fact.block == block]
        found = scores if scores is None or not block else scores[scores.block == block]
        try:
            if settings.per_fact(localization):
                assert found is not None
                groups += _by_fact(layout, found, ids, block)
            else:
                part = select(localization, layout, settings.of_block(block), found, _of_block(lookup, block))
                groups.append(Group(ids, part.components, part.parameters, block))
        except FactError as error:
            raise FactError(f"block {block}: {error}" if block else str(error)) from None
    components = _union(component for group in groups for component in group.components)
    partial = {str(each.layer): each.neurons / layout.width for each in components if each.neurons is not None}
    count = layout.parameters(*components)
    total = layout.parameters(*layout.all(*KINDS))
    return Selection(localization, components, count, count, total, {"part": partial} if partial else {}, groups)


def _by_fact(layout: Inventory, scores: pd.DataFrame, facts: Sequence[str], block: int) -> list[Group]:
    """The groups of facts that have the same MLPs."""
    if "lookup" not in set(scores.kind):
        raise FactError(
            "fact-lookup-per-fact needs effects of single facts, but fact lookup used probes here, which have none; "
            "localize.lookup can be path-patching."
        )
    each = lookup_per_fact(scores, at_least_one=True)
    if missing := [fact for fact in facts if fact not in each]:
        raise FactError(
            f"fact-lookup-per-fact has no effects of {len(missing)} of {len(facts)} facts, such as {missing[0]!r}; "
            f"localize.paths.facts must be at least {len(facts)}, and localize.facts: forget."
        )
    groups = []
    for layers, members in same_layers({fact: each[fact] for fact in facts}).items():
        components = [Component(layer, "mlp") for layer in layers]
        groups.append(Group(members, components, layout.parameters(*components), block))
    return groups


def _of_block(selection: Selection | None, block: int) -> Selection | None:
    """What a selection has for one block, as a selection of its own."""
    if selection is None:
        return None
    group = next(group for group in selection.groups if group.block == block)
    return replace(selection, components=group.components, parameters=group.parameters, groups=[])


def _union(components: Iterable[Component]) -> list[Component]:
    """Every component once, an MLP with the most neurons that any group trains of it."""
    largest = dict[tuple[int, str, int], Component]()
    for component in components:
        key = (component.layer, component.kind, -1 if component.head is None else component.head)
        known = largest.get(key, component)
        if known.neurons is not None and (component.neurons is None or component.neurons > known.neurons):
            known = component
        largest[key] = known
    return [largest[key] for key in sorted(largest)]
