"""General text: what an edit must not change.

read    passages.jsonl -> passages
lines   and back
split   train passages for the edit's loss, held-out ones for measuring
"""

import json
import random
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from mechunlearn.errors import FactError
from mechunlearn.facts import read_text


@dataclass(frozen=True)
class Passage:
    """One paragraph, such as the package's encyclopedic prose."""

    id: str
    topic: str
    text: str


def read(path: str | Path) -> list[Passage]:
    """Passages in file order. Raises FactError naming the line and what is wrong with it."""
    passages: dict[str, Passage] = {}
    # Not splitlines: text may hold other breaks.
    for number, line in enumerate(read_text(path).removesuffix("\n").split("\n"), start=1):
        try:
            passage = Passage(**json.loads(line))
        except (json.JSONDecodeError, TypeError) as error:
            raise FactError(f"{path}, line {number}: needs an object with id, topic and text ({error}).") from None
        if passage.id in passages:
            raise FactError(f"{path}, line {number}: id {passage.id!r} stands there twice.")
        passages[passage.id] = passage
    return list(passages.values())


def lines(passages: Iterable[Passage]) -> str:
    """Passages in the format that `read` reads."""
    return "".join(json.dumps(asdict(passage), ensure_ascii=False) + "\n" for passage in passages)


def split(passages: list[Passage], held_out: int) -> tuple[list[Passage], list[Passage]]:
    """(train, held out), always the same draw. Raises FactError where nothing would be left to train on."""
    if held_out >= len(passages):
        raise FactError(f"evaluate.texts is {held_out}, but there are {len(passages)} passages, some for training.")
    shuffled = random.Random("text").sample(passages, len(passages))
    return shuffled[held_out:], shuffled[:held_out]
