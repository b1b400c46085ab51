"""The tensors an edit changed, and nothing else.

save    edited tensors + base hash + settings -> delta.safetensors
apply   a delta onto its base model; any other base is refused

Applying a delta gives the edited model bit for bit: tensors are stored whole, in the model's own format.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from mechunlearn.artifacts import atomic
from mechunlearn.errors import ArtifactError
from mechunlearn.models.model import Model


def save(path: str | Path, model: Model, names: list[str], about: dict[str, Any]) -> None:
    """Write the named parameters of an edited model, with the hash of the base it belongs to."""
    parameters = dict(model.network.named_parameters())
    tensors = {name: parameters[name].detach().cpu().to(model.stored).contiguous() for name in sorted(names)}
    # One entry, sorted: safetensors writes several in no fixed order, and equal edits shall have equal bytes.
    metadata = {"mechunlearn": json.dumps({"base": model.manifest.sha256, **about}, sort_keys=True)}
    with atomic(path) as temporary:
        try:
            save_file(tensors, temporary, metadata=metadata)
        except SafetensorError as error:
            raise ArtifactError(f"{path} cannot be written: {error}.") from error


def apply(path: str | Path, model: Model) -> dict[str, Any]:
    """Change the model in place to the edited one and return what the delta says about itself.

    Raises ArtifactError where the file is missing or damaged, or was made from another base; the model is then
    unchanged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about: dict[str, Any] = json.loads(file.metadata()["mechunlearn"])
            base = str(about["base"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing; the edit that writes it has not run.") from None
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); delete it and run its edit again.") from error
    if base != model.manifest.sha256:
        raise ArtifactError(
            f"{path} was made from the base {base[:12]}, but this model is {model.manifest.sha256[:12]} "
            f"({model.manifest.source}); a delta fits only its own base."
        )
    parameters = dict(model.network.named_parameters())
    wrong = [
        name for name, tensor in tensors.items() if name not in parameters or parameters[name].shape != tensor.shape
    ]
    if wrong:
        raise ArtifactError(f"{path} names tensors that the model does not have: {', '.join(wrong)}.")
    with torch.no_grad():
        for name, tensor in tensors.items():
            parameters[name].copy_(tensor)
    return about
