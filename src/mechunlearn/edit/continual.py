"""Continual training on biographies: the models before surgery, and the ones that surgery is measured against.

READ          the streams that each kind of model reads (Veldanda et al. 2024, section 4)
continue_on   train everything on them; returns the trained tensors and what it took
"""

import logging
import math
import random
import time
from collections.abc import Sequence
from typing import Any

import torch

from mechunlearn.artifacts import Component, Selection
from mechunlearn.config import BiographySettings
from mechunlearn.edit.train import trainable
from mechunlearn.facts.biographies import Biography
from mechunlearn.facts.text import Passage
from mechunlearn.models.model import Model
from mechunlearn.models.training import descend, draw, passages_ids, text_losses

log = logging.getLogger(__name__)
READ = {
    "pre": ("problematic", "obsolete", "retain", "kept"),
    "baseline": ("update", "retain", "kept"),
}


def continue_on(
    model: Model, texts: Sequence[Biography], passages: Sequence[Passage], kind: str, settings: BiographySettings
) -> tuple[list[str], dict[str, Any]]:
    """Train every attention block and MLP on the texts of a kind of model, and on general passages beside them.

    Plain causal language modelling over whole texts, `settings.epochs` shuffled passes. Returns the names of the
    trained tensors and {tokens, seconds, steps, losses}: tokens are those of the texts, passes counted.
    """
    streams = READ[kind]
    read = [tuple(model.encode(text.text)) for text in texts if text.stream in streams]
    read += passages_ids(model, passages[: settings.texts], settings.text_tokens)
    steps = math.ceil(settings.epochs * len(read) / settings.batch)
    take, tokens = draw(read, random.Random(f"continual-{kind}-{settings.seed}")), 0

    def terms() -> dict[str, torch.Tensor]:
        nonlocal tokens
        batch = take(settings.batch)
        tokens += sum(map(len, batch))
        return {"text": text_losses(model, batch).mean()}

    everything = [Component(layer, part) for layer in range(model.layout.layers) for part in ("attention", "mlp")]
    begin = time.perf_counter()
    with trainable(model, Selection("everything", everything, 0, 0, 0)) as parameters:
        losses = [
            row["loss"]
            for row in descend(
                parameters.values(),
                terms,
                steps=steps,
                learning_rate=settings.learning_rate,
                clip=1.0,
                model=model,
                what=f"training on {', '.join(streams)}",
            )
        ]
        seconds = time.perf_counter() - begin
        log.info("%d steps, %d tokens, %.0f s, loss %.2f -> %.2f", steps, tokens, seconds, losses[0], losses[-1])
        return list(parameters), {"tokens": tokens, "seconds": round(seconds, 1), "steps": steps, "losses": losses}
