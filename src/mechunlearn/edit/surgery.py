"""LLM Surgery: ascend on what must go, descend on what replaces it, stay where the rest is (Veldanda et al. 2024).

surgery               the published objective
surgery-npo           the same, what must go bounded by negative preference optimization
surgery-reverse-kl    the same with the divergence as the paper prints it
surgery-no-ascent, surgery-no-update, surgery-no-retain   without one of its terms (weight 0)
"""

from collections.abc import Sequence

import torch
from torch.nn.functional import softplus

from mechunlearn.config import EditSettings, SurgerySettings
from mechunlearn.edit.objectives import Batch, Loss, Text, remembered
from mechunlearn.models.cross_entropy import cross_entropy
from mechunlearn.models.divergence import divergences
from mechunlearn.models.model import Model
from mechunlearn.models.packing import text_states
from mechunlearn.registry import objective

TEXTS = 16  # of which the base model's states are computed at once


@objective("surgery")
def surgery(model: Model, drawn: Batch, settings: EditSettings, seed: int) -> Loss:
    """L = -w1 CE(problematic) - w2 CE(obsolete) + w3 CE(update) + w4 KL(P_base || P) (retain); the weighted terms.

    Veldanda et al. 2024 (arXiv 2409.13054), equation 1 with the weights and the direction of the divergence of their
    code. CE is a text's mean cross-entropy a token; the divergence is over the full vocabulary, averaged over the
    tokens of what is retained, biographies and general text, and never over padding. The base model's final hidden
    states there are remembered, and unembedded when needed: the unembedding is never trained, so no second model has to
    be kept. Facts without biographies are texts of which the answer alone counts (Batch.read).
    """
    return _surgery(model, drawn, settings.surgery)


@objective("surgery-npo")
def surgery_npo(model: Model, drawn: Batch, settings: EditSettings, seed: int) -> Loss:
    """As `surgery`, but -CE becomes (2 / beta) softplus(beta (CE_base - CE)), which is bounded below.

    Negative preference optimization (Zhang et al. 2024, arXiv 2404.05868, equation 3) by a text's mean
    log-probability a token; at the base model its gradient is that of the ascent, whatever beta is.
    """
    return _surgery(model, drawn, settings.surgery.model_copy(update={"unlearn": "npo"}))


@objective("surgery-reverse-kl")
def surgery_reverse_kl(model: Model, drawn: Batch, settings: EditSettings, seed: int) -> Loss:
    """As `surgery` with KL(P || P_base), as the paper prints it."""
    return _surgery(model, drawn, settings.surgery.model_copy(update={"divergence": "reverse"}))


@objective("surgery-no-ascent")
def surgery_no_ascent(model: Model, drawn: Batch, settings: EditSettings, seed: int) -> Loss:
    """As `surgery` without unlearning: the update and the divergence alone (the paper's ablation)."""
    return _surgery(model, drawn, settings.surgery.model_copy(update={"unlearn_weight": 0.0, "obsolete_weight": 0.0}))


@objective("surgery-no-update")
def surgery_no_update(model: Model, drawn: Batch, settings: EditSettings, seed: int) -> Loss:
    """As `surgery` without the update."""
    return _surgery(model, drawn, settings.surgery.model_copy(update={"update_weight": 0.0}))


@objective("surgery-no-retain")
def surgery_no_retain(model: Model, drawn: Batch, settings: EditSettings, seed: int) -> Loss:
    """As `surgery` without the divergence."""
    return _surgery(model, drawn, settings.surgery.model_copy(update={"retain_weight": 0.0}))


def _surgery(model: Model, drawn: Batch, rules: SurgerySettings) -> Loss:
    weights = {
        "problematic": rules.unlearn_weight,
        "obsolete": rules.obsolete_weight,
        "update": rules.update_weight,
        "retain": rules.retain_weight,
    }
    unlearn = ("problematic", "obsolete")
    kept = [text for text in drawn.read() if text.stream == "retain" and rules.retain_weight]
    gone = [text for text in drawn.read() if text.stream in unlearn and weights[text.stream] and rules.unlearn == "npo"]
    kept_states = remembered(kept, lambda part: [states.clone() for states in _states(model, part)], TEXTS)
    base = remembered(gone, lambda part: _cross_entropies(model, part, _states(model, part)), TEXTS)

    def loss(batch: Batch) -> dict[str, torch.Tensor]:
        texts = [text for text in batch.read() if weights[text.stream]]
        hidden = dict(zip(texts, _states(model, texts), strict=True))
        terms = {}
        for stream in dict.fromkeys(text.stream for text in texts):
            own = [text for text in texts if text.stream == stream]
            if stream == "retain":
                before, after = (torch.cat([each[text] for text in own]) for each in (kept_states, hidden))
                sides = (before, after) if rules.divergence == "forward" else (after, before)
                value = divergences(model, *sides)
            else:
                value = _cross_entropies(model, own, [hidden[text] for text in own])
                if stream in unlearn and rules.unlearn == "npo":
                    reference = torch.stack([base[text] for text in own])
                    value = 2 / rules.beta * softplus(rules.beta * (reference - value))
                elif stream in unlearn:
                    value = -value
            terms[stream] = weights[stream] * value.mean()
        return terms

    return loss


def _states(model: Model, texts: Sequence[Text]) -> list[torch.Tensor]:
    """What predicts the tokens of each text that count: (tokens, d_model) each. Differentiable."""
    found = text_states(model, [text.ids for text in texts])
    return [states[text.start - 1 :] for text, states in zip(texts, found, strict=True)]


def _cross_entropies(model: Model, texts: Sequence[Text], hidden: Sequence[torch.Tensor]) -> torch.Tensor:
    """Each text's mean cross-entropy a token, in nats: (texts,). Differentiable."""
    targets = torch.tensor([token for text in texts for token in text.ids[text.start :]])
    losses = cross_entropy(model, torch.cat(list(hidden)), targets)
    return torch.stack([part.mean() for part in losses.split([len(states) for states in hidden])])
