"""Editing facts one group after another, earlier groups not replayed.

edit_in_turn   a selection, with groups or without -> an edited model in place, its losses, how the blocks fared
"""

from dataclasses import replace
from itertools import chain
from typing import Any

import torch

from mechunlearn.edit import keys
from mechunlearn.edit.train import Recipe, check, train
from mechunlearn.facts import trained
from mechunlearn.models.checkpoint import NOWHERE, Checkpoint, Checkpoints, Training
from mechunlearn.models.model import Model
from mechunlearn.models.scoring import score
from mechunlearn.registry import load as method
from mechunlearn.registry import methods


def edit_in_turn(
    model: Model, recipe: Recipe, checkpoints: Checkpoints = NOWHERE
) -> tuple[list[str], list[dict[str, float]], list[dict[str, Any]]]:
    """Train a selection's groups in place, one after another, or everything at once where it has none.

    Every group has its own components, its own random numbers and a fresh optimizer and schedule; of the facts to
    forget it sees its own alone (Guo et al. 2025, sections 3.4 and A.6). Returns

    - the names of all trained tensors,
    - the losses of every step; those of groups with the group's number, from 1,
    - in a task with blocks, measurement rows of all facts to forget in the training prompt, before the first block
      and after each: stages `edited@0`, `edited@1` ..., roles `block-1`, `block-2` ...

    Raises DivergenceError where a loss stops being finite, or where the sum of all groups' losses ends above where it
    started.

    checkpoints   of the same edit, killed before its end: what they hold is not done again
    """
    groups, parts = recipe.selection.groups, _parts(recipe)
    if groups and recipe.objective in methods("closed_form"):
        written = [keys.written(model, part.selection, recipe.objective) for _, part in parts]
        keys.remember(model, list(dict.fromkeys(chain(*written))), recipe.passages)
    whole = checkpoints.of(model, recipe)
    names, histories, rows = _restored(model, whole) or ([], [], _measured(model, recipe, 0))
    for number in range(len(histories), len(parts)):
        block, part = parts[number]
        training = Training(checkpoints.of(model, recipe, number))
        changed, history = train(model, part, training)
        names, histories = sorted({*names, *changed}), [*histories, history]
        if block not in [later for later, _ in parts[number + 1 :]]:
            rows += _measured(model, recipe, block)
        if training.checkpoint.exists() or checkpoints.due():
            weights = {name: model.network.get_parameter(name) for name in names}
            whole.write(weights, {"histories": histories, "rows": rows})
            training.checkpoint.remove()
    check(histories, recipe.objective, recipe.settings)
    if not groups:
        return names, histories[0], rows
    losses = [{"group": number, **row} for number, history in enumerate(histories, start=1) for row in history]
    return names, losses, rows


def _parts(recipe: Recipe) -> list[tuple[int, Recipe]]:
    """(block, what is trained at once), one after another: the groups of the selection, or all of it."""
    selection, parts = recipe.selection, list[tuple[int, Recipe]]()
    for number, group in enumerate(sorted(selection.groups, key=lambda group: group.block), start=1):
        seen = [fact for fact in recipe.facts if fact.id in group.facts or fact.role == "maintain-train"]
        own = replace(selection, components=group.components, groups=[])
        seed = f"{recipe.seed}, group {number} of {len(selection.groups)}"
        parts.append((group.block, replace(recipe, facts=seen, selection=own, seed=seed)))
    return parts or [(0, recipe)]


def _restored(model: Model, whole: Checkpoint) -> tuple[list[str], list[Any], list[Any]] | None:
    """The names, histories and rows of the parts that a killed edit had finished; the model is as they left it."""
    kept = whole.read()
    if kept is None:
        return None
    weights, about = kept
    with torch.no_grad():
        for name, tensor in weights.items():
            model.network.get_parameter(name).copy_(tensor)
    return sorted(weights), about["histories"], about["rows"]


def _measured(model: Model, recipe: Recipe, block: int) -> list[dict[str, Any]]:
    """Rows of the facts that have a block, once so many blocks are edited."""
    own, ask = [fact for fact in trained(recipe.facts) if fact.block], method("elicitation", "completion")
    if not own or not recipe.selection.groups:
        return []
    place = {"seed": recipe.seed, "stage": f"edited@{block}", "elicitation": "completion"}
    return [
        {**row, **place, "role": f"block-{fact.block}"}
        for row, fact in zip(score(model, [ask(fact)[0] for fact in own]), own, strict=True)
    ]
