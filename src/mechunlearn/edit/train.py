"""Training an edit: only the selected components move.

edit       facts, passages and a selection -> an edited model in place, and the history of its losses
trainable  makes the selected components trainable, in float32, part of an MLP by its neurons
"""

import logging
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

from mechunlearn.artifacts import Selection
from mechunlearn.config import EditSettings
from mechunlearn.edit.objectives import Batch
from mechunlearn.errors import DivergenceError
from mechunlearn.facts import Fact
from mechunlearn.facts.text import Passage
from mechunlearn.models.loading import Model
from mechunlearn.models.training import descend, draw, example, passages_ids
from mechunlearn.registry import load as method

log = logging.getLogger(__name__)
EDGE = 5  # steps averaged at either end of the history


def edit(
    model: Model,
    facts: Sequence[Fact],
    passages: Sequence[Passage],
    selection: Selection,
    objective: str,
    settings: EditSettings,
    seed: int,
) -> tuple[list[str], list[dict[str, float]]]:
    """Train the selected components in place; returns their tensor names and the losses of every step.

    Compute runs in bfloat16 and the trained weights are kept in float32, on a GPU and a CPU alike; afterwards they
    go back to the model's own format. Raises DivergenceError where the loss stops being finite or ends above where
    it started.
    """
    loss_of, rng = method("objective", objective), random.Random(f"edit-{seed}")
    forget = draw([example(model, fact, fact.new_answer) for fact in facts if fact.role == "forget"], rng)
    retain = draw([example(model, fact, fact.answer) for fact in facts if fact.role == "maintain-train"], rng)
    texts = draw(passages_ids(model, passages, settings.text_tokens), rng)

    def terms() -> dict[str, torch.Tensor]:
        batch = Batch(forget(settings.batch), retain(settings.batch), texts(settings.texts))
        result: dict[str, torch.Tensor] = loss_of(model, batch, settings)
        return result

    with trainable(model, selection) as parameters:
        history = list(
            descend(
                parameters.values(),
                terms,
                steps=settings.steps,
                learning_rate=settings.learning_rate,
                clip=settings.clip,
                device=model.device,
                what=f"editing {selection.localization}, seed {seed}",
            )
        )
    _check(history, settings)
    return list(parameters), history


@contextmanager
def trainable(model: Model, selection: Selection) -> Iterator[dict[str, torch.nn.Parameter]]:
    """The selected components' parameters by name, in float32 with gradients; back in the model's format afterwards.

    Of a partly selected MLP the same neurons move in its three matrices: elsewhere the gradient is zero, and AdamW
    without weight decay then never moves a weight.
    """
    named = dict(model.network.named_parameters())
    chosen: dict[str, torch.nn.Parameter] = {}
    handles = []
    for component in selection.components:
        for name in model.layout.tensors(component):
            parameter = named[name]
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)
            chosen[name] = parameter
            if component.neurons is not None:
                handles.append(parameter.register_hook(_only(component.neurons, by_row="down_proj" not in name)))
    try:
        yield chosen
    finally:
        for handle in handles:
            handle.remove()
        for parameter in chosen.values():
            parameter.requires_grad_(False)
            parameter.grad = None
            parameter.data = parameter.data.to(getattr(torch, model.manifest.dtype))


def _only(neurons: int, by_row: bool) -> Callable[[torch.Tensor], torch.Tensor]:
    """A gradient hook that keeps the first neurons: rows of gate and up, columns of down."""

    def mask(gradient: torch.Tensor) -> torch.Tensor:
        gradient = gradient.clone()
        (gradient if by_row else gradient.T)[neurons:] = 0
        return gradient

    return mask


def _check(history: Sequence[dict[str, float]], settings: EditSettings) -> None:
    """Raise DivergenceError where the loss has ended above where it started (batches differ, hence the means)."""
    begin, end = (sum(row["loss"] for row in part) / len(part) for part in (history[:EDGE], history[-EDGE:]))
    log.info("loss %.3f -> %.3f in %d steps", begin, end, settings.steps)
    if len(history) >= 2 * EDGE and end > begin:
        raise DivergenceError(
            f"the loss rose from {begin:.3f} to {end:.3f} in {settings.steps} steps with edit.learning_rate "
            f"{settings.learning_rate:g}; try a lower one for this localization."
        )
