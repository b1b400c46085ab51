"""Who is forgotten, who is kept: the roles of a task's facts.

assign      every fact's role in a task
shuffled    items in a random order that hardly changes when one more or one less is there
halves      the forget set in two, for attacks that train on one half and are tested on the other
beside      the kept facts that such an attack may train on as well
neighbors   facts that an edit of the forget set may pull along: alike in the old answer, or in the new one
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import TypeVar

from mechunlearn.config import TaskSettings
from mechunlearn.errors import FactError
from mechunlearn.facts import HELD_OUT, Fact

Item = TypeVar("Item")
NEIGHBORS = ("neighbor-same", "neighbor-new")


def shuffled(items: Iterable[Item], key: Callable[[Item], str], seed: str) -> list[Item]:
    """The items in the order of a hash of `seed` and their key.

    As random as a shuffle, but each item has its own place: which facts a model knows may differ by one between
    machines, and a shuffle of one more or one less would draw an altogether different forget set.
    """
    return sorted(items, key=lambda item: sha256(f"{seed}/{key(item)}".encode()).digest())


def assign(
    facts: Sequence[Fact],
    known: Sequence[bool],
    task: TaskSettings,
    new_answer: Callable[[Fact, random.Random], str],
) -> list[Fact]:
    """Give every fact its role, in the order given; facts to forget also get their new answer.

    The known facts are drawn by the task's seed (or taken in file order). The first `forget` of them are forgotten, or
    all with the task's `answer`, of which half are trained on and not measured; the rest is split into maintain-train
    and maintain-test, with a few of the former held out as neighbors. The task's `blocks` are equal parts of the
    forgotten ones, in the order drawn. Raises FactError where the model knows too few facts for that, and where the new
    answer is not another of a fact's. Facts that have roles already keep them, known or not (biographies).
    """
    if facts and all(fact.role for fact in facts):
        return list(facts)
    pool = [fact for fact, knows in zip(facts, known, strict=True) if knows]
    drawn = shuffled(pool, lambda fact: fact.id, f"roles-{task.seed}")
    gone = _forgotten(pool if task.draw == "first" else drawn, task, len(facts))
    kept = [fact for fact in drawn if fact not in gone]
    tested = {fact.id for fact in kept[: min(len(kept) - 1, max(1, round(task.maintain_test * len(kept))))]}
    trained = {fact.id for fact in gone[: (len(gone) + 1) // 2]} if task.answer else set[str]()
    replaced = {
        fact.id: _replacement(fact, task) or new_answer(fact, random.Random(f"new-{task.seed}/{fact.id}"))
        for fact in gone
    }
    known_ids = {fact.id for fact in pool}
    touched = {
        (fact.relation, answer) for fact in gone if not _brings(fact) for answer in (fact.answer, replaced[fact.id])
    }
    held = _held_out(kept, tested, touched, task.neighbors)
    blocks = {fact.id: 1 + place * task.blocks // len(gone) for place, fact in enumerate(gone)} if task.blocks else {}

    def role(fact: Fact) -> str:
        if fact.id in replaced:
            return "forget-train" if fact.id in trained else "forget"
        if fact.id not in known_ids:
            return "unknown"
        return "maintain-test" if fact.id in tested else "neighbor" if fact.id in held else "maintain-train"

    return [fact.with_role(role(fact), replaced.get(fact.id, ""), blocks.get(fact.id, 0)) for fact in facts]


def _held_out(kept: Sequence[Fact], tested: set[str], touched: set[tuple[str, str]], count: int) -> set[str]:
    """The ids of kept facts that no edit may see, so that `count` of each (relation, answer) can be asked as neighbors.

    Those of maintain-test are among the `count`. At most half of the others: edits need some to train on.
    """
    others = [fact for fact in kept if fact.id not in tested]
    there = Counter((fact.relation, fact.answer) for fact in kept if fact.id in tested)
    short = {pair: count - there[pair] for pair in touched}
    held = list[str]()
    for fact in others:
        pair = fact.relation, fact.answer
        if short.get(pair, 0) > 0:
            short[pair] -= 1
            held.append(fact.id)
    return set(held[: len(others) // 2])


def _forgotten(pool: Sequence[Fact], task: TaskSettings, asked: int) -> list[Fact]:
    """The known facts that a task forgets. Raises FactError where too few are known, or none would be left."""
    if task.answer is not None:
        gone = [fact for fact in pool if fact.answer == task.answer]
        if len(gone) < 4 or len(gone) > len(pool) - 2:
            raise FactError(
                f"answer is {task.answer!r}, which {len(gone)} of the {len(pool)} facts that the model knows have; "
                f"allowed: one that 4 to {max(0, len(pool) - 2)} of them have. A lower screen.threshold admits more."
            )
        return gone
    count = task.forget or 0
    if len(pool) < count + 2:
        raise FactError(
            f"forget is {count}, but the model knows {len(pool)} of {asked} facts; allowed: at most "
            f"{max(0, len(pool) - 2)}, so that two facts are left to keep. A lower screen.threshold admits more."
        )
    return list(pool[:count])


def _replacement(fact: Fact, task: TaskSettings) -> str:
    """The task's own new answer, if it has one. Raises FactError where the fact cannot take it."""
    others = [option for option in fact.options if option != fact.answer]
    if task.new_answer and task.new_answer not in others:
        raise FactError(
            f"new_answer is {task.new_answer!r}, but the answer of {fact.id!r} is one of {', '.join(fact.options)}; "
            f"allowed: {', '.join(others)}."
        )
    return task.new_answer or ""


