"""Cross-entropy through a frozen unembedding, without ever holding all logits.

cross_entropy   hidden states and next tokens -> losses
unembedding     what such losses read of a network, where it is frozen

The unembedding is read in parts of the vocabulary. A running maximum and a running sum of exponentials give the
log-sum-exp, as in attention with an online softmax (Milakov & Gimelshein 2018), and the same pass adds up the
gradient: the embeddings weighted by their probabilities. So of logits only (rows, PART) are there at a time, each
product is made once forward and once for the gradient, and nothing but the gradient is kept for the backward pass.

Cut Cross-Entropy (Wijmans et al. 2024) leaves words without probability out of the gradient. On a CPU with a few
hundred rows, finding and gathering the others took longer than their products.
"""

from typing import Any

import torch

from mechunlearn.models.model import Model

PART = 4096  # words of the vocabulary at a time: their embeddings and logits fit a processor's cache


def cross_entropy(model: Model, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Loss of each row: (rows, d_model), (rows,) -> (rows,), nats, float32. Differentiable in the hidden states.

    Products are made in the unembedding's own format, all else in float32. The unembedding gets no gradient: raises
    ValueError where it wants one.
    """
    weight, bias, cap = unembedding(model)
    place = weight.device
    losses: torch.Tensor = _CrossEntropy.apply(hidden.to(place), targets.to(place), weight, bias, cap)
    return losses


def unembedding(model: Model) -> tuple[torch.Tensor, torch.Tensor | None, float | None]:
    """(weight, bias, cap of the logits) of a frozen unembedding. Raises ValueError where it is trained."""
    head = model.network.get_output_embeddings()
    if head.weight.requires_grad:
        raise ValueError("the unembedding is trained, but this loss takes it as frozen")
    return head.weight, head.bias, getattr(model.network.config, "final_logit_softcapping", None)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        targets: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        cap: float | None,
    ) -> torch.Tensor:
        rows, states = torch.arange(len(hidden), device=hidden.device), hidden.to(weight.dtype)
        target = torch.zeros(len(hidden), device=hidden.device)  # its logit,
        slope = torch.ones_like(target)  # how that changes with what the unembedding puts out,
        highest = torch.full_like(target, -torch.inf)  # the highest logit so far,
        others = torch.zeros_like(target)  # and the sum of exp(logit - highest) of all words but the target
        mean = torch.zeros(hidden.shape, device=hidden.device)  # the same sum, weighted by their embeddings
        for start in range(0, len(weight), PART):
            part = weight[start : start + PART]
            logits = torch.nn.functional.linear(states, part).float()
            if bias is not None:
                logits += bias[start : start + PART]
            if cap is not None:
                logits = cap * torch.tanh(logits / cap)
            slopes = None if cap is None else 1 - (logits / cap).square()
            here = (targets >= start) & (targets < start + PART)
            at = rows[here], targets[here] - start
            target[here] = logits[at]
            if slopes is not None:
                slope[here] = slopes[at]
            new = torch.maximum(highest, logits.amax(-1))
            shrink = (highest - new).exp()
            # The target stands apart: near probability 1, its own share of the gradient is a small difference.
            logits[at] = -torch.inf
            weights = logits.sub_(new[:, None]).exp_()
            others = others * shrink + weights.sum(-1)
            if ctx.needs_input_grad[0]:
                share = weights if slopes is None else weights * slopes
                mean = mean.mul_(shrink[:, None]).add_(share.to(part.dtype) @ part)
            highest = new
        total = others + (target - highest).exp()
        if ctx.needs_input_grad[0]:
            mean.div_(total[:, None]).sub_((slope * others / total)[:, None] * weight[targets])
            ctx.save_for_backward(mean.to(hidden.dtype))
        return highest + total.log() - target

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (mean,) = ctx.saved_tensors
        return (mean * gradients[0][:, None]).to(mean.dtype), None, None, None, None
