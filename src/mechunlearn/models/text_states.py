"""The base model's hidden states on the held-out text, kept so that each edit's KL divergence needs no second run.

save   states of passages -> safetensors, one tensor a passage
read   the same back, of these passages and this model; anything else is refused
"""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from mechunlearn.artifacts import atomic
from mechunlearn.errors import ArtifactError
from mechunlearn.facts.text import Passage
from mechunlearn.models.model import Model


def save(path: str | Path, model: Model, passages: Sequence[Passage], hidden: Sequence[torch.Tensor]) -> None:
    """Write what `scoring.text_hidden` gave: (tokens - 1, d_model) a passage, under its id, in the network's format."""
    tensors = {passage.id: states.cpu().contiguous() for passage, states in zip(passages, hidden, strict=True)}
    metadata = {"mechunlearn": json.dumps({"base": model.manifest.sha256})}
    with atomic(path) as temporary:
        try:
            save_file(tensors, temporary, metadata=metadata)
        except SafetensorError as error:
            raise ArtifactError(f"{path} cannot be written: {error}.") from error


def read(path: str | Path, model: Model, passages: Sequence[Passage]) -> list[torch.Tensor]:
    """The states of these passages, in their order. Raises ArtifactError where the file is not of this model's base."""
    try:
        with safe_open(path, framework="pt") as file:
            base = json.loads(file.metadata()["mechunlearn"])["base"]
            found = [file.get_tensor(passage.id).to(model.device, model.network.dtype) for passage in passages]
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing; measuring the base model writes it.") from None
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} is damaged or of other text ({error}); delete it and run again.") from error
    if base != model.manifest.sha256:
        raise ArtifactError(
            f"{path} was made from the base {base[:12]}, but this model is {model.manifest.sha256[:12]} "
            f"({model.manifest.source})."
        )
    return found
