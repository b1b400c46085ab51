"""The facts of a sweep's trials: known to the model, and never those that a study reports. Torch-free.

draw   a task's facts with their roles -> others with roles of their own
"""

import random
from collections.abc import Callable, Sequence

from mechunlearn.config import SweepSettings, TaskSettings
from mechunlearn.errors import FactError
from mechunlearn.facts import VALIDATION, Fact
from mechunlearn.facts.roles import assign

TRAINED = ("maintain-train", "forget-train")  # what a task's edit may see and nobody measures


def draw(
    facts: Sequence[Fact],
    task: TaskSettings,
    settings: SweepSettings,
    new_answer: Callable[[Fact, random.Random], str],
) -> list[Fact]:
    """The task anew, with other facts: as many to forget (or `settings.forget`), in as many blocks, drawn by
    `settings.seed` among those that the task itself only trains on; the rest of these is split like the task's.

    `facts` have their roles in the task, and the new answers that they brought along. Facts of biographies keep their
    roles: there the questions for validation are taken, and those for testing left alone, as in Veldanda et al.
    (2024). Raises FactError where too few facts are left.
    """
    if task.facts == "biographies":
        return [fact for fact in facts if fact.id.endswith(VALIDATION)]
    pool = [fact.with_role("", fact.new_answer) for fact in facts if fact.role in TRAINED]
    count = settings.forget or task.forget if task.forget else None
    most = len(pool) - 2
    if count and count > most:
        raise FactError(
            f"a sweep's trial forgets {count} facts, but of those that the model knows {len(pool)} are neither "
            f"forgotten nor held out by the task itself; allowed as sweep.forget: at most {max(0, most)}."
        )
    alike = sum(fact.answer == task.answer for fact in pool)
    if task.answer and alike < 4:
        raise FactError(
            f"a sweep's trial needs 4 facts with the answer {task.answer!r} that the task itself does not measure; the "
            f"model knows {alike} such. A lower screen.threshold admits more."
        )
    own = task.model_copy(update={"forget": count, "draw": "seeded", "seed": settings.seed})
    return assign(pool, [True] * len(pool), own, new_answer)
