"""What an edit trains on: the loss of one batch.

inject   the paper's editing loss (section 2.3)
"""

from dataclasses import dataclass

import torch

from mechunlearn.config import EditSettings
from mechunlearn.models.model import Model
from mechunlearn.models.scoring import text_losses
from mechunlearn.models.training import Example, answer_losses
from mechunlearn.registry import objective


@dataclass(frozen=True)
class Batch:
    """Facts to forget with their new answers, facts to keep with their true ones, and text, as token ids."""

    forget: list[Example]
    retain: list[Example]
    texts: list[list[int]]


@objective("inject")
def inject(model: Model, batch: Batch, settings: EditSettings) -> dict[str, torch.Tensor]:
    """L = lambda1 CE(new answers) + lambda2 CE(answers to keep) + lambda3 CE(text); the three weighted terms.

    Guo et al. 2025, section 2.3. Both fact losses are read from one forward, so their common prompt prefix is run
    once.
    """
    losses = answer_losses(model, [*batch.forget, *batch.retain])
    return {
        "inject": settings.inject_weight * losses[: len(batch.forget)].mean(),
        "retain": settings.retain_weight * losses[len(batch.forget) :].mean(),
        "text": settings.text_weight * text_losses(model, batch.texts).mean(),
    }
