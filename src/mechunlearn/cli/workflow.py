"""Run the workflow and check its configuration."""

import os
import re
import sys
from collections.abc import Sequence
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Annotated

import typer

from mechunlearn import config

app = typer.Typer()


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def run(context: typer.Context) -> None:
    """Run the workflow; arguments go to snakemake. One run a folder; a killed run's lock is removed first."""
    from mechunlearn.workflow import claim

    _check(context.args)
    claim()
    command = Path(sys.executable).with_name("snakemake")
    os.environ["PATH"] = f"{command.parent}{os.pathsep}{os.environ['PATH']}"
    os.execv(command, ["snakemake", *context.args])


def _check(arguments: Sequence[str]) -> None:
    """Raise ConfigError for what snakemake would end with a traceback, or drop without a word."""
    arguments = [part for each in arguments for part in _apart(each)]
    for option, value in pairwise(arguments):
        if option in ("--config", "-C") and not re.match(r"[A-Za-z_]\w*=", value):
            raise config.ConfigError(
                f"{option} {value}: allowed is KEY=VALUE with a key of the highest level, such as seeds=[0,1]; a "
                f"study's file is named by --configfile{'' if '=' in value else f' {value}'}."
            )
    named = [place for place, each in enumerate(arguments) if each in ("--configfile", "--configfiles")]
    if len(named) > 1:
        raise config.ConfigError("--configfile stands there twice; name all files after one, later ones go before.")
    for place in named:
        for path in takewhile(lambda each: not each.startswith("-"), arguments[place + 1 :]):
            if not Path(path).exists():
                raise config.ConfigError(f"--configfile {path}: there is no such file; targets stand before it.")
            config.read_mapping(path)


def _apart(argument: str) -> list[str]:
    """`--configfile=FILE` as option, file and the end of its files; other arguments as they are."""
    option, equals, value = argument.partition("=")
    return [option, value, "--"] if equals and option in ("--config", "--configfile", "--configfiles") else [argument]


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
def validate(study: Annotated[list[Path], typer.Argument(help="YAML files, later ones going before.")]) -> None:
    """Check a study's configuration, and the files that it names, without running anything."""
    from mechunlearn import study as layout

    checked = config.load_study(*study)
    layout.check_files(checked)
    cells = len(layout.pairs(checked)) * len(checked.localizations) * len(checked.objectives)
    print(f"{', '.join(map(str, study))}: fine; {cells} cells, {len(checked.seeds)} seeds each")
