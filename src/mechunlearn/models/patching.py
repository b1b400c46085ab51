"""Many patched runs of one prompt in few forwards.

record   run a prompt once and keep what patching needs
Write    a value for one part of the run
resume   patched runs, each from the first layer that its writes reach: final hidden states at the last position
layer_alone   one layer of the run with another input

A patched run differs from the recorded one only after its first write: later in the layers and later in the prompt.
So nothing before that is run again. All patches that begin at one position share one forward, which each of them
joins at its own layer: one row goes in, and hooks let the others in on the way. The layers below the first stay out
of the forward altogether. The network itself is untouched, whatever its architecture.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Any

import torch
from transformers import DynamicCache

from mechunlearn.models.interventions import Part, capture, patch, skip
from mechunlearn.models.model import Model
from mechunlearn.models.scoring import KeysValues, cached, repeat

# Rows x tokens of one forward: bounds memory, and more would not make it faster.
BATCH_TOKENS = 8192


@dataclass(frozen=True)
class Run:
    """A recorded run of one prompt, from its first changeable position on; `rows` differ e.g. by their noise.

    stream   what enters each layer and the final norm: (layers + 1) x (rows, tokens, d_model)
    cache    keys and values of every layer, the common prefix included: (rows, kv heads, prefix + tokens, head size)
    parts    captured activations by (module, side)
    hidden   final normed state at the last position: (rows, d_model)
    """

    tokens: torch.Tensor
    stream: list[torch.Tensor]
    cache: KeysValues
    parts: dict[Part, torch.Tensor]
    hidden: torch.Tensor

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return len(self.hidden)


@dataclass(frozen=True)
class Write:
    """A value that replaces part of what a module takes in or puts out.

    places   the positions it covers, counted from the first recorded one
    columns  the part of the activation's width: (start, stop); None for all of it
    value    (1 or rows, tokens of the recorded run, width): read at the same places and columns
    """

    layer: int
    module: str
    side: str
    places: tuple[int, ...]
    value: torch.Tensor
    columns: tuple[int, int] | None = None


@dataclass(frozen=True)
class Patch:
    """One patched run: all its writes together."""

    writes: tuple[Write, ...]

    @property
    def layer(self) -> int:
        """The first layer that sees a change."""
        return min(write.layer for write in self.writes)

    @property
    def start(self) -> int:
        """The first position that changes."""
        return min(place for write in self.writes for place in write.places)


@torch.no_grad()
def record(
    model: Model,
    ids: Sequence[int],
    prefix: KeysValues,
    parts: Sequence[Part] = (),
    rows: int = 1,
    embedded: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> Run:
    """Run a prompt's tokens after its prefix and keep stream, keys and values, and the parts asked for.

    embedded   changes the embeddings, e.g. by noise, one row each: (1, tokens, d_model) -> (rows, tokens, d_model)
    """
    tokens = torch.tensor([list(ids)], device=model.device)
    boundaries = [(model.layout.module(layer), "input") for layer in range(model.layout.layers + 1)]
    cache = repeat(prefix, rows)
    with patch(model, {model.embeddings: embedded} if embedded else {}), capture(model, [*boundaries, *parts]) as seen:
        hidden = model.network.base_model(input_ids=tokens, past_key_values=cache).last_hidden_state[:, -1]
    kept = [(layer.keys, layer.values) for layer in cache.layers]
    return Run(tokens, [seen[boundary] for boundary in boundaries], kept, {part: seen[part] for part in parts}, hidden)


@torch.no_grad()
def resume(model: Model, run: Run, patches: Sequence[Patch]) -> torch.Tensor:
    """Final hidden states at the last position of every patched run: (patches, rows, d_model)."""
    result = run.hidden.new_zeros(len(patches), *run.hidden.shape)
    order = sorted(range(len(patches)), key=lambda index: (patches[index].start, patches[index].layer))
    for start, group in groupby(order, key=lambda index: patches[index].start):
        indices = list(group)
        size = max(1, BATCH_TOKENS // (run.rows * (run.tokens.shape[1] - start)))
        for first in range(0, len(indices), size):
            batch = indices[first : first + size]
            result[batch] = _together(model, run, [patches[index] for index in batch], start)
    return result


@torch.no_grad()
def layer_alone(
    model: Model, run: Run, layer: int, stream: torch.Tensor, parts: Sequence[Part], outputs: dict[str, torch.Tensor]
) -> dict[Part, torch.Tensor]:
    """One layer of a recorded run of one row, with other streams at its input; the parts asked for.

    stream    (rows, tokens, d_model)
    outputs   module -> what it is made to put out, (1, tokens, width), after `parts` before it were read
    """
    cache = _before(run, 0, [len(stream) if number == layer else 1 for number in range(model.layout.layers)])
    own = model.layout.module(layer)
    others = [number for number in range(model.layout.layers) if number != layer]

    def always(value: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda _: value.expand(len(stream), -1, -1)

    fixed = {name: always(value) for name, value in outputs.items()}
    with skip(model, others), capture(model, parts) as seen, patch(model, fixed, {own: always(stream)}):
        model.network.base_model(input_ids=run.tokens, past_key_values=cache)
    return seen


def _together(model: Model, run: Run, patches: Sequence[Patch], start: int) -> torch.Tensor:
    """Patched runs that all begin at `start`, in the order of their layers, in one forward."""
    layers, rows = model.layout.layers, run.rows
    joining = [sum(each.layer == layer for each in patches) for layer in range(layers + 1)]
    present = list(accumulate(joining))
    outputs: dict[str, list[Any]] = {}
    inputs: dict[str, list[Any]] = {}
    for layer in range(layers + 1):
        if joining[layer]:
            alone = present[layer] == joining[layer]
            inputs[model.layout.module(layer)] = [_join(run.stream[layer][:, start:], joining[layer], alone)]
    for number, each in enumerate(patches):
        for write in each.writes:
            changes = outputs if write.side == "output" else inputs
            changes.setdefault(write.module, []).append(_write(write, slice(number * rows, (number + 1) * rows), start))
    cache = _before(run, start, present[:layers])
    with skip(model, range(patches[0].layer)), patch(model, _chain(outputs), _chain(inputs)):
        hidden = model.network.base_model(input_ids=run.tokens[:, start:], past_key_values=cache).last_hidden_state
    return hidden[:, -1].reshape(len(patches), rows, -1)


def _join(stream: torch.Tensor, count: int, alone: bool) -> Callable[[torch.Tensor], torch.Tensor]:
    """Let the rows of `count` patches in before a layer; the first to come in take the place of the single row."""

    def change(present: torch.Tensor) -> torch.Tensor:
        new = stream.repeat(count, 1, 1)
        return new if alone else torch.cat([present, new])

    return change


def _write(write: Write, rows: slice, start: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Put a write's value into its rows, in place: `_chain` hands it a copy."""
    at = [place - start for place in write.places]
    columns = slice(*write.columns) if write.columns else slice(None)

    def change(tensor: torch.Tensor) -> torch.Tensor:
        tensor[rows, at, columns] = write.value[:, list(write.places), columns].to(tensor)
        return tensor

    return change


def _chain(changes: dict[str, list[Any]]) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """All changes to one activation as one."""

    def of(steps: list[Any]) -> Callable[[torch.Tensor], torch.Tensor]:
        def change(tensor: torch.Tensor) -> torch.Tensor:
            tensor = tensor.clone()
            for step in steps:
                tensor = step(tensor)
            return tensor

        return change

    return {name: of(steps) for name, steps in changes.items()}


def _before(run: Run, start: int, counts: Sequence[int]) -> DynamicCache:
    """The run's keys and values before a position, for so many times its rows in each layer (0: one row)."""
    length = run.cache[0][0].shape[2] - run.tokens.shape[1] + start
    if not length:
        return DynamicCache()

    def repeated(tensor: torch.Tensor, count: int) -> torch.Tensor:
        tensor = tensor[:, :, :length]
        return tensor.repeat(count, 1, 1, 1) if count else tensor[:1]

    return cached(
        [
            (repeated(keys, count), repeated(values, count))
            for (keys, values), count in zip(run.cache, counts, strict=True)
        ]
    )
