"""Memory of an edit against what it trains, and of a divergence from the base model, each in a process of its own.

    python -m benchmarks.edit_memory [--quick]

Needs the converted Gemma 3 270M (`make reproduce` or `snakemake fetch_all`), in the format in which edits run here.
First: edits by `inject` of ever more parameters, 16 facts a step, and the most memory each takes beyond the model.
Second: one step that only keeps four texts where the base model had them, MLPs 3-6 trained: from the hidden states that
an edit remembers, and from a second copy of the model with all logits of both. Seconds are of processor time; on Linux
memory is counted from where the model is loaded. The last line is JSON.
"""

import copy
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks import common
from mechunlearn.artifacts import Component, Selection
from mechunlearn.config import EditSettings
from mechunlearn.edit.ascent import difference_kl
from mechunlearn.edit.objectives import Batch
from mechunlearn.edit.train import Recipe, train, trainable
from mechunlearn.facts import sports, text
from mechunlearn.models.attention import grouped
from mechunlearn.models.loading import fastest
from mechunlearn.models.model import Model
from mechunlearn.models.scoring import pad
from mechunlearn.models.training import passages_ids

PASSAGES = "src/mechunlearn/resources/text/passages.jsonl"
FACTS, STEPS = 16, 3
PARTS: dict[str, list[Component]] = {
    "MLP 3": [Component(3, "mlp")],
    "MLPs 3-6": [Component(layer, "mlp") for layer in range(3, 7)],
    "MLPs 3-10": [Component(layer, "mlp") for layer in range(3, 11)],
    "MLPs 0-17": [Component(layer, "mlp") for layer in range(18)],
    "everything": [Component(layer, kind) for layer in range(18) for kind in ("attention", "mlp")],
}
KEPT = "MLPs 3-6"
BAR = 1.25 * 16  # bytes a trained parameter: weight, gradient and two moments in float32, and a margin
MODULE = "benchmarks.edit_memory"


def edit(part: str) -> dict[str, float]:
    """Train so much for a few steps, in this process: parameters, and GB beyond what the process had before."""
    model = common.model(fastest(common.MANIFEST))
    athletes = sports.read(common.ATHLETES)[: 2 * FACTS]
    forget = [fact.with_role("forget", "golf") for fact in athletes[:FACTS]]
    kept = [fact.with_role("maintain-train", "golf") for fact in athletes[FACTS:]]
    settings = EditSettings(steps=STEPS, batch=FACTS, texts=2, text_tokens=48, learning_rate=1e-6)
    recipe = Recipe([*forget, *kept], text.read(PASSAGES), Selection("", PARTS[part], 0, 0, 0), "inject", settings, 0)
    before = _from_here()
    changed, _ = train(model, recipe)
    named = dict(model.network.named_parameters())
    return {"trained": sum(named[name].numel() for name in changed), "more": common.peak() - before}


def remembered(model: Model, texts: list[tuple[int, ...]]) -> Callable[[], torch.Tensor]:
    """The divergence as `gradient-difference-kl` has it, from the base model's final hidden states."""
    batch = Batch([((2,), 2)], [], [((2,), 2)], texts)
    with model.autocast(), grouped(model):
        loss = difference_kl(model, batch, EditSettings(), 0)

    def term() -> torch.Tensor:
        with grouped(model):
            return loss(batch)["text"]

    return term


def second_model(model: Model, texts: list[tuple[int, ...]]) -> Callable[[], torch.Tensor]:
    """The same from a copy of the whole model, with all logits of both."""
    base = copy.deepcopy(model.network)
    inputs, lengths = pad([ids[:-1] for ids in texts], model.device)
    read = torch.arange(inputs.shape[1])[None] < lengths[:, None]

    def term() -> torch.Tensor:
        with torch.no_grad():
            then = base(input_ids=inputs).logits[read].float().log_softmax(-1)
        now = model.network(input_ids=inputs).logits[read].float().log_softmax(-1)
        return torch.nn.functional.kl_div(now, then, log_target=True, reduction="batchmean")

    return term


WAYS = {"remembered": remembered, "second model": second_model}


def keep(way: str, steps: int) -> dict[str, float]:
    """Take that divergence and its gradients, in this process: seconds a step, GB, value, norm of the gradients."""
    model = common.model(fastest(common.MANIFEST))
    texts = passages_ids(model, text.read(PASSAGES)[:4], 48)
    before, times = _from_here(), []
    with trainable(model, Selection("", PARTS[KEPT], 0, 0, 0)) as parameters:
        moving = list(parameters.values())
        term = WAYS[way](model, texts)
        torch.manual_seed(0)
        with torch.no_grad():
            for parameter in moving:
                parameter.mul_(1 + 0.05 * torch.randn_like(parameter))
        for _ in range(1 + steps):  # the first one warms up
            start = time.process_time()
            with model.autocast():
                value = term()
            gradients = torch.autograd.grad(value, moving)
            times.append(time.process_time() - start)
        norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
    return {
        "seconds": sorted(times[1:])[steps // 2],
        "more": common.peak() - before,
        "value": value.item(),
        "norm": norm.item(),
    }


def _from_here() -> float:
    """The process's memory now, from which its peak is counted; elsewhere than on Linux its peak so far."""
    if (refs := Path("/proc/self/clear_refs")).exists():
        refs.write_text("5")
    return common.peak()


def main() -> None:
    """Measure and print."""
    quick = common.quick(__doc__)
    parts = ["MLP 3", "MLPs 3-10"] if quick else list(PARTS)
    edits = {part: common.alone(MODULE, "edit", part) for part in parts}
    kept = {way: common.alone(MODULE, "keep", way, 1 if quick else 3) for way in WAYS}
    ours, other = (kept[way] for way in WAYS)
    first, last = (edits[part] for part in (parts[0], parts[-1]))
    each = (last["more"] - first["more"]) * 1e9 / (last["trained"] - first["trained"])
    rows: list[list[Any]] = [[part, found["trained"] / 1e6, found["more"], "", ""] for part, found in edits.items()]
    rows += [[f"divergence: {way}", "", found["more"], found["seconds"], found["value"]] for way, found in kept.items()]
    common.report(
        "edit_memory",
        ["", "trained, millions", "GB beyond the model", "s a step", "nats a token"],
        rows,
        [
            f"a trained parameter takes {each:.1f} bytes (at most {BAR:.0f})",
            f"a divergence from remembered states takes {other['seconds'] / ours['seconds']:.1f} times less time and "
            f"{other['more'] / ours['more']:.1f} times less memory than from a second model",
            f"relative difference of the gradients' norms {abs(ours['norm'] / other['norm'] - 1):.2g}",
        ],
        ratio=other["seconds"] / ours["seconds"],
        memory_ratio=other["more"] / ours["more"],
        max_abs_difference=abs(ours["value"] - other["value"]),
        bytes_a_parameter=each,
        gigabytes={part: found["more"] for part, found in edits.items()},
        n=FACTS,
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--alone"]:
        name, *arguments = json.loads(sys.argv[2])
        print(json.dumps({"edit": edit, "keep": keep}[name](*arguments)))
    else:
        main()
