"""Attribution patching of all nodes: ours beside the bare forwards and backward, and beside nnsight.

    python -m benchmarks.attribution_patching [--quick]

Every contestant gets the same pairs of clean and corrupted prompts as one batch. Bare is what cannot be avoided on
whole prompts: two forwards and one backward to the embeddings, no hooks, logits at the last position. nnsight does it
as its documentation shows: one trace each, logits everywhere, gradients of every node's activation (here at the clean
prompt, as ours).
"""

from dataclasses import dataclass
from typing import Any

import nnsight
import torch

from benchmarks import common
from mechunlearn.localize.attribution_patching import attribute
from mechunlearn.localize.corruption import Node, Pair, nodes, pairs
from mechunlearn.models.model import Model
from mechunlearn.models.scoring import pad, unembed

BAR_BARE, BAR_NNSIGHT = 1.3, 2


@dataclass
class Prompts:
    """Padded token ids, where each prompt ends, and each pair's answer followed by the other options."""

    clean: torch.Tensor
    corrupt: torch.Tensor
    last: torch.Tensor
    tokens: list[list[int]]

    @property
    def mask(self) -> torch.Tensor:
        """1 for tokens, 0 for padding."""
        return (torch.arange(self.clean.shape[1]) <= self.last[:, None]).long()


def prompts(model: Model, batch: list[Pair]) -> Prompts:
    """The whole prompts of a batch of pairs."""
    clean, lengths = pad([pair.clean for pair in batch], model.device)
    corrupt, _ = pad([pair.corrupt for pair in batch], model.device)
    return Prompts(clean, corrupt, lengths - 1, [pair.tokens for pair in batch])


def metric(logits: torch.Tensor, prompts: Prompts) -> torch.Tensor:
    """Last logits (pairs, vocabulary) -> the answer's logit minus the mean of the other options', summed over pairs."""
    rows = zip(logits, prompts.tokens, strict=True)
    return torch.stack([row[first] - row[others].mean() for row, (first, *others) in rows]).sum()


def bare(model: Model, prompts: Prompts) -> torch.Tensor:
    """Two forwards and one backward; the gradient of the clean prompts' embeddings."""
    rows, embed = torch.arange(len(prompts.last)), model.network.get_input_embeddings()

    def run(embedded: torch.Tensor) -> torch.Tensor:
        hidden = model.network.base_model(inputs_embeds=embedded, use_cache=False).last_hidden_state
        return metric(unembed(model, hidden[rows, prompts.last]), prompts)

    with torch.no_grad():
        run(embed(prompts.corrupt))
    embedded = embed(prompts.clean).requires_grad_()
    return torch.autograd.grad(run(embedded), embedded)[0]


def by_nnsight(peer: Any, prompts: Prompts, layers: int, keep: int = 0) -> dict[str, list[torch.Tensor]]:
    """(clean - corrupt) x gradient of each kind of node, one tensor (pairs, tokens, width) a layer.

    keep   logits of so many last positions instead of all
    """
    rows, options = torch.arange(len(prompts.last)), {"logits_to_keep": keep} if keep else {}
    at = prompts.last - (prompts.clean.shape[1] - keep if keep else 0)
    with torch.no_grad(), peer.trace({"input_ids": prompts.corrupt, "attention_mask": prompts.mask}, **options):
        corrupt = nnsight.save([])
        for layer in peer.model.layers:
            corrupt += [layer.self_attn.q_proj.output, layer.self_attn.k_proj.output, layer.self_attn.v_proj.output]
            corrupt += [layer.self_attn.o_proj.input, layer.mlp.input, layer.mlp.output]
    with peer.trace({"input_ids": prompts.clean, "attention_mask": prompts.mask}, **options):
        clean, gradients = nnsight.save([]), nnsight.save([])
        for layer in peer.model.layers:
            for part in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj):
                clean.append(part.output.requires_grad_())
            clean.append(layer.self_attn.o_proj.input.requires_grad_())
            clean.append(layer.mlp.input.requires_grad_())
            clean.append(layer.mlp.output.requires_grad_())
        with metric(peer.lm_head.output[rows, at], prompts).backward():
            for activation in reversed(clean):
                gradients.append(activation.grad)
    products = [
        ((now.detach() - other) * slope) for now, other, slope in zip(clean, corrupt, reversed(gradients), strict=True)
    ]
    kinds = ("q", "k", "v", "head", "mlp-in", "mlp")
    return {kind: products[number :: len(kinds)] for number, kind in enumerate(kinds)}


def scores(products: dict[str, list[torch.Tensor]], every: list[Node]) -> torch.Tensor:
    """The scores of the nodes, summed over positions and the node's columns: (pairs, nodes)."""
    found = []
    for node in every:
        columns = slice(*node.columns) if node.columns else slice(None)
        found.append(products[node.kind][node.layer][..., columns].sum((1, 2)))
    return torch.stack(found, 1)


def main() -> None:
    """Measure and print."""
    rounds = 2 if common.quick(__doc__) else 9
    model = common.model()
    batch, every = pairs(model, common.known(model, 8), "tokens", 0), nodes(model.layout)
    whole, layers = prompts(model, batch), model.layout.layers
    sight = nnsight.TransformersModel(common.peer(model), tokenizer=model.tokenizer, task="text-generation")
    keep = int(whole.clean.shape[1] - whole.last.min())
    runs = {
        "ours": lambda: attribute(model, batch, every, 1)[0],
        "bare 2 forwards + 1 backward": lambda: bare(model, whole),
        "nnsight": lambda: scores(by_nnsight(sight, whole, layers), every),
        "nnsight, logits_to_keep": lambda: scores(by_nnsight(sight, whole, layers, keep), every),
    }
    times, found = common.medians(runs, rounds)
    mine, bare_time, theirs, kept = times.values()
    differences = ["", "", *((found[name] - found["ours"]).abs().max().item() for name in list(runs)[2:])]
    rows = [[name, time, time / mine, gap] for (name, time), gap in zip(times.items(), differences, strict=True)]
    common.report(
        "attribution_patching",
        ["", "s", "ratio to ours", "largest difference"],
        rows,
        [
            f"{len(batch)} facts, {len(every)} nodes, float32, median of {rounds} rounds taken in turn; scores up to "
            f"{found['ours'].abs().max():.3g}",
            f"ours is {mine / bare_time:.2f} of the bare cost (bar: at most {BAR_BARE}); "
            f"nnsight takes {theirs / mine:.1f} times ours (bar: at least {BAR_NNSIGHT})",
        ],
        ratio=theirs / mine,
        max_abs_difference=max(differences[2:]),
        n=len(batch),
        of_bare_cost=mine / bare_time,
        ratio_logits_to_keep=kept / mine,
        seconds=times,
    )


if __name__ == "__main__":
    main()
