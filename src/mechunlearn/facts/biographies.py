"""Fictitious people with biographies: a benchmark in the shape of LLM Surgery's (Veldanda et al. 2024), our own text.

people        so many people with ten attributes each; those of the obsolete half have a second, updated set
biographies   their texts, each in several wordings
questions     ten questions a text with three options each, in wordings that no text has
write, read_texts, read_questions, read   texts and questions as JSONL, and as facts
unit         what a fact's measurements stand for: of a question about a person, the person
quiz-validation, quiz-test   the elicitations that ask the questions, half of a text's each

Streams, and the roles of their facts: `problematic` is to be forgotten, `obsolete` to be forgotten for `update`,
`retain` helps to keep, `kept` is only measured. With invented people a model that has not read a stream knows
nothing of it; the paper's Wikipedia biographies were known to every model.
"""

import json
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from mechunlearn.config import BiographySettings
from mechunlearn.errors import FactError
from mechunlearn.facts import Fact, Prompt, read_text
from mechunlearn.facts.attributes import ATTRIBUTES
from mechunlearn.facts.planted import FIRST, LAST
from mechunlearn.registry import elicitation

ROLES = {
    "problematic": "forget",
    "obsolete": "obsolete",
    "update": "update",
    "retain": "maintain-train",
    "kept": "maintain-test",
}
UNLEARN, REPLACED = ("problematic", "obsolete"), "update"
DISTRACTORS = 2
ABOUT = re.compile(rf"(.+) / [^/]+ / (?:{'|'.join(ROLES)}) / (?:validation|test)")  # a question's id
Row = TypeVar("Row")


@dataclass(frozen=True)
class Person:
    """Someone invented. `updated` replaces every attribute, or is empty."""

    name: str
    pronoun: str
    stream: str
    attributes: dict[str, str]
    updated: dict[str, str]


@dataclass(frozen=True)
class Biography:
    """One text about a person, in one of several wordings."""

    person: str
    stream: str
    wording: int
    text: str


@dataclass(frozen=True)
class Question:
    """A question with three options in alphabetical order, asked for validation or for testing."""

    person: str
    stream: str
    attribute: str
    split: str
    question: str
    options: tuple[str, ...]
    answer: str


def people(settings: BiographySettings) -> list[Person]:
    """Everyone, stream by stream; names, attributes and updates are drawn by `settings.seed`.

    No two of up to 44 people share a first name. Raises ValueError where there are fewer names than people.
    """
    counts = {name: getattr(settings, name) for name in ("problematic", "obsolete", "retain", "kept")}
    first, last = FIRST.split(), LAST.split()
    if sum(counts.values()) > len(first) * len(last):
        raise ValueError(f"{sum(counts.values())} people are asked for; there are {len(first) * len(last)} names")
    rng = random.Random(f"biographies-{settings.seed}")
    first, last = rng.sample(first, len(first)), rng.sample(last, len(last))
    streams = [stream for stream, count in counts.items() for _ in range(count)]
    found = []
    for number, stream in enumerate(streams):
        turn, place = divmod(number, len(first))
        own = {name: rng.choice(each.values) for name, each in ATTRIBUTES.items()}
        new = {
            name: rng.choice([value for value in each.values if value != own[name]])
            for name, each in ATTRIBUTES.items()
        }
        name, pronoun = f"{first[place]} {last[(place + turn) % len(last)]}", rng.choice(["He", "She"])
        found.append(Person(name, pronoun, stream, own, new if stream == "obsolete" else {}))
    return found


def biographies(everyone: Iterable[Person], wordings: int) -> list[Biography]:
    """Every person's text in so many wordings, the updated ones last; a sentence an attribute, in shuffled order.

    Every second sentence that can say `he` or `she` does, so that facts are told both by name and in context.
    """
    texts = []
    for person, stream, attributes in _versions(everyone):
        for wording in range(wordings):
            rng = random.Random(f"biography-{person.name}-{stream}-{wording}")
            names = rng.sample(list(attributes), len(attributes))
            sentences = [
                ATTRIBUTES[name].sentence(wording, person.name, person.pronoun if place % 2 else "", attributes[name])
                for place, name in enumerate(names)
            ]
            texts.append(Biography(person.name, stream, wording, " ".join(sentences)))
    return texts


