"""General text: what an edit must not change.

read    data/text/passages.jsonl -> passages
split   train passages for the edit's loss, held-out ones for measuring
"""

import json
import random
from dataclasses import dataclass
from pathlib import Path

from mechunlearn.errors import FactError
from mechunlearn.facts import read_text


@dataclass(frozen=True)
class Passage:
    """One paragraph of encyclopedic prose."""

    id: str
    topic: str
    text: str


def read(path: str | Path) -> list[Passage]:
    """Passages in file order. Raises FactError naming the line and what is wrong with it."""
    passages: dict[str, Passage] = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        try:
            passage = Passage(**json.loads(line))
        except (json.JSONDecodeError, TypeError) as error:
            raise FactError(f"{path}, line {number}: needs an object with id, topic and text ({error}).") from None
        if passage.id in passages:
            raise FactError(f"{path}, line {number}: id {passage.id!r} stands there twice.")
        passages[passage.id] = passage
    return list(passages.values())


def split(passages: list[Passage], held_out: int) -> tuple[list[Passage], list[Passage]]:
    """(train, held out), always the same draw. Raises FactError where nothing would be left to train on."""
    if held_out >= len(passages):
        raise FactError(f"evaluate.texts is {held_out}, but there are {len(passages)} passages, some for training.")
    shuffled = random.Random("text").sample(passages, len(passages))
    return shuffled[held_out:], shuffled[:held_out]
