"""One step of an edit: ours beside the plain loop (every layer, every prompt in full, all logits).

    python -m benchmarks.edit_step [--quick]

Needs the converted Gemma 3 270M (`make reproduce` or `snakemake fetch_all`). A step is 32 one-shot prompts and 4
sentences, forward and backward under bfloat16 autocast, with MLPs 3-6, all MLPs or MLPs 12-15 trained: seconds of
both, their ratio, and the largest difference between their losses and gradients, in bfloat16 and float32. Seconds are
of this process's processor time, so that other work on the machine counts less. The last line is JSON.
"""

import random
import statistics
import time
from collections.abc import Callable, Iterable

import torch

from benchmarks import common
from mechunlearn.artifacts import Component, Selection
from mechunlearn.config import EditSettings
from mechunlearn.edit.inject import inject
from mechunlearn.edit.objectives import Batch
from mechunlearn.edit.train import trainable
from mechunlearn.facts import sports, text
from mechunlearn.models.attention import grouped
from mechunlearn.models.model import Model
from mechunlearn.models.scoring import pad
from mechunlearn.models.training import Example, draw, example

RESOURCES = "src/mechunlearn/resources"
FACTS, TEXTS = 16, 4  # a step's facts to forget, as many to retain, and sentences
LAYERS = {"mlps 3-6": range(3, 7), "all mlps": range(18), "mlps 12-15": range(12, 16)}
BARS = {"mlps 3-6": 4, "all mlps": 4, "mlps 12-15": 6}
Losses = Callable[[Model, Batch], dict[str, torch.Tensor]]


def plain(model: Model, batch: Batch) -> dict[str, torch.Tensor]:
    """The three losses of `inject`, each from a full forward over padded prompts with logits at every position.

    Of a float32 network the softmax is taken in float64: over so many words its float32 sum is off by up to 2e-4.
    """
    wide = torch.float64 if model.network.dtype == torch.float32 else torch.float32

    def facts(examples: list[Example]) -> torch.Tensor:
        inputs, lengths = pad([ids for ids, _ in examples], model.device)
        logits = model.network(input_ids=inputs).logits[torch.arange(len(examples)), lengths - 1].to(wide)
        return torch.nn.functional.cross_entropy(logits, torch.tensor([answer for _, answer in examples]))

    inputs, lengths = pad(batch.texts, model.device)
    labels = torch.where(torch.arange(inputs.shape[1])[None] < lengths[:, None], inputs, -100)
    logits = model.network(input_ids=inputs).logits.to(wide)[:, :-1]
    losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels[:, 1:], reduction="none")
    return {
        "inject": facts(batch.new),
        "retain": facts(batch.retain),
        "text": (losses.sum(1) / (lengths - 1)).mean(),
    }


def ours(model: Model, batch: Batch) -> dict[str, torch.Tensor]:
    """The losses as an edit takes them."""
    with grouped(model):
        return inject(model, batch, EditSettings(), 0)(batch)


def step(
    model: Model, losses: Losses, batch: Batch, parameters: list[torch.nn.Parameter]
) -> tuple[float, list[float], torch.Tensor]:
    """Processor time of one forward and backward, the three losses, and all gradients end to end."""
    start = time.process_time()
    with model.autocast():
        terms = losses(model, batch)
    found = torch.autograd.grad(torch.stack(list(terms.values())).sum(), parameters)
    seconds = time.process_time() - start
    return seconds, [term.item() for term in terms.values()], torch.cat([each.flatten() for each in found])


def compare(model: Model, layers: Iterable[int], batches: list[Batch]) -> dict[str, float]:
    """Median seconds of both, once every fact and sentence was met; largest differences of losses and gradients."""
    times: dict[str, list[float]] = {"ours": [], "plain": []}
    losses, gradients = 0.0, 0.0
    selection = Selection("", [Component(layer, "mlp") for layer in layers], 0, 0, 0)
    with trainable(model, selection) as parameters:
        moving = list(parameters.values())
        for batch in batches:
            with torch.no_grad(), model.autocast():
                ours(model, batch)
        for batch in batches:
            mine, found, gradient = step(model, ours, batch, moving)
            theirs, expected, right = step(model, plain, batch, moving)
            losses = max(losses, *(abs(a - b) for a, b in zip(found, expected, strict=True)))
            gradients = max(gradients, float((gradient - right).norm() / right.norm()))
            times["ours"].append(mine)
            times["plain"].append(theirs)
    own, other = (statistics.median(values) for values in times.values())
    return {"ours": own, "plain": other, "ratio": other / own, "losses": losses, "gradients": gradients}


def main() -> None:
    """Measure and print."""
    rounds = 1 if common.quick(__doc__) else 3
    found: dict[str, dict[str, dict[str, float]]] = {}
    for dtype, count in (("bfloat16", rounds), ("float32", 1)):
        model = common.model(dtype)
        athletes = sports.read(f"{RESOURCES}/sports/athletes.csv")
        passages = text.read(f"{RESOURCES}/text/passages.jsonl")
        rng = random.Random(0)
        take = draw([example(model, fact, fact.answer) for fact in athletes[: 4 * FACTS]], rng)
        sentences = [model.encode(passage.text.partition(". ")[0] + ".") for passage in passages[: 4 * TEXTS]]
        texts = draw(sentences, rng)
        facts = [take(FACTS) for _ in range(count)]
        batches = [Batch(each, each, take(FACTS), texts(TEXTS)) for each in facts]
        found[dtype] = {name: compare(model, layers, batches) for name, layers in LAYERS.items()}
    half, single = found["bfloat16"], found["float32"]
    common.report(
        "edit_step",
        ["trained", "ours, s", "plain, s", "ratio", "bar", "losses", "gradients", "losses, fp32", "gradients, fp32"],
        [
            [
                name,
                *(half[name][key] for key in ("ours", "plain", "ratio")),
                BARS[name],
                *(each[name][key] for each in (half, single) for key in ("losses", "gradients")),
            ]
            for name in LAYERS
        ],
        [f"{2 * FACTS} facts and {TEXTS} sentences a step, median of {rounds} steps; largest differences"],
        ratio=half["mlps 3-6"]["ratio"],
        max_abs_difference=max(each["losses"] for each in half.values()),
        max_abs_difference_float32=max(each["losses"] for each in single.values()),
        gradient_difference=max(each["gradients"] for each in half.values()),
        gradient_difference_float32=max(each["gradients"] for each in single.values()),
        ratios={name: each["ratio"] for name, each in half.items()},
        n=2 * FACTS,
    )


if __name__ == "__main__":
    main()
