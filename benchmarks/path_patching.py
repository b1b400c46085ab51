"""Path patching of every head and MLP: ours beside the loop that runs the whole model for every sender.

    python -m benchmarks.path_patching [--quick]

To the answer: every head and MLP is a sender. The loop runs one forward a sender, with all other heads and MLPs
frozen at their corrupted values. Through the extraction components: every MLP is a sender. The loop runs two forwards
a sender: one with all else frozen, to note what the receivers make of it, and one in which the receivers put that
out and all else reacts. A forward is counted by rows x tokens x layers that really ran, in units of one whole prompt;
the clean and the corrupted run that senders share are in. With --quick the loop runs every third layer's senders.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pandas as pd
import torch

from benchmarks import common
from mechunlearn.localize.corruption import COLUMNS, Pair, logit_difference, pairs
from mechunlearn.localize.path_patching import Extraction, contributions, direct, extracting, recorded, through
from mechunlearn.models.interventions import Part, capture, patch
from mechunlearn.models.model import Model

EXTRACTION, BAR = 10, 5
ALL = slice(None)
Puts = list[tuple[Part, slice, torch.Tensor]]  # an activation, which columns of it, the value that it gets there
Values = dict[Part, torch.Tensor]


def ours_direct(model: Model, pair: Pair) -> torch.Tensor:
    """The metric of every path straight to the answer: (layers, heads + 1), the MLP last."""
    clean, corrupt = recorded(model, pair)
    heads, mlps = contributions(model, clean, corrupt)
    return direct(model, corrupt, torch.cat([heads, mlps[:, None, -1]], 1), pair.tokens)


def ours_through(model: Model, pair: Pair, extraction: Extraction) -> torch.Tensor:
    """The metric of every MLP's paths through the extraction components: (layers,)."""
    clean, corrupt = recorded(model, pair)
    _, mlps = contributions(model, clean, corrupt)
    return through(model, corrupt, mlps[None], extraction, pair.tokens)[0]


def extracted(model: Model, found: list[Pair], metrics: list[torch.Tensor]) -> Extraction:
    """The extraction components, as the localizer chooses them."""
    rows = []
    for pair, values in zip(found, metrics, strict=True):
        effects = values - logit_difference(model, recorded(model, pair)[1].hidden, pair.tokens)
        for layer, (*heads, mlp) in enumerate(effects.tolist()):
            rows += [(pair.fact, layer, "direct-head", head, "", effect) for head, effect in enumerate(heads)]
            rows.append((pair.fact, layer, "direct-mlp", -1, "", mlp))
    return extracting(pd.DataFrame(rows, columns=COLUMNS), EXTRACTION, heads_only=False)


def loop_direct(model: Model, pair: Pair, runs: tuple[Values, Values], layers: Sequence[int]) -> torch.Tensor:
    """The same by one whole forward a sender: (layers given, heads + 1)."""
    clean, corrupt = runs
    found = []
    for layer in layers:
        heads, mlp = parts(model, layer)
        senders = [(heads, slice(*columns)) for columns in model.layout.columns("head")] + [(mlp, ALL)]
        for part, columns in senders:
            with putting(model, [*frozen(corrupt), (part, columns, clean[part])]):
                found.append(metric(model, pair, pair.corrupt))
    return torch.stack(found).reshape(len(layers), -1)


def loop_through(
    model: Model, pair: Pair, runs: tuple[Values, Values], layers: Sequence[int], extraction: Extraction
) -> torch.Tensor:
    """The same by two whole forwards a sender: (layers given,)."""
    clean, corrupt = runs
    columns = model.layout.columns("head")
    receivers = [
        ((model.layout.module(layer, "o"), "input"), slice(*columns[head])) for layer, head in extraction.heads
    ]
    receivers += [((model.layout.module(layer, "mlp"), "output"), ALL) for layer in extraction.mlps]
    found = []
    for layer in layers:
        sender = parts(model, layer)[1]
        noting = capture(model, list(dict.fromkeys(part for part, _ in receivers)))
        with noting as noted, putting(model, [*frozen(corrupt), (sender, ALL, clean[sender])]):
            metric(model, pair, pair.corrupt)
        with putting(model, [(part, at, noted[part]) for part, at in receivers]):
            found.append(metric(model, pair, pair.corrupt))
    return torch.stack(found)


def both_runs(model: Model, pair: Pair) -> tuple[Values, Values]:
    """What heads and MLPs put out in the clean and in the corrupted run."""
    found = []
    for ids in (pair.clean, pair.corrupt):
        with capture(model, [part for layer in range(model.layout.layers) for part in parts(model, layer)]) as seen:
            metric(model, pair, ids)
        found.append(dict(seen))
    return found[0], found[1]


