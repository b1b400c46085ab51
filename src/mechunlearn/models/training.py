"""What every training of facts shares: edits and attacks alike.

answer_losses   cross-entropy of answers after their prompts
examples        facts and passages as token ids, handed out in shuffled passes
descend         the loop: AdamW, cosine to zero, clipping
"""

import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import torch

from mechunlearn.errors import DivergenceError
from mechunlearn.facts import Fact
from mechunlearn.facts.text import Passage
from mechunlearn.models.attention import grouped
from mechunlearn.models.cross_entropy import cross_entropy
from mechunlearn.models.model import Model
from mechunlearn.models.scoring import last_hidden
from mechunlearn.progress import track
from mechunlearn.registry import load as method

Item = TypeVar("Item")
Example = tuple[tuple[int, ...], int]


def answer_losses(model: Model, examples: Sequence[Example], soft: torch.Tensor | None = None) -> torch.Tensor:
    """Cross-entropy of each answer after its prompt: (examples,), nats. Differentiable.

    soft   vectors that stand in every prompt between BOS and the rest, as `run_prefix` takes them.
    """
    hidden = last_hidden(model, [ids for ids, _ in examples], soft)
    return cross_entropy(model, hidden, torch.tensor([answer for _, answer in examples]))


def example(model: Model, fact: Fact, answer: str) -> Example:
    """(token ids of the training prompt, token of the answer)."""
    prompt = method("elicitation", "completion")(fact)[0]
    return tuple(model.encode(prompt.text)), model.option(f" {answer}")


def passages_ids(model: Model, passages: Sequence[Passage], tokens: int) -> list[tuple[int, ...]]:
    """The first tokens of each passage."""
    return [tuple(model.encode(passage.text)[:tokens]) for passage in passages]


def draw(items: Sequence[Item], rng: random.Random) -> Callable[[int], list[Item]]:
    """A function that hands out so many items, in shuffled passes over all of them. Raises ValueError for none."""
    if not items:
        raise ValueError("there is nothing to draw from")
    queue: list[Item] = []

    def take(count: int) -> list[Item]:
        while len(queue) < count:
            queue.extend(rng.sample(items, len(items)))
        taken, queue[:] = queue[:count], queue[count:]
        return taken

    return take


def descend(
    parameters: Iterable[torch.nn.Parameter],
    terms: Callable[[], dict[str, torch.Tensor]],
    *,
    steps: int,
    learning_rate: float,
    clip: float,
    model: Model,
    what: str,
) -> Iterator[dict[str, float]]:
    """Take so many steps down the sum of `terms()`; after each, yield its number and the losses before it.

    AdamW without weight decay, cosine schedule to zero without warm-up (paper A.6), gradient norm clipped; parameters
    in float32. Raises DivergenceError at a loss or gradient that is not finite.
    """
    parameters = list(parameters)
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    for step in track(range(1, steps + 1), what):
        with model.autocast(), grouped(model):
            losses = terms()
        loss = torch.stack(list(losses.values())).sum()
        if not math.isfinite(loss.item()):
            raise DivergenceError(
                f"{what}: the loss became {loss.item()} at step {step} of {steps} with learning_rate "
                f"{learning_rate:g}; try a lower one."
            )
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, clip)
        if not math.isfinite(norm.item()):
            raise DivergenceError(
                f"{what}: the gradient became {norm.item()} at step {step} of {steps} with learning_rate "
                f"{learning_rate:g}; try a lower one."
            )
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        yield {"step": step, "loss": loss.item()} | {name: term.item() for name, term in losses.items()}
