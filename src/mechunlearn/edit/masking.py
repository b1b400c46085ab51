"""Weight masking: how many weights of a localization must go for the facts to go? (paper 3.5, A.4)

learn   a mask between 0 and 1 for every weight of a selection
"""

import random
from collections.abc import Mapping, Sequence

import torch

from mechunlearn.artifacts import Selection
from mechunlearn.config import MaskingSettings
from mechunlearn.edit.train import trainable
from mechunlearn.errors import DivergenceError
from mechunlearn.facts import Fact, trained
from mechunlearn.facts.text import Passage
from mechunlearn.models.masks import Masks
from mechunlearn.models.model import Model
from mechunlearn.models.training import computing, draw, example, forgetting_losses, passages_ids
from mechunlearn.progress import track

MOMENTUM = 0.9


def learn(
    model: Model,
    facts: Sequence[Fact],
    passages: Sequence[Passage],
    selection: Selection,
    settings: MaskingSettings,
    seed: int,
) -> Masks:
    """A mask in [0, 1] for every weight of the selection, by tensor name; 1 everywhere outside it.

    Descends L = -log(1 - P(true)) of the facts to forget + retain_weight CE(facts to keep) + text_weight CE(text)
    + penalty * sum(1 - mask), each weight being mask * its value (paper, A.4). The penalty is on what is masked: the
    released code penalises what is kept, which masks weights that matter to nothing. Plain gradient descent with
    momentum, then the exact proximal step of the penalty: a mask that the facts do not hold down returns to 1.
    Raises DivergenceError at a loss that is not finite.
    """
    rng = random.Random(f"mask-{seed}")
    forget = draw([example(model, fact, fact.answer) for fact in trained(facts)], rng)
    retain = draw([example(model, fact, fact.answer) for fact in facts if fact.role == "maintain-train"], rng)
    texts = draw(passages_ids(model, passages, settings.text_tokens), rng)
    with trainable(model, selection) as parameters:
        whole = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        masks = {name: torch.ones_like(value) for name, value in whole.items()}
        speed = {name: torch.zeros_like(value) for name, value in whole.items()}
        for step in track(range(settings.steps), f"learning masks of {selection.localization}, seed {seed}"):
            with computing(model):
                drawn = forget(settings.batch), retain(settings.batch), texts(settings.texts)
                gone, _, kept, read = forgetting_losses(model, *drawn)
                loss = gone.mean() + settings.retain_weight * kept.mean() + settings.text_weight * read.mean()
            if not loss.isfinite():
                raise DivergenceError(
                    f"masking {selection.localization}: the loss became {loss.item()} at step {step + 1} with "
                    f"masking.learning_rate {settings.learning_rate:g}; try a lower one."
                )
            loss.backward()
            _descend(parameters, whole, masks, speed, settings)
        for name, parameter in parameters.items():
            parameter.data = whole[name]
    return masks


@torch.no_grad()
def _descend(
    parameters: Mapping[str, torch.nn.Parameter], whole: Masks, masks: Masks, speed: Masks, settings: MaskingSettings
) -> None:
    """One step of every mask, and the weights that follow from it."""
    for name, parameter in parameters.items():
        assert parameter.grad is not None
        speed[name].mul_(MOMENTUM).addcmul_(parameter.grad, whole[name])  # dL/dmask = dL/dweight * value
        masks[name].sub_(settings.learning_rate * speed[name])
        masks[name].add_(settings.learning_rate * settings.penalty).clamp_(0, 1)
        parameter.data = whole[name] * masks[name]
        parameter.grad = None
