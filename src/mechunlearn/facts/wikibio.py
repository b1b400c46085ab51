"""LLM Surgery's own data, from the authors' CSV files; none of it is part of this project.

read        biographies of Wikipedia's, true and made up, and the questions about them -> texts and questions of ours
read_kept   web text to keep, and the questions about it
"""

import ast
import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mechunlearn.errors import FactError
from mechunlearn.facts import read_text
from mechunlearn.facts.biographies import DISTRACTORS, Biography, Question
from mechunlearn.facts.rows import rows

HEADER = "This is a Wikipedia passage about {}. {}"  # as published
OPTIONS = tuple(f"option{number}" for number in range(1, DISTRACTORS + 2))
SEED = 42  # of the split, as published
TRUE, MADE_UP = ("wiki_bio_text", "wiki_bio_text_qa"), ("gpt4_bio_text", "gpt4_inaccurate_text_qa")


def read(source: str | Path, concepts: str | Path, obsolete: float = 0.5) -> tuple[list[Biography], list[Question]]:
    """Texts and questions of gpt4_wiki_bios_full_evaluation_benchmark.csv, in file order.

    concepts   who each row is about, a line a row
    obsolete   the share of rows, from the first on, that are replaced by what is made up; the others are problematic

    Raises FactError naming the row. A cell of questions that is no list of them is an error here; the authors skip it.
    """
    table = list(rows(source))
    people = [line.strip() for line in read_text(concepts).splitlines() if line.strip()]
    if len(people) != len(table):
        raise FactError(f"{concepts} names {len(people)} people; {source} has {len(table)} rows: allowed is one each.")
    texts: list[Biography] = []
    questions: list[Question] = []
    replaced = int(obsolete * len(table))
    for number, ((where, row), person) in enumerate(zip(table, people, strict=True)):
        told = [("obsolete", *TRUE), ("update", *MADE_UP)] if number < replaced else [("problematic", *TRUE)]
        for stream, text, asked in told:
            texts.append(Biography(person, stream, 0, HEADER.format(person, _text(where, row, text))))
            questions += _questions(where, row, asked, person, stream)
    return texts, questions


def read_kept(source: str | Path, questions: str | Path, count: int = 2079) -> tuple[list[Biography], list[Question]]:
    """The first `count` texts of openwebtext-10k.csv, and of the questions on them, row by row.

    Both files are read row by row: the 77 rows that the authors drop by number have to be gone from both. Raises
    FactError naming the row.
    """
    texts = [
        Biography(f"text {number}", "retain", 0, _text(where, row, "text"))
        for number, (where, row) in zip(range(count), rows(source, stream=True), strict=False)
    ]
    found: list[Question] = []
    for text, (where, row) in zip(texts, rows(questions, stream=True), strict=False):
        found += _questions(where, row, "qa", text.person, "retain")
    return texts, found


def _questions(where: str, row: dict[str, Any], column: str, person: str, stream: str) -> Iterator[Question]:
    """The questions of a cell, in the authors' split: half for validation, half for testing."""
    from sklearn.model_selection import train_test_split

    try:
        asked = [_question(each) for each in ast.literal_eval(_text(where, row, column))]
        validation, test = train_test_split(asked, test_size=0.5, random_state=SEED)
    except (ValueError, SyntaxError, KeyError, TypeError) as error:
        raise FactError(
            f"{where}: {column} is {reprlib.repr(row[column])}, not a list of questions ({error})."
        ) from None
    for split, part in (("validation", validation), ("test", test)):
        for question, options, answer in part:
            yield Question(person, stream, "", split, question, options, answer)


def _question(given: dict[str, str]) -> tuple[str, tuple[str, ...], str]:
    """(question, options, answer); the answer stands there by name, or, in some rows, as its text."""
    options = tuple(given[name].strip() for name in OPTIONS)
    answer = given["correct answer"].strip()
    answer = given[answer].strip() if answer in OPTIONS else answer
    if answer not in options:
        raise ValueError(f"the correct answer is {answer!r}")
    return given["Q"].strip(), options, answer


def _text(where: str, row: dict[str, Any], key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise FactError(f"{where}: {key} is {reprlib.repr(value)}; it must be text.")
    return value.strip()
