"""Layers that no training changes, run once for every sequence.

frozen    inside this block the layers below one are constant
streams   what enters the first layer above them, of each sequence
begin     inside this block forwards begin at that layer

An edit trains the same prompts again and again, often only in later layers. What enters the first trained layer is
then the same every time: it is computed when a sequence first comes, kept, and put in its place afterwards.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch.nn.utils.rnn import pad_sequence

from mechunlearn.models.interventions import capture, patch, skip
from mechunlearn.models.model import Frozen, Model


@contextmanager
def frozen(model: Model, layer: int) -> Iterator[None]:
    """Inside the block, losses in training run the layers below `layer` once a sequence.

    They must be the same, and work in the same way (no dropout), throughout the block.
    """
    before, model.frozen = model.frozen, Frozen(layer) if layer else None
    try:
        yield
    finally:
        model.frozen = before


@torch.no_grad()
def streams(model: Model, sequences: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """What enters the first layer that may change, of each sequence: (tokens, d_model) each; none if none is frozen."""
    if model.frozen is None:
        return []
    layer, kept = model.frozen.layer, model.frozen.kept
    if new := list(dict.fromkeys(key for ids in sequences if (key := tuple(ids)) not in kept)):
        inputs = pad_sequence([torch.tensor(ids, device=model.device) for ids in new], batch_first=True)
        entry = model.layout.module(layer), "input"
        with skip(model, range(layer, model.layout.layers)), capture(model, [entry]) as seen:
            model.network.base_model(input_ids=inputs, use_cache=False)
        kept.update((ids, row[: len(ids)].clone()) for ids, row in zip(new, seen[entry], strict=True))
    return [kept[tuple(ids)] for ids in sequences]


@contextmanager
def begin(model: Model, stream: torch.Tensor | None) -> Iterator[None]:
    """Inside the block a forward begins at the first layer that may change, with (rows, tokens, d_model).

    Lower layers hand on what they are given. Without a stream nothing changes.
    """
    if model.frozen is None or stream is None:
        yield
        return
    layer = model.frozen.layer
    with skip(model, range(layer)), patch(model, inputs={model.layout.module(layer): lambda _: stream}):
        yield
