"""Attribution patching: a first-order estimate of every node's effect from two forwards and one backward.

attribution_patching   gradients at the clean run (Nanda 2023; Syed et al. 2023; Guo et al. 2025, section 2.2)
integrated_gradients   gradients averaged on the way from the corrupted to the clean run (Hanna et al. 2024, EAP-IG)
attribute              the scores of one batch of pairs
"""

from collections.abc import Callable, Sequence

import pandas as pd
import torch

from mechunlearn.config import LocalizeSettings
from mechunlearn.facts import Fact
from mechunlearn.localize.corruption import COLUMNS, Node, Pair, logit_difference, nodes, normalised, pairs
from mechunlearn.models.interventions import Part, patch
from mechunlearn.models.model import Model
from mechunlearn.models.scoring import at_last, common_prefix, pad, repeat, run_prefix
from mechunlearn.progress import track
from mechunlearn.registry import localizer

BATCH = 16
Change = Callable[[torch.Tensor], torch.Tensor]


@localizer("attribution-patching")
def attribution_patching(model: Model, facts: Sequence[Fact], settings: LocalizeSettings) -> pd.DataFrame:
    """Score every node by (clean - corrupt) . d metric / d clean, summed over positions and width.

    The metric is the answer's logit minus the mean logit of the other options, divided by how much the corruption
    costs on average: an effect of 1 is as much as the whole corruption, and positive where corrupting the node takes
    the answer away. Two forwards and one backward a batch of facts.

    Returns one row per fact and node: q, k, v and head (by head), mlp-in and mlp (head -1).
    """
    return _scored(model, facts, settings, steps=1)


@localizer("integrated-gradients")
def integrated_gradients(model: Model, facts: Sequence[Fact], settings: LocalizeSettings) -> pd.DataFrame:
    """The same with the gradient averaged over `attribution.steps` points between the two prompts' embeddings.

    The points are corrupt + k/m (clean - corrupt) for k = 1 .. m (Hanna et al. 2024, equation 3); with one step it
    is attribution patching.
    """
    return _scored(model, facts, settings, settings.attribution.steps)


def _scored(model: Model, facts: Sequence[Fact], settings: LocalizeSettings, steps: int) -> pd.DataFrame:
    rules = settings.attribution
    every, lost, rows = nodes(model.layout), [], []
    found = pairs(model, facts[: rules.facts], rules.corruption, settings.seed)
    found.sort(key=lambda pair: len(pair.clean))  # of similar length, to pad little
    for start in track(range(0, len(found), BATCH), "attributing"):
        batch = found[start : start + BATCH]
        scores, cost = attribute(model, batch, every, steps)
        lost += cost.tolist()
        for pair, effects in zip(batch, scores.tolist(), strict=True):
            rows += [
                (pair.fact, node.layer, node.kind, node.head, "", effect)
                for node, effect in zip(every, effects, strict=True)
            ]
    return normalised(pd.DataFrame(rows, columns=COLUMNS), lost)


def attribute(
    model: Model, batch: Sequence[Pair], every: Sequence[Node], steps: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """(scores of all nodes (pairs, nodes), what the corruption costs (pairs,)), both as logits.

    The prompt before the first subject is the same in all runs; it is run once and cannot matter.
    """
    shared = min(common_prefix([pair.clean, pair.corrupt]) for pair in batch)
    shared = min(shared, common_prefix([pair.clean for pair in batch]))
    with torch.no_grad():
        prefix = run_prefix(model, batch[0].clean[:shared])
    clean, lengths = pad([pair.clean[shared:] for pair in batch], model.device)
    corrupt, _ = pad([pair.corrupt[shared:] for pair in batch], model.device)
    parts = list(dict.fromkeys(node.part for node in every))

    def run(ids: torch.Tensor, embedded: Change) -> tuple[torch.Tensor, dict[Part, torch.Tensor]]:
        kept: dict[Part, torch.Tensor] = {}

        def keep(part: Part) -> Change:
            def look(tensor: torch.Tensor) -> torch.Tensor:
                # A view of its own: what else reads the tensor does not add to this part's gradient.
                kept[part] = tensor.view_as(tensor)
                return kept[part]

            return look

        outputs = {name: keep((name, side)) for name, side in parts if side == "output"}
        inputs = {name: keep((name, side)) for name, side in parts if side == "input"}
        with patch(model, {model.embeddings: embedded, **outputs}, inputs):
            cache = repeat(prefix, len(batch))
            hidden = model.network.base_model(input_ids=ids, past_key_values=cache).last_hidden_state
        last = at_last(hidden, lengths)
        metric = [logit_difference(model, row, pair.tokens) for row, pair in zip(last, batch, strict=True)]
        return torch.stack(metric), kept

    embeddings: list[torch.Tensor] = []

    def remember(embedded: torch.Tensor) -> torch.Tensor:
        embeddings.append(embedded)
        return embedded

    with torch.no_grad():
        low, corrupted = run(corrupt, remember)
        high, cleaned = run(clean, remember) if steps > 1 else (low, {})
    gradients: dict[Part, torch.Tensor] = {}
    for step in range(1, steps + 1):

        def start(embedded: torch.Tensor, share: float = step / steps) -> torch.Tensor:
            if steps > 1:
                embedded = embeddings[0] + share * (embeddings[1] - embeddings[0])
            return embedded.detach().requires_grad_()

        with torch.enable_grad():
            metric, kept = run(clean, start)
            found = torch.autograd.grad(metric.sum(), [kept[part] for part in parts])
        for part, gradient in zip(parts, found, strict=True):
            gradients[part] = gradients.get(part, 0) + gradient / steps
    if steps == 1:
        high, cleaned = metric.detach(), {part: tensor.detach() for part, tensor in kept.items()}
    products = {
        part: ((cleaned[part].float() - corrupted[part].float()) * gradients[part].float()).sum(1).cpu()
        for part in parts  # layers may lie on several GPUs
    }
    scores = [products[node.part][:, slice(*node.columns) if node.columns else slice(None)].sum(-1) for node in every]
    return torch.stack(scores, 1), (high - low).cpu()
