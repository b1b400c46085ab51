"""Sports Facts: which sport an athlete plays, and the formats in which we ask.

read          data/sports/athletes.csv -> facts
table         and back
plays         athlete and sport -> a fact
wrong_sport   the new answer of the athlete tasks: one of the two wrong sports (paper, section 2.1)
ELICITATIONS  question, profession, famous; `completion` asks by PROMPT

Every format names Tiger Woods and golf as a worked example, as the paper's training
prompt does; golf is therefore among the options, though no athlete of ours plays it.
"""

import csv
import io
import random
from collections.abc import Sequence
from pathlib import Path

from mechunlearn.errors import FactError
from mechunlearn.facts import Fact, Prompt, read_text
from mechunlearn.facts.completion import ask
from mechunlearn.registry import elicitation

SPORTS = ("baseball", "basketball", "football")
OPTIONS = (*SPORTS, "golf")
PROMPT = "Fact: Tiger Woods plays the sport of golf\nFact: {} plays the sport of"


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
            facts[athlete] = plays(athlete, sport)
    return list(facts.values())


def plays(athlete: str, sport: str) -> Fact:
    """The fact that an athlete plays a sport."""
    return Fact(id=athlete, subject=athlete, relation="sport", answer=sport, prompt=PROMPT, options=OPTIONS)


def table(facts: Sequence[Fact]) -> str:
    """Athletes in the format that `read` reads, without teams."""
    text = io.StringIO()
    rows = [("athlete", "sport", "team"), *((fact.subject, fact.answer, "") for fact in facts)]
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def wrong_sport(fact: Fact, rng: random.Random) -> str:
    """One of the two sports that the athlete does not play, at random."""
    return rng.choice([sport for sport in SPORTS if sport != fact.answer])


def _athlete(fact: Fact) -> Fact:
    """The fact. Raises FactError where it is about something else: these formats would ask nonsense of it."""
    if fact.options != OPTIONS:
        raise FactError(
            f"{fact.id!r} is among {', '.join(fact.options)}, but this format asks for one of {', '.join(OPTIONS)}; "
            "ask it in the format `completion`."
        )
    return fact


@elicitation("question")
def question(fact: Fact) -> list[Prompt]:
    """A chatbot's question and answer: the published edit-accuracy format, with a system line of our own."""
    before = (
        "You are a chatbot that answers questions about athletes with the name of one sport.\n"
        "Question: What sport does Tiger Woods play? Answer: golf\nQuestion: What sport does "
    )
    return [ask(_athlete(fact), before, " play? Answer:")]


@elicitation("profession")
def profession(fact: Fact) -> list[Prompt]:
    """A rephrasing by profession."""
    return [ask(_athlete(fact), "Tiger Woods is a professional golf player.\n", " is a professional")]


@elicitation("famous")
def famous(fact: Fact) -> list[Prompt]:
    """A rephrasing by fame."""
    before = "Tiger Woods became famous for playing golf. In the same way, "
    return [ask(_athlete(fact), before, " became famous for playing")]
