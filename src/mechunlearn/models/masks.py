"""Setting single weights to zero.

region    which weights a selection holds
learned   how many weights' masks learning has moved
smallest  of learned masks the weights with the smallest, as many as asked for
masked    those weights zero, inside a block
counts    how many of them belong to each component
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import pandas as pd
import torch

from mechunlearn.artifacts import Component
from mechunlearn.models.components import Inventory
from mechunlearn.models.model import Model

Masks = dict[str, torch.Tensor]


def region(layout: Inventory, components: Iterable[Component]) -> dict[str, torch.Tensor]:
    """By tensor that components have a part in: which of its weights are theirs."""
    found: dict[str, torch.Tensor] = {}
    for component in components:
        for part in layout.slices(component):
            inside = found.setdefault(part.tensor, torch.zeros(layout.shapes[part.tensor], dtype=torch.bool))
            inside.narrow(part.axis, part.start, part.stop - part.start).fill_(True)
    return found


def learned(masks: Masks) -> int:
    """How many masks are below 1: the weights that are told apart at all."""
    return sum(int((mask < 1).sum()) for mask in masks.values())


def smallest(masks: Masks, size: int) -> dict[str, torch.Tensor]:
    """Which weights have the `size` smallest masks, by tensor; ties in the order of the tensors' names.

    Weights whose mask is 1, among them all outside the selection, come last.
    """
    order = sorted(masks)
    flat = torch.cat([masks[name].flatten().cpu() for name in order])  # layers may lie on several GPUs
    gone = torch.zeros_like(flat, dtype=torch.bool)
    if size:
        limit = flat.kthvalue(size).values
        gone = flat < limit
        level = (flat == limit).nonzero()[: size - int(gone.sum()), 0]
        gone[level] = True
    parts = gone.split([masks[name].numel() for name in order])
    return {name: part.view_as(masks[name]) for name, part in zip(order, parts, strict=True)}


@contextmanager
def masked(model: Model, gone: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """The weights marked in `gone` are zero, all others as they were; afterwards all are."""
    named = {name: model.network.get_parameter(name) for name in gone}
    whole = {name: parameter.data for name, parameter in named.items()}
    try:
        for name, parameter in named.items():
            parameter.data = whole[name].masked_fill(gone[name].to(parameter.device), 0)
        yield
    finally:
        for name, parameter in named.items():
            parameter.data = whole[name]


def counts(layout: Inventory, gone: Mapping[str, torch.Tensor]) -> pd.DataFrame:
    """Masked weights by component: layer, kind, head (of what heads share, keys and values, -1) and weights.

    A head's are its part of the query and output matrices.
    """
    rows = []
    for layer in range(layout.layers):
        for kind in ("mlp", "attention"):
            names = [name for name in layout.tensors(Component(layer, kind)) if name in gone]
            rest = sum(int(gone[name].sum()) for name in names)
            for head, weights in enumerate(_by_head(layout, layer, gone)) if kind == "attention" and names else ():
                rows.append((layer, kind, head, weights))
                rest -= weights
            if names:
                rows.append((layer, kind, -1, rest))
    return pd.DataFrame(rows, columns=["layer", "kind", "head", "weights"])


def _by_head(layout: Inventory, layer: int, gone: Mapping[str, torch.Tensor]) -> Iterator[int]:
    """Masked weights of each head's queries and outputs."""
    for head in range(layout.heads):
        query, *_, output = layout.slices(Component(layer, "attention", head=head))
        parts = [gone[part.tensor].narrow(part.axis, part.start, part.stop - part.start) for part in (query, output)]
        yield sum(int(part.sum()) for part in parts)
