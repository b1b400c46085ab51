"""Check the papers' claims, build the report, compare runs of a study."""

import json
from pathlib import Path
from typing import Annotated

import typer

from mechunlearn import artifacts, config
from mechunlearn.cli.options import Out, settings_of

app = typer.Typer()


@app.command()
def costs(
    study_config: Annotated[str, typer.Option(help="JSON of the whole study.")],
    out: Out,
) -> None:
    """Gather what each edit of a model trained on biographies took, beside its baseline."""
    from mechunlearn.operations import costs

    artifacts.write_table(out, costs(settings_of(config.Study, study_config)))


@app.command()
def claims(
    metrics: Path,
    published: Annotated[Path, typer.Option(help="The folder of the paper's numbers, report/published.")],
    tasks: Annotated[str, typer.Option(help="JSON of what the paper calls each task; empty where it has none such.")],
    out: Out,
    costs: Annotated[Path | None, typer.Option(help="costs.csv, where models were trained on biographies.")] = None,
) -> None:
    """Check the papers' claims on a study's metrics."""
    from mechunlearn import operations
    from mechunlearn.claims import check
    from mechunlearn.metrics import COLUMNS
    from mechunlearn.published import means

    table = artifacts.read_table(metrics, COLUMNS)
    people = table.task.isin(table[table.elicitation == "biography"].task)
    found = check(table[~people], json.loads(tasks), means(published))
    if costs:
        found += operations.check(table[people], artifacts.read_table(costs, operations.COSTS))
    artifacts.write_json(out, found)
    for claim in found:
        print(f"{claim['verdict']}: {claim['sentence']}")


@app.command()
def report(
    notebook: Annotated[Path, typer.Option(help="The report as text, in jupytext's percent format.")],
    study_config: Annotated[str, typer.Option(help="JSON of the whole study.")],
    out: Annotated[Path, typer.Option(help="The HTML page to write.")],
    executed: Annotated[Path, typer.Option(help="The executed notebook to write.")],
) -> None:
    """Run the report's notebook for a study and put it on one self-contained page."""
    from mechunlearn.report import build

    build(notebook, settings_of(config.Study, study_config), out, executed)
    print(out)


@app.command()
def compare(
    first: Annotated[
        str, typer.Argument(help="A folder of results, or that of a git revision: HEAD~1:results/default.")
    ],
    second: Annotated[str, typer.Argument(help="The same: what is compared with the first.")],
    metric: Annotated[list[str], typer.Option(help="The metrics to print, as metrics.csv names them.")] = ["p_true"],  # noqa: B006
    every: Annotated[bool, typer.Option("--all", help="Print differences whose interval holds zero, too.")] = False,
    out: Annotated[Path | None, typer.Option(help="A CSV file for every difference of every metric.")] = None,
) -> None:
    """Compare two runs of a study: what changed from the first to the second, paired by fact where that can be."""
    from mechunlearn.compare import compare, read, show

    results = read(first), read(second)
    table = compare(*results, config.ReportSettings())
    if out:
        artifacts.write_table(out, table)
    show(table, *results, metric, every)
