"""Attention for training on short sequences on a CPU.

grouped   inside this block a network attends by plain matrix products, one for all queries that share keys

On a CPU the gradient of torch's fused attention takes several times as long as these products, as measured on the
prompts that edits train on. It would save memory on long texts, of which there are none in training. Elsewhere, and
in networks whose attention is more than a softmax of scaled products, nothing changes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from mechunlearn.models.model import Model

NAME, USUAL = "grouped", "sdpa"


@contextmanager
def grouped(model: Model) -> Iterator[None]:
    """Inside the block a network on a CPU that would use torch's fused attention attends by plain products."""
    network = model.network
    if model.device.type != "cpu" or network.config._attn_implementation != USUAL:
        yield
        return
    network.set_attn_implementation(NAME)
    try:
        yield
    finally:
        network.set_attn_implementation(USUAL)


def _attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """(rows, heads, tokens, head size), keys, values of fewer heads, mask to add -> (rows, tokens, heads, head size).

    Softmax in float32, products in the format of the queries, as the fused attention has it.
    """
    rows, heads, tokens, size = query.shape
    places, shared = rows * key.shape[1], heads // key.shape[1] * tokens
    scale = size**-0.5 if scaling is None else scaling
    scores = query.reshape(places, shared, size) @ key.reshape(places, -1, size).transpose(1, 2)
    scores = scores.float().view(rows, heads, tokens, -1) * scale + attention_mask
    weights = torch.nn.functional.dropout(scores.softmax(-1), dropout, module.training).to(value.dtype)
    mixed = weights.view(places, shared, -1) @ value.reshape(places, -1, size)
    return mixed.view(rows, heads, tokens, size).transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, eager_mask)