def parts(model: Model, layer: int) -> tuple[Part, Part]:
    """Where a layer's heads are frozen, and where its MLP."""
    return (model.layout.module(layer, "o"), "input"), (model.layout.written(layer, "mlp"), "output")


def frozen(values: Values) -> Puts:
    """All these activations stay as they are."""
    return [(part, ALL, value) for part, value in values.items()]


def metric(model: Model, pair: Pair, ids: list[int]) -> torch.Tensor:
    """The answer's logit minus the mean of the other options', by one plain forward of the whole prompt."""
    logits = model.network(input_ids=torch.tensor([ids])).logits[0, -1]
    return logits[pair.tokens[0]] - logits[pair.tokens[1:]].mean()


@contextmanager
def putting(model: Model, puts: Puts) -> Iterator[None]:
    """Inside the block activations get these values, the later ones over the earlier."""
    changes: dict[str, dict[str, Callable[[torch.Tensor], torch.Tensor]]] = {"input": {}, "output": {}}
    for name, side in dict.fromkeys(part for part, _, _ in puts):

        def change(tensor: torch.Tensor, part: Part = (name, side)) -> torch.Tensor:
            tensor = tensor.clone()
            for each, columns, value in puts:
                if each == part:
                    tensor[..., columns] = value[..., columns]
            return tensor

        changes[side][name] = change
    with patch(model, changes["output"], changes["input"]):
        yield


@contextmanager
def counting(model: Model) -> Iterator[list[int]]:
    """Rows x tokens of every layer that runs inside the block (a skipped layer does not reach its MLP)."""
    ran: list[int] = []
    modules = [model.network.get_submodule(model.layout.module(layer, "mlp")) for layer in range(model.layout.layers)]
    hooks = [
        module.register_forward_hook(lambda _, __, output: ran.append(output[..., 0].numel())) for module in modules
    ]
    yield ran
    for hook in hooks:
        hook.remove()


@torch.no_grad()
def main() -> None:
    """Measure and print."""
    quick = common.quick(__doc__)
    count, step = (1, 3) if quick else (8, 1)
    model = common.model()
    found = pairs(model, common.known(model, count), "tokens", 0)
    layers, heads = model.layout.layers, model.layout.heads
    some = range(0, layers, step)
    whole = sum(len(pair.clean) for pair in found) * layers

    def measure(run: Callable[..., Any], *each: Any, **fixed: Any) -> tuple[torch.Tensor, list[Any]]:
        """((seconds, whole forwards) a fact, results), over all facts."""
        with counting(model) as ran:
            time, results = common.seconds(
                lambda: [run(model, *one, **fixed) for one in zip(found, *each, strict=True)]
            )
        return torch.tensor([time / count, sum(ran) / whole]), results

    def largest(mine: list[torch.Tensor], theirs: list[torch.Tensor]) -> float:
        return max((a[list(some)] - b).abs().max().item() for a, b in zip(mine, theirs, strict=True))

    measure(ours_direct)  # warms up
    shared, runs = measure(both_runs)
    ours, mine = measure(ours_direct)
    loop, theirs = measure(loop_direct, runs, layers=some)
    extraction = extracted(model, found, mine)
    ours_2, mine_2 = measure(ours_through, extraction=extraction)
    loop_2, theirs_2 = measure(loop_through, runs, layers=some, extraction=extraction)
    gaps = largest(mine, theirs), largest(mine_2, theirs_2)
    loop, loop_2 = (shared + cost * layers / len(some) for cost in (loop, loop_2))

    senders = layers * (heads + 1)
    rows = [
        [name, paths, *cost.tolist(), cost[1].item() / number, gap]
        for name, paths, cost, number, gap in [
            ("ours", "to the answer", ours, senders, ""),
            ("loop", "to the answer", loop, senders, gaps[0]),
            ("ours", "through the extraction", ours_2, layers, ""),
            ("loop", "through the extraction", loop_2, layers, gaps[1]),
        ]
    ]
    ratio, ratio_forwards = ((loop + loop_2) / (ours + ours_2)).tolist()
    common.report(
        "path_patching",
        ["", "paths", "s a fact", "forwards a fact", "forwards a sender", "largest difference"],
        rows,
        [
            f"{count} facts, {layers * heads} heads and {layers} MLPs, {EXTRACTION} extraction components, float32",
            f"the loop takes {ratio:.1f} times our seconds (bar: {BAR}) and {ratio_forwards:.1f} times our forwards",
        ],
        ratio=ratio,
        max_abs_difference=max(gaps),
        n=count,
        ratio_forwards=ratio_forwards,
        forwards_a_sender={"ours": (ours + ours_2)[1].item() / (senders + layers)}
        | {"loop": (loop + loop_2)[1].item() / (senders + layers)},
        seconds_a_fact=(ours + ours_2)[0].item(),
    )


if __name__ == "__main__":
    main()
