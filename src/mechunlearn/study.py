"""How a study expands into cells, and where each file lies. Torch-free; the workflow's rules build on it.

results/STUDY/MODEL/TASK/
    facts.parquet                                      screened facts with roles
    scores/LOCALIZER.parquet                           effects of components, accuracies of probes
    selection/LOCALIZATION.json                        what an edit may train
    edits/LOCALIZATION/OBJECTIVE/seedK/delta.safetensors
    measurements/base.parquet                          the model before any edit, measured once
    measurements/base-text.safetensors                 its hidden states on the held-out text, for KL divergences
    measurements/LOCALIZATION/OBJECTIVE.parquet        and after
    attacks/ATTACK/base.parquet, attacks/ATTACK/LOCALIZATION/OBJECTIVE.parquet
    masks/LOCALIZATION.parquet, LOCALIZATION-weights.parquet    with ever more of its weights set to zero
    figures/NAME.svg, NAME.png, NAME.pdf
    sweep/facts.parquet, base.parquet                  facts that no report sees, and the base model asked for them
    sweep/LOCALIZATION/OBJECTIVE/SETTING/VALUE.parquet, VALUE.json   one trial
    sweep/LOCALIZATION/OBJECTIVE/SETTING.json, SETTING.csv           what was chosen, and among what
results/STUDY/sweep.csv, sweep.tex, swept.yaml, figures/sweep.svg    the trials and choices of all cells
results/STUDY/passages.jsonl                           general text, where the study names its own
results/STUDY/metrics.csv, leaderboard.csv and .tex, claims.json, report.html and .ipynb
results/STUDY/costs.csv                                where models were trained on biographies
results/STUDY/planted.csv, figures/planted.svg         where facts were planted
results/STUDY/figures/scaling.svg                      where tasks differ in how many facts they forget
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from mechunlearn import registry
from mechunlearn.config import EditSettings, Study, TaskSettings, unknown
from mechunlearn.errors import ArtifactError
from mechunlearn.facts.sets import SETS, read

BASE = "base"
MASKS = "masks"
RESULTS = Path("results")
RESOURCES = registry.PACKAGE / "resources"


@dataclass(frozen=True)
class Cell:
    """What one measurement file is about.

    Before any edit `localization` is `base` and `objective` empty; where weights are masked instead of edited, only
    `objective` is empty.
    """

    model: str
    task: str
    localization: str
    objective: str
    attack: str = ""


def home(study: str, model: str, task: str) -> Path:
    """The folder of a model and task."""
    return RESULTS / study / model / task


def pairs(study: Study) -> list[tuple[str, str]]:
    """The models and tasks that go together: what was put into a model is known to that one, and asked of no other."""
    return [
        (model, task)
        for model, (task, settings) in product(study.models, study.tasks.items())
        if study.goes_with(model, settings.facts)
    ]


def references(study: Study) -> list[tuple[str, str]]:
    """The models and tasks that are measured once, to compare with, and never edited: those of `trained:MODEL@baseline`
    and of the models that trained ones are made from."""
    trained = [model.trained for model in study.models.values() if model.trained]
    bases = {base for base, _ in trained}
    return [
        (model, task)
        for model, settings in study.models.items()
        for task, facts in study.tasks.items()
        if facts.facts == "biographies" and (model in bases or (settings.trained and settings.trained[1] == "baseline"))
    ]


def targets(study: Study, *pattern: str, **more: list[str]) -> list[str]:
    """Paths of a pattern below every model's and task's folder, for all values of the names it holds."""
    names = {
        "localization": study.localizations,
        "objective": study.objectives,
        "attack": study.attacks,
        "seed": [str(seed) for seed in study.seeds],
        **more,
    }
    paths = []
    for text in pattern:
        used = [name for name in names if f"{{{name}}}" in text]
        for model, task in pairs(study):
            for values in product(*(names[name] for name in used)):
                paths.append(str(home(study.study, model, task) / text.format(**dict(zip(used, values, strict=True)))))
    return paths


def text_file(study: Study) -> str:
    """The study's general text: its own passages, or the package's."""
    return str(RESULTS / study.study / "passages.jsonl") if study.text.path else "data/text/passages.jsonl"


def measurement_files(study: Study) -> list[str]:
    """Every file of measurement rows, base models first, those to compare with last."""
    compared = [str(home(study.study, *pair) / "measurements/base.parquet") for pair in references(study)]
    own = targets(
        study,
        "measurements/base.parquet",
        "measurements/{localization}/{objective}.parquet",
    )
    return [*own, *attack_files(study), *mask_files(study), *compared]


def attack_files(study: Study) -> list[str]:
    """Where every edit is attacked, and the model before any."""
    pattern = "attacks/{attack}/base.parquet", "attacks/{attack}/{localization}/{objective}.parquet"
    return targets(study, *pattern) if study.objectives else []


def mask_files(study: Study, ending: str = "") -> list[str]:
    """Where masked weights are measured; with `ending` "-weights", where they are counted."""
    return targets(study, f"masks/{{localization}}{ending}.parquet", localization=study.masking.localizations)


def sizes(study: Study) -> dict[str, int]:
    """The tasks with how many facts each forgets, where they are of one fact set in three sizes or more; else none."""
    tasks = study.tasks.values()
    found = {name: task.forget for name, task in study.tasks.items() if task.forget and not task.blocks}
    alike = len({(task.facts, task.path) for task in tasks}) == 1 and len(found) == len(tasks)
    return found if alike and study.objectives and len(set(found.values())) >= 3 else {}


def figures(study: Study, task: str) -> list[str]:
    """The figures that fit a task: those of its blocks, its texts and masked weights only where it has some."""
    settings = study.tasks[task]
    fits = {
        "sequential": settings.blocks is not None,
        "similarity": settings.facts == "biographies",
        "weight-masking": bool(study.masking.localizations),
    }
    return [name for name in registry.methods("figure") if fits.get(name, True)]


def figure_files(study: Study) -> list[str]:
    """Every figure of every model and task but the planted ones, which have a figure of their own together."""
    shown = [(model, task) for model, task in pairs(study) if not study.models[model].planted]
    return [
        str(home(study.study, model, task) / f"figures/{name}.svg")
        for model, task in shown
        for name in figures(study, task)
    ]


def figures_by_name(study: Study) -> dict[str, list[str]]:
    """Each figure's files, one a model and task."""
    found: dict[str, list[str]] = {}
    for path in figure_files(study):
        found.setdefault(Path(path).stem, []).append(path)
    return found


