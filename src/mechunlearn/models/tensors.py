"""Tensors that belong to one base model, on disk with what they are about: safetensors, written whole.

write   tensors and a description -> a file; equal ones give equal bytes
read    a file -> both again; of any other base it is refused
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from mechunlearn.artifacts import atomic
from mechunlearn.errors import ArtifactError
from mechunlearn.models.model import Model


def write(path: str | Path, model: Model, tensors: Mapping[str, torch.Tensor], about: Mapping[str, Any]) -> None:
    """Write tensors in their own formats, with the hash of the base; `about` must be what JSON can say."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    # One entry, sorted: safetensors writes several in no fixed order.
    metadata = {"mechunlearn": json.dumps({"base": model.manifest.sha256, **about}, sort_keys=True)}
    with atomic(path) as temporary:
        try:
            save_file(whole, temporary, metadata=metadata)
        except SafetensorError as error:
            raise ArtifactError(f"{path} cannot be written: {error}.") from error


def read(path: str | Path, model: Model, writer: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """(tensors on the CPU, what they are about, the base's hash included).

    Raises ArtifactError where the file is missing or damaged, naming what writes it, or was made from another base.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about: dict[str, Any] = json.loads(file.metadata()["mechunlearn"])
            base = str(about["base"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing; {writer} writes it.") from None
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); delete it and run {writer} again.") from error
    if base != model.manifest.sha256:
        raise ArtifactError(
            f"{path} was made from the base {base[:12]}, but this model is {model.manifest.sha256[:12]} "
            f"({model.manifest.source}); it fits only its own base."
        )
    return tensors, about
