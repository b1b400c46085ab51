"""Run the workflow and check its configuration."""

import os
import sys
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import typer

from mechunlearn import config

app = typer.Typer()


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def run(context: typer.Context) -> None:
    """Run the workflow; arguments go to snakemake. One run a folder; a killed run's lock is removed first."""
    from mechunlearn.workflow import claim

    for option, value in pairwise(context.args):
        if option in ("--config", "-C") and "=" not in value:
            raise config.ConfigError(
                f"{option} {value}: allowed is KEY=VALUE; a study's file is named by --configfile {value}."
            )
    claim()
    command = Path(sys.executable).with_name("snakemake")
    os.environ["PATH"] = f"{command.parent}{os.pathsep}{os.environ['PATH']}"
    os.execv(command, ["snakemake", *context.args])


@app.command()
def schema(
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail where a file is out of date.")] = False,
) -> None:
    """Regenerate config/schema.json and the table in config/README.md, and dvc.yaml from config/config.yaml."""
    from mechunlearn import schema as generated

    if not check:
        generated.write()
    elif stale := generated.stale():
        raise config.ConfigError(f"{', '.join(stale)}: out of date; run `mechunlearn schema`.")


@app.command()
def validate(study: Path) -> None:
    """Check a study's configuration without running anything."""
    from mechunlearn import study as layout

    checked = config.load_study(study)
    cells = len(layout.pairs(checked)) * len(checked.localizations) * len(checked.objectives)
    print(f"{study}: fine; {cells} cells, {len(checked.seeds)} seeds each")
