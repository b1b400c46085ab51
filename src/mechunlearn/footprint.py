"""What a job asks a scheduler for, from the size of its model and of what it trains. Torch-free.

size_of     a model's manifest -> Size
Work        what a job does with the model: `of_edit`, `of_mask`, `of_attack`, `of_planting`, `of_reading`,
            MEASURE, LOCALIZE and BENCHMARK, `times` so many
memory      bytes on the device that computes
gpu         how many GPUs
mem_mb      megabytes of main memory
runtime     minutes

Requests are limits and not forecasts: to stay far below costs little, to go beyond ends the job. docs/scaling.md has
the formulas, and a test compares them with measured peaks.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import ceil, prod
from pathlib import Path

from mechunlearn.artifacts import Component, Selection, read_selection
from mechunlearn.config import BiographySettings, EditSettings, MaskingSettings, PlantSettings, Study
from mechunlearn.errors import UserError
from mechunlearn.models.components import layout_of
from mechunlearn.models.sources import read_manifest

LIBRARIES = 1.0e9  # bytes: Python, torch, transformers, the tokenizer of a large vocabulary
COPIES = 16  # bytes that training keeps for each value a layer computes for a token: four copies of 32 bits
ENTERING = 4  # bytes of each value of the residual stream that enters a layer
TRAINED = 16  # bytes a trained weight: itself, its gradient, two moments of AdamW, 32 bits each
EIGHT = 4 + 4 + 2 * (1 + 4 / 256)  # the same with moments of 8 bits, and a scale for every 256 of them
KEPT = 12  # bytes a trained weight in a checkpoint: itself and two moments
MASKED = 20  # bytes a masked weight: as it was and as it is, its gradient, the mask, the momentum
PROMPT, BIOGRAPHY = 24, 64  # tokens of a training prompt, of a biography
MARGIN = 1.25
LARGE = 2e9  # bytes of weights from which on a job asks for GPUs
GPU = 80e9  # bytes of one
SPEED = {"cpu": 5e10, "gpu": 2e13}  # operations a second, of a slow core and of a GPU at small batches
START = 15  # minutes to load everything, on a file system that others use, too


@dataclass(frozen=True)
class Size:
    """A model's size, as its files say.

    weights         bytes of the safetensors files
    attention, mlp  parameters of one attention block and of one MLP
    adapter         parameters of LoRA adapters of rank 1 on all of these
    values          what a layer computes for one token: twice the residual stream, what the heads put out, twice the
                    MLP's neurons
    width           of the residual stream
    """

    weights: int = 0
    layers: int = 0
    attention: int = 0
    mlp: int = 0
    adapter: int = 0
    values: int = 0
    width: int = 0

    @property
    def matrices(self) -> int:
        """Parameters of all attention blocks and MLPs."""
        return self.layers * (self.attention + self.mlp)

    def holding(self, components: Iterable[Component]) -> int:
        """Parameters of the blocks that hold the components: of a head or a neuron, too, whole matrices are held."""
        blocks = {(component.layer, component.kind) for component in components}
        return sum(self.attention if kind == "attention" else self.mlp for _, kind in blocks)


@dataclass(frozen=True)
class Work:
    """What a job does.

    trained   parameters, with `each` bytes a parameter
    kept      tokens of a step, whose activations are kept through so many `layers` (None: all)
    at_once   tokens run at once without gradients
    forward   tokens run without gradients in the whole job, about
    back      tokens run with gradients
    """

    trained: int = 0
    each: float = TRAINED
    kept: int = 0
    layers: int | None = None
    at_once: int = 4096  # models/scoring.py
    forward: int = 500_000
    back: int = 0


MEASURE = Work()
LOCALIZE = Work(at_once=8192, forward=1_000_000)  # models/patching.py
BENCHMARK = Work(at_once=50_000, forward=2_000_000)  # lm-eval holds the logits of whole questions


def times(work: Work, count: int) -> Work:
    """The same so many times, one after another."""
    return replace(work, forward=count * work.forward, back=count * work.back)


def size_of(manifest: str | Path) -> Size:
    """Read a model's size; all zero where its weights cannot be read, which the job itself will say.

    Raises FileNotFoundError where there is no such manifest yet.
    """
    os.stat(str(manifest))
    try:
        record = read_manifest(manifest)
        layout = layout_of(record)
        while record.base:
            record = read_manifest(record.base)
    except (UserError, OSError):
        return Size()
    weights = sum(int(file["bytes"]) for name, file in record.files.items() if name.endswith(".safetensors"))
    width = layout.shapes[layout.weight(0, "o")][1 if layout.naming.transposed else 0]
    return Size(
        weights=weights,
        layers=layout.layers,
        attention=sum(prod(layout.shapes[name]) for name in layout.tensors(Component(0, "attention"))),
        mlp=sum(prod(layout.shapes[name]) for name in layout.tensors(Component(0, "mlp"))),
        adapter=sum(map(sum, layout.shapes.values())),
        values=2 * width + layout.heads * layout.head_size + 2 * layout.width,
        width=width,
    )


def of_edit(size: Size, selection: str | Path, settings: EditSettings, *, facts: int, seeds: int, people: bool) -> Work:
    """An edit of so many facts at once; of people, it also reads their biographies.

    Raises FileNotFoundError where there is no such selection yet.
    """
    chosen, own = _read(selection), settings.for_facts(facts)
    tokens = own.batch * 2 * PROMPT + own.texts * own.text_tokens + people * 4 * own.surgery.batch * BIOGRAPHY
    layers = size.layers - min((component.layer for component in chosen.components), default=0)
    steps = seeds * own.steps * max(1, len(chosen.groups))
    each = EIGHT if own.optimizer == "adamw-8bit" else TRAINED
    return Work(size.holding(chosen.components), each, kept=tokens, layers=layers, back=steps * tokens)


def of_mask(
    size: Size, selection: str | Path, settings: MaskingSettings, *, seeds: int, benchmarks: bool = False
) -> Work:
    """Masks of every weight of a selection, with benchmarks for each number of them.

    Raises FileNotFoundError where there is no such selection yet.
    """
    tokens = settings.batch * 2 * PROMPT + settings.texts * settings.text_tokens
    trained = size.holding(_read(selection).components)
    work = Work(trained, MASKED, kept=tokens, back=seeds * settings.steps * tokens)
    if benchmarks:
        forward = times(BENCHMARK, seeds * len(settings.sizes)).forward
        return replace(work, at_once=BENCHMARK.at_once, forward=forward)
    return work


def of_attack(size: Size, attack: str, study: Study) -> Work:
    """Relearning trains adapters, or all matrices; soft prompts train no weights; the other attacks measure."""
    seeds = len(study.seeds)
    if attack == "soft-prompt":
        tokens = study.soft_prompt.batch * (study.soft_prompt.tokens + PROMPT)
        return Work(kept=tokens, back=2 * seeds * study.soft_prompt.steps * tokens)
    if attack not in ("relearn", "finetune"):
        return times(MEASURE, seeds)
    settings = study.relearn if attack == "relearn" else study.finetune
    trained = size.adapter * study.relearn.rank if attack == "relearn" else size.matrices
    tokens = settings.batch * 2 * PROMPT + settings.texts * settings.text_tokens
    return Work(trained, kept=tokens, back=seeds * (1 + settings.both_halves) * settings.steps[-1] * tokens)


def of_planting(size: Size, settings: PlantSettings) -> Work:
    """Facts trained into one MLP."""
    tokens = settings.facts * PROMPT + settings.texts * settings.text_tokens
    return Work(size.mlp, kept=tokens, back=settings.steps * tokens)


def of_reading(size: Size, settings: BiographySettings) -> Work:
    """Every attention block and MLP trained on biographies and passages, one of these a step."""
    people = settings.problematic + settings.obsolete + settings.retain + settings.kept
    tokens = settings.batch * max(BIOGRAPHY, settings.text_tokens)
    steps = settings.epochs * ceil((people * settings.wordings + settings.texts) / settings.batch)
    return Work(size.matrices, kept=tokens, back=steps * tokens)


def memory(size: Size, work: Work) -> float:
    """Bytes on the device that computes: weights, what training adds to them, activations.

    On a GPU those of one layer, and what enters each (models/recompute.py).
    """
    layers, whole = size.layers if work.layers is None else work.layers, COPIES * size.values
    if size.weights >= LARGE:
        activations = whole * max(work.kept, work.at_once) + ENTERING * size.width * work.kept * layers
    else:
        activations = whole * max(work.kept * layers, work.at_once)
    return size.weights + work.trained * work.each + activations


def gpu(size: Size, work: Work, attempt: int = 1) -> int:
    """How many GPUs of 80 GB hold it, at every attempt; none for a model that a CPU is enough for."""
    return ceil(MARGIN * memory(size, work) / GPU) if size.weights >= LARGE else 0


def mem_mb(size: Size, work: Work, attempt: int = 1) -> int:
    """Megabytes of main memory: everything on a CPU; beside GPUs the weights, and a checkpoint to be written."""
    held = size.weights + KEPT * work.trained if gpu(size, work) else memory(size, work)
    return attempt * ceil(MARGIN * (LIBRARIES + held) / 1e6)


def runtime(size: Size, work: Work, attempt: int = 1) -> int:
    """Minutes: two operations a weight for a token forward, six for one forward and back, weights of 16 bits.

    On a GPU the layers run forward once more.
    """
    back = 8 if gpu(size, work) else 6
    operations = size.weights / 2 * (2 * work.forward + back * work.back)
    return attempt * ceil(START + operations / SPEED["gpu" if gpu(size, work) else "cpu"] / 60)


def _read(selection: str | Path) -> Selection:
    os.stat(str(selection))
    return read_selection(selection)
