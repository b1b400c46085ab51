"""Memory and time of causal tracing against the number of facts and of layers, each run in a process of its own.

    python -m benchmarks.memory [--quick]

A run is the localizer `causal-tracing` with its default settings (every MLP and head, 5 noise samples, maps of the
first 4 facts), in float32. The model is cut to its first layers where fewer are asked for. Writes scaling.png beside
this file. With --quick: one and two facts, no maps, no picture.
"""

import dataclasses
import json
import math
import sys
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks import common
from mechunlearn.config import LocalizeSettings
from mechunlearn.facts import sports
from mechunlearn.figures.style import INK, LOOKS, WIDTH, look
from mechunlearn.localize.causal_tracing import causal_tracing

BAR = 4.0  # GB
FACTS, LAYERS, CUT_FACTS = (4, 8, 16, 32, 64), (6, 9, 12, 18), 8
PICTURE = Path(__file__).with_name("scaling.png")


def trace(names: Sequence[str], layers: int, maps: int) -> dict[str, float]:
    """Trace these athletes in this process: seconds, GB at most before it and in all."""
    model = common.model()
    if layers < model.layout.layers:
        stack = model.network.get_submodule(model.layout.naming.stack)
        del stack[layers:]
        model.network.config.num_hidden_layers = layers
        model.layout = dataclasses.replace(model.layout, layers=layers)
    facts = [fact for fact in sports.read(common.ATHLETES) if fact.id in names]
    before = common.peak()
    settings = LocalizeSettings.model_validate({"tracing": {"facts": len(facts), "map_facts": maps}})
    time, _ = common.seconds(lambda: causal_tracing(model, facts, settings))
    return {"seconds": time, "before": before, "peak": common.peak()}


def power(cost: dict[int, dict[str, float]]) -> float:
    """The power of the size with which seconds grow, from the smallest to the largest."""
    (small, first), *_, (large, last) = cost.items()
    return math.log(last["seconds"] / first["seconds"]) / math.log(large / small)


def slopes(cost: dict[int, dict[str, float]]) -> list[float]:
    """Seconds for each one more, between neighbouring sizes."""
    return [(cost[b]["seconds"] - cost[a]["seconds"]) / (b - a) for a, b in pairwise(cost)]


def picture(by_facts: dict[int, dict[str, float]], by_layers: dict[int, dict[str, float]]) -> None:
    """Seconds above, memory below; against facts on the left, against layers on the right."""
    rows = [("seconds", "seconds", LOOKS["fact-lookup"]), ("peak", "peak memory, GB", LOOKS["causal-tracing"])]
    columns = [(by_facts, "facts (18 layers)"), (by_layers, f"layers ({CUT_FACTS} facts)")]
    with look():
        figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
        grid = figure.subplots(2, 2, sharex="col")
        for column, (cost, size) in enumerate(columns):
            for axes, (key, label, style) in zip(grid[:, column], rows, strict=True):
                axes.plot(list(cost), [each[key] for each in cost.values()], marker=style.marker, color=style.color)
                axes.set(xlim=(0, None), ylim=(0, None), xticks=list(cost))
                axes.grid(axis="y")
                if not column:
                    axes.set_ylabel(label)
            grid[1, column].set(xlabel=size, ylim=(0, BAR * 1.1))
            grid[1, column].axhline(BAR, color=INK, linewidth=0.8, linestyle=":")
        grid[1, 0].annotate("limit", (0, BAR), xytext=(3, -10), textcoords="offset points", fontsize=8)
        figure.savefig(PICTURE, dpi=150, metadata={"Software": None})


def main() -> None:
    """Measure and print."""
    quick = common.quick(__doc__)
    maps = 0 if quick else LocalizeSettings().tracing.map_facts
    facts, layers = ((1, 2), (9, 18)) if quick else (FACTS, LAYERS)
    model = common.model()
    names, whole = [fact.id for fact in common.known(model, max(facts))], model.layout.layers
    del model
    run = partial(common.alone, "benchmarks.memory")
    by_facts = {count: run(names[:count], whole, maps) for count in facts}
    cut = facts[0] if quick else CUT_FACTS
    by_layers = {count: by_facts[cut] if count == whole else run(names[:cut], count, maps) for count in layers}
    if not quick:
        picture(by_facts, by_layers)
    rows: list[list[Any]] = [
        [count, number, cost["seconds"], cost["seconds"] / count, cost["before"], cost["peak"]]
        for count, number, cost in [
            *((count, whole, cost) for count, cost in by_facts.items()),
            *((cut, number, cost) for number, cost in by_layers.items() if number != whole),
        ]
    ]
    most = max(cost["peak"] for cost in by_facts.values())
    common.report(
        "memory",
        ["facts", "layers", "s", "s a fact", "GB before", "GB at most"],
        rows,
        [
            f"most memory {most:.2f} GB (bar: under {BAR:.0f} GB)",
            f"maps of the first {maps}; each fact more: {', '.join(f'{more:.2f}' for more in slopes(by_facts))} s",
            f"seconds grow with layers to the power {power(by_layers):.2f}: patches x the depth that each of them runs",
        ],
        ratio=BAR / most,
        max_abs_difference=None,
        n=max(facts),
        gigabytes=most,
        seconds_by_facts={str(count): cost["seconds"] for count, cost in by_facts.items()},
        seconds_by_layers={str(count): cost["seconds"] for count, cost in by_layers.items()},
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--alone"]:
        print(json.dumps(trace(*json.loads(sys.argv[2]))))
    else:
        main()
