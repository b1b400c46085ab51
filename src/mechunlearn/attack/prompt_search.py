"""Prompt search: does the best of several ways of asking, chosen on some forgotten facts, bring back others?

prompt_search   measurement rows through the way of asking that was chosen on the other half
best            the way of asking with the highest accuracy on some facts

Choosing and testing on the same facts would make any edit look weaker the more ways of asking there are, by luck
alone.
"""

import logging
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from mechunlearn import registry
from mechunlearn.config import PromptSearchSettings, unknown
from mechunlearn.errors import ConfigError
from mechunlearn.facts import GONE, Fact
from mechunlearn.facts.roles import halves
from mechunlearn.facts.text import Passage
from mechunlearn.models.model import Model
from mechunlearn.models.scoring import score
from mechunlearn.progress import track
from mechunlearn.registry import attack
from mechunlearn.registry import load as method

log = logging.getLogger(__name__)
Rows = list[dict[str, Any]]


@attack("prompt-search")
def prompt_search(
    model: Model, facts: Sequence[Fact], passages: Sequence[Passage], settings: PromptSearchSettings, seed: int
) -> Rows:
    """Measurement rows of each half of the forget set, asked in the format that was best on the other half.

    Stage `prompt-search`, elicitation `best-prompt`. The maintain-test facts are asked in the format chosen on the
    first half. Raises ConfigError for no format or an unknown one, FactError where a fact cannot be
    asked in one.
    """
    names = candidates(settings)
    forget = [fact for fact in facts if fact.role in GONE]
    found = {name: asked(model, forget, name) for name in track(names, f"searching prompts, seed {seed}")}
    rows: Rows = []
    for number, (chosen_on, tested) in enumerate(halves(forget, settings.split, seed)):
        shares = {name: accuracy(of_name, {fact.id for fact in chosen_on}) for name, of_name in found.items()}
        name = best(shares)
        log.info("half %s chose %s, seed %s: %s", number + 1, name, seed, _listing(shares))
        ids = {fact.id for fact in tested}
        rows += [row for row in found[name] if row["fact"] in ids]
        if number == 0:
            rows += asked(model, [fact for fact in facts if fact.role == "maintain-test"], name)
    place = {"seed": seed, "stage": "prompt-search", "elicitation": "best-prompt"}
    return [{**row, **place} for row in rows]


def candidates(settings: PromptSearchSettings) -> list[str]:
    """The formats to choose among, each once, in the order given. Raises ConfigError."""
    names, known = list(dict.fromkeys(settings.elicitations)), sorted(registry.methods("elicitation"))
    for name in names:
        if name not in known:
            raise ConfigError(f"prompt_search.elicitations: {unknown(name, known)}")
    if not names:
        raise ConfigError(
            f"prompt_search.elicitations is [], which leaves nothing to ask; allowed: {', '.join(known)}."
        )
    return names


def asked(model: Model, facts: Sequence[Fact], name: str) -> Rows:
    """One scored row a fact and order, with its role."""
    ask, roles = method("elicitation", name), {fact.id: fact.role for fact in facts}
    rows = score(model, [prompt for fact in facts for prompt in ask(fact)])
    return [{**row, "role": roles[row["fact"]]} for row in rows]


def accuracy(rows: Rows, facts: set[str]) -> float:
    """P(true answer) among the options, averaged over each fact's orders, then over those of the facts that have rows.

    0 where none has: some formats ask some facts only.
    """
    shares: dict[str, list[float]] = {}
    for row in rows:
        if row["fact"] in facts:
            shares.setdefault(row["fact"], []).append(row["p_true"] / row["p_options"] if row["p_options"] else 0.0)
    return fmean(map(fmean, shares.values())) if shares else 0.0


def best(shares: Mapping[str, float]) -> str:
    """The format of the highest accuracy; of equals the first."""
    return max(shares, key=lambda name: shares[name])


def _listing(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {share:.3f}" for name, share in shares.items())
