"""Soft prompts: do vectors before the question, trained on some forgotten facts, bring back others? (paper A.8)

soft_prompt   measurement rows through the vectors, before and after their training
train         the vectors of one half, before and after
embeddings    what a network's embedding module puts out for random tokens

The paper's text appends vectors to the prompt, its code adds the output of a cross-attention block to all embeddings;
ours stand in front (Lester et al. 2021), so that the prompt itself ends as it always does.
"""

import random
from collections.abc import Sequence
from typing import Any

import torch

from mechunlearn.config import SoftPromptSettings
from mechunlearn.facts import GONE, Fact
from mechunlearn.facts.roles import beside, halves
from mechunlearn.facts.text import Passage
from mechunlearn.models.model import Model
from mechunlearn.models.scoring import score
from mechunlearn.models.training import Example, answer_losses, descend, draw, example
from mechunlearn.registry import attack
from mechunlearn.registry import load as method


@attack("soft-prompt")
def soft_prompt(
    model: Model, facts: Sequence[Fact], passages: Sequence[Passage], settings: SoftPromptSettings, seed: int
) -> list[dict[str, Any]]:
    """Measurement rows of the facts the vectors never saw; stages `soft-prompt@0` and `soft-prompt@STEPS`.

    `settings.tokens` vectors between BOS and the training prompt are trained on the true answers of half of the
    forget set and of maintain-train facts, both with weight 1; the model stays as it is. Measured are the other half
    of the forget set, the maintain-test facts, and, under the role `attack-train`, the half trained on: whether the
    attack itself works. At step 0 the vectors are embeddings of random tokens. With `both_halves` the attack runs
    twice with the halves swapped.
    """
    ask = method("elicitation", "completion")
    forget = [fact for fact in facts if fact.role in GONE]
    rows: list[dict[str, Any]] = []
    for number, (seen, unseen) in enumerate(halves(forget, settings.split, seed)[: 1 + settings.both_halves]):
        # The kept facts are measured in the first run only, so that each stands there once a stage.
        kept = [fact for fact in facts if fact.role == "maintain-test"] if number == 0 else []
        measured = [*unseen, *kept, *(fact.with_role("attack-train", fact.new_answer) for fact in seen)]
        true = [example(model, fact, fact.answer) for fact in seen]
        retain = [example(model, fact, fact.answer) for fact in beside(facts, unseen, settings.split)]
        rng = random.Random(f"soft-prompt-{seed}-{number}")
        ends = train(model, true, retain, settings, rng, f"soft prompt, half {number + 1}, seed {seed}")
        for step, vectors in zip((0, settings.steps), ends, strict=True):
            place = {"seed": seed, "stage": f"soft-prompt@{step}", "elicitation": "completion"}
            found = score(model, [ask(fact)[0] for fact in measured], vectors)
            rows += [{**row, **place, "role": fact.role} for row, fact in zip(found, measured, strict=True)]
    return rows


def train(
    model: Model,
    true: Sequence[Example],
    retain: Sequence[Example],
    settings: SoftPromptSettings,
    rng: random.Random,
    what: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(vectors before training, after it): (tokens, d_model) each, float32. Raises DivergenceError.

    AdamW moves every number by about the learning rate, but embeddings are hundreds of times larger in one family
    than in another, so what is trained are the vectors in units of their own initial root mean square.
    """
    start = embeddings(model, settings.tokens, rng)
    unit = start.square().mean().sqrt()
    scaled = torch.nn.Parameter(start / unit)
    draw_true, draw_retain = draw(true, rng), draw(retain, rng)

    def terms() -> dict[str, torch.Tensor]:
        examples = [*draw_true(settings.batch), *draw_retain(settings.batch)]
        losses = answer_losses(model, examples, unit * scaled)
        return {"attack": losses[: settings.batch].mean(), "retain": losses[settings.batch :].mean()}

    for _ in descend(
        [scaled],
        terms,
        steps=settings.steps,
        learning_rate=settings.learning_rate,
        clip=1.0,
        model=model,
        what=what,
    ):
        pass
    return start, unit * scaled.detach()


@torch.no_grad()
def embeddings(model: Model, tokens: int, rng: random.Random) -> torch.Tensor:
    """What the network's embedding module puts out for random tokens of the vocabulary: (tokens, d_model), float32."""
    module, special = model.network.get_input_embeddings(), set(model.tokenizer.all_special_ids)
    words = [word for word in range(len(model.tokenizer)) if word not in special]
    drawn: torch.Tensor = module(torch.tensor(rng.choices(words, k=tokens), device=model.device))
    return drawn.float()
