"""Which formats say anything about a model: those that it can use before any edit. Torch-free.

gates    how often the base model's first guess is right, by format
usable   the formats that reach the gate
"""

from collections.abc import Sequence

import pandas as pd

from mechunlearn.facts import KNOWN


def gates(base: pd.DataFrame) -> dict[str, float]:
    """From the base model's rows: how often the true answer is the likeliest of all tokens, by elicitation.

    Of free generation: how often a sampled text mentions it.
    """
    asked = base[(base["rank"] > 0) & base.role.isin(KNOWN)]
    facts = (asked["rank"] == 1).groupby(asked.elicitation).mean()
    return {str(name): float(value) for name, value in facts.items()}


def usable(base: pd.DataFrame, elicitations: Sequence[str], gate: float) -> list[str]:
    """The formats through which the base model reaches the gate; the training prompt always."""
    reached = gates(base)
    return [name for name in elicitations if name == "completion" or reached.get(name, 0.0) >= gate]
