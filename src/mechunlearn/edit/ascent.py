"""Objectives that climb the loss of the true answers.

gradient-ascent          and nothing else
gradient-difference      beside descent on what is to be kept
gradient-difference-kl   the same, kept by its divergence from the base model
"""

from collections.abc import Sequence
from itertools import chain

import torch

from mechunlearn.config import EditSettings
from mechunlearn.edit.objectives import Batch, Loss, beside_kept, remembered
from mechunlearn.models.cross_entropy import cross_entropy
from mechunlearn.models.divergence import divergences
from mechunlearn.models.model import Model
from mechunlearn.models.packing import last_hidden, packed, text_states
from mechunlearn.models.training import Example, answer_losses
from mechunlearn.registry import objective


@objective("gradient-ascent")
def ascent(model: Model, drawn: Batch, settings: EditSettings, seed: int) -> Loss:
    """L = -lambda1 CE(true answers): unbounded, and nothing is kept on purpose.

    Jang et al. 2023 (arXiv 2210.01504), equation 1.
    """

    def loss(batch: Batch) -> dict[str, torch.Tensor]:
        return {"forget": -settings.forget_weight * answer_losses(model, batch.forget).mean()}

    return loss


@objective("gradient-difference")
def difference(model: Model, drawn: Batch, settings: EditSettings, seed: int) -> Loss:
    """L = -lambda1 CE(true answers) + lambda2 CE(answers to keep) + lambda3 CE(text).

    Liu et al. 2022 (arXiv 2203.12817); Maini et al. 2024 (TOFU, arXiv 2401.06121), section 4.
    """

    def loss(batch: Batch) -> dict[str, torch.Tensor]:
        losses, kept = beside_kept(model, batch.forget, batch, settings)
        return {"forget": -settings.forget_weight * losses.mean(), **kept}

    return loss


@objective("gradient-difference-kl")
def difference_kl(model: Model, drawn: Batch, settings: EditSettings, seed: int) -> Loss:
    """L = -lambda1 CE(true answers) + lambda2 KL(base || now) after prompts to keep + lambda3 KL(base || now) on text.

    Maini et al. 2024 (TOFU), section 4 ("KL minimization"): over the whole vocabulary, for facts at the answer, for
    text at every token. The unembedding is never trained, so the base model's final hidden states are all that is
    kept of it.
    """

    def asked(facts: Sequence[Example]) -> torch.Tensor:
        return last_hidden(model, [ids for ids, _ in facts])

    facts = remembered(drawn.retain, asked, settings.batch)
    texts = remembered(drawn.texts, lambda part: text_states(model, part), settings.texts)

    def loss(batch: Batch) -> dict[str, torch.Tensor]:
        examples = [*batch.forget, *batch.retain]
        hidden, paths = packed(model, [*(ids for ids, _ in examples), *(ids[:-1] for ids in batch.texts)])
        count, answers = len(batch.forget), torch.tensor([answer for _, answer in batch.forget])
        ends, read = [path[-1] for path in paths[: len(examples)]], list(chain(*paths[len(examples) :]))
        before = torch.stack([facts[fact] for fact in batch.retain])
        base = torch.cat([texts[text] for text in batch.texts])
        return {
            "forget": -settings.forget_weight * cross_entropy(model, hidden[ends[:count]], answers).mean(),
            "retain": settings.retain_weight * divergences(model, before, hidden[ends[count:]]).mean(),
            "text": settings.text_weight * divergences(model, base, hidden[read]).mean(),
        }

    return loss
