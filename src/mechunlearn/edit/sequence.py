"""Editing facts one group after another, earlier groups not replayed.

edit_in_turn   a selection, with groups or without -> an edited model in place, its losses, how the blocks fared
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mechunlearn.edit.train import Recipe, check, edit, train
from mechunlearn.facts import Fact, trained
from mechunlearn.models.model import Model
from mechunlearn.models.scoring import score
from mechunlearn.registry import load as method


def edit_in_turn(model: Model, recipe: Recipe) -> tuple[list[str], list[dict[str, float]], list[dict[str, Any]]]:
    """Train a selection's groups in place, one after another, or everything at once where it has none.

    Every group has its own components, its own random numbers and a fresh optimizer and schedule; of the facts to
    forget it sees its own alone (Guo et al. 2025, sections 3.4 and A.6). Returns

    - the names of all trained tensors,
    - the losses of every step; those of groups with the group's number, from 1,
    - in a task with blocks, measurement rows of all facts to forget in the training prompt, before the first block
      and after each: stages `edited@0`, `edited@1` ..., roles `block-1`, `block-2` ...

    Raises DivergenceError as `edit` does; with groups, where the sum of their losses ends above where it started.
    """
    facts, selection, seed = recipe.facts, recipe.selection, recipe.seed
    if not selection.groups:
        return *edit(model, recipe), []
    names, histories = set[str](), list[list[dict[str, float]]]()
    blocks = sorted({group.block for group in selection.groups})
    rows = _measured(model, facts, 0, seed)
    for block in blocks:
        for group in [group for group in selection.groups if group.block == block]:
            seen = [fact for fact in facts if fact.id in group.facts or fact.role == "maintain-train"]
            own = replace(selection, components=group.components, groups=[])
            name = f"{seed}, group {len(histories) + 1} of {len(selection.groups)}"
            changed, history = train(model, replace(recipe, facts=seen, selection=own, seed=name))
            names.update(changed)
            histories.append(history)
        rows += _measured(model, facts, block, seed)
    check(histories, recipe.objective, recipe.settings)
    losses = [{"group": number, **row} for number, history in enumerate(histories, start=1) for row in history]
    return sorted(names), losses, rows


def _measured(model: Model, facts: Sequence[Fact], block: int, seed: int | str) -> list[dict[str, Any]]:
    """Rows of the facts that have a block, once so many blocks are edited."""
    own, ask = [fact for fact in trained(facts) if fact.block], method("elicitation", "completion")
    place = {"seed": seed, "stage": f"edited@{block}", "elicitation": "completion"}
    return [
        {**row, **place, "role": f"block-{fact.block}"}
        for row, fact in zip(score(model, [ask(fact)[0] for fact in own]), own, strict=True)
    ]
