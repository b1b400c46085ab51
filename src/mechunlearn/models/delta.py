"""The tensors an edit changed, and nothing else.

save    edited tensors + base hash + settings -> delta.safetensors
apply   a delta onto its base model; any other base is refused

Applying a delta gives the edited model bit for bit: tensors are stored whole, in the model's own format.
"""

from pathlib import Path
from typing import Any

import torch

from mechunlearn.errors import ArtifactError
from mechunlearn.models import tensors
from mechunlearn.models.model import Model


def save(path: str | Path, model: Model, names: list[str], about: dict[str, Any]) -> None:
    """Write the named parameters of an edited model, with the hash of the base it belongs to."""
    parameters = dict(model.network.named_parameters())
    changed = {name: parameters[name].to(model.stored) for name in names}
    tensors.write(path, model, changed, about)


def apply(path: str | Path, model: Model) -> dict[str, Any]:
    """Change the model in place to the edited one and return what the delta says about itself.

    Raises ArtifactError where the file is missing or damaged, or was made from another base; the model is then
    unchanged.
    """
    changed, about = tensors.read(path, model, "its edit")
    parameters = dict(model.network.named_parameters())
    wrong = [
        name for name, tensor in changed.items() if name not in parameters or parameters[name].shape != tensor.shape
    ]
    if wrong:
        raise ArtifactError(f"{path} names tensors that the model does not have: {', '.join(wrong)}.")
    with torch.no_grad():
        for name, tensor in changed.items():
            parameters[name].copy_(tensor)
    return about
