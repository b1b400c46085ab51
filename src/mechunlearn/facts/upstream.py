"""The data of the papers, read from their own files or from the hub; none of it is part of this project.

read_counterfact   CounterFact -> facts; both the original and the selection with a model's probabilities
counterfact        the same with everything else that CounterFact asks -> Asked
read_choices       multiple choice questions on CounterFact, by its case -> Choice
read_sports        athletes -> facts
read_passages      the Pile, or other text in rows -> passages
distinct           only what a model's vocabulary can tell apart

Sources are files or `hub:OWNER/NAME@REVISION:SPLIT` (see facts.rows). Every error is a FactError that names the row,
or a SourceError where the hub cannot be reached.
"""

import ast
import re
import reprlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mechunlearn.errors import FactError
from mechunlearn.facts import Fact, sports
from mechunlearn.facts.rows import rows
from mechunlearn.facts.text import Passage

LITERAL = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)


@dataclass(frozen=True)
class Asked:
    """A fact of CounterFact with its further prompts (Meng et al. 2022, section 3.3), each a text to be continued.

    case           its number in CounterFact
    paraphrases    ask for the fact in other words
    neighborhood   ask the same of other subjects, whose true answer is the fact's
    attribute      ask the same of other subjects, whose true answer is the fact's new one
    generation     begin a text on the subject that ought to mention the answer
    """

    fact: Fact
    case: int
    paraphrases: tuple[str, ...]
    neighborhood: tuple[str, ...]
    attribute: tuple[str, ...]
    generation: tuple[str, ...]


@dataclass(frozen=True)
class Choice:
    """A multiple choice question with its true answer and its distractors."""

    question: str
    answer: str
    distractors: tuple[str, ...]


def read_counterfact(source: str | Path, choices: str | Path | None = None) -> list[Fact]:
    """The facts of CounterFact in file order, scored as `counterfact` says."""
    return [asked.fact for asked in counterfact(source, choices)]


def counterfact(source: str | Path, choices: str | Path | None = None) -> list[Asked]:
    """The facts of CounterFact, and of a file of multiple choices the distractors of those facts that it asks for.

    The original (Meng et al. 2022) keeps subject, prompt and answers in `requested_rewrite`; the selection of Guo et
    al. 2024 has them as columns, with the subject written into the prompt. Other selections have no `case_id`: there
    rows are counted from 0. A fact without a multiple choice of its own is scored among all true answers of its
    relation. Spaces around texts are dropped: an answer brings its own.
    """
    multiple = read_choices(choices) if choices else {}
    found: dict[int, Asked] = {}
    for where, row in rows(source):
        case = _number(where, row, "case_id") if "case_id" in row else len(found)
        if case in found:
            raise FactError(f"{where}: case_id {case} stands there twice.")
        fact = (_rewrite if "target_true" not in row else _column)(where, row)
        if fact.answer == fact.new_answer:
            raise FactError(f"{where}: the true and the new answer are both {fact.answer!r}; they must differ.")
        fact = replace(fact, id=f"{fact.subject} ({case})")
        if case in multiple:
            fact = _among(where, fact, multiple[case], f"{choices}, prompt_id {case}")
        names = ("paraphrase_prompts", "neighborhood_prompts", "attribute_prompts", "generation_prompts")
        texts = [_texts(where, row, name) for name in names]
        fact = replace(fact, paraphrases=_wordings(fact, texts[0]), neighborhood=texts[1], attribute=texts[2])
        found[case] = Asked(fact, case, *texts)
    answers = defaultdict[str, dict[str, None]](dict)
    for asked in found.values():
        answers[asked.fact.relation][asked.fact.answer] = None
    return [
        asked if asked.case in multiple else replace(asked, fact=_of_relation(asked.fact, answers[asked.fact.relation]))
        for asked in found.values()
    ]


def _of_relation(fact: Fact, answers: Iterable[str]) -> Fact:
    return replace(fact, options=tuple(dict.fromkeys([*fact.options, *answers])))


def read_choices(source: str | Path) -> dict[int, Choice]:
    """Multiple choice questions by their `prompt_id`, which is CounterFact's `case_id`; of several the first."""
    found: dict[int, Choice] = {}
    for where, row in rows(source):
        distractors = _texts(where, row, "targets_false")
        if not distractors:
            raise FactError(f"{where}: targets_false is empty; it must hold the wrong answers.")
        choice = Choice(_text(where, row, "question"), _text(where, row, "target_true"), distractors)
        found.setdefault(_number(where, row, "prompt_id"), choice)
    return found


def read_sports(source: str | Path, golf: bool = False) -> list[Fact]:
    """Athletes in file order, asked like ours; of a name that stands there twice the first row (as published).

    The new answer is that of the column `inject_sport_without_golf`, or with `golf` of `inject_sport_with_golf`;
    without the column, or with nothing in it, there is none.
    """
    column = "inject_sport_with_golf" if golf else "inject_sport_without_golf"
    found: dict[str, Fact] = {}
    for where, row in rows(source):
        athlete, sport = _text(where, row, "athlete"), _text(where, row, "sport")
        if sport not in sports.SPORTS:
            raise FactError(f"{where}: sport is {sport!r}; allowed: {', '.join(sports.SPORTS)}.")
        new = _text(where, row, column) if row.get(column) else ""
        allowed = [option for option in (sports.OPTIONS if golf else sports.SPORTS) if option != sport]
        if new and new not in allowed:
            raise FactError(f"{where}: {column} is {new!r}; allowed for {sport}: {', '.join(allowed)}.")
        found.setdefault(athlete, replace(sports.plays(athlete, sport), new_answer=new))
    return list(found.values())


