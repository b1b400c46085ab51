"""Try to bring back what an edit removed."""

import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from mechunlearn import artifacts, config
from mechunlearn.cli.options import Base, Facts, HeldOut, Manifest, Out, Seeds, Settings, Text, load, settings_of
from mechunlearn.facts import LOCALIZED

log = logging.getLogger(__name__)
app = typer.Typer()


@app.command()
def attack(
    model: Manifest,
    facts: Facts,
    text: Text,
    method: Annotated[str, typer.Option()],
    settings: Settings,
    seed: Seeds,
    held_out: HeldOut,
    out: Out,
    edits: Annotated[Path | None, typer.Option(help="The folder of edits; none: the model as it is.")] = None,
    base: Base = None,
) -> None:
    """Attack every seed of an edit, or the unedited model, by one method and measure what comes back."""
    from mechunlearn import registry
    from mechunlearn.facts import text as passages
    from mechunlearn.gate import usable

    function, rules = registry.load("attack", method), settings_of(config.attack_settings(method), settings)
    if base and isinstance(rules, config.AskingSettings) and rules.gate is not None:
        asked = usable(artifacts.read_measurements(base), rules.elicitations, rules.gate)
        if not asked:
            log.warning(
                "the model can use none of %s: only the training prompt is asked", ", ".join(rules.elicitations)
            )
        rules = rules.model_copy(update={"elicitations": asked or ["completion"]})
    training, _ = passages.split(passages.read(text), held_out)
    known = artifacts.read_facts(facts, *LOCALIZED)
    rows: list[dict[str, Any]] = []
    for number in seed:
        rows += function(load(model, edits, number), known, training, rules, number)
    artifacts.write_table(out, artifacts.measurement_table(rows))
