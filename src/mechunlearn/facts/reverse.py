"""Questions asked backwards: which subject belongs to an answer?

reversed   multiple choice among subjects: the fact's own, and three of other answers

A model that learned "A is B" need not know "B is A" (Berglund et al. 2024, the reversal curse), and an edit is trained
in the forward direction only. So this asks whether the old association is left when it is come at from the other end.
"""

import random

from mechunlearn.facts import BACKWARDS, Fact, Prompt
from mechunlearn.facts.related import subjects
from mechunlearn.registry import elicitation

SUBJECTS = 4
# The right words stand at other places than each other; the fact's own subject comes to stand at every place in turn.
EXAMPLES = (
    'Question: What fits the gap in "The color of ___ is green": snow, grass, coal or blood? Answer: grass\n'
    'Question: What fits the gap in "The young of a ___ is called a calf": horse, dog, sheep or cow? Answer: cow\n'
)


@elicitation("reversed")
def backwards(fact: Fact) -> list[Prompt]:
    """Whose answer is the fact's true one, in every cyclic order of the subjects.

    `true` is the fact's subject. There is no `new`: none of the other subjects has the new answer's claim to the old
    one, so only what is left of the old association is measured. Raises FactError for a relation of other data.
    """
    before, after = fact.prompt.split("{}")
    before = before.rpartition("\n")[2].removeprefix("Fact: ")
    head = f'{EXAMPLES}Question: What fits the gap in "{before}___{after} {fact.answer}": '
    names, prompts = (_name(fact.subject), *others(fact)), []
    for order in range(len(names)):
        turned = names[order:] + names[:order]
        # Each name with what stands before it: ", " or, at the last, " or ".
        parts = [f"{'' if name is turned[0] else ' or ' if name is turned[-1] else ', '}{name}" for name in turned]
        place = turned.index(names[0])
        end = len(head) + len("".join(parts[: place + 1]))
        prompts.append(
            Prompt(
                fact=fact.id,
                text=f"{head}{''.join(parts)}? Answer:",
                subject=(end - len(names[0]), end),
                options=tuple(f" {name}" for name in turned),
                true=place,
                new=None,
                order=order,
            )
        )
    return prompts


def others(fact: Fact) -> tuple[str, ...]:
    """Three subjects of the relation with other answers, drawn by the fact's id from the package's facts.

    All begin with different letters, so that the first token tells them apart in any vocabulary; a "The" is left out.
    """
    pool = [subject for subject, answer in subjects(fact, BACKWARDS) if answer != fact.answer]
    found = {_name(fact.subject)[0].casefold(): ""}
    for name in map(_name, random.Random(f"reversed-{fact.id}").sample(pool, len(pool))):
        if len(found) < SUBJECTS:
            found.setdefault(name[0].casefold(), name)
    return tuple(filter(None, found.values()))


def _name(subject: str) -> str:
    return subject.removeprefix("The ")
