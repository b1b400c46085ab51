"""What every training of facts shares: edits and attacks alike.

losses              cross-entropy of answers after their prompts, and of texts
forgetting_losses   the same beside what is to go, exact for answers that are nearly certain
example             facts and passages as token ids, handed out in shuffled passes
computing           how losses are computed: number format, attention, what is kept for gradients
descend             the loop: AdamW, cosine to zero, clipping
"""

import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch

from mechunlearn.config.edit import Optimizer
from mechunlearn.errors import DivergenceError
from mechunlearn.facts import Fact
from mechunlearn.facts.text import Passage
from mechunlearn.models.attention import grouped
from mechunlearn.models.checkpoint import Training
from mechunlearn.models.cross_entropy import cross_entropy
from mechunlearn.models.model import Model
from mechunlearn.models.packing import packed
from mechunlearn.models.recompute import recomputed
from mechunlearn.models.scoring import unembed
from mechunlearn.progress import track
from mechunlearn.registry import load as method

Item = TypeVar("Item")
Example = tuple[tuple[int, ...], int]


def losses(
    model: Model, examples: Sequence[Example], texts: Sequence[Sequence[int]], soft: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropies of each answer after its prompt and, as means a token, of each text: (examples,), (texts,), nats.

    All of one forward. Differentiable.

    soft   vectors that stand in every sequence between BOS and the rest, as `packed` takes them.
    """
    hidden, following, rows = _due(model, examples, texts, soft)
    return _by_example(cross_entropy(model, hidden, following), rows)


def forgetting_losses(
    model: Model, gone: Sequence[Example], examples: Sequence[Example], texts: Sequence[Sequence[int]]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """-log(1 - p) and log p of answers that are to go: (gone,), (gone,); then `losses` of all others. One forward.

    Differentiable, but for log p. A model's most certain answers are those with which 1 - p is lost to rounding, so
    it is summed from the other words' logits.
    """
    hidden, following, rows = _due(model, [*gone, *examples], texts)
    count = len(gone)
    logits = unembed(model, hidden[:count])
    answers = following[:count, None].to(logits.device)
    certainty = logits.detach().log_softmax(1).gather(1, answers)[:, 0]
    each = cross_entropy(model, hidden[count:], following[count:])
    return -log_rest(logits, answers), certainty, *_by_example(each, [rows[0] - count, *rows[1:]])


def log_rest(logits: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
    """log(1 - p) of each row's answer: (rows, vocabulary), (rows, 1) -> (rows,). Exact where p is nearly 1."""
    rest = logits.scatter(1, answers, -torch.inf)
    return rest.logsumexp(1) - logits.logsumexp(1)


def _due(
    model: Model, examples: Sequence[Example], texts: Sequence[Sequence[int]], soft: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """Final hidden states before answers and before each token of texts, what follows, and how many are whose."""
    hidden, paths = packed(model, [*(ids for ids, _ in examples), *(ids[:-1] for ids in texts)], soft)
    asked, read = paths[: len(examples)], paths[len(examples) :]
    places = [*(path[-1] for path in asked), *(place for path in read for place in path)]
    following = [*(answer for _, answer in examples), *(token for ids in texts for token in ids[1:])]
    return hidden[places], torch.tensor(following), [len(asked), *map(len, read)]


def _by_example(each: torch.Tensor, rows: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses of tokens -> those of answers, and the mean of each text."""
    answers, *tokens = each.split(list(rows))
    return answers, torch.stack([token.mean() for token in tokens]) if tokens else each[:0]


def answer_losses(model: Model, examples: Sequence[Example], soft: torch.Tensor | None = None) -> torch.Tensor:
    """Cross-entropy of each answer after its prompt: (examples,), nats. Differentiable."""
    return losses(model, examples, [], soft)[0]


def text_losses(model: Model, texts: Sequence[Sequence[int]]) -> torch.Tensor:
    """Mean cross-entropy a token of each text: (texts,), nats. Differentiable."""
    return losses(model, [], texts)[1]


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


@contextmanager
def computing(model: Model) -> Iterator[None]:
    """Inside the block losses are computed as training does it on the model's device."""
    with model.autocast(), grouped(model), recomputed(model):
        yield


def descend(
    parameters: Iterable[torch.nn.Parameter],
    terms: Callable[[], dict[str, torch.Tensor]],
    *,
    steps: int,
    learning_rate: float,
    clip: float,
    model: Model,
    what: str,
    optimizer: Optimizer = "adamw",
    training: Training | None = None,
) -> Iterator[dict[str, float]]:
    """Take so many steps down the sum of `terms()`; after each, yield its number and the losses before it.

    AdamW, with moments in 32 or in 8 bits (Dettmers et al. 2022), without weight decay, cosine schedule to zero without
    warm-up (paper A.6), gradient norm clipped; parameters in float32. Raises DivergenceError at a loss or gradient that
    is not finite.

    training   where a killed run left off: its steps are not taken again, only their rows are yielded, and `terms()`
               must begin with the step after them
    """
    parameters = list(parameters)
    stepping = _optimizer(optimizer, parameters, learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(stepping, T_max=steps)
    taken = training.restore(parameters, stepping, schedule) if training else []
    yield from taken
    for step in track(range(len(taken) + 1, steps + 1), what):
        with computing(model):
            now = terms()
        loss = torch.stack(list(now.values())).sum()
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
        stepping.step()
        schedule.step()
        stepping.zero_grad(set_to_none=True)
        row = {"step": step, "loss": loss.item()} | {name: term.item() for name, term in now.items()}
        if training:
            training.step(row, parameters, stepping, schedule)
        yield row


def _optimizer(kind: Optimizer, parameters: Sequence[torch.nn.Parameter], rate: float) -> torch.optim.Optimizer:
    if kind == "adamw":
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0, fused=True)
    from bitsandbytes.optim import AdamW8bit  # slow to import

    return AdamW8bit(parameters, lr=rate, weight_decay=0.0)
