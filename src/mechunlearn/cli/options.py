"""Options that commands share, and what they read by them."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from mechunlearn import config

if TYPE_CHECKING:
    from mechunlearn.models.model import Model

BLOCKS = "blocks.parquet"  # how the blocks of a sequential edit fared while it was made
SettingsType = TypeVar("SettingsType", bound=config.Settings)
Settings = Annotated[str, typer.Option(help="JSON of the configuration block this command uses.")]
Manifest = Annotated[Path, typer.Option("--model", help="The model's manifest, models/NAME/model.json.")]
Facts = Annotated[Path, typer.Option(help="Facts: a dataset of data/ to screen, else facts.parquet.")]
Text = Annotated[Path, typer.Option(help="Text passages, passages.jsonl.")]
Out = Annotated[Path, typer.Option(help="The file to write.")]
Base = Annotated[Path | None, typer.Option(help="Measurements of the base model, to skip what it cannot use.")]
Seeds = Annotated[list[int], typer.Option("--seed", help="Seeds, one edit each.")]
Biographies = Annotated[Path | None, typer.Option(help="Texts of people, biographies.jsonl; none for other facts.")]
HeldOut = Annotated[int, typer.Option(help="How many passages are held out of training for measuring.")]


def settings_of(model: type[SettingsType], text: str) -> SettingsType:
    """A configuration block from its JSON. Raises ConfigError."""
    return config.check(model, parsed(text), "--settings")


def parsed(text: str) -> Any:
    """What JSON on the command line says. Raises ConfigError."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise config.ConfigError(f"--settings is {text!r}: not JSON ({error}).") from None


def load(model: Path, edits: Path | None = None, seed: int = 0) -> "Model":
    """A model in the format that is fastest here; with a folder of edits, as one seed's edit left it."""
    from mechunlearn.models import delta, loading

    loaded = loading.load(model, loading.fastest(model))
    if edits:
        delta.apply(edits / f"seed{seed}" / "delta.safetensors", loaded)
    return loaded
