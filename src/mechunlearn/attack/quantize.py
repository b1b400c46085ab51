"""Quantisation: does rounding the weights to few bits bring back what an edit removed? (Zhang et al. 2025)

quantize    measurement rows of the rounded model, for each number of bits
rounded     the model with rounded weights, inside a block
round_off   one weight matrix, rounded by torchao

An edit that moves each weight by less than a rounding step may vanish when the weights are rounded.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from math import gcd
from typing import Any

import torch
from torchao.quantization import Int8WeightOnlyConfig, IntxWeightOnlyConfig, quantize_
from torchao.quantization.granularity import PerGroup

from mechunlearn.config import QuantizeSettings
from mechunlearn.errors import ConfigError
from mechunlearn.facts import MEASURED, Fact
from mechunlearn.facts.text import Passage
from mechunlearn.models.model import Model
from mechunlearn.models.scoring import score
from mechunlearn.progress import track
from mechunlearn.registry import attack
from mechunlearn.registry import load as method


@attack("quantize")
def quantize(
    model: Model, facts: Sequence[Fact], passages: Sequence[Passage], settings: QuantizeSettings, seed: int
) -> list[dict[str, Any]]:
    """Measurement rows of forget and maintain-test facts through the training prompt; stages `int8` and `int4`.

    Every attention and MLP matrix is rounded, weights only: to 8 bits with one scale an output, to 4 bits with one
    scale for each `settings.group` weights of an output. Embeddings, norms and biases stay as they are. Raises
    ConfigError where the group does not divide the matrices.
    """
    ask, measured = method("elicitation", "completion"), [fact for fact in facts if fact.role in MEASURED]
    rows: list[dict[str, Any]] = []
    for bits in settings.bits:
        with rounded(model, bits, settings.group, f"rounding to {bits} bits, seed {seed}"):
            found = score(model, [ask(fact)[0] for fact in measured])
        place = {"seed": seed, "stage": f"int{bits}", "elicitation": "completion"}
        rows += [{**row, **place, "role": fact.role} for row, fact in zip(found, measured, strict=True)]
    return rows


@contextmanager
def rounded(model: Model, bits: int, group: int, what: str = "rounding") -> Iterator[None]:
    """Rounded weights in place of a model's own inside the block. Raises ConfigError.

    Each matrix is rounded along its inputs, whichever way it is stored, and kept in the model's number format: what
    torchao's own tensors multiply with, at the speed of plain ones. The originals are set aside, not recomputed.
    """
    across = 0 if model.layout.naming.transposed else 1
    widths = sorted({shape[across] for shape in model.layout.shapes.values()})
    if bits == 4 and any(width % group for width in widths):
        inputs = " and ".join(map(str, widths))
        raise ConfigError(
            f"quantize.group is {group}, but the matrices of {model.manifest.source} take {inputs} inputs; "
            f"allowed: divisors of {gcd(*widths)}."
        )
    with ExitStack() as originals:
        for name in track(model.layout.shapes, what):
            parameter = model.network.get_parameter(name)
            weight = parameter.data if across else parameter.data.t()
            changed = round_off(weight, bits, group)
            originals.callback(setattr, parameter, "data", parameter.data)
            parameter.data = changed if across else changed.t().contiguous()
        yield


def round_off(weight: torch.Tensor, bits: int, group: int) -> torch.Tensor:
    """A matrix (outputs, inputs) rounded to the nearest of 2^bits levels a scale, in its own format and place.

    Rounded in float32, for torchao keeps the scales of 4 bits in the format of the weights: one of 16 bits would
    round them too.
    """
    settings = (
        # The inductor's settings are the whole process's, and nothing is compiled here.
        Int8WeightOnlyConfig(set_inductor_config=False)
        if bits == 8
        else IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(group))  # type: ignore[attr-defined]
    )
    linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    linear.weight = torch.nn.Parameter(weight.detach().float().contiguous(), requires_grad=False)
    quantize_(linear, settings)
    found: torch.Tensor = linear.weight.dequantize()
    return found.to(weight.dtype)
