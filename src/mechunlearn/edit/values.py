"""The values that closed forms write: what a part must put out at a subject's last token for the new answer.

goals   facts -> what modules shall put out, all facts in one batch
"""

import logging
from collections.abc import Callable, Sequence

import torch

from mechunlearn.config import ClosedFormSettings
from mechunlearn.edit.keys import Split, at_subjects, batches, begin, finish, split
from mechunlearn.errors import DivergenceError
from mechunlearn.facts import Fact
from mechunlearn.facts.completion import ask
from mechunlearn.models.interventions import capture, patch
from mechunlearn.models.model import Model
from mechunlearn.models.scoring import unembed

log = logging.getLogger(__name__)
ESSENCE = " is a"  # the papers' prompt for what a subject is, besides the fact
DONE = 0.05  # nats; the papers stop at this loss


def goals(
    model: Model,
    modules: Sequence[str],
    facts: Sequence[Fact],
    asked: Sequence[Sequence[Split]],
    settings: ClosedFormSettings,
) -> tuple[list[torch.Tensor], list[dict[str, float]]]:
    """What modules shall put out at the subjects' last tokens, v + d: (facts, d_model) for each; and the losses.

    A change d is added in every context, and the goal is a mean over contexts. For each fact,
    with f its new answer, x its prompt in each context and p = "subject is a":

        L(d) = mean_x -log P_d(f | x) + kl_weight KL(P_d(. | p) || P(. | p)) + decay |d| / |v|^2

    where v is what the module puts out in the mean over contexts (Meng et al. 2022, equation 4, with the authors'
    weight decay). Adam, then d is cut to |d| <= clamp |v|. A fact stops at a loss of 0.05. Facts are independent, so
    they are optimised together; with several modules their changes are found jointly, each as things are after those
    below it.

    Raises DivergenceError where a loss is not finite.
    """
    essences = [split(model, ask(fact, "", ESSENCE)) for fact in facts]
    answers = torch.tensor([model.option(f" {fact.new_answer}") for fact in facts], device=model.device)
    together = [[*prompts, essence] for prompts, essence in zip(asked, essences, strict=True)]
    sizes = [values.norm(dim=-1) for values in at_subjects(model, [(name, "output") for name in modules], asked)]
    wanted: list[list[torch.Tensor]] = [[] for _ in modules]
    histories, start = [], 0
    for group in batches(together):
        part = slice(start, start + len(group))
        found, history = _batch(model, modules, group, answers[part], [size[part] for size in sizes], settings)
        histories.append((len(group), history))
        for whole, goal in zip(wanted, found, strict=True):
            whole.append(goal)
        start += len(group)
    return [torch.cat(goal) for goal in wanted], _mean(histories)


def _batch(
    model: Model,
    modules: Sequence[str],
    facts: Sequence[Sequence[Split]],
    answers: torch.Tensor,
    sizes: Sequence[torch.Tensor],
    settings: ClosedFormSettings,
) -> tuple[list[torch.Tensor], list[dict[str, float]]]:
    prompts = [prompt for fact in facts for prompt in fact]
    heads, rows = begin(model, prompts), len(facts[0])
    shape = (len(facts), model.width)
    changes = [torch.zeros(shape, device=size.device, requires_grad=True) for size in sizes]
    # Adam's step has the size of its rate, so a rate in units of the values' own size fits every layer and model.
    scales = [size[:, None] / model.width**0.5 for size in sizes]
    optimizer = torch.optim.Adam(changes, lr=settings.learning_rate)

    def add(change: torch.Tensor, scale: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        def changed(output: torch.Tensor) -> torch.Tensor:
            more = (change * scale).repeat_interleave(rows, 0).to(output)
            return torch.cat([output[:, :1] + more[:, None], output[:, 1:]], 1)

        return changed

    hooks = {name: add(*both) for name, both in zip(modules, zip(changes, scales, strict=True), strict=True)}

    def terms() -> dict[str, torch.Tensor]:
        with patch(model, hooks):
            hidden = finish(model, prompts, heads)
        now = unembed(model, hidden).log_softmax(-1).unflatten(0, (len(facts), rows))
        answer = answers[:, None, None].to(now.device).expand(-1, rows - 1, 1)
        return {
            "answer": -now[:, :-1].gather(-1, answer).mean((1, 2)),
            "essence": (now[:, -1].exp() * (now[:, -1] - before)).sum(-1),
        }

    with torch.no_grad():
        hidden = finish(model, prompts, heads).unflatten(0, (len(facts), rows))[:, -1]
        before = unembed(model, hidden).log_softmax(-1)

    history: list[dict[str, float]] = []
    done = torch.zeros(len(facts), dtype=torch.bool)
    for step in range(settings.steps + 1):
        found = terms()
        losses = found["answer"] + settings.kl_weight * found["essence"]
        for change, scale, size in zip(changes, scales, sizes, strict=True):
            losses = losses + (settings.decay * (change * scale).norm(dim=-1) / size**2).to(losses.device)
        if not losses.isfinite().all():
            raise DivergenceError(
                f"optimising values: a loss became {losses.sum().item()} at step {step} with learning_rate "
                f"{settings.learning_rate:g}; try a lower one."
            )
        means = {name: term.mean().item() for name, term in found.items()}
        history.append({"step": step, "loss": losses.mean().item(), **means})
        done |= (losses < DONE).cpu()
        if step == settings.steps or done.all():
            break
        kept = [change.detach().clone() for change in changes]
        losses.sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            for change, old in zip(changes, kept, strict=True):
                limit = settings.clamp * model.width**0.5  # of |d| / |v| = clamp, in the change's units
                change *= limit / change.norm(dim=-1, keepdim=True).clamp(min=limit)
                change[done.to(change.device)] = old[done.to(change.device)]
    log.info("values of %d facts: loss %.3f -> %.3f", len(facts), history[0]["loss"], history[-1]["loss"])
    with torch.no_grad(), patch(model, hooks), capture(model, [(name, "output") for name in modules]) as seen:
        finish(model, prompts, heads)
    outputs = (seen[name, "output"][:, 0].float().unflatten(0, (len(facts), rows)) for name in modules)
    return [output[:, :-1].mean(1) for output in outputs], history


def _mean(histories: Sequence[tuple[int, list[dict[str, float]]]]) -> list[dict[str, float]]:
    """Mean losses a step over batches of facts; a batch that stopped early stays at its last losses."""
    total, longest = sum(count for count, _ in histories), max(len(history) for _, history in histories)
    rows = []
    for step in range(longest):
        at = [(count, history[min(step, len(history) - 1)]) for count, history in histories]
        rows.append({name: sum(count * row[name] for count, row in at) / total for name in at[0][1]} | {"step": step})
    return rows
