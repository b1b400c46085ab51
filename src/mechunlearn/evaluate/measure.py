"""Measuring a model: one row per elicitation, order and fact, and one per text passage.

measure   all elicitations and texts of a model at one stage
screen    which facts the base model knows
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from mechunlearn.facts import Fact
from mechunlearn.facts.roles import neighbors
from mechunlearn.facts.text import Passage
from mechunlearn.facts.upstream import distinct
from mechunlearn.models.model import Model
from mechunlearn.models.scoring import score, text_hidden, text_scores
from mechunlearn.progress import track
from mechunlearn.registry import load as method


def measure(
    model: Model,
    facts: Sequence[Fact],
    passages: Sequence[Passage],
    elicitations: Sequence[str],
    stage: str,
    seed: int,
    hidden: Sequence[torch.Tensor] | None = None,
    base: Sequence[torch.Tensor] | None = None,
) -> list[dict[str, Any]]:
    """Measurement rows of a model (see artifacts.MEASUREMENT_COLUMNS).

    Neighbors of the forget facts (see facts.roles) are asked in the training prompt only; of their options that begin
    with the same token as another, the answer they borrow stays. `base` is what `text_hidden` gave before the edit;
    without it no KL divergence is measured. `hidden` is what it gives now, where that is known.
    """
    rows: list[dict[str, Any]] = []
    for name in track(elicitations, f"measuring {stage}, seed {seed}"):
        ask = method("elicitation", name)
        prompts = [(prompt, fact.role) for fact in facts if fact.role != "neighbor" for prompt in ask(fact)]
        times = Counter[tuple[str, str]]()
        for fact in distinct(neighbors(facts), model.option) if name == "completion" else ():
            prompts.append((replace(ask(fact)[0], order=times[fact.id, fact.role]), fact.role))
            times[fact.id, fact.role] += 1
        for row, (_, role) in zip(score(model, [prompt for prompt, _ in prompts]), prompts, strict=True):
            rows.append({**row, "seed": seed, "stage": stage, "elicitation": name, "role": role})
    hidden, nothing = hidden or text_hidden(model, passages), {"order": 0, "rank": 0, "choice": "", "argmax": ""}
    for passage, nll, kl in zip(passages, *text_scores(model, passages, hidden, base), strict=True):
        place = {"seed": seed, "stage": stage, "elicitation": "text", "role": "text", "fact": passage.id}
        rows.append({**nothing, **place, "nll": nll, "kl": kl})
    return rows


def screen(model: Model, facts: Sequence[Fact], threshold: float) -> tuple[list[bool], list[float], list[int]]:
    """(known, P(answer), rank) of every fact through the training prompt; known: first, and above the threshold."""
    ask = method("elicitation", "completion")
    rows = score(model, [ask(fact)[0] for fact in facts])
    return (
        [row["rank"] == 1 and row["p_true"] > threshold for row in rows],
        [row["p_true"] for row in rows],
        [row["rank"] for row in rows],
    )
