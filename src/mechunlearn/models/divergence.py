"""KL divergence between two states of a model through a frozen unembedding, without ever holding all logits.

divergences   hidden states before and after -> KL(before || after)

As in `cross_entropy`, the vocabulary is read in parts with running maxima and sums, and the same pass adds up what the
gradients need: with a and b the logits of the two sides and p and q their distributions,

    KL = E_p[a - b] - lse(a) + lse(b),   dKL/db = q - p,   dKL/da = p (a - b - E_p[a - b]).

All logits of both sides, in float32 with their gradients, take twice as long (Gemma's 262,144 words).
"""

from typing import Any

import torch

from mechunlearn.models.cross_entropy import PART, unembedding
from mechunlearn.models.model import Model


def divergences(model: Model, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """KL(before || after) over the vocabulary, in nats, of hidden states: (rows, d_model) twice -> (rows,), float32.

    Differentiable in both. Products are made in the unembedding's own format, all else in float32. Raises ValueError
    where the unembedding wants a gradient.
    """
    weight, bias, cap = unembedding(model)
    place = weight.device
    found: torch.Tensor = _Divergence.apply(before.to(place), after.to(place), weight, bias, cap)
    return found


class _Side:
    """One side's running softmax: highest logit, sum of exponentials, and sums weighted by them."""

    def __init__(self, states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, cap: float | None):
        self.states, self.weight, self.bias, self.cap = states.to(weight.dtype), weight, bias, cap
        self.highest = torch.full((len(states),), -torch.inf, device=states.device)
        self.total = torch.zeros(len(states), device=states.device)

    def logits(self, start: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The part's logits, and how they change with what the unembedding puts out where they are capped."""
        found = torch.nn.functional.linear(self.states, self.weight[start : start + PART]).float()
        if self.bias is not None:
            found += self.bias[start : start + PART]
        if self.cap is None:
            return found, None
        found = self.cap * torch.tanh(found / self.cap)
        return found, 1 - (found / self.cap).square()

    def weigh(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The part's exponentials, and the factor by which all sums so far shrink; adds to `total`."""
        new = torch.maximum(self.highest, logits.amax(-1))
        shrink, shares = (self.highest - new).exp(), (logits - new[:, None]).exp_()
        self.highest, self.total = new, self.total * shrink + shares.sum(-1)
        return shares, shrink

    def embedded(self, shares: torch.Tensor, slopes: torch.Tensor | None, start: int) -> torch.Tensor:
        """The part's embeddings weighted by (rows, words): (rows, d_model)."""
        part, shares = self.weight[start : start + PART], shares if slopes is None else shares * slopes
        return (shares.to(part.dtype) @ part).float()


class _Divergence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        before: torch.Tensor,
        after: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        cap: float | None,
    ) -> torch.Tensor:
        old, new = _Side(before, weight, bias, cap), _Side(after, weight, bias, cap)
        apart = torch.zeros(len(before), device=before.device)  # sum of exp(a) (a - b)
        zeros = torch.zeros(before.shape, device=before.device)
        # Sums of embeddings: by p (a - b) and by p for the gradient before, by q and by p for the one after.
        differing, own, gained, lost = zeros, zeros, zeros, zeros
        for start in range(0, len(weight), PART):
            (a, slopes_a), (b, slopes_b) = old.logits(start), new.logits(start)
            shares, shrink = old.weigh(a)
            difference = a - b
            apart = apart * shrink + (shares * difference).sum(-1)
            if ctx.needs_input_grad[0]:
                differing = differing * shrink[:, None] + old.embedded(shares * difference, slopes_a, start)
                own = own * shrink[:, None] + old.embedded(shares, slopes_a, start)
            if ctx.needs_input_grad[1]:
                lost = lost * shrink[:, None] + old.embedded(shares, slopes_b, start)
                shares, shrink = new.weigh(b)
                gained = gained * shrink[:, None] + new.embedded(shares, slopes_b, start)
            else:
                new.weigh(b)
        mean = apart / old.total
        ctx.save_for_backward(
            (differing - mean[:, None] * own) / old.total[:, None],
            gained / new.total[:, None] - lost / old.total[:, None],
        )
        ctx.formats = before.dtype, after.dtype
        return mean - (old.highest + old.total.log()) + (new.highest + new.total.log())

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        sides = (
            (found * gradients[0][:, None]).to(kind) if needed else None
            for found, kind, needed in zip(ctx.saved_tensors, ctx.formats, ctx.needs_input_grad, strict=False)
        )
        return (*sides, None, None, None)