def halves(forget: Sequence[Fact], by: str, seed: int) -> list[tuple[list[Fact], list[Fact]]]:
    """Two seeded splits, (trained on, tested on) and the same swapped.

    By `facts`, each half has half of them; by `subjects`, all facts of a subject go to one half. Raises FactError
    where a half would be empty.
    """
    groups = dict[str, list[Fact]]()
    for fact in forget:
        groups.setdefault(fact.subject if by == "subjects" else fact.id, []).append(fact)
    drawn = [groups[key] for key in shuffled(groups, str, f"halves-{seed}")]
    middle = (len(drawn) + 1) // 2
    first, second = ([fact for group in part for fact in group] for part in (drawn[:middle], drawn[middle:]))
    if not second:
        raise FactError(f"the forget set has {len(groups)} {by}; allowed: two or more, so that it has two halves.")
    return [(first, second), (second, first)]


def beside(facts: Iterable[Fact], tested: Iterable[Fact], by: str) -> list[Fact]:
    """The maintain-train facts that an attack tested on `tested` may train on; by `subjects`, none about one of these.

    Raises FactError where there are none.
    """
    about = {fact.subject for fact in tested} if by == "subjects" else set[str]()
    found = [fact for fact in facts if fact.role == "maintain-train" and fact.subject not in about]
    if not found:
        raise FactError("split is 'subjects', but all facts to keep are about subjects on which the attack is tested.")
    return found


def _brings(fact: Fact) -> bool:
    return bool(fact.neighborhood or fact.attribute)


def neighbors(facts: Sequence[Fact]) -> list[Fact]:
    """The held out facts of a forgotten fact's relation that share an answer with it, in two roles.

    `neighbor-same`: the answer that was forgotten is theirs too; their new answer is the forgotten fact's, which an
    edit must not give them (neighborhood prompts of Meng et al. 2022). `neighbor-new`: theirs is the answer that was
    put in, their new answer the one that went. Where several forgotten facts match, the first counts. What they borrow
    joins their options, where it is not among them. A forgotten fact that brings prompts of both kinds along
    (CounterFact's `neighborhood` and `attribute`) has these instead, each a fact of its own id with the whole prompt as
    its subject.
    """
    same, new = dict[tuple[str, str], str](), dict[tuple[str, str], str]()
    brought = list[Fact]()
    for fact in facts:
        if fact.role == "forget" and _brings(fact):
            pairs = (fact.answer, fact.new_answer), (fact.new_answer, fact.answer)
            for role, texts, (true, other) in zip(NEIGHBORS, (fact.neighborhood, fact.attribute), pairs, strict=True):
                brought += [
                    replace(fact, subject=text, prompt="{}", answer=true, new_answer=other, role=role) for text in texts
                ]
        elif fact.role == "forget":
            same.setdefault((fact.relation, fact.answer), fact.new_answer)
            new.setdefault((fact.relation, fact.new_answer), fact.answer)
    kept = [fact for fact in facts if fact.role in HELD_OUT]
    return brought + [
        replace(
            fact.with_role(role, borrowed := others[fact.relation, fact.answer]),
            options=tuple(dict.fromkeys(filter(None, [*fact.options, borrowed]))),
        )
        for role, others in zip(NEIGHBORS, (same, new), strict=True)
        for fact in kept
        if (fact.relation, fact.answer) in others
    ]