def sweep_cells(study: Study) -> list[Cell]:
    """The cells whose learning rates and weights a sweep tries."""
    localizations = study.sweep.localizations or study.localizations
    objectives = study.sweep.objectives or study.trained_objectives()
    cells = [Cell(*place, *edit) for place in pairs(study) for edit in product(localizations, objectives)]
    return [cell for cell in cells if sweep_parameters(study, cell)]


def sweep_home(study: str, cell: Cell) -> Path:
    """The folder of a cell's trials."""
    return home(study, cell.model, cell.task) / "sweep" / cell.localization / cell.objective


def sweep_parameters(study: Study, cell: Cell) -> list[str]:
    """The settings that are swept for a cell, in order."""
    return [name for name in study.sweep.grids if name in study.parameters(cell.task, cell.objective)]


def sweep_choices(study: Study) -> list[str]:
    """Every file of what a sweep chose."""
    return [
        str(sweep_home(study.study, cell) / f"{name}.json")
        for cell in sweep_cells(study)
        for name in sweep_parameters(study, cell)
    ]


def sweep_values(study: Study, cell: Cell, parameter: str) -> list[float]:
    """The values of a setting that have a trial of their own.

    After the first setting that which the cell has anyway is left out: it was tried with the best of those before.
    """
    tried = study.sweep.grids[parameter]  # type: ignore[index]
    if parameter == sweep_parameters(study, cell)[0]:
        return list(tried)
    return [value for value in tried if value != sweep_start(study, cell)[parameter]]


def sweep_start(study: Study, cell: Cell) -> dict[str, float]:
    """What a cell's settings are before a sweep, whatever an earlier one has chosen."""
    settings = EditSettings.model_validate_json(
        study.edit.for_model(cell.model).for_cell(cell.objective, cell.localization)
    )
    return {name: settings.setting(cell.objective, name) for name in study.parameters(cell.task, cell.objective)}


