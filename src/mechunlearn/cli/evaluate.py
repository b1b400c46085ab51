"""Measure the base model and its edits."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mechunlearn import artifacts, config
from mechunlearn.cli.options import (
    BLOCKS,
    Base,
    Biographies,
    Facts,
    Manifest,
    Out,
    Seeds,
    Settings,
    Text,
    load,
    settings_of,
)
from mechunlearn.facts import ASKED

app = typer.Typer()


@app.command()
def evaluate(
    model: Manifest,
    facts: Facts,
    text: Text,
    settings: Settings,
    out: Out,
    edits: Annotated[Path | None, typer.Option(help="Folder of seedK/delta.safetensors; none: the base model.")] = None,
    base: Base = None,
    states: Annotated[
        Path | None, typer.Option(help="The base's hidden states on the text: written for the base, else read for KL.")
    ] = None,
    biographies: Biographies = None,
    seed: Seeds = [0],  # noqa: B006
) -> None:
    """Measure the base model, or an edit's every seed: all elicitations, held-out text, text of its own, benchmarks."""
    from mechunlearn.evaluate import benchmarks, streams
    from mechunlearn.evaluate.generate import generate
    from mechunlearn.evaluate.measure import measure
    from mechunlearn.facts import text as passages
    from mechunlearn.facts.biographies import read_texts
    from mechunlearn.gate import usable
    from mechunlearn.models import text_states
    from mechunlearn.models.scoring import text_hidden

    rules = settings_of(config.EvaluateSettings, settings)
    _, held_out = passages.split(passages.read(text), rules.texts)
    # Texts that surgery itself holds on to are measured too: the paper's retain set is mostly of this kind.
    held = ("maintain-train",) if biographies else ()
    known, formats = artifacts.read_facts(facts, *ASKED, *held), rules.elicitations
    if base:
        formats = usable(artifacts.read_measurements(base), formats, rules.gate)
    forget = [fact for fact in known if fact.role == "forget"] if rules.samples else []
    tasks, people = benchmarks.load(rules), streams.chosen(read_texts(biographies) if biographies else [])
    inside = streams.states(load(model), people) if people and edits else None
    stage = "edited" if edits else "base"
    rows: list[dict[str, Any]] = []
    for number in seed if edits else seed[:1]:
        loaded = load(model, edits, number)
        hidden, before = text_hidden(loaded, held_out), None
        if states and edits:
            before = text_states.read(states, loaded, held_out)
        elif states:
            text_states.save(states, loaded, held_out, hidden)
        rows += measure(loaded, known, held_out, formats, stage, number, hidden, before)
        rows += streams.measure(loaded, people, stage, number, inside)
        if edits and (blocks := edits / f"seed{number}" / BLOCKS).is_file():
            table = artifacts.read_measurements(blocks)
            rows += [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
        rows += generate(loaded, forget, rules.samples, stage, number)
        rows += benchmarks.measure(loaded, tasks, rules.benchmark_limit, stage, number)
        del loaded  # the next one is loaded when this one has gone
    artifacts.write_table(out, artifacts.measurement_table(rows))
