"""Facts of the same relation as worked examples: does being shown how such questions are answered bring a fact back?

few-shot-related   three of them before the training prompt's own line
subjects           the package's subjects by relation, with their answers

An edit saw its facts alone; in-context examples ask it for the whole relation.
"""

import random
from collections import defaultdict
from functools import cache
from pathlib import Path

from mechunlearn.errors import FactError
from mechunlearn.facts import Fact, Prompt, counterfact, sports
from mechunlearn.facts.completion import ask
from mechunlearn.registry import elicitation

EXAMPLES = 3
RESOURCES = Path(__file__).parents[1] / "resources"


@elicitation("few-shot-related")
def few_shot_related(fact: Fact) -> list[Prompt]:
    """After three true facts of the relation, drawn by the fact's id from the package's, forgotten ones among them.

    Their answers differ, and are neither the fact's true nor its new one; where the relation has too few others, both
    of these are shown. So no context favours one of the two. Raises FactError for a relation of other data.
    """
    before, after = fact.prompt.split("{}")
    head, line, sentence = before.rpartition("\n")
    shown = "".join(f"{sentence}{subject}{after} {answer}\n" for subject, answer in examples(fact))
    return [ask(fact, f"{head}{line}{shown}{sentence}", after)]


def examples(fact: Fact) -> list[tuple[str, str]]:
    """Subjects with their answers, no answer twice. Raises FactError."""
    pool = [each for each in subjects(fact, "few-shot-related") if each[0] != fact.subject]
    rng = random.Random(f"related-{fact.id}")
    of_answer = dict[str, str]()
    for subject, answer in rng.sample(pool, len(pool)):
        of_answer.setdefault(answer, subject)
    own = [answer for answer in (fact.answer, fact.new_answer) if answer in of_answer]
    others = [answer for answer in of_answer if answer not in own]
    chosen = (others if len(others) >= EXAMPLES else own + others)[:EXAMPLES]
    return [(of_answer[answer], answer) for answer in rng.sample(chosen, len(chosen))]


def subjects(fact: Fact, elicitation: str) -> list[tuple[str, str]]:
    """The subjects of a fact's relation with their answers. Raises FactError where none are known."""
    if fact.relation not in _subjects():
        raise FactError(
            f"{fact.id!r} is of the relation {fact.relation!r}, of which no other subjects are known; the format "
            f"`{elicitation}` can ask for {', '.join(_subjects())}."
        )
    return _subjects()[fact.relation]


@cache
def _subjects() -> dict[str, list[tuple[str, str]]]:
    """By relation: subjects and their answers."""
    found = defaultdict[str, list[tuple[str, str]]](list)
    for fact in [
        *sports.read(RESOURCES / "sports/athletes.csv"),
        *counterfact.read(RESOURCES / "counterfact/facts.csv"),
    ]:
        found[fact.relation].append((fact.subject, fact.answer))
    return dict(found)
