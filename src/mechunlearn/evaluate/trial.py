"""What a sweep's trial is judged by: facts in every format, and how much of plain text is guessed.

trial           measurement rows of a model; those of text say how often the next token comes first
text_accuracy   the same shares alone
"""

from collections.abc import Sequence
from typing import Any

import torch

from mechunlearn.evaluate.measure import measure
from mechunlearn.facts import Fact
from mechunlearn.facts.text import Passage
from mechunlearn.models.model import Model
from mechunlearn.models.scoring import text_hidden, unembed


def trial(
    model: Model, facts: Sequence[Fact], passages: Sequence[Passage], elicitations: Sequence[str], stage: str, seed: int
) -> list[dict[str, Any]]:
    """Measurement rows of a model (see artifacts.MEASUREMENT_COLUMNS), with the column `accuracy` for text."""
    hidden = text_hidden(model, passages)
    found = dict(zip((each.id for each in passages), text_accuracy(model, passages, hidden), strict=True))
    rows = measure(model, facts, passages, elicitations, stage, seed, hidden)
    return [{**row, "accuracy": found[row["fact"]]} if row["role"] == "text" else row for row in rows]


@torch.no_grad()
def text_accuracy(model: Model, passages: Sequence[Passage], hidden: Sequence[torch.Tensor]) -> list[float]:
    """The share of each passage's tokens that the model finds likeliest of all, from what `text_hidden` gave.

    What the paper calls accuracy on the Pile (Guo et al. 2025, A.6).
    """
    shares = []
    for passage, states in zip(passages, hidden, strict=True):
        following = torch.tensor(model.encode(passage.text)[1:])
        shares.append(float((unembed(model, states).argmax(-1).cpu() == following).float().mean()))
    return shares
