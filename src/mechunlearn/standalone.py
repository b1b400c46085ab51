"""Which parts of MY model hold MY facts? Localization outside the workflow.

localize    model and facts -> scores and a selection, in a folder laid out like a study's
draw        the figures of that folder
show        prints what people want to know: the parts with the largest effects, and what to edit
components  every component's effect with its interval
"""

from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from mechunlearn import artifacts, metrics, registry
from mechunlearn.artifacts import Selection
from mechunlearn.config import Format, LocalizeSettings, ModelSettings, unknown
from mechunlearn.errors import ConfigError, FactError
from mechunlearn.facts import own
from mechunlearn.figures import words
from mechunlearn.localize.lookup_rules import lookup_per_fact, same_layers
from mechunlearn.stats import SHARE, interval

# The kinds of a localizer's scores that stand for something one can train, as people call them.
SHOWN = {"mlp": "MLP", "lookup": "MLP", "head": "head", "probe-subject": "probe"}
FIGURES = {
    "localization-map": "mlp",
    "probe-curves": "probe-subject",
    "path-patching": "lookup",
    "tracing-map": "state",
}


def localize(
    model: str, dtype: Format, facts: Path, localization: str, settings: LocalizeSettings, threshold: float, out: Path
) -> tuple[pd.DataFrame, Selection, int, int]:
    """Screen the facts, score by the localization's method, select within the budget, draw.

    Returns the scores, the selection, and how many of how many facts the model knows. Raises ConfigError for a
    localization that does not exist and FactError where the model knows no fact.
    """
    from mechunlearn.evaluate.measure import screen
    from mechunlearn.localize.score import score
    from mechunlearn.localize.select import select
    from mechunlearn.localize.stability import stability
    from mechunlearn.models.loading import fastest, load
    from mechunlearn.models.sources import fetch, locate

    every_name = registry.localizations(settings.plugins)
    names = [*(name for name in every_name if name != registry.PER_FACT), *settings.layers]
    if localization not in names and not registry.baseline(localization):
        raise ConfigError(f"--method: {unknown(localization, names)}")
    if settings.follows_lookup(localization):
        raise ConfigError(
            f"--settings: `budget` is 'fact-lookup', which {localization} alone cannot know; allowed: a share or a "
            "number of parameters."
        )
    manifest = Path(model)
    if manifest.name != "model.json":
        manifest = out / "model.json"
        fetch(ModelSettings(source=locate(model), dtype=dtype), manifest)
    every = artifacts.read_facts(facts) if facts.suffix == ".parquet" else own.read(facts)
    loaded = load(manifest, fastest(manifest))
    known, p_answer, rank = screen(loaded, every, threshold)
    chosen = [fact for fact, knows in zip(every, known, strict=True) if knows]
    if not chosen:
        raise FactError(
            f"{facts}: the model knows none of the {len(every)} facts: no answer is its likeliest next token with more "
            f"than {threshold:g} of the probability (the best has {max(p_answer):.2f}). Check the prompts, or lower "
            "--threshold."
        )
    artifacts.write_facts(out / "facts.parquet", every, p_answer, rank)
    scorer = settings.scorer(localization)
    table = None
    if scorer is not None:
        table = score(loaded, chosen, scorer, settings)
        artifacts.write_table(out / "scores" / f"{scorer}.parquet", table)
    selection = select(localization, loaded.layout, settings, table, None)
    if table is not None:
        selection.details["stability"] = stability(selection, loaded.layout, settings, table)
    artifacts.write_selection(out / "selection" / f"{localization}.json", selection)
    return table if table is not None else pd.DataFrame(), selection, len(chosen), len(every)


def draw(out: Path) -> list[Path]:
    """Draw what the folder's scores and selections allow, as SVG, PNG and PDF."""
    from mechunlearn.figures import style

    kinds = {kind for path in (out / "scores").glob("*.parquet") for kind in artifacts.read_table(path).kind.unique()}
    nothing = pd.DataFrame(columns=metrics.COLUMNS)
    written = []
    for name, kind in FIGURES.items():
        if kind in kinds or name == "localization-map":
            written += style.save(registry.load("figure", name)(out, nothing), out / "figures" / f"{name}.svg")
    return written


def show(scores: pd.DataFrame, selection: Selection, known: int, every: int, rows: int = 12) -> None:
    """Print the largest effects, what is selected, and how far another choice of facts would have chosen the same."""
    console = Console()
    console.print(f"The model knows {known} of {every} facts.")
    if not scores.empty:
        found = components(scores)
        probes = (found.kind == "probe-subject").all()
        what = "accuracy" if probes else "effect"
        table = Table("part", "layer", "head", what, "95% interval", "facts", title=f"{selection.localization}: {what}")
        for row in (found if probes else found.head(rows)).to_dict("records"):
            head = "" if row["head"] < 0 else str(row["head"])
            between = f"{row['low']:+.3f} to {row['high']:+.3f}"
            table.add_row(SHOWN[row["kind"]], str(row["layer"]), head, f"{row['value']:+.3f}", between, str(row["n"]))
        console.print(table)
    share = selection.parameters / selection.total
    parts = words.components(selection)
    console.print(f"To edit: [bold]{parts}[/bold], {selection.parameters:,} parameters ({share:.1%}).")
    if not scores.empty and "lookup" in set(scores.kind):
        for layers, facts in same_layers(lookup_per_fact(scores)).items():
            where = f"MLPs {words.ranges(layers)} stand" if layers else "no MLP stands"
            console.print(f"By itself, {where} out for {len(facts)} facts: {words.listing(facts)}.")
    for row in selection.details.get("stability", []):
        if row["what"] == "facts":
            console.print(
                f"Two halves of the facts agree on {row['value']:.0%} of such a selection "
                f"({row['low']:.0%} to {row['high']:.0%}); random selections on {row['chance']:.0%}."
            )


def components(scores: pd.DataFrame) -> pd.DataFrame:
    """Kind, layer, head, value, low, high and n of every component (or probe), the largest effects first."""
    rows = []
    shown = scores[scores.kind.isin(SHOWN)]
    for (kind, layer, head), group in shown.groupby(["kind", "layer", "head"]):
        facts = group.groupby("fact").effect.mean().to_numpy(dtype=float)
        rows.append(
            (kind, layer, head, *interval(facts, 2000, 0.95, SHARE if kind == "probe-subject" else None), len(facts))
        )
    table = pd.DataFrame(rows, columns=["kind", "layer", "head", "value", "low", "high", "n"])
    if (table.kind == "probe-subject").all():
        return table.sort_values("layer", ignore_index=True)
    return table.sort_values("value", key=abs, ascending=False, ignore_index=True)