def read_passages(source: str | Path, count: int, characters: int = 500) -> list[Passage]:
    """The beginnings of the first `count` texts that are long enough, each cut after a word to at most `characters`.

    Rows hold `text` and, as the Pile's do, in `meta` the name of the part that it comes from, a passage's topic. No
    tokenizer is at hand here: 500 characters of English are about 100 tokens (as published).
    """
    found: list[Passage] = []
    stream = rows(source, stream=True)
    while len(found) < count:
        where, row = next(stream, ("", {}))
        if not where:
            raise FactError(
                f"{source} holds {len(found)} texts of more than {characters} characters; needed are {count}."
            )
        text = _text(where, row, "text")
        if len(text) > characters:
            words = re.match(rf".{{1,{characters}}}(?!\S)", text, re.DOTALL)
            cut = words[0].rstrip() if words else text[:characters]
            meta = row.get("meta")
            topic = str(meta.get("pile_set_name", "")) if isinstance(meta, dict) else ""
            found.append(Passage(where.rpartition("row ")[2], topic, cut))
    return found


def distinct(facts: Iterable[Fact], token: Callable[[str], int]) -> list[Fact]:
    """Facts whose options begin with different tokens: of distractors the first of each token stays.

    Facts whose true and new answer begin alike are left out, for no probability tells one from the other.
    """
    found = []
    for fact in facts:
        first: dict[int, str] = {}
        for option in dict.fromkeys(filter(None, (fact.answer, fact.new_answer, *fact.options))):
            first.setdefault(token(f" {option}"), option)
        options = tuple(option for option in fact.options if option in first.values())
        if len(options) > 1 and (not fact.new_answer or fact.new_answer in options):
            found.append(replace(fact, options=options))
    return found


def _rewrite(where: str, row: dict[str, Any]) -> Fact:
    """A row of the original: the prompt has a `{}`."""
    rewrite = row.get("requested_rewrite")
    if not isinstance(rewrite, dict):
        raise FactError(f"{where}: has neither target_true nor the object requested_rewrite; it has {', '.join(row)}.")
    prompt = _text(where, rewrite, "prompt")
    if prompt.count("{}") != 1:
        raise FactError(f"{where}: prompt is {prompt!r}; it must have exactly one {{}}, where the subject stands.")
    answers = [
        _text(where, value if isinstance(value := rewrite.get(key), dict) else {}, "str", f"{key}.str")
        for key in ("target_true", "target_new")
    ]
    return _fact(where, rewrite, prompt, *answers)


def _column(where: str, row: dict[str, Any]) -> Fact:
    """A row of the selection: the subject, at its first place in the prompt, becomes the `{}`."""
    prompt, subject = _text(where, row, "prompt"), _text(where, row, "subject")
    if subject not in prompt or "{}" in prompt:
        raise FactError(f"{where}: prompt is {prompt!r}; it must hold the subject {subject!r}, and no {{}}.")
    answers = [_text(where, row, key) for key in ("target_true", "target_false")]
    return _fact(where, row, prompt.replace(subject, "{}", 1), *answers)


def _fact(where: str, row: dict[str, Any], prompt: str, true: str, new: str) -> Fact:
    return Fact("", _text(where, row, "subject"), _text(where, row, "relation_id"), true, prompt, (true, new), new)


def _wordings(fact: Fact, paraphrases: Iterable[str]) -> tuple[str, ...]:
    """Those paraphrases that name the subject: in the last place, for other sentences come first, it becomes `{}`."""
    parts = [text.rpartition(fact.subject) for text in paraphrases if "{}" not in text]
    return tuple(f"{before}{{}}{after}" for before, subject, after in parts if subject)


def _among(where: str, fact: Fact, choice: Choice, named: str) -> Fact:
    """The fact with a multiple choice's distractors behind its own options."""
    if choice.answer.casefold() != fact.answer.casefold():
        raise FactError(
            f"{named}: target_true is {choice.answer!r}, but the fact's answer is {fact.answer!r} ({where}); these two "
            "do not belong together."
        )
    taken = {option.casefold() for option in fact.options}
    further = [option for option in choice.distractors if option.casefold() not in taken]
    return replace(fact, options=tuple(dict.fromkeys([*fact.options, *further])))


def _text(where: str, row: dict[str, Any], key: str, shown: str = "") -> str:
    """A field that must hold text, without the spaces around it."""
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise FactError(f"{where}: {shown or key} is {reprlib.repr(value)}; it must be text.")
    return value.strip()


def _number(where: str, row: dict[str, Any], key: str) -> int:
    value = row.get(key)
    if not re.fullmatch(r"\d+", str(value)):
        raise FactError(f"{where}: {key} is {reprlib.repr(value)}; it must be a whole number.")
    return int(str(value))


def _texts(where: str, row: dict[str, Any], key: str) -> tuple[str, ...]:
    """A field of several texts: a list, or, in CSV, a list as Python or NumPy prints it; () where there is none.

    NumPy puts no commas between texts, so that Python alone would read them as one.
    """
    value = row.get(key) or []
    if isinstance(value, str):
        try:
            found = [ast.literal_eval(literal) for literal in LITERAL.findall(value)]
        except (ValueError, SyntaxError):
            found = [None]
        value = None if LITERAL.sub("", value).strip("[], \n") else found
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise FactError(f"{where}: {key} is {reprlib.repr(row[key])}; it must be a list of texts.")
    return tuple(text.strip() for text in value)
