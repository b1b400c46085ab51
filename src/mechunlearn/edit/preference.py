"""Objectives that treat the true answer as the one not preferred.

npo      it shall be less likely than by the base model
simnpo   it shall be unlikely, whatever the base model says
dpo      the new answer is preferred
idk      a refusal is trained in its place
idk-dpo  a refusal is preferred
"""

from itertools import cycle

import torch

from mechunlearn.config import EditSettings
from mechunlearn.edit.objectives import Batch, Loss, beside_kept, remembered
from mechunlearn.models.model import Model
from mechunlearn.models.training import Example, answer_losses
from mechunlearn.registry import objective


@objective("npo")
def npo(model: Model, drawn: Batch, settings: EditSettings, seed: int) -> Loss:
    """L = -lambda1 (2 / beta) mean log sigmoid(-beta log(p / p_base)) + the two terms that keep the rest.

    Zhang et al. 2024 (arXiv 2404.05868), equation 3, with retain terms as in their section 4. As beta goes to 0 its
    gradient becomes that of gradient ascent.
    """
    beta, base = settings.npo.beta, base_losses(model, drawn.forget, settings)

    def loss(batch: Batch) -> dict[str, torch.Tensor]:
        losses, kept = beside_kept(model, batch.forget, batch, settings)
        ratios = of(base, batch.forget) - losses
        return {"forget": settings.forget_weight * negative(-beta * ratios, beta), **kept}

    return loss


@objective("simnpo")
def simnpo(model: Model, drawn: Batch, settings: EditSettings, seed: int) -> Loss:
    """L = -lambda1 (2 / beta) mean log sigmoid(-(beta / |y|) log p - gamma) + the two terms that keep the rest.

    Fan et al. 2024 (arXiv 2410.07163), equation 4, with the log-probability of the answer y; |y| is 1 here.
    """
    beta, gamma = settings.simnpo.beta, settings.simnpo.gamma

    def loss(batch: Batch) -> dict[str, torch.Tensor]:
        losses, kept = beside_kept(model, batch.forget, batch, settings)
        return {"forget": settings.forget_weight * negative(beta * losses - gamma, beta), **kept}

    return loss


@objective("dpo")
def dpo(model: Model, drawn: Batch, settings: EditSettings, seed: int) -> Loss:
    """L = -lambda1 mean log sigmoid(beta (log(n / n_base) - log(p / p_base))) + the two terms that keep the rest.

    n is the new answer's probability, p the true one's. Rafailov et al. 2023 (arXiv 2305.18290), equation 7; for
    unlearning Zhang et al. 2024, section 2. It is log 2 at the base model.
    """
    base = base_losses(model, [*drawn.new, *drawn.forget], settings)

    def loss(batch: Batch) -> dict[str, torch.Tensor]:
        count = len(batch.new)
        losses, kept = beside_kept(model, [*batch.new, *batch.forget], batch, settings)
        gained = of(base, batch.new) - losses[:count]
        lost = of(base, batch.forget) - losses[count:]
        return {"forget": settings.forget_weight * preferred(gained - lost, settings.dpo.beta), **kept}

    return loss


@objective("idk")
def idk(model: Model, drawn: Batch, settings: EditSettings, seed: int) -> Loss:
    """L = lambda1 CE(refusals) + the two terms that keep the rest; a refusal's tokens are trained one by one.

    Maini et al. 2024 (TOFU, arXiv 2401.06121), section 4 ("preference optimization"). Each fact keeps its refusal.
    """
    wanted = refusals(model, drawn.forget, settings)

    def loss(batch: Batch) -> dict[str, torch.Tensor]:
        examples = [each for fact in batch.forget for each in wanted[fact]]
        losses, kept = beside_kept(model, examples, batch, settings)
        return {"forget": settings.forget_weight * losses.mean(), **kept}

    return loss


@objective("idk-dpo")
def idk_dpo(model: Model, drawn: Batch, settings: EditSettings, seed: int) -> Loss:
    """L = -lambda1 mean log sigmoid(beta (log(r / r_base) - log(p / p_base))) + the two terms that keep the rest.

    r is the probability of a whole refusal, p the true answer's: `dpo` with the refusals of `idk` (Zhang et al. 2024,
    arXiv 2404.05868, section 2). It is log 2 at the base model.
    """
    wanted = refusals(model, drawn.forget, settings)
    base = base_losses(model, [*(each for tokens in wanted.values() for each in tokens), *drawn.forget], settings)

    def loss(batch: Batch) -> dict[str, torch.Tensor]:
        tokens = [each for fact in batch.forget for each in wanted[fact]]
        losses, kept = beside_kept(model, [*tokens, *batch.forget], batch, settings)
        gained = (of(base, tokens) - losses[: len(tokens)]).split([len(wanted[fact]) for fact in batch.forget])
        lost = of(base, batch.forget) - losses[len(tokens) :]
        margins = torch.stack([each.sum() for each in gained]) - lost
        return {"forget": settings.forget_weight * preferred(margins, settings.idk.beta), **kept}

    return loss


def refusals(model: Model, facts: list[Example], settings: EditSettings) -> dict[Example, list[Example]]:
    """Of each fact its refusal, token by token: they take turns at `idk.answers`."""
    texts = [model.tokenizer(f" {text}", add_special_tokens=False).input_ids for text in settings.idk.answers]
    return {
        fact: [((*fact[0], *refusal[:place]), token) for place, token in enumerate(refusal)]
        for fact, refusal in zip(facts, cycle(texts), strict=False)
    }


def preferred(margins: torch.Tensor, beta: float) -> torch.Tensor:
    """-mean log sigmoid(beta margin) of log-probabilities that were gained by one answer and not by the other."""
    return -torch.nn.functional.logsigmoid(beta * margins).mean()


def base_losses(model: Model, examples: list[Example], settings: EditSettings) -> dict[Example, torch.Tensor]:
    """Example -> the cross-entropy of its answer by the model as it is now."""
    return remembered(examples, lambda part: answer_losses(model, part), settings.batch)


def of(base: dict[Example, torch.Tensor], examples: list[Example]) -> torch.Tensor:
    """What was remembered of examples: (examples,)."""
    return torch.stack([base[each] for each in examples])


def negative(rewards: torch.Tensor, beta: float) -> torch.Tensor:
    """-(2 / beta) mean log sigmoid of rewards of being less likely."""
    return -2 / beta * torch.nn.functional.logsigmoid(rewards).mean()
