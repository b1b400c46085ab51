"""One step of an edit: ours beside the plain loop (pad everything, all logits, no shared prefix).

    python -m benchmarks.edit_step [--quick]

Needs the converted Gemma 3 270M (`make reproduce` or `snakemake fetch_all`). Prints seconds a step of both, their
ratio, and the largest difference between their losses; the last line is JSON.
"""

import random
import statistics
import time
from collections.abc import Callable

import torch

from benchmarks import common
from mechunlearn.artifacts import Component, Selection
from mechunlearn.config import EditSettings
from mechunlearn.edit.objectives import Batch, inject
from mechunlearn.edit.train import trainable
from mechunlearn.facts import sports, text
from mechunlearn.models.loading import load
from mechunlearn.models.model import Model
from mechunlearn.models.scoring import pad
from mechunlearn.models.training import draw, example, passages_ids

RESOURCES = "src/mechunlearn/resources"
FACTS, TEXTS = 16, 2  # a step's facts to forget, as many to retain, and passages


def plain(model: Model, batch: Batch, settings: EditSettings) -> dict[str, torch.Tensor]:
    """The same three losses, each from a full forward over padded prompts with logits at every position."""

    def facts(examples: list[tuple[list[int], int]]) -> torch.Tensor:
        inputs, lengths = pad([ids for ids, _ in examples], model.device)
        logits = model.network(input_ids=inputs).logits[torch.arange(len(examples)), lengths - 1].float()
        return torch.nn.functional.cross_entropy(logits, torch.tensor([answer for _, answer in examples]))

    inputs, lengths = pad(batch.texts, model.device)
    labels = torch.where(torch.arange(inputs.shape[1])[None] < lengths[:, None], inputs, -100)
    logits = model.network(input_ids=inputs).logits.float()[:, :-1]
    losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels[:, 1:], reduction="none")
    return {
        "inject": facts(batch.forget),
        "retain": facts(batch.retain),
        "text": (losses.sum(1) / (lengths - 1)).mean(),
    }


def seconds(model: Model, loss: Callable[..., dict[str, torch.Tensor]], batch: Batch) -> tuple[float, list[float]]:
    """Wall time of one forward and backward, and the three losses."""
    start = time.perf_counter()
    with torch.autocast(model.device.type, torch.bfloat16):
        terms = loss(model, batch, EditSettings())
    torch.stack(list(terms.values())).sum().backward()
    return time.perf_counter() - start, [term.item() for term in terms.values()]


def main() -> None:
    """Measure and print."""
    rounds = 2 if common.quick(__doc__) else 6
    model = load("models/gemma-3-270m/model.json")
    athletes = sports.read(f"{RESOURCES}/sports/athletes.csv")
    passages = text.read(f"{RESOURCES}/text/passages.jsonl")
    rng = random.Random(0)
    take = draw([example(model, fact, fact.answer) for fact in athletes], rng)
    texts = draw(passages_ids(model, passages, 48), rng)
    selection = Selection("mlps 3-6", [Component(layer, "mlp") for layer in range(3, 7)], 0, 0, 0)
    times: dict[str, list[float]] = {"ours": [], "plain": []}
    largest = 0.0
    with trainable(model, selection):
        for number in range(rounds + 1):  # the first round warms up
            batch = Batch(take(FACTS), take(FACTS), texts(TEXTS))
            ours, losses = seconds(model, inject, batch)
            theirs, expected = seconds(model, plain, batch)
            largest = max(largest, *(abs(a - b) for a, b in zip(losses, expected, strict=True)))
            if number:
                times["ours"].append(ours)
                times["plain"].append(theirs)
    ours, theirs = (statistics.median(values) for values in times.values())
    common.report(
        "edit_step",
        ["", "s a step", "ratio", "largest difference"],
        [["ours", ours, 1.0, ""], ["plain loop", theirs, theirs / ours, largest]],
        [f"{2 * FACTS} facts and {TEXTS} passages a step, bfloat16, median of {rounds} steps; the losses are compared"],
        ratio=theirs / ours,
        max_abs_difference=largest,
        n=2 * FACTS,
    )


if __name__ == "__main__":
    main()
