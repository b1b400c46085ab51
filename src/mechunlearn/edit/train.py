"""Training an edit: only the selected components move.

Recipe     all that an edit is made of, but for the model
train      an edited model in place, and the history of its losses
trainable  makes the selected components trainable, in float32, heads and part of an MLP by gradient masks
check      have the losses fallen?
"""

import logging
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from mechunlearn.artifacts import Selection
from mechunlearn.config import EditSettings
from mechunlearn.config.edit import Optimizer
from mechunlearn.edit.objectives import Batch, Loss, Text, every
from mechunlearn.errors import DivergenceError
from mechunlearn.facts import Fact, trained
from mechunlearn.facts.biographies import Biography
from mechunlearn.facts.text import Passage
from mechunlearn.models.checkpoint import NOWHERE, Training
from mechunlearn.models.frozen import frozen
from mechunlearn.models.masks import region
from mechunlearn.models.model import Model
from mechunlearn.models.training import computing, descend, draw, example, passages_ids
from mechunlearn.registry import load as method
from mechunlearn.registry import methods

log = logging.getLogger(__name__)
STREAMS = ("problematic", "obsolete", "update", "retain")  # of biographies, what an edit may see


@dataclass(frozen=True)
class Recipe:
    """What an edit is made of: facts by their roles, text, what it may train, and how.

    objective     the name of an objective or of a closed form
    seed          or the name of a group's own random numbers
    biographies   texts of people; none for other facts
    """

    facts: Sequence[Fact]
    passages: Sequence[Passage]
    selection: Selection
    objective: str
    settings: EditSettings
    seed: int | str
    biographies: Sequence[Biography] = ()


def train(model: Model, recipe: Recipe, training: Training | None = None) -> tuple[list[str], list[dict[str, float]]]:
    """Train the selected components in place, or write them in closed form.

    Returns the names of the changed tensors and the losses after 0, 1, 2 ... steps.

    The last row of the history is the first batch again, so that first and last can be compared. Where there
    are biographies, it also says what the training took: `seconds`, and the `tokens` of the texts that it read.

    The trained weights are kept in float32 and go back to the model's own format afterwards. Raises DivergenceError
    where the loss stops being finite; where it ends is for `check`.

    training   how far a killed run of the same had come; closed forms are written anew
    """
    training = training or Training(NOWHERE.of(model))
    facts, selection, seed = recipe.facts, recipe.selection, recipe.seed
    number = seed if isinstance(seed, int) else random.Random(seed).getrandbits(63)
    if recipe.objective in methods("closed_form"):
        write = method("closed_form", recipe.objective)
        written: tuple[list[str], list[dict[str, float]]] = write(
            model, facts, recipe.passages, selection, recipe.settings, number
        )
        return written
    rng, own = random.Random(f"edit-{seed}"), trained(facts)
    settings = recipe.settings.for_facts(len(own))
    forget = draw([(example(model, fact, fact.answer), example(model, fact, fact.new_answer)) for fact in own], rng)
    retain = draw([example(model, fact, fact.answer) for fact in facts if fact.role == "maintain-train"], rng)
    texts = draw(passages_ids(model, recipe.passages, settings.text_tokens), rng)

    told = {name: [text for text in recipe.biographies if text.stream == name] for name in STREAMS}
    streams = {
        name: draw([tuple(model.encode(text.text)) for text in found], rng) for name, found in told.items() if found
    }

    def batch() -> Batch:
        true, new = zip(*forget(min(settings.batch, len(own))), strict=True)
        people = [Text(stream, ids) for stream, take in streams.items() for ids in take(settings.surgery.batch)]
        return Batch(list(true), list(new), retain(settings.batch), texts(settings.texts), people)

    batches = [batch() for _ in range(settings.steps)]
    upcoming = iter(batches[len(training.rows) :])
    with trainable(model, selection, settings.optimizer) as parameters:
        with computing(model):
            loss: Loss = method("objective", recipe.objective)(model, every(batches), settings, number)
        history = [
            {**losses, "step": losses["step"] - 1}
            for losses in descend(
                parameters.values(),
                lambda: loss(next(upcoming)),
                steps=settings.steps,
                learning_rate=settings.learning_rate,
                clip=settings.clip,
                optimizer=settings.optimizer,
                model=model,
                what=f"editing {selection.localization}, seed {seed}",
                training=training,
            )
        ]
        with torch.no_grad(), computing(model):
            final = {name: term.item() for name, term in loss(batches[0]).items()}
        history.append({"step": settings.steps, "loss": sum(final.values()), **final})
        if recipe.biographies:
            read = [text for each in batches for text in each.read() if text.stream in final]
            tokens = sum(len(text.ids) for text in read)
            history[-1] |= {"seconds": round(training.seconds, 1), "tokens": tokens}
    return list(parameters), history


@contextmanager
def trainable(
    model: Model, selection: Selection, optimizer: Optimizer = "adamw"
) -> Iterator[dict[str, torch.nn.Parameter]]:
    """The selected components' parameters by name, in float32 with gradients; back in their own format afterwards.

    Of a head or of part of an MLP only its own rows and columns move: elsewhere the gradient is zero, and AdamW
    without weight decay then never moves a weight. With moments of 8 bits, which have no exact zero, it does, so that
    after each step these weights are put back.
    """
    named = dict(model.network.named_parameters())
    own = region(model.layout, selection.components)
    chosen = {name: named[name] for name in own}
    formats = {name: parameter.dtype for name, parameter in chosen.items()}
    handles = []
    for name, parameter in chosen.items():
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)
        if not own[name].all():
            mask = own[name].to(parameter.device)
            handles.append(parameter.register_hook(lambda gradient, mask=mask: gradient * mask))
            if optimizer == "adamw-8bit":
                put_back = partial(_put_back, parameter, mask, parameter.detach().clone())
                handles.append(register_optimizer_step_post_hook(put_back))
    try:
        with frozen(model, min(component.layer for component in selection.components)):
            yield chosen
    finally:
        for handle in handles:
            handle.remove()
        for name, parameter in chosen.items():
            parameter.requires_grad_(False)
            parameter.grad = None
            parameter.data = parameter.data.to(model.stored).to(formats[name])


def _put_back(parameter: torch.nn.Parameter, mask: torch.Tensor, before: torch.Tensor, *_: object) -> None:
    parameter.data = torch.where(mask, parameter.data, before)


def check(histories: Sequence[Sequence[dict[str, float]]], objective: str, settings: EditSettings) -> None:
    """Raise DivergenceError where the loss of the first batches, one a history, has not fallen by the end.

    Closed forms descend no loss of the model, so that there is nothing to check.
    """
    if objective in methods("closed_form"):
        return
    begin, end = (sum(history[place]["loss"] for history in histories) for place in (0, -1))
    steps = sum(int(history[-1]["step"]) for history in histories)
    log.info("loss of the first batch %.3f -> %.3f in %d steps", begin, end, steps)
    if not end <= begin:
        raise DivergenceError(
            f"the loss rose from {begin:.3f} to {end:.3f} in {steps} steps with edit.learning_rate "
            f"{settings.learning_rate:g}; try a lower one for this localization."
        )
