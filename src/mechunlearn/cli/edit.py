"""Edit a model in the parts selected for it."""

from pathlib import Path
from typing import Annotated

import typer

from mechunlearn import artifacts, config
from mechunlearn.cli.options import (
    BLOCKS,
    Biographies,
    Facts,
    HeldOut,
    Manifest,
    Seeds,
    Settings,
    Text,
    load,
    settings_of,
)
from mechunlearn.facts import EDITED

app = typer.Typer()


@app.command()
def edit(
    model: Manifest,
    facts: Facts,
    text: Text,
    selection: Annotated[Path, typer.Option()],
    objective: Annotated[str, typer.Option()],
    settings: Settings,
    seed: Seeds,
    held_out: HeldOut,
    out: Annotated[Path, typer.Option(help="The folder for seedK/delta.safetensors and seedK/history.json.")],
    biographies: Biographies = None,
) -> None:
    """Train an edit of the selected components, once a seed, and keep what changed."""
    from mechunlearn.edit.sequence import edit_in_turn
    from mechunlearn.edit.train import Recipe
    from mechunlearn.facts import text as passages
    from mechunlearn.facts.biographies import read_texts
    from mechunlearn.models import checkpoint, delta

    chosen, rules = artifacts.read_selection(selection), settings_of(config.EditSettings, settings)
    training, _ = passages.split(passages.read(text), held_out)
    known = artifacts.read_facts(facts, *EDITED)
    people = read_texts(biographies) if biographies else []
    about = {
        "localization": chosen.localization,
        "objective": objective,
        "settings": rules.model_dump(exclude=rules.others(objective)),
    }
    with checkpoint.keeping(out / ".checkpoints") as checkpoints:
        for number in seed:
            base, recipe = load(model), Recipe(known, training, chosen, objective, rules, number, people)
            names, history, rows = edit_in_turn(base, recipe, checkpoints)
            folder = out / f"seed{number}"
            artifacts.write_json(folder / "history.json", history)
            (folder / BLOCKS).unlink(missing_ok=True)  # of a task that had blocks once
            if rows:
                artifacts.write_table(folder / BLOCKS, artifacts.measurement_table(rows))
            delta.save(folder / "delta.safetensors", base, names, {**about, "seed": number})
            del base  # the next one is loaded when this one has gone


@app.command()
def export(
    model: Manifest,
    delta: Annotated[Path, typer.Option(help="The edit, edits/LOCALIZATION/OBJECTIVE/seedK/delta.safetensors.")],
    out: Annotated[Path, typer.Option(help="The folder to write, which must not exist.")],
) -> None:
    """Write an edit as a whole model in Hugging Face format: base weights with the delta, tokenizer, model card."""
    from mechunlearn.models.export import export

    export(model, delta, out)
    print(out)
