"""The paper's own objectives.

inject   new answers in the true ones' place (section 2.3)
forget   true answers away, nothing in their place (appendix A.1)
"""

import torch

from mechunlearn.config import EditSettings
from mechunlearn.edit.objectives import Batch, Loss, beside_kept
from mechunlearn.models.model import Model
from mechunlearn.models.training import forgetting_losses
from mechunlearn.registry import objective


@objective("inject")
def inject(model: Model, drawn: Batch, settings: EditSettings, seed: int) -> Loss:
    """L = lambda1 CE(new answers) + lambda2 CE(answers to keep) + lambda3 CE(text).

    Guo et al. 2025, section 2.3.
    """

    def loss(batch: Batch) -> dict[str, torch.Tensor]:
        losses, kept = beside_kept(model, batch.new, batch, settings)
        return {"inject": settings.forget_weight * losses.mean(), **kept}

    return loss


@objective("forget")
def forget(model: Model, drawn: Batch, settings: EditSettings, seed: int) -> Loss:
    """L = -lambda1 mean log(1 - p(true answer)) + lambda2 CE(answers to keep) + lambda3 CE(text).

    Guo et al. 2025, appendix A.1, after Mazeika et al. 2024 (HarmBench). The paper prints log(1 - p) without the
    sign, which would raise p. A fact with log p below `edit.forget.cutoff` adds nothing and still counts in the mean,
    as in the released code.
    """

    def loss(batch: Batch) -> dict[str, torch.Tensor]:
        gone, certainty, kept, read = forgetting_losses(model, batch.forget, batch.retain, batch.texts)
        forgotten = certainty < settings.forget.cutoff
        return {
            "forget": settings.forget_weight * gone.masked_fill(forgotten, 0.0).mean(),
            "retain": settings.retain_weight * kept.mean(),
            "text": settings.text_weight * read.mean(),
        }

    return loss
