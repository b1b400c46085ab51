"""Compute a study's metrics and draw them."""

from pathlib import Path
from typing import Annotated

import typer

from mechunlearn import artifacts, config
from mechunlearn.cli.options import Out, Settings, settings_of

app = typer.Typer()


@app.command()
def metrics(
    measurements: list[Path],
    evaluate: Annotated[str, typer.Option()],
    settings: Settings,
    out: Out,
    headline: Annotated[Path, typer.Option(help="The JSON file for the few numbers that `dvc metrics` shows.")],
) -> None:
    """Compute every metric of a study, with intervals, from its measurement files."""
    from mechunlearn import metrics
    from mechunlearn.study import cell_of

    tables = {cell_of(path): artifacts.read_measurements(path) for path in measurements}
    rules = settings_of(config.EvaluateSettings, evaluate), settings_of(config.ReportSettings, settings)
    table = metrics.metrics(tables, *rules)
    artifacts.write_table(out, table)
    artifacts.write_json(headline, metrics.headline(table))


@app.command()
def leaderboard(
    metrics: Annotated[Path, typer.Option(help="The study's metrics.csv.")],
    out: Annotated[Path, typer.Option(help="The CSV file to write; a LaTeX table is written beside it.")],
) -> None:
    """Rank a study's edits by what the worst attack brings back."""
    from mechunlearn.figures import data
    from mechunlearn.leaderboard import latex, leaderboard

    table = leaderboard(data.read_metrics(metrics))
    artifacts.write_table(out, table)
    artifacts.write_text(out.with_suffix(".tex"), latex(table))


@app.command()
def figure(
    name: Annotated[str, typer.Option(help="The figure.")],
    results: Annotated[Path, typer.Option(help="The folder of a model and task, results/STUDY/MODEL/TASK.")],
    metrics: Annotated[Path, typer.Option(help="The study's metrics.csv.")],
    out: Annotated[Path, typer.Option(help="The SVG file to write; a PNG and a PDF are written beside it.")],
) -> None:
    """Draw one figure of a model and task."""
    from mechunlearn import registry
    from mechunlearn.figures import data, style

    rows = data.read_metrics(metrics, model=results.parent.name, task=results.name)
    for path in style.save(registry.load("figure", name)(results, rows), out):
        print(path)


@app.command()
def planted(
    study_config: Annotated[str, typer.Option(help="JSON of the whole study.")],
    out: Annotated[Path, typer.Option(help="The table to write.")],
    figure: Annotated[Path, typer.Option(help="The SVG file to write; a PNG and a PDF are written beside it.")],
) -> None:
    """Rank the layers in which facts were planted, by each localizer, and draw the ranks."""
    from mechunlearn import registry
    from mechunlearn.figures import planted, style
    from mechunlearn.localize.ranks import write_planted
    from mechunlearn.study import home, pairs

    study, found = settings_of(config.Study, study_config), []
    for model, task in pairs(study):
        if where := study.models[model].planted:
            folder = home(study.study, model, task) / "scores"
            paths = {name: folder / f"{name}.parquet" for name in registry.localizers(study.localize.plugins)}
            scores = {name: artifacts.read_table(path, artifacts.SCORE_COLUMNS) for name, path in paths.items()}
            found.append((model, task, where[1], scores))
    style.save(planted.draw(write_planted(out, found)), figure)


@app.command()
def scaling(
    study_config: Annotated[str, typer.Option(help="JSON of the whole study.")],
    metrics: Annotated[Path, typer.Option(help="The study's metrics.csv.")],
    out: Annotated[Path, typer.Option(help="The SVG file to write; a PNG and a PDF are written beside it.")],
) -> None:
    """Draw how edits fare with the number of facts, where a study's tasks differ in it."""
    from mechunlearn.figures import data, scaling, style
    from mechunlearn.study import sizes

    tasks = sizes(settings_of(config.Study, study_config))
    style.save(scaling.draw(data.read_metrics(metrics), tasks), out)
