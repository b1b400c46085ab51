"""ROME: one MLP's last matrix is changed fact by fact, each by one matrix of rank one."""

from collections.abc import Sequence

import torch

from mechunlearn.artifacts import Selection
from mechunlearn.config import EditSettings
from mechunlearn.edit import keys
from mechunlearn.edit.values import goals
from mechunlearn.facts import Fact, trained
from mechunlearn.facts.text import Passage
from mechunlearn.models.model import Model
from mechunlearn.registry import closed_form


@closed_form("rome")
def rome(
    model: Model,
    facts: Sequence[Fact],
    passages: Sequence[Passage],
    selection: Selection,
    settings: EditSettings,
    seed: int,
) -> tuple[list[str], list[dict[str, float]]]:
    """Write the new answers into the middle one of the selected MLPs (of two the lower), one fact after another.

    Meng et al. 2022, section 3.1, with the corrected key (Gupta et al. 2024; Yang et al. 2024): the published code
    averages the key over contexts in one place of equation 2 and not in the other, which can ruin a model.

    Keys of one layer do not change while its own matrix does, so they are computed once, and all values are
    optimised on the unedited model, in one batch; the authors optimise each on the model that the former edits left.
    Returns the changed tensor's name and the losses of the values.
    """
    rules, parts = settings.rome, keys.written(model, selection, "rome")
    part = parts[(len(parts) - 1) // 2]
    tensor, module = keys.matrix(model, part)
    edited = trained(facts)
    asked = keys.contexts(model, edited, passages, rules, seed)
    (covariance,) = keys.covariances(model, [part], passages, rules.ridge)
    key, value = keys.at_subjects(model, [(module, "input"), (module, "output")], asked)
    (goal,), history = goals(model, [module], edited, asked, rules)
    keys.write(model, part, insert(key[:, : part.neurons], goal - value, covariance))
    return [tensor], history


def insert(key: torch.Tensor, change: torch.Tensor, covariance: torch.Tensor) -> torch.Tensor:
    """The change D of a matrix W after facts one by one, each with D k = its change of value at the end of its turn.

    key          (facts, neurons)
    change       v* - W k for each fact: (facts, d_model)
    covariance   C: (neurons, neurons)

    For each fact the smallest D that meets D k = change, by tr(D C D^T): with u = C^-1 k, D = change u^T / (k . u)
    (equation 2). Returns (d_model, neurons), float32.
    """
    key, change, covariance = key.double(), change.double().to(key.device), covariance.double().to(key.device)
    directions = torch.cholesky_solve(key.T, torch.linalg.cholesky(covariance)).T
    total = torch.zeros(change.shape[1], key.shape[1], dtype=torch.float64, device=key.device)
    for k, wanted, u in zip(key, change, directions, strict=True):
        total += torch.outer(wanted - total @ k, u) / (k @ u)
    return total.float()
