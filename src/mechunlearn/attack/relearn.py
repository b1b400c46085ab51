"""Adversarial relearning: does training on some of the forgotten facts bring back the others? (paper 3.2, A.7.3)

relearn    by LoRA adapters on every linear layer, as published
finetune   by every attention and MLP weight
adapters   fresh LoRA adapters, inside a block
weights    the weights themselves, inside a block
"""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from mechunlearn.config import FinetuneSettings, RelearnSettings, RetrainSettings
from mechunlearn.facts import GONE, Fact
from mechunlearn.facts.roles import beside, halves
from mechunlearn.facts.text import Passage
from mechunlearn.models.model import Model
from mechunlearn.models.scoring import score
from mechunlearn.models.training import descend, draw, example, losses, passages_ids
from mechunlearn.registry import attack
from mechunlearn.registry import load as method

Trainable = Callable[[], AbstractContextManager[list[torch.nn.Parameter]]]


@attack("relearn")
def relearn(
    model: Model, facts: Sequence[Fact], passages: Sequence[Passage], settings: RelearnSettings, seed: int
) -> list[dict[str, Any]]:
    """Measurement rows of the facts the attack never saw, at each of `settings.steps`; stages `relearned@STEP`.

    LoRA on every linear layer is trained on the true answers of half of the forget set, of maintain-train facts and
    on text, all with weight 1. Measured through the training prompt are the other half of the forget set, the
    maintain-test facts, and, under the role `relearn-train`, the half trained on: whether the attack itself works.
    With `both_halves` the attack runs twice with the halves swapped.
    """
    return _train(model, facts, passages, settings, seed, "relearned", lambda: adapters(model, settings))


@attack("finetune")
def finetune(
    model: Model, facts: Sequence[Fact], passages: Sequence[Passage], settings: FinetuneSettings, seed: int
) -> list[dict[str, Any]]:
    """The same as `relearn`, but every attention and MLP weight is trained; stages `finetuned@STEP`."""
    return _train(model, facts, passages, settings, seed, "finetuned", lambda: weights(model))


def _train(
    model: Model,
    facts: Sequence[Fact],
    passages: Sequence[Passage],
    settings: RetrainSettings,
    seed: int,
    stage: str,
    trainable: Trainable,
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    forget = [fact for fact in facts if fact.role in GONE]
    for number, (seen, unseen) in enumerate(halves(forget, settings.split, seed)[: 1 + settings.both_halves]):
        # The kept facts are measured in the first run only, so that each stands there once a stage.
        kept = [fact for fact in facts if fact.role == "maintain-test"] if number == 0 else []
        trained = [fact.with_role("relearn-train", fact.new_answer) for fact in seen]
        rng = random.Random(f"relearn-{seed}-{number}")
        torch.manual_seed(rng.getrandbits(32))
        with trainable() as parameters:
            true = draw([example(model, fact, fact.answer) for fact in seen], rng)
            others = beside(facts, unseen, settings.split)
            keep = draw([example(model, fact, fact.answer) for fact in others], rng)
            texts = draw(passages_ids(model, passages, settings.text_tokens), rng)

            def terms(true: Any = true, keep: Any = keep, texts: Any = texts) -> dict[str, torch.Tensor]:
                asked = [*true(settings.batch), *keep(settings.batch)]
                answers, read = losses(model, asked, texts(settings.texts))
                return {
                    "relearn": answers[: settings.batch].mean(),
                    "retain": answers[settings.batch :].mean(),
                    "text": read.mean(),
                }

            history = descend(
                parameters,
                terms,
                steps=settings.steps[-1],
                learning_rate=settings.learning_rate,
                clip=1.0,
                model=model,
                what=f"{stage}, half {number + 1}, seed {seed}",
            )
            measured = [*unseen, *kept, *trained]
            rows += _measure(model, measured, f"{stage}@0", seed)
            for each in history:
                if each["step"] in settings.steps:
                    rows += _measure(model, measured, f"{stage}@{int(each['step'])}", seed)
    return rows


@contextmanager
def adapters(model: Model, settings: RelearnSettings) -> Iterator[list[torch.nn.Parameter]]:
    """Fresh LoRA adapters on every linear layer, by their parameters; gone again afterwards."""
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(model.network, config)
    adapted.train()
    try:
        yield [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    finally:
        adapted.unload()
        model.network.eval()


@contextmanager
def weights(model: Model) -> Iterator[list[torch.nn.Parameter]]:
    """Every attention and MLP weight, in float32 with gradients; as it was afterwards, bit for bit."""
    chosen = [model.network.get_parameter(name) for name in model.layout.shapes]
    before = [parameter.data for parameter in chosen]
    try:
        for parameter in chosen:
            parameter.data = parameter.data.to(torch.float32, copy=True)
            parameter.requires_grad_(True)
        yield chosen
    finally:
        for parameter, data in zip(chosen, before, strict=True):
            parameter.requires_grad_(False)
            parameter.grad = None
            parameter.data = data


def _measure(model: Model, facts: Sequence[Fact], stage: str, seed: int) -> list[dict[str, Any]]:
    """Rows through the training prompt, adapters on but dropout off."""
    ask, roles = method("elicitation", "completion"), {fact.id: fact.role for fact in facts}
    training = model.network.training
    model.network.eval()
    with model.autocast():
        rows = score(model, [ask(fact)[0] for fact in facts])
    model.network.train(training)
    place = {"seed": seed, "stage": stage, "elicitation": "completion"}
    return [{**row, **place, "role": roles[row["fact"]]} for row in rows]
