"""Pairs of a clean prompt and one that asks about something else, and what both are compared by.

pairs              facts -> pairs of equal length, with the tokens of their answers
normalised         effects in units of what the corruption costs
logit_difference   the metric: the answer's logit minus the mean logit of the other options
Node, nodes        every activation that attribution and activation patching score
"""

import logging
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd
import torch

from mechunlearn.errors import FactError
from mechunlearn.facts import Fact
from mechunlearn.models.components import Inventory
from mechunlearn.models.interventions import Part
from mechunlearn.models.model import Model
from mechunlearn.models.scoring import token_logits
from mechunlearn.registry import load as method

log = logging.getLogger(__name__)
COLUMNS = ["fact", "layer", "kind", "head", "position", "effect"]


@dataclass(frozen=True)
class Pair:
    """One fact asked twice: `clean` and `corrupt` are token ids that differ only at the subject's positions.

    tokens   the answer's token, then those of the other options
    """

    fact: str
    clean: list[int]
    corrupt: list[int]
    subject: list[int]
    tokens: list[int]


@dataclass(frozen=True)
class Node:
    """One activation: what a module takes in or puts out, or a head's columns of it."""

    layer: int
    kind: str
    head: int
    part: Part
    columns: tuple[int, int] | None


def pairs(model: Model, facts: Sequence[Fact], corruption: str, seed: int) -> list[Pair]:
    """Facts with a corrupted prompt of the same length.

    corruption   `tokens`: random words of ASCII letters, one token each, in the subject's place (Guo et al. 2025);
                 `swap`: the subject of another fact that has as many tokens and another answer

    Raises FactError where an answer cannot be told from the other options, or no fact has a partner to swap with.
    """
    ask, rng = method("elicitation", "completion"), random.Random(f"corruption-{seed}")
    asked = []
    for fact in facts:
        prompt = ask(fact)[0]
        true = model.option(prompt.options[prompt.true])
        others = [token for option in prompt.options if (token := model.option(option)) != true]
        if not others:
            raise FactError(f"all options of {fact.id!r} begin with the same token in this model's vocabulary.")
        asked.append((fact, *model.locate(prompt), [true, *dict.fromkeys(others)]))
    words = _words(model, rng) if corruption == "tokens" else None
    found = []
    for fact, clean, subject, tokens in asked:
        if words is not None:
            replaced = [next(words) for _ in subject]
        else:
            partners = [
                [ids[place] for place in places]
                for other, ids, places, options in asked
                if len(places) == len(subject) and options[0] != tokens[0] and other.relation == fact.relation
            ]
            if not partners:
                log.warning("%s: no other subject has %d tokens and another answer; left out", fact.id, len(subject))
                continue
            replaced = rng.choice(partners)
        corrupt = list(clean)
        for place, token in zip(subject, replaced, strict=True):
            corrupt[place] = token
        found.append(Pair(fact.id, clean, corrupt, subject, tokens))
    if not found:
        raise FactError(
            "localize.attribution.corruption is swap, but no two facts have subjects of equal length and different "
            "answers; `tokens` needs no partners."
        )
    return found


def _words(model: Model, rng: random.Random) -> Iterator[int]:
    """Random tokens that are nothing but ASCII letters, with or without a leading space."""
    while True:
        token = rng.randrange(len(model.tokenizer))
        text = model.tokenizer.convert_ids_to_tokens(token).lstrip("\u2581\u0120")
        if text.isascii() and text.isalpha():
            yield token


def logit_difference(model: Model, hidden: torch.Tensor, tokens: Sequence[int]) -> torch.Tensor:
    """The answer's logit minus the mean logit of the other options: (..., d_model) -> (...). Differentiable."""
    logits = token_logits(model, hidden, tokens)
    return logits[..., 0] - logits[..., 1:].mean(-1)


def normalised(scores: pd.DataFrame, lost: Sequence[float]) -> pd.DataFrame:
    """Effects as shares of what the corruption costs on average. Raises FactError where it costs nothing."""
    cost = sum(lost) / len(lost)
    if cost <= 0:
        raise FactError(
            f"corrupting the subjects of {len(lost)} facts does not make the model worse at their answers (mean change "
            f"{-cost:+.3f}): it does not read these answers off these subjects, so there is nothing to localize."
        )
    return scores.assign(effect=scores.effect / cost)


def nodes(layout: Inventory) -> list[Node]:
    """q, k, v and the mixed values of every head (`head`: what o makes of them), what MLPs take in and put out.

    A head's result is linear in its mixed values, so both have the same attribution, and patching one is patching
    the other. Where queries and keys are normed over all heads together (OLMo 2), those of one head move the others.
    """
    found = []
    for layer in range(layout.layers):
        for kind, side in [("q", "output"), ("k", "output"), ("v", "output"), ("head", "input")]:
            part = (layout.module(layer, "o" if kind == "head" else kind), side)
            found += [Node(layer, kind, head, part, place) for head, place in enumerate(layout.columns(kind))]
        found += [
            Node(layer, kind, -1, (layout.module(layer, "mlp"), side), None)
            for kind, side in [("mlp-in", "input"), ("mlp", "output")]
        ]
    return found
