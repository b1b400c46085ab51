"""Representation misdirection: hidden states of facts to forget are steered away, all others held in place.

rmu         the objective
residuals   hidden states behind a layer
"""

from collections.abc import Sequence

import torch
from torch.nn.functional import mse_loss, normalize

from mechunlearn.config import EditSettings
from mechunlearn.edit.objectives import Batch, Loss, remembered
from mechunlearn.errors import ConfigError
from mechunlearn.models.interventions import patch, skip
from mechunlearn.models.model import Model
from mechunlearn.models.scoring import common_prefix, pad
from mechunlearn.registry import objective


@objective("rmu")
def rmu(model: Model, drawn: Batch, settings: EditSettings, seed: int) -> Loss:
    """L = lambda1 |h - c u|^2 (forget) + alpha (lambda2 |h - h_base|^2 (facts to keep) + lambda3 the same (text)).

    Li et al. 2024 (WMDP, arXiv 2403.03218), section 4: h are the hidden states behind `edit.rmu.layer`, squares are
    means over tokens and dimensions, u is a unit vector drawn uniformly from the positive orthant, as in their code.
    Lengths are in units of the base model's own hidden states of the facts to forget (root mean square), since those
    of models differ a thousandfold; Dang et al. 2024 (arXiv 2408.06223) scale c likewise.

    Of facts only the tokens behind what all prompts begin with are taken, of text all behind BOS: that beginning is
    the same for facts to forget and to keep. Raises ConfigError where nothing up to the layer is trained.
    """
    rules, layer = settings.rmu, _layer(model, settings.rmu.layer)
    start = common_prefix([ids for ids, _ in [*drawn.forget, *drawn.retain]])
    begin = len(model.begin())

    def base(sequences: list[tuple[int, ...]], start: int) -> dict[tuple[int, ...], torch.Tensor]:
        return remembered(sequences, lambda part: residuals(model, layer, part, start), settings.batch)

    facts, texts = base([ids for ids, _ in drawn.retain], start), base(drawn.texts, begin)
    unit = torch.cat([*base([ids for ids, _ in drawn.forget], start).values()]).square().mean()
    direction = torch.rand(model.width, generator=torch.Generator().manual_seed(seed)).to(unit.device)
    target = rules.steering * (unit * model.width).sqrt() * normalize(direction, dim=0)

    def loss(batch: Batch) -> dict[str, torch.Tensor]:
        count, asked = len(batch.forget), [ids for ids, _ in [*batch.forget, *batch.retain]]
        states = residuals(model, layer, asked, start)
        steered, held = torch.cat(states[:count]), torch.cat(states[count:])
        text = torch.cat(residuals(model, layer, batch.texts, begin))
        moved = mse_loss(held, torch.cat([facts[ids] for ids in asked[count:]])) / unit
        moved_text = mse_loss(text, torch.cat([texts[ids] for ids in batch.texts])) / unit
        return {
            "forget": settings.forget_weight * mse_loss(steered, target.expand_as(steered)) / unit,
            "retain": settings.retain_weight * rules.alpha * moved,
            "text": settings.text_weight * rules.alpha * moved_text,
        }

    return loss


def residuals(model: Model, layer: int, sequences: Sequence[Sequence[int]], start: int) -> list[torch.Tensor]:
    """Hidden states behind a layer, from position `start` on: (tokens - start, d_model) a sequence, float32.

    Differentiable; the layers above are not run.
    """
    seen: list[torch.Tensor] = []

    def see(hidden: torch.Tensor) -> torch.Tensor:
        seen.append(hidden)
        return hidden

    inputs, lengths = pad(sequences, model.device)
    above = range(layer + 1, model.layout.layers)
    with skip(model, above), patch(model, {model.layout.module(layer): see}):
        model.network.base_model(input_ids=inputs, use_cache=False)
    return [row[start:length].float() for row, length in zip(seen[0], lengths.tolist(), strict=True)]


def _layer(model: Model, wanted: int | None) -> int:
    """The layer to steer behind. Raises ConfigError."""
    trained = [
        each.layer
        for each in model.layout.all("attention", "mlp")
        if any(model.network.get_parameter(name).requires_grad for name in model.layout.tensors(each))
    ]
    layer = max(trained) if wanted is None else wanted
    if not min(trained) <= layer < model.layout.layers:
        raise ConfigError(
            f"edit.rmu.layer is {wanted}: this localization trains layers {min(trained)} to {max(trained)} of a model "
            f"with layers 0 to {model.layout.layers - 1}; a layer from {min(trained)} on can be steered."
        )
    return layer
