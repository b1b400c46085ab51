"""The sets of facts that a task may name in the configuration.

SETS   name -> where its file lies, how it is read, and what an edit puts in an answer's place
read   a task's facts
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mechunlearn.config import TaskSettings
from mechunlearn.facts import Fact, biographies, counterfact, own, sports, upstream

NewAnswer = Callable[[Fact, random.Random], str]


@dataclass(frozen=True)
class FactSet:
    """A set of facts.

    file   its path in data/ and in the package's resources, or its name beside its model; a task's `path` if empty
    """

    file: str
    read: Callable[[str | Path], Sequence[Fact]]
    new_answer: NewAnswer


def _given(otherwise: NewAnswer) -> NewAnswer:
    """The new answer that a fact brings along; where it has none, another."""
    return lambda fact, rng: fact.new_answer or otherwise(fact, rng)


SETS = {
    "sports": FactSet("sports/athletes.csv", sports.read, sports.wrong_sport),
    "counterfact": FactSet("counterfact/facts.csv", counterfact.read, counterfact.other_answer),
    "planted": FactSet("facts.csv", sports.read, sports.wrong_sport),
    "biographies": FactSet("questions.jsonl", biographies.read, lambda fact, rng: ""),
    "own": FactSet("", own.read, _given(counterfact.other_answer)),
    "sports-upstream": FactSet("", upstream.read_sports, _given(sports.wrong_sport)),
    "counterfact-upstream": FactSet("", upstream.read_counterfact, _given(counterfact.other_answer)),
}


def read(task: TaskSettings, path: str | Path) -> Sequence[Fact]:
    """A task's facts from the file at `path`. Raises FactError."""
    if task.choices:
        return upstream.read_counterfact(path, task.choices)
    return SETS[task.facts].read(path)
