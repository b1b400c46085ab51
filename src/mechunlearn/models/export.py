"""An edited model as a folder in Hugging Face format, for use without this package.

export   manifest + delta -> config.json, model*.safetensors, the base's tokenizer and notices, provenance.json,
         README.md
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from mechunlearn import __version__
from mechunlearn.artifacts import owner, sha256, sweep, write_json, write_text
from mechunlearn.errors import ArtifactError
from mechunlearn.models import delta
from mechunlearn.models.loading import load
from mechunlearn.models.sources import Manifest, read_manifest

PROVENANCE = "provenance.json"


def export(manifest: Path, edit: Path, folder: Path) -> dict[str, Any]:
    """Write the edited model to a new folder, in the base's number format, and return its provenance.

    The weights are those of `delta.apply`, bit for bit. The folder appears when it is whole. Raises ArtifactError where
    it exists already, and for an edit of another base.
    """
    if folder.exists():
        raise ArtifactError(f"--out is {folder}, which exists already; allowed: a folder that is not there yet.")
    model = load(manifest)
    about = delta.apply(edit, model)
    sweep(folder.parent, f".{folder.name}.", ".part")
    unfinished = folder.parent / f".{folder.name}.{owner()}.part"
    try:
        model.network.save_pretrained(unfinished)
        _copy(_root(model.manifest), unfinished)
        provenance = {
            "mechunlearn": __version__,
            "base": {"source": model.manifest.source, "sha256": model.manifest.sha256},
            "delta": {"sha256": sha256(edit), "bytes": edit.stat().st_size},
            "edit": {name: value for name, value in about.items() if name != "base"},
            "files": {path.name: sha256(path) for path in sorted(unfinished.iterdir())},
        }
        write_json(unfinished / PROVENANCE, provenance)
        write_text(unfinished / "README.md", _card(folder.name, provenance))
        os.rename(unfinished, folder)
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or error
        raise ArtifactError(f"{folder} cannot be written: {why}.") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return provenance


def _root(manifest: Manifest) -> Manifest:
    """Whose tokenizer a model has: the one that it was made from, through all that lie between."""
    return _root(read_manifest(manifest.base)) if manifest.base else manifest


def _copy(base: Manifest, folder: Path) -> None:
    """All of the base but its weights and what `save_pretrained` writes: the tokenizer as it is, licences, notices."""
    for name in base.files:
        weights = name.endswith((".safetensors", ".safetensors.index.json"))
        if not weights and not (folder / name).exists():
            shutil.copyfile(Path(base.folder) / name, folder / name)


def _card(name: str, provenance: dict[str, Any]) -> str:
    """The model card: what was done to which model, and what it is not for."""
    edit, base = provenance["edit"], provenance["base"]
    rows = "\n".join(f"| {key} | {edit[key]} |" for key in ("localization", "objective", "seed") if key in edit)
    settings = json.dumps(edit.get("settings", {}), indent=2, sort_keys=True)
    return f"""\
---
library_name: transformers
pipeline_tag: text-generation
tags: [mechunlearn, knowledge-editing, unlearning]
---

# {name}

An edit made by mechunlearn {provenance["mechunlearn"]} for research on where knowledge can be edited or unlearned so
that it stays gone. On purpose it answers some questions wrongly, or not at all; it is not for any other use.

| | |
| --- | --- |
| base | `{base["source"]}` |
| its weights | sha256 `{base["sha256"]}` |
{rows}

The base's terms of use hold for this model, too; its notices lie beside this file where it has some. `{PROVENANCE}`
holds the sha256 of every file and of the delta that was applied.

Settings of the edit:

```json
{settings}
```
"""
