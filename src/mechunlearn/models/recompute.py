"""Training in little memory on a GPU: a layer's activations are computed again when its gradient is due.

recomputed   inside this block forwards keep of each layer only what enters it (Chen et al. 2016)

A step keeps some 16 tensors of a layer for every token otherwise, which for models of 9 billion parameters is more than
one GPU holds. On a CPU a step has few tokens, and time is what is short.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch.utils.checkpoint import checkpoint

from mechunlearn.models.interventions import rewire
from mechunlearn.models.model import Model


@contextmanager
def recomputed(model: Model, always: bool = False) -> Iterator[None]:
    """Inside the block, forwards on a GPU, or `always`, can be differentiated with one layer's activations at a time.

    Layers are wrapped inside their hooks, so that what captures or replaces a layer's input or output acts once. What
    patches a layer's inner parts must still be there when gradients are computed.
    """
    if model.device.type == "cpu" and not always:
        yield
        return
    with rewire(model, range(model.layout.layers), lambda forward: partial(checkpoint, forward, use_reentrant=False)):
        yield
