"""The base model's hidden states on the held-out text, kept so that each edit's KL divergence needs no second run.

save   states of passages -> safetensors, one tensor a passage
read   the same back, of these passages and this model; anything else is refused
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from mechunlearn.errors import ArtifactError
from mechunlearn.facts.text import Passage
from mechunlearn.models import tensors
from mechunlearn.models.model import Model


def save(path: str | Path, model: Model, passages: Sequence[Passage], hidden: Sequence[torch.Tensor]) -> None:
    """Write what `scoring.text_hidden` gave: (tokens - 1, d_model) a passage, under its id, in the network's format."""
    found = {passage.id: states for passage, states in zip(passages, hidden, strict=True)}
    tensors.write(path, model, found, {})


def read(path: str | Path, model: Model, passages: Sequence[Passage]) -> list[torch.Tensor]:
    """The states of these passages, in their order. Raises ArtifactError where the file is not of this model's base."""
    found, _ = tensors.read(path, model, "the base model's measurement")
    missing = [passage.id for passage in passages if passage.id not in found]
    if missing:
        raise ArtifactError(f"{path} is of other text: it lacks {', '.join(missing)}; delete it and run again.")
    return [found[passage.id].to(model.device, model.network.dtype) for passage in passages]
