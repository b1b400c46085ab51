"""Full forwards, one at a time, with hooks of torch's own: slow and plain, for the fast methods to agree with.

stirred   a model with biases and norms other than zeros and ones, and large weights
forward   the logits at the last token, and what parts held before they were changed
put       a change: these values at these places and columns
cost      what a pair's corruption takes from the answer's logit, against the other options' mean
likely    facts whose answers the model itself finds likeliest
costly    facts whose answers corrupted prompts cost the most
close     equal within 1e-4 of the largest value, which must not be zero
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import replace

import torch

from mechunlearn.facts.completion import completion
from mechunlearn.localize.corruption import pairs

# For what takes long: post-norms and windows; parallel blocks and mixed q, k, v; all in one matrix and grouped queries.
FEW = ("gemma3_text", "gpt_neox", "phi3")
_stirred: dict[str, object] = {}


def stirred(model):
    """A copy in which a bias left out or a norm passed by shows, and attention is far from uniform."""
    family = model.network.config.model_type
    if family not in _stirred:
        network, generator = deepcopy(model.network), torch.Generator().manual_seed(7)
        for parameter in network.parameters():
            if parameter.dim() == 1:
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
            else:
                parameter *= 0.5 / parameter.std()
        _stirred[family] = replace(model, network=network)
    return _stirred[family]


def forward(
    model, ids: Sequence[int], changes: Iterable[tuple[tuple[str, str], Callable]] = (), keep: Sequence = ()
) -> tuple[torch.Tensor, dict]:
    """(logits at the last token, part -> (1, tokens, width) before changes): part is (module, input or output)."""
    steps, seen, hooks = defaultdict(list), {}, []
    for part, change in changes:
        steps[part].append(change)

    def visit(part, tensor):
        seen[part] = tensor
        for change in steps[part]:
            tensor = change(tensor.clone())
        return tensor

    def before(part):
        return lambda module, given: (visit(part, given[0]), *given[1:])

    def after(part):
        def hook(module, given, output):
            return (visit(part, output[0]), *output[1:]) if isinstance(output, tuple) else visit(part, output)

        return hook

    try:
        for part in {*steps, *keep}:
            module = model.network.get_submodule(part[0])
            hooks.append(
                module.register_forward_pre_hook(before(part))
                if part[1] == "input"
                else module.register_forward_hook(after(part))
            )
        logits = model.network(input_ids=torch.tensor([list(ids)])).logits[0, -1]
    finally:
        for hook in hooks:
            hook.remove()
    return logits, seen


def put(value: torch.Tensor, places=slice(None), columns: tuple[int, int] | None = None) -> Callable:
    """Write (1, places, columns) into a tensor, there alone."""
    wide = slice(*columns) if columns else slice(None)

    def change(tensor):
        tensor[:, places, wide] = value
        return tensor

    return change


def difference(logits: torch.Tensor, tokens: Sequence[int]) -> torch.Tensor:
    """The first token's logit minus the mean of the others'."""
    return logits[tokens[0]] - logits[list(tokens[1:])].mean()


@torch.no_grad()
def cost(model, pair) -> torch.Tensor:
    """What the corruption takes from the metric."""
    clean, corrupt = (difference(forward(model, ids)[0], pair.tokens) for ids in (pair.clean, pair.corrupt))
    return clean - corrupt


@torch.no_grad()
def likely(model, facts):
    """Facts whose answer is the option that the model finds likeliest, so that corrupting them costs something."""
    changed = []
    for fact in facts:
        (prompt,) = completion(fact)
        logits = forward(model, model.encode(prompt.text))[0]
        options = [float(logits[model.option(option)]) for option in prompt.options]
        changed.append(replace(fact, answer=fact.options[options.index(max(options))]))
    return changed


@torch.no_grad()
def costly(model, facts, seed=0):
    """Facts whose answer is the option that random words in the subject's place cost the most."""
    changed = []
    for fact, pair in zip(facts, pairs(model, facts, "tokens", seed), strict=True):
        change = forward(model, pair.clean)[0] - forward(model, pair.corrupt)[0]
        options = [float(change[model.option(f" {option}")]) for option in fact.options]
        changed.append(replace(fact, answer=fact.options[options.index(max(options))]))
    return changed


def close(found: torch.Tensor, expected: torch.Tensor, share: float = 1e-4) -> None:
    """Both are the same up to a share of the largest value."""
    found, expected = torch.as_tensor(found), torch.as_tensor(expected)
    scale = float(expected.abs().max())
    assert scale > 0
    torch.testing.assert_close(found, expected.to(found), rtol=0, atol=share * scale)
