"""Set the selected weights to zero, ever more of them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mechunlearn import artifacts, config
from mechunlearn.cli.options import Facts, HeldOut, Manifest, Out, Seeds, Settings, Text, load, settings_of
from mechunlearn.facts import ASKED, LOCALIZED

app = typer.Typer()


@app.command()
def mask(
    model: Manifest,
    facts: Facts,
    text: Text,
    selection: Annotated[Path, typer.Option()],
    settings: Settings,
    seed: Seeds,
    held_out: HeldOut,
    out: Out,
    evaluate: Annotated[str, typer.Option(help="JSON of the block `evaluate`, for its benchmarks.")],
    weights: Annotated[Path, typer.Option(help="The table of masked weights to write, by size and component.")],
) -> None:
    """Learn which of the selected weights can be set to zero to forget, and measure with ever more of them at zero."""
    import pandas as pd

    from mechunlearn.edit.masking import learn
    from mechunlearn.evaluate import benchmarks
    from mechunlearn.evaluate.measure import measure
    from mechunlearn.facts import text as passages
    from mechunlearn.models.masks import counts, learned, masked, region, smallest

    chosen, rules = artifacts.read_selection(selection), settings_of(config.MaskingSettings, settings)
    if rules.sizes[-1] > chosen.parameters:
        raise config.ConfigError(
            f"masking.sizes: {rules.sizes[-1]} is more than the {chosen.parameters} weights of {chosen.localization}."
        )
    general = settings_of(config.EvaluateSettings, evaluate)
    tasks = benchmarks.load(general)
    training, other = passages.split(passages.read(text), held_out)
    known, loaded = artifacts.read_facts(facts, *LOCALIZED), load(model)
    measured = [fact for fact in known if fact.role in ASKED]
    rows: dict[int, list[dict[str, Any]]] = {size: [] for size in rules.sizes}
    every, tables = counts(loaded.layout, region(loaded.layout, chosen.components)), []
    reached = rules.sizes[-1]
    for number in seed:
        masks = learn(loaded, known, training, chosen, rules, number)
        found = learned(masks)
        print(f"{found:,} masks are below 1; more weights cannot be chosen and are not masked")
        reached = min(reached, found)
        for size in (size for size in rules.sizes if size <= found):
            gone = smallest(masks, size)
            with masked(loaded, gone):
                stage = f"masked@{size}"
                rows[size] += measure(loaded, measured, other, rules.elicitations, stage, number)
                rows[size] += benchmarks.measure(loaded, tasks, general.benchmark_limit, stage, number)
            tables.append(counts(loaded.layout, gone).assign(of=every.weights, seed=number, size=size))
    # A size that only some seeds reach would be a mean over others than the size before it.
    table = pd.concat(tables)
    artifacts.write_table(weights, table[table["size"] <= reached][artifacts.MASK_COLUMNS])
    kept = [row for size in rules.sizes if size <= reached for row in rows[size]]
    artifacts.write_table(out, artifacts.measurement_table(kept))
