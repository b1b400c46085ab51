"""How a study expands into cells, and where each file lies. Torch-free; the workflow's rules build on it.

results/STUDY/MODEL/TASK/
    facts.parquet                                      screened facts with roles
    scores/LOCALIZER.parquet                           effects of components, accuracies of probes
    selection/LOCALIZATION.json                        what an edit may train
    edits/LOCALIZATION/OBJECTIVE/seedK/delta.safetensors
    measurements/base.parquet                          the model before any edit, measured once
    measurements/LOCALIZATION/OBJECTIVE.parquet        and after
    attacks/ATTACK/LOCALIZATION/OBJECTIVE.parquet
    figures/NAME.svg, NAME.png
results/STUDY/metrics.csv, claims.json, report.html
"""

import os
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from mechunlearn import registry
from mechunlearn.config import Study
from mechunlearn.errors import ArtifactError

BASE = "base"
RESULTS = Path("results")


@dataclass(frozen=True)
class Cell:
    """What one measurement file is about; `localization` is `base`, and `objective` empty, before any edit."""

    model: str
    task: str
    localization: str
    objective: str
    attack: str = ""


def home(study: str, model: str, task: str) -> Path:
    """The folder of a model and task."""
    return RESULTS / study / model / task


def targets(study: Study, *pattern: str, **more: list[str]) -> list[str]:
    """Paths of a pattern below every model's and task's folder, for all values of the names it holds."""
    names = {
        "model": list(study.models),
        "task": list(study.tasks),
        "localization": study.localizations,
        "objective": study.objectives,
        "attack": study.attacks,
        "seed": [str(seed) for seed in study.seeds],
        **more,
    }
    paths = []
    for text in pattern:
        text = f"results/{study.study}/{{model}}/{{task}}/{text}"
        used = [name for name in names if f"{{{name}}}" in text]
        paths += [text.format(**dict(zip(used, values, strict=True))) for values in product(*(names[n] for n in used))]
    return paths


def measurement_files(study: Study) -> list[str]:
    """Every file of measurement rows, base models first."""
    return targets(
        study,
        "measurements/base.parquet",
        "measurements/{localization}/{objective}.parquet",
        "attacks/{attack}/{localization}/{objective}.parquet",
    )


def cell_of(path: str | Path) -> Cell:
    """The cell that a measurement file is about, from where it lies."""
    parts = Path(path).with_suffix("").parts
    kinds = [index for index, part in enumerate(parts) if part in ("measurements", "attacks")]
    if not kinds or kinds[-1] < 2:
        raise ArtifactError(f"{path} does not lie where a study keeps its measurements.")
    (model, task), rest = parts[kinds[-1] - 2 : kinds[-1]], list(parts[kinds[-1] + 1 :])
    if rest == [BASE]:
        return Cell(model, task, BASE, "")
    attack = rest.pop(0) if parts[kinds[-1]] == "attacks" else ""
    return Cell(model, task, rest[0], rest[1], attack)


def check_writable(*folders: str) -> None:
    """Raise ArtifactError where a folder cannot be written to, or made."""
    for folder in map(Path, folders):
        nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK):
            raise ArtifactError(f"{folder}/ cannot be written: {nearest} is not a folder one may write to.")


def localizers(study: Study) -> list[str]:
    """The localizers whose scores a study needs, fact lookup first: it sets the budget."""
    needed = [registry.scorer(name) for name in study.localizations]
    if study.localize.budget == "fact-lookup":
        needed.insert(0, "fact-lookup")
    return list(dict.fromkeys(name for name in needed if name))
