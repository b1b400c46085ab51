"""MEMIT: all facts at once, spread over several MLPs."""

from collections.abc import Sequence

import torch

from mechunlearn.artifacts import Selection
from mechunlearn.config import EditSettings
from mechunlearn.edit import keys
from mechunlearn.edit.values import goals
from mechunlearn.facts import Fact, trained
from mechunlearn.facts.text import Passage
from mechunlearn.models.interventions import Part
from mechunlearn.models.model import Model
from mechunlearn.registry import closed_form


@closed_form("memit")
def memit(
    model: Model,
    facts: Sequence[Fact],
    passages: Sequence[Passage],
    selection: Selection,
    settings: EditSettings,
    seed: int,
) -> tuple[list[str], list[dict[str, float]]]:
    """Write the new answers into all selected MLPs, from the lowest layer to the highest.

    Meng et al. 2023, section 4: the state behind the last of these layers is optimised for each fact, and every layer
    adds an equal share of what is then still missing from it (algorithm 1).

    Where a norm stands between an MLP and the residual stream (Gemma 2 and 3, OLMo 2), what an MLP adds is limited in
    size, and no share of a state can be asked of it. There the values of all layers are optimised jointly,
    each before its norm, and each layer is given what it still lacks of its own.
    Keys and states are means over the same contexts. Returns the changed tensors' names and the losses of the values.
    """
    rules, parts = settings.memit, keys.written(model, selection, "memit")
    edited = trained(facts)
    asked = keys.contexts(model, edited, passages, rules, seed)
    moments = keys.covariances(model, parts, passages, rules.ridge)
    matrices = [keys.matrix(model, part) for part in parts]
    modules = [module for _, module in matrices]
    aims = modules if model.layout.post_norms else [model.layout.module(parts[-1].layer)]
    wanted, history = goals(model, aims, edited, asked, rules)
    for number, (part, module, moment) in enumerate(zip(parts, modules, moments, strict=True)):
        at = number if model.layout.post_norms else 0
        side: list[Part] = [(module, "input"), (aims[at], "output")]
        key, state = keys.at_subjects(model, side, asked)
        share = 1 if model.layout.post_norms else len(parts) - number
        weight = rules.covariance_weight * model.layout.width
        change = solve(key[:, : part.neurons], (wanted[at] - state) / share, moment, weight)
        keys.write(model, part, change)
    return [tensor for tensor, _ in matrices], history


def solve(key: torch.Tensor, wanted: torch.Tensor, covariance: torch.Tensor, weight: float) -> torch.Tensor:
    """The change D that minimises  weight tr(D C D^T) + sum |D k - wanted|^2  over all facts.

    key      (facts, neurons)
    wanted   (facts, d_model)

    D = R K^T (weight C + K K^T)^-1, with facts as columns of R and K (equation 14).
    Returns (d_model, neurons), float32.
    """
    key, wanted, covariance = key.double(), wanted.double().to(key.device), covariance.double().to(key.device)
    return torch.linalg.solve(weight * covariance + key.T @ key, key.T @ wanted).T.float()
