"""Reading and writing activations while a model runs. Hooks live and die in a `with` block.

capture   keep what modules put out (or take in): with capture(model, [name]) as seen: ...; seen[name]
patch     change what a module puts out (or takes in) by a function of it
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from mechunlearn.models.loading import Model


@contextmanager
def capture(model: Model, outputs: Sequence[str]) -> Iterator[dict[str, torch.Tensor]]:
    """The outputs of modules in the last forward inside the block, by module name: (rows, tokens, width)."""
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            seen[name] = _tensor(output).detach()

        return hook

    with ExitStack() as hooks:
        for name in outputs:
            hooks.callback(model.network.get_submodule(name).register_forward_hook(keep(name)).remove)
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


def _tensor(output: Any) -> torch.Tensor:
    tensor: torch.Tensor = output[0] if isinstance(output, tuple) else output
    return tensor