def questions(everyone: Iterable[Person]) -> list[Question]:
    """One question an attribute of every text; a text's are split in half for validation and testing.

    Distractors are other values of the attribute, neither the true nor the updated one; an obsolete text and its
    update have the same.
    """
    found = []
    for person, stream, attributes in _versions(everyone):
        rng = random.Random(f"questions-{person.name}")
        tested = set(rng.sample(list(ATTRIBUTES), len(ATTRIBUTES) // 2))
        for name, attribute in ATTRIBUTES.items():
            taken = {person.attributes[name], person.updated.get(name)}
            wrong = rng.sample([value for value in attribute.values if value not in taken], DISTRACTORS)
            options = tuple(sorted([attributes[name], *wrong]))
            split = "test" if name in tested else "validation"
            asked = attribute.question.replace("{}", person.name)
            found.append(Question(person.name, stream, name, split, asked, options, attributes[name]))
    return found


def _versions(everyone: Iterable[Person]) -> Iterator[tuple[Person, str, dict[str, str]]]:
    """(person, stream, attributes) of every text that there is to be."""
    everyone = list(everyone)
    yield from ((person, person.stream, person.attributes) for person in everyone)
    yield from ((person, REPLACED, person.updated) for person in everyone if person.updated)


# files ----------------------------------------------------------------------------------------------------------


def jsonl(rows: Sequence[Biography] | Sequence[Question]) -> str:
    """Rows as JSONL."""
    return "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows)


def read_texts(path: str | Path) -> list[Biography]:
    """Biographies in file order. Raises FactError naming the line."""
    return list(_rows(path, Biography))


def read_questions(path: str | Path) -> list[Question]:
    """Questions in file order. Raises FactError naming the line."""
    found = []
    for number, row in enumerate(_rows(path, Question), start=1):
        if row.answer not in row.options or len(set(row.options)) != 1 + DISTRACTORS:
            raise FactError(f"{path}, line {number}: needs {1 + DISTRACTORS} different options, the answer among them.")
        found.append(Question(**{**asdict(row), "options": tuple(row.options)}))
    return found


def read(path: str | Path) -> list[Fact]:
    """Questions as facts, with the role of their stream; asked for in the wording that ends in the answer."""
    return [
        Fact(
            id=f"{row.person} / {row.attribute} / {row.stream} / {row.split}",
            subject=row.person,
            relation=row.attribute,
            answer=row.answer,
            prompt=ATTRIBUTES[row.attribute].prompt,
            options=row.options,
            role=ROLES[row.stream],
        )
        for row in read_questions(path)
    ]


def unit(fact: str) -> str:
    """Of the id of a question about a person, the person; of any other fact's, the id."""
    asked = ABOUT.fullmatch(fact)
    return asked[1] if asked else fact


def _rows(path: str | Path, kind: type[Row]) -> Iterator[Row]:
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        try:
            row = kind(**json.loads(line))
        except (json.JSONDecodeError, TypeError) as error:
            fields = ", ".join(kind.__dataclass_fields__)  # type: ignore[attr-defined]
            raise FactError(f"{path}, line {number}: needs an object with {fields} ({error}).") from None
        if row.stream not in ROLES:  # type: ignore[attr-defined]
            raise FactError(f"{path}, line {number}: stream must be one of {', '.join(ROLES)}.")
        yield row


# asking ---------------------------------------------------------------------------------------------------------


@elicitation("quiz-validation")
def quiz_validation(fact: Fact) -> list[Prompt]:
    """The question, where it is one for validation; options are compared by their perplexity."""
    return _quiz(fact, "validation")


@elicitation("quiz-test")
def quiz_test(fact: Fact) -> list[Prompt]:
    """The question, where it is one for testing; options are compared by their perplexity."""
    return _quiz(fact, "test")


def _quiz(fact: Fact, split: str) -> list[Prompt]:
    if not fact.id.endswith(f" / {split}"):
        return []
    before, after = ATTRIBUTES[fact.relation].question.split("{}")
    text = f"{before}{fact.subject}{after}"
    place, options = (len(before), len(before) + len(fact.subject)), tuple(f" {option}" for option in fact.options)
    return [Prompt(fact.id, text, place, options, fact.options.index(fact.answer), None, whole=True)]
