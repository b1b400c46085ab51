"""Sports Facts: which sport an athlete plays, and the formats in which we ask.

read          data/sports/athletes.csv -> facts
wrong_sport   the new answer of the athlete tasks: one of the two wrong sports (paper, section 2.1)
ELICITATIONS  completion, question, profession, famous, choice-text, choice-letter

Every format but the multiple choices names Tiger Woods and golf as a worked example, as the paper's training
prompt does; golf is therefore among the options, though no athlete of ours plays it.
"""

import csv
import io
import random
from pathlib import Path

from mechunlearn.errors import FactError
from mechunlearn.facts import Fact, Prompt, read_text
from mechunlearn.registry import elicitation

SPORTS = ("baseball", "basketball", "football")
OPTIONS = (*SPORTS, "golf")


def read(path: str | Path) -> list[Fact]:
    """Athletes as facts, in file order. Raises FactError naming the row and what is wrong with it."""
    facts: dict[str, Fact] = {}
    with io.StringIO(read_text(path), newline="") as file:
        rows = csv.DictReader(file)
        if rows.fieldnames != ["athlete", "sport", "team"]:
            raise FactError(f"{path}: the columns must be athlete, sport, team, but are {rows.fieldnames}.")
        for number, row in enumerate(rows, start=2):
            athlete, sport = row["athlete"], row["sport"]
            if sport not in SPORTS:
                raise FactError(f"{path}, row {number}: sport is {sport!r}; allowed: {', '.join(SPORTS)}.")
            if not athlete or athlete != athlete.strip():
                raise FactError(f"{path}, row {number}: athlete is {athlete!r}; it must be a name without padding.")
            if athlete in facts:
                raise FactError(f"{path}, row {number}: athlete {athlete!r} stands there twice.")
            facts[athlete] = Fact(id=athlete, subject=athlete, relation="sport", answer=sport)
    return list(facts.values())


def wrong_sport(fact: Fact, rng: random.Random) -> str:
    """One of the two sports that the athlete does not play, at random."""
    return rng.choice([sport for sport in SPORTS if sport != fact.answer])


def _ask(fact: Fact, before: str, after: str) -> list[Prompt]:
    """One prompt whose continuation is the sport."""
    start = len(before)
    return [
        Prompt(
            fact=fact.id,
            text=f"{before}{fact.subject}{after}",
            subject=(start, start + len(fact.subject)),
            options=tuple(f" {sport}" for sport in OPTIONS),
            true=OPTIONS.index(fact.answer),
            new=OPTIONS.index(fact.new_answer) if fact.new_answer else None,
        )
    ]


@elicitation("completion")
def completion(fact: Fact) -> list[Prompt]:
    """The training prompt (paper, section 2.1)."""
    return _ask(fact, "Fact: Tiger Woods plays the sport of golf\nFact: ", " plays the sport of")


@elicitation("question")
def question(fact: Fact) -> list[Prompt]:
    """A chatbot's question and answer: the published edit-accuracy format, with a system line of our own."""
    before = (
        "You are a chatbot that answers questions about athletes with the name of one sport.\n"
        "Question: What sport does Tiger Woods play? Answer: golf\nQuestion: What sport does "
    )
    return _ask(fact, before, " play? Answer:")


@elicitation("profession")
def profession(fact: Fact) -> list[Prompt]:
    """A rephrasing by profession."""
    return _ask(fact, "Tiger Woods is a professional golf player.\n", " is a professional")


@elicitation("famous")
def famous(fact: Fact) -> list[Prompt]:
    """A rephrasing by fame."""
    return _ask(fact, "Tiger Woods became famous for playing golf. In the same way, ", " became famous for playing")


def _orders() -> list[tuple[str, ...]]:
    """Every cyclic order of the options, so that no answer owes anything to its place."""
    return [OPTIONS[shift:] + OPTIONS[:shift] for shift in range(len(OPTIONS))]


@elicitation("choice-text")
def choice_text(fact: Fact) -> list[Prompt]:
    """Multiple choice answered with the option's words, in every cyclic order."""
    prompts = []
    for number, order in enumerate(_orders()):
        before = f"Options: {', '.join(order[:-1])} or {order[-1]}.\nWhich of these sports does {fact.subject} play? "
        prompts.append(
            Prompt(
                fact=fact.id,
                text=f"{before}{fact.subject} plays",
                subject=(len(before), len(before) + len(fact.subject)),
                options=tuple(f" {sport}" for sport in order),
                true=order.index(fact.answer),
                new=order.index(fact.new_answer) if fact.new_answer else None,
                order=number,
            )
        )
    return prompts


@elicitation("choice-letter")
def choice_letter(fact: Fact) -> list[Prompt]:
    """Multiple choice answered with a letter, in every cyclic order; the worked example moves with it."""
    prompts = []
    for number, order in enumerate(_orders()):
        listed = "\n".join(f"{letter}. {sport}" for letter, sport in zip("ABCD", order, strict=True))
        golf = "ABCD"[order.index("golf")]
        before = (
            f"Answer each question with one letter.\n\nWhat sport does Tiger Woods play?\n{listed}\nAnswer: {golf}\n\n"
            "What sport does "
        )
        prompts.append(
            Prompt(
                fact=fact.id,
                text=f"{before}{fact.subject} play?\n{listed}\nAnswer:",
                subject=(len(before), len(before) + len(fact.subject)),
                options=(" A", " B", " C", " D"),
                true=order.index(fact.answer),
                new=order.index(fact.new_answer) if fact.new_answer else None,
                order=number,
            )
        )
    return prompts
