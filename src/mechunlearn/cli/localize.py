"""Score the parts of a model and select what an edit may train."""

from pathlib import Path
from typing import Annotated

import typer

from mechunlearn import artifacts, config
from mechunlearn.cli.options import Facts, Manifest, Out, Settings, load, parsed, settings_of
from mechunlearn.facts import EDITED, LOCALIZED

app = typer.Typer()


@app.command()
def score(model: Manifest, facts: Facts, method: Annotated[str, typer.Option()], settings: Settings, out: Out) -> None:
    """Score a model's components by one localizer, on the facts the model knows, once a run."""
    from mechunlearn.localize.score import score

    known, rules = artifacts.read_facts(facts, *LOCALIZED), settings_of(config.LocalizeSettings, settings)
    artifacts.write_table(out, score(load(model), known, method, rules))


@app.command()
def localize(
    model: Annotated[str, typer.Option(help="A folder in Hugging Face format, OWNER/NAME[@COMMIT] or a model.json.")],
    facts: Annotated[Path, typer.Option(help="Your facts: .csv or .jsonl (see facts-template), or facts.parquet.")],
    method: Annotated[
        str, typer.Option(help="A localization, e.g. fact-lookup or causal-tracing-mlps.")
    ] = "fact-lookup",
    out: Annotated[Path, typer.Option(help="The folder for scores, selection and figures.")] = Path("localization"),
    budget: Annotated[
        float, typer.Option(help="Share of the parameters to select, where the method has no own.")
    ] = 0.1,
    threshold: Annotated[float, typer.Option(help="A fact is known where its answer has more than this.")] = 0.5,
    dtype: Annotated[config.Format, typer.Option(help="The number format of the weights.")] = "bfloat16",
    settings: Annotated[str, typer.Option(help="JSON of the `localize` block of the configuration.")] = "{}",
) -> None:
    """Find the parts of a model that hold your facts: which layers should be edited?"""
    from mechunlearn import standalone

    given = parsed(settings)
    rules = config.check(
        config.LocalizeSettings, {"budget": budget, **given} if isinstance(given, dict) else given, "--settings"
    )
    scores, selection, known, every = standalone.localize(model, dtype, facts, method, rules, threshold, out)
    standalone.show(scores, selection, known, every)
    for path in standalone.draw(out):
        print(path)


@app.command()
def select(
    model: Manifest,
    localization: Annotated[str, typer.Option()],
    settings: Settings,
    out: Out,
    scores: Annotated[
        Path | None, typer.Option(help="Scores of its localizer; none for a baseline or layers given by hand.")
    ] = None,
    lookup: Annotated[Path | None, typer.Option(help="Fact lookup's selection, where it sets the budget.")] = None,
    facts: Annotated[
        Path | None, typer.Option(help="The facts, where blocks or single facts have selections of their own.")
    ] = None,
) -> None:
    """Choose what a localization may train, within the budget, and tell how far such a choice can be relied on."""
    from mechunlearn.localize.groups import select_groups
    from mechunlearn.localize.select import select
    from mechunlearn.localize.stability import stability
    from mechunlearn.models.components import layout_of
    from mechunlearn.models.sources import read_manifest

    layout, rules = layout_of(read_manifest(model)), settings_of(config.LocalizeSettings, settings)
    table = artifacts.read_table(scores, artifacts.SCORE_COLUMNS) if scores else None
    by_lookup = artifacts.read_selection(lookup) if lookup else None
    if facts:
        selection = select_groups(localization, layout, rules, artifacts.read_facts(facts, *EDITED), table, by_lookup)
    else:
        selection = select(localization, layout, rules, table, by_lookup)
    if table is not None and not facts:
        selection.details["stability"] = stability(selection, layout, rules, table)
    artifacts.write_selection(out, selection)
    print(f"{localization}: {selection.parameters:,} of {selection.total:,} parameters, budget {selection.budget:,}")
