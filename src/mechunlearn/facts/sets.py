"""The sets of facts that a task may name in the configuration.

SETS   name -> where its file lies, how it is read, and what an edit puts in an answer's place
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mechunlearn.facts import Fact, counterfact, sports


@dataclass(frozen=True)
class FactSet:
    """A set of facts; `file` is its path in data/ and in the package's resources, or its name beside its model."""

    file: str
    read: Callable[[str | Path], Sequence[Fact]]
    new_answer: Callable[[Fact, random.Random], str]


SETS = {
    "sports": FactSet("sports/athletes.csv", sports.read, sports.wrong_sport),
    "counterfact": FactSet("counterfact/facts.csv", counterfact.read, counterfact.other_answer),
    "planted": FactSet("facts.csv", sports.read, sports.wrong_sport),
}
