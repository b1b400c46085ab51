"""Texts of the biographies before and after an edit: how likely they are, and how alike the model's insides.

measure      measurement rows: perplexity of every text, and similarity of the hidden states at every layer
states       residual stream of texts at every layer
similarity   cosine of the same states in two models, averaged over a text
"""

from collections.abc import Sequence
from typing import Any

import torch

from mechunlearn.facts.biographies import ROLES, Biography
from mechunlearn.facts.text import Passage
from mechunlearn.models.interventions import Part, capture
from mechunlearn.models.model import Model
from mechunlearn.models.scoring import text_hidden, text_scores

States = list[torch.Tensor]


def chosen(texts: Sequence[Biography]) -> list[Biography]:
    """One text a person and stream: the first wording of each."""
    return [text for text in texts if text.wording == 0]


def measure(
    model: Model, texts: Sequence[Biography], stage: str, seed: int, before: States | None = None
) -> list[dict[str, Any]]:
    """Measurement rows of the texts' cross-entropies (elicitation `biography`) and of their similarity to the base.

    `before` is what `states` gave of these texts before the edit: `similarity` is then measured at every layer, in
    the stages `layer@LAYER`, where layer l is what goes into block l and the last one what comes out of the last.
    """
    passages = [Passage(f"{text.person} / {text.stream}", "", text.text) for text in texts]
    nothing: dict[str, Any] = {"seed": seed, "order": 0, "rank": 0, "choice": "", "argmax": ""}
    rows, (nlls, _) = [], text_scores(model, passages, text_hidden(model, passages))
    for text, passage, nll in zip(texts, passages, nlls, strict=True):
        place = {"stage": stage, "elicitation": "biography", "role": ROLES[text.stream], "fact": passage.id}
        rows.append({**nothing, **place, "nll": nll})
    if before is None:
        return rows
    for text, passage, old, new in zip(texts, passages, before, states(model, texts), strict=True):
        for layer, value in enumerate(similarity(old, new).tolist()):
            place = {"stage": f"layer@{layer}", "elicitation": "similarity", "role": ROLES[text.stream]}
            rows.append({**nothing, **place, "fact": passage.id, "similarity": value})
    return rows


@torch.no_grad()
def states(model: Model, texts: Sequence[Biography]) -> States:
    """What goes into every block, and out of the last, at every token but BOS: (layers + 1, tokens, d_model) a text."""
    layers, begin = model.layout.layers, len(model.begin())
    parts: list[Part] = [(model.layout.module(layer), "input") for layer in range(layers)]
    parts.append((model.layout.module(layers - 1), "output"))
    found = []
    for text in texts:
        with capture(model, parts) as seen:
            model.network.base_model(input_ids=torch.tensor([model.encode(text.text)], device=model.device))
        found.append(torch.stack([seen[part][0, begin:].float().cpu() for part in parts]))
    return found


def similarity(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """Mean cosine over tokens of (layers, tokens, d_model) states: (layers,)."""
    return torch.nn.functional.cosine_similarity(before, after, dim=-1).mean(-1)
