"""Measuring a model: one row per elicitation, order and fact, and one per text passage.

measure   all elicitations and texts of a model at one stage
screen    which facts the base model knows
"""

from collections.abc import Sequence
from typing import Any

from mechunlearn.facts import Fact
from mechunlearn.facts.text import Passage
from mechunlearn.models.model import Model
from mechunlearn.models.scoring import score, text_nll
from mechunlearn.progress import track
from mechunlearn.registry import load as method


def measure(
    model: Model,
    facts: Sequence[Fact],
    passages: Sequence[Passage],
    elicitations: Sequence[str],
    stage: str,
    seed: int,
) -> list[dict[str, Any]]:
    """Measurement rows of a model (see artifacts.MEASUREMENT_COLUMNS)."""
    roles = {fact.id: fact.role for fact in facts}
    rows: list[dict[str, Any]] = []
    for name in track(elicitations, f"measuring {stage}, seed {seed}"):
        ask = method("elicitation", name)
        for row in score(model, [prompt for fact in facts for prompt in ask(fact)]):
            rows.append({**row, "seed": seed, "stage": stage, "elicitation": name, "role": roles[row["fact"]]})
    nothing = {"order": 0, "rank": 0, "choice": "", "argmax": ""}
    for passage, nll in zip(passages, text_nll(model, passages) if passages else [], strict=True):
        place = {"seed": seed, "stage": stage, "elicitation": "text", "role": "text", "fact": passage.id}
        rows.append({**nothing, **place, "nll": nll})
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