def cell_of(path: str | Path) -> Cell:
    """The cell that a measurement file is about, from where it lies."""
    parts = Path(path).with_suffix("").parts
    kinds = [index for index, part in enumerate(parts) if part in ("measurements", "attacks", MASKS)]
    if not kinds or kinds[-1] < 2:
        raise ArtifactError(f"{path} does not lie where a study keeps its measurements.")
    (model, task), rest = parts[kinds[-1] - 2 : kinds[-1]], list(parts[kinds[-1] + 1 :])
    if parts[kinds[-1]] == MASKS:
        return Cell(model, task, rest[0], "")
    attack = rest.pop(0) if parts[kinds[-1]] == "attacks" else ""
    if rest == [BASE]:
        return Cell(model, task, BASE, "", attack)
    return Cell(model, task, rest[0], rest[1], attack)


def check_writable(*folders: str) -> None:
    """Raise ArtifactError where a folder cannot be written to, or made."""
    for folder in map(Path, folders):
        nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK):
            raise ArtifactError(f"{folder}/ cannot be written: {nearest} is not a folder one may write to.")


def check_files(study: Study) -> None:
    """Raise ArtifactError where a file is missing that a study names, FactError where one's own facts have mistakes."""
    named = {"text.path": study.text.path}
    for name, task in study.tasks.items():
        named |= {f"tasks.{name}.path": task.path, f"tasks.{name}.choices": task.choices}
    for key, path in [*named.items(), *(("localize.plugins", path) for path in study.localize.plugins)]:
        if path and not path.startswith("hub:") and not Path(path).is_file():
            raise ArtifactError(f"{key} is {path!r}, but there is no such file.")
        if path and set(path) & set("{}"):
            raise ArtifactError(f"{key} is {path!r}: a path with braces cannot be passed on; rename the file.")
    for name, task in study.tasks.items():
        _check_facts(name, task, study.asked(name))


def _check_facts(name: str, task: TaskSettings, formats: Sequence[str]) -> None:
    """Raise ArtifactError where a task asks for more, or for others, than its facts are, as far as they are at hand."""
    path = {
        "own": task.path,
        "sports": RESOURCES / SETS["sports"].file,
        "counterfact": RESOURCES / SETS["counterfact"].file,
    }
    if not (at := path.get(task.facts)):
        return
    facts = read(task, at)
    if task.forget and task.forget > len(facts) - 2:
        raise ArtifactError(
            f"tasks.{name}.forget is {task.forget}: `{task.facts}` has {len(facts)} facts, of which two must be kept; "
            f"allowed: at most {len(facts) - 2}."
        )
    if "paraphrase" in formats and not any(fact.paraphrases for fact in facts):
        raise ArtifactError(
            f"evaluate.elicitations has paraphrase, but no fact of tasks.{name} has paraphrases; allowed where some do."
        )
    answers = {fact.answer for fact in facts}
    for key, value, known in (
        ("answer", task.answer, answers),
        ("new_answer", task.new_answer, answers.union(*(fact.options for fact in facts)) - {task.answer}),
    ):
        if value is not None and value not in known:
            raise ArtifactError(f"tasks.{name}.{key} is {value!r}: {unknown(value, sorted(known))}")


def selections(study: Study) -> list[str]:
    """Every localization that is selected: fact lookup first where it sets a budget, then the study's own."""
    first = ["fact-lookup"] if any(map(study.localize.follows_lookup, study.localizations)) else []
    return list(dict.fromkeys([*first, *study.localizations]))


def grouped(study: Study, task: str, localization: str) -> bool:
    """Are facts edited in groups, one after another: in blocks, or each group where its facts are looked up?"""
    return study.tasks[task].blocks is not None or study.localize.per_fact(localization)


def localizers(study: Study) -> list[str]:
    """The localizers whose scores a study needs, in the order of the selections that need them.

    Gradients only estimate what activation patching measures, so where one of them is needed all three run: the
    report compares both estimates with the exact effects.
    """
    needed = [study.localize.scorer(name) for name in selections(study)]
    if {"attribution-patching", "integrated-gradients"} & set(needed):
        needed += ["attribution-patching", "integrated-gradients", "activation-patching"]
    if study.masking.localizations:  # which masked weights extract the answer?
        needed.append("path-patching")
    return list(dict.fromkeys(name for name in needed if name))
