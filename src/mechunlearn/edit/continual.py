"""Continual training on biographies: the models before surgery, and the ones that surgery is measured against.

READ          the streams that each kind of model reads (Veldanda et al. 2024, section 4)
continue_on   train everything on them; returns the trained tensors and what it took
"""

import logging
import math
import random
from collections.abc import Sequence
from typing import Any

from mechunlearn.artifacts import Component, Selection
from mechunlearn.config import BiographySettings
from mechunlearn.edit.train import trainable
from mechunlearn.facts.biographies import Biography
from mechunlearn.facts.text import Passage
from mechunlearn.models.checkpoint import NOWHERE, Checkpoints, Training
from mechunlearn.models.model import Model
from mechunlearn.models.training import descend, draw, passages_ids, text_losses

log = logging.getLogger(__name__)
READ = {
    "pre": ("problematic", "obsolete", "retain", "kept"),
    "baseline": ("update", "retain", "kept"),
}


def continue_on(
    model: Model,
    texts: Sequence[Biography],
    passages: Sequence[Passage],
    kind: str,
    settings: BiographySettings,
    checkpoints: Checkpoints = NOWHERE,
) -> tuple[list[str], dict[str, Any]]:
    """Train every attention block and MLP on the texts of a kind of model, and on general passages beside them.

    Plain causal language modelling over whole texts, `settings.epochs` shuffled passes. Returns the names of the
    trained tensors and {tokens, seconds, steps, losses}: tokens are those of the texts, passes counted.
    """
    streams = READ[kind]
    read = [tuple(model.encode(text.text)) for text in texts if text.stream in streams]
    read += passages_ids(model, passages[: settings.texts], settings.text_tokens)
    steps = math.ceil(settings.epochs * len(read) / settings.batch)
    take = draw(read, random.Random(f"continual-{kind}-{settings.seed}"))
    batches = [take(settings.batch) for _ in range(steps)]
    tokens = sum(len(ids) for batch in batches for ids in batch)
    training = Training(checkpoints.of(model, kind, texts, passages, settings))
    upcoming = iter(batches[len(training.rows) :])
    everything = [Component(layer, part) for layer in range(model.layout.layers) for part in ("attention", "mlp")]
    with trainable(model, Selection("everything", everything, 0, 0, 0)) as parameters:
        losses = [
            row["loss"]
            for row in descend(
                parameters.values(),
                lambda: {"text": text_losses(model, next(upcoming)).mean()},
                steps=steps,
                learning_rate=settings.learning_rate,
                clip=1.0,
                model=model,
                what=f"training on {', '.join(streams)}",
                training=training,
            )
        ]
        seconds = training.seconds
        log.info("%d steps, %d tokens, %.0f s, loss %.2f -> %.2f", steps, tokens, seconds, losses[0], losses[-1])
        return list(parameters), {"tokens": tokens, "seconds": round(seconds, 1), "steps": steps, "losses": losses}
