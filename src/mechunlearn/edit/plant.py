"""Planting facts where we choose: the ground truth by which localizers can be judged.

plant   train fictitious facts into one layer's MLP until the model knows every one of them
"""

import logging
import random
from collections.abc import Sequence

import torch

from mechunlearn.artifacts import Component, Selection
from mechunlearn.config import PlantSettings
from mechunlearn.edit.train import trainable
from mechunlearn.errors import ConfigError, DivergenceError
from mechunlearn.facts import Fact
from mechunlearn.facts.text import Passage
from mechunlearn.models.model import Model
from mechunlearn.models.training import descend, draw, example, losses, passages_ids

log = logging.getLogger(__name__)


def plant(
    model: Model, facts: Sequence[Fact], passages: Sequence[Passage], layer: int, settings: PlantSettings, seed: int
) -> list[str]:
    """Train the MLP of one layer, and nothing else, until every fact's answer has more than `settings.probability`.

    All facts and some text a step; the learning rate falls along a cosine over `settings.steps`. Returns the names
    of the trained tensors. Raises ConfigError for a layer that the model does not have and DivergenceError where the
    facts are not learned in so many steps.
    """
    if layer not in range(model.layout.layers):
        raise ConfigError(
            f"models: {layer} is no layer to plant facts in; the model has layers 0 to {model.layout.layers - 1}."
        )
    selection = Selection(f"mlp {layer}", [Component(layer, "mlp")], 0, 0, 0)
    examples = [example(model, fact, fact.answer) for fact in facts]
    texts = draw(passages_ids(model, passages, settings.text_tokens), random.Random(f"plant-{seed}"))
    weakest = 0.0

    def terms() -> dict[str, torch.Tensor]:
        nonlocal weakest
        answers, read = losses(model, examples, texts(settings.texts))
        weakest = float((-answers.detach().max()).exp())
        return {"facts": answers.mean(), "text": read.mean()}

    with trainable(model, selection) as parameters:
        for each in descend(
            parameters.values(),
            terms,
            steps=settings.steps,
            learning_rate=settings.learning_rate,
            clip=1.0,
            model=model,
            what=f"planting in layer {layer}",
        ):
            if weakest > settings.probability:
                log.info("every fact has P > %.2f after %d steps", settings.probability, each["step"])
                return list(parameters)
    raise DivergenceError(
        f"planting in layer {layer}: after {settings.steps} steps the weakest fact has P = {weakest:.2f}, not more "
        f"than planting.probability {settings.probability:g}; give it more steps or another learning_rate."
    )
