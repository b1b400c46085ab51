"""What an objective is: (model, everything that will be drawn, settings, seed) -> the loss of a batch.

Text         token ids of a stream, and which of them a loss counts
Batch        what one step sees; the same for everything that an edit will see
Loss         batch -> its weighted terms, whose sum is descended
every        batches -> all that they hold, each item once
remembered   what the untouched model gives for each item, computed once
beside_kept  losses of answers, and the two terms that keep everything else

An objective is called once, on the untouched model (of groups edited in turn, the one before the group), and returns
its Loss. What it needs of the base model (log-probabilities, hidden states) is remembered there, so that no second
model has to be kept.
A Loss follows from its batch and the model alone: where a killed edit goes on, it is not asked of earlier batches.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from itertools import chain
from typing import NamedTuple, TypeVar

import torch

from mechunlearn.config import EditSettings
from mechunlearn.models.model import Model
from mechunlearn.models.training import Example, losses

Item = TypeVar("Item", bound=Hashable)


class Text(NamedTuple):
    """A text as token ids, the stream that it belongs to, and the first token that is to be predicted."""

    stream: str
    ids: tuple[int, ...]
    start: int = 1


@dataclass(frozen=True)
class Batch:
    """Facts to forget with their true answers, the same with their new ones, facts to keep, and text, as token ids.

    biographies   texts of people in their streams (facts.biographies); none for other facts
    """

    forget: list[Example]
    new: list[Example]
    retain: list[Example]
    texts: list[tuple[int, ...]]
    biographies: list[Text] = field(default_factory=list)

    def read(self) -> list[Text]:
        """Texts by their streams, general text as part of what is retained.

        Without biographies facts are the texts, of which the answer alone is to be predicted: true ones to be forgotten
        are `obsolete`, new ones `update`.
        """
        facts = {"obsolete": self.forget, "update": self.new, "retain": self.retain}
        told = self.biographies or [
            Text(stream, (*ids, answer), len(ids)) for stream, examples in facts.items() for ids, answer in examples
        ]
        return [*told, *(Text("retain", ids) for ids in self.texts)]


Loss = Callable[[Batch], dict[str, torch.Tensor]]


def every(batches: Sequence[Batch]) -> Batch:
    """All that batches hold, each item once, in the order of their first appearance."""
    parts = (chain.from_iterable(getattr(batch, each.name) for batch in batches) for each in fields(Batch))
    return Batch(*(list(dict.fromkeys(part)) for part in parts))


@torch.no_grad()
def remembered(
    items: Sequence[Item], compute: Callable[[Sequence[Item]], Iterable[torch.Tensor]], count: int
) -> dict[Item, torch.Tensor]:
    """Item -> what the model gives for it as it is now, `count` items at a time."""
    parts = [items[start : start + count] for start in range(0, len(items), count)]
    return {item: found for part in parts for item, found in zip(part, compute(part), strict=True)}


def beside_kept(
    model: Model, examples: Sequence[Example], batch: Batch, settings: EditSettings
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """(cross-entropy of each example's answer, the weighted cross-entropies of facts and text to keep).

    Everything is read from one forward, so the prompts' common prefix is run once.
    """
    answers, texts = losses(model, [*examples, *batch.retain], batch.texts)
    return answers[: len(examples)], {
        "retain": settings.retain_weight * answers[len(examples) :].mean(),
        "text": settings.text_weight * texts.mean(),
    }
