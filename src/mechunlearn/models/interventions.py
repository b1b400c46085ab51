"""Reading and writing activations while a model runs. Hooks live and die in a `with` block.

capture   keep what modules put out or take in: with capture(model, [(name, "output")]) as seen: ...
patch     change what a module puts out (or takes in) by a function of it
skip      let layers hand on what they are given
rewire    let layers compute something else than their own forward
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from mechunlearn.models.model import Model

Part = tuple[str, str]  # a module's name and its side: input (the first argument) or output


@contextmanager
def capture(model: Model, parts: Sequence[Part]) -> Iterator[dict[Part, torch.Tensor]]:
    """What modules put out or take in, in the last forward inside the block: (rows, tokens, width) by part."""
    seen: dict[Part, torch.Tensor] = {}

    def keep(part: Part) -> Callable[..., None]:
        def hook(module: Any, inputs: Any, output: Any = None) -> None:
            seen[part] = (inputs[0] if part[1] == "input" else _tensor(output)).detach()

        return hook

    with ExitStack() as hooks:
        for part in parts:
            module = model.network.get_submodule(part[0])
            register = module.register_forward_pre_hook if part[1] == "input" else module.register_forward_hook
            hooks.callback(register(keep(part)).remove)
        yield seen


@contextmanager
def patch(
    model: Model,
    outputs: dict[str, Callable[[torch.Tensor], torch.Tensor]] | None = None,
    inputs: dict[str, Callable[[torch.Tensor], torch.Tensor]] | None = None,
) -> Iterator[None]:
    """Replace what modules put out, or take in as first argument, by a function of it, inside the block."""

    def on_output(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., Any]:
        def hook(module: Any, arguments: Any, output: Any) -> Any:
            changed = change(_tensor(output))
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        return hook

    def on_input(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., Any]:
        def hook(module: Any, arguments: Any) -> Any:
            return (change(arguments[0]), *arguments[1:])

        return hook

    submodule = model.network.get_submodule
    with ExitStack() as hooks:
        for name, change in (outputs or {}).items():
            hooks.callback(submodule(name).register_forward_hook(on_output(change)).remove)
        for name, change in (inputs or {}).items():
            hooks.callback(submodule(name).register_forward_pre_hook(on_input(change)).remove)
        yield


@contextmanager
def skip(model: Model, layers: Iterable[int]) -> Iterator[None]:
    """Inside the block these layers hand on what they are given."""
    with rewire(model, layers, lambda _: lambda stream, *_, **__: stream):
        yield


@contextmanager
def rewire(
    model: Model, layers: Iterable[int], change: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> Iterator[None]:
    """Inside the block these layers compute `change(forward)` instead of their `forward`, within their hooks."""
    modules = [model.network.get_submodule(model.layout.module(layer)) for layer in layers]
    own = [module.__dict__.get("forward") for module in modules]  # accelerate's, of a model on several GPUs
    for module in modules:
        module.forward = change(module.forward)
    try:
        yield
    finally:
        for module, forward in zip(modules, own, strict=True):
            del module.forward
            if forward is not None:
                module.forward = forward


def _tensor(output: Any) -> torch.Tensor:
    tensor: torch.Tensor = output[0] if isinstance(output, tuple) else output
    return tensor
