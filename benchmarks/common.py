"""What every measurement needs: the model, facts that it knows, clocks, and one way to say what came out.

quick     is it a run of under a minute?
model     the converted Gemma 3 270M, in float32 unless told
known     the first athletes whose sport it knows
peer      a copy of its network, for a library that changes what it wraps
seconds   wall time of a function, and what it returns
medians   of several functions that take turns, with what they return
alone     what a function of a benchmark returns in a process of its own
peak      the most memory that this process took
machine   cores, processor, versions
report    a table for people, and the last line: one JSON object
"""

import argparse
import copy
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from mechunlearn.evaluate.measure import screen
from mechunlearn.facts import Fact, sports
from mechunlearn.models.loading import load
from mechunlearn.models.model import Model

MANIFEST = "models/gemma-3-270m/model.json"
ATHLETES = "src/mechunlearn/resources/sports/athletes.csv"
CHUNK = 24  # athletes screened at a time
PACKAGES = ("torch", "transformers")

Result = TypeVar("Result")


def quick(what: str | None) -> bool:
    """Was --quick given? `what` is the page of help."""
    parser = argparse.ArgumentParser(description=what, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smaller run, under a minute")
    return bool(parser.parse_args().quick)


def model(dtype: str = "float32") -> Model:
    """The default model. Exits with a hint where it is not there yet."""
    if not Path(MANIFEST).exists():
        raise SystemExit(f"{MANIFEST} is missing; fetch it with: mechunlearn run {MANIFEST}")
    return load(MANIFEST, dtype)


def known(model: Model, count: int) -> list[Fact]:
    """The first athletes, in file order, whose sport is the likeliest token with more than half of the probability."""
    athletes, found = sports.read(ATHLETES), []
    for start in range(0, len(athletes), CHUNK):
        chunk = athletes[start : start + CHUNK]
        found += [fact for fact, knows in zip(chunk, screen(model, chunk, 0.5)[0], strict=True) if knows]
        if len(found) >= count:
            break
    return found[:count]


def peer(model: Model) -> Any:
    """A copy of the network of its own."""
    return copy.deepcopy(model.network)


def seconds(run: Callable[[], Result]) -> tuple[float, Result]:
    """(wall time of one call, what it returned)."""
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def medians(runs: dict[str, Callable[[], Any]], rounds: int) -> tuple[dict[str, float], dict[str, Any]]:
    """(median wall time, what it returned) of each of several functions.

    They take turns, so that whatever else the machine does hits all of them; a first round warms up.
    """
    found = {name: run() for name, run in runs.items()}
    times = [{name: seconds(run)[0] for name, run in runs.items()} for _ in range(rounds)]
    return {name: statistics.median(each[name] for each in times) for name in runs}, found


def alone(module: str, *arguments: Any) -> dict[str, float]:
    """What `python -m MODULE --alone JSON` prints as its last line: JSON of a run in a fresh process."""
    call = [sys.executable, "-m", module, "--alone", json.dumps(arguments)]
    done = subprocess.run(call, check=True, stdout=subprocess.PIPE)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def peak() -> float:
    """The largest resident set so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def machine() -> str:
    """Where this was measured, without names or paths."""
    cpu = platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
    versions = [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in PACKAGES)]
    return ", ".join([cpu, f"{os.cpu_count()} cores", f"{torch.get_num_threads()} threads", *versions])


def report(
    name: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], notes: Sequence[str], **figures: Any
) -> None:
    """Print a table, notes, the machine, and as the last line the figures as JSON."""
    table = Table(title=name.replace("_", " "), title_justify="left", box=box.SIMPLE)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*(f"{value:.3g}" if isinstance(value, float) else str(value) for value in row))
    console = Console(width=110)
    console.print(table)
    console.print(*notes, machine(), sep="\n", highlight=False, soft_wrap=True)
    print(json.dumps({"name": name} | {key: _short(value) for key, value in figures.items()}), flush=True)


def _short(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _short(each) for key, each in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value
