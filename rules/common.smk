# What the rules share: the checked study, the sources a rule depends on, the settings a rule passes on.
import json
import os
import re

from snakemake.exceptions import WorkflowError

from mechunlearn import footprint, published, registry, study as layout
from mechunlearn.config import validate_study
from mechunlearn.errors import UserError
from mechunlearn.facts import BACKWARDS, rows
from mechunlearn.facts.sets import SETS
from mechunlearn.timing import closing_lines

try:
    STUDY = validate_study(config)
    layout.check_writable("results", "logs", "models", "data")
    layout.check_files(STUDY)
except UserError as error:
    raise WorkflowError(str(error)) from None

HOME = "results/{study}/{model}/{task}"
TEXT = layout.text_file(STUDY)
LOCALIZERS = registry.localizers(STUDY.localize.plugins)
ASKS = sorted({registry.methods("elicitation")[name] for name in STUDY.evaluate.elicitations})


# Where the paper (Guo et al. 2025) has what a figure shows: the chapters of `snakemake --report`.
LOCATED, ASKED, ATTACKED = "2.2 Localization", "3.1 Asking in other ways", "3.2 Relearning and other attacks"
SECTIONS = {
    "probe-curves": LOCATED,
    "path-patching": LOCATED,
    "localization-map": LOCATED,
    "tracing-map": LOCATED,
    "estimates": LOCATED,
    "agreement": LOCATED,
    "planted": LOCATED,
    "robustness": ASKED,
    "trade-off": ASKED,
    "sequential": ASKED,
    "relearning": ATTACKED,
    "latent-knowledge": ATTACKED,
    "worst-case": ATTACKED,
    "scaling": "3.4 Editing at scale",
    "weight-masking": "3.5 Weight masking",
    "similarity": "LLM Surgery (Veldanda et al. 2024)",
    "sweep": "A.6 Learning rates and weights",
}

SEQUENTIAL = [name for name, task in STUDY.tasks.items() if task.blocks]
AT_ONCE = [name for name in STUDY.tasks if name not in SEQUENTIAL]
PLANTED = [name for name, model in STUDY.models.items() if model.planted]
TRAINED = [name for name, model in STUDY.models.items() if model.trained]
WHOLE = [name for name, model in STUDY.models.items() if model.base is None]


def section(wildcards):
    """The chapter of a figure in `snakemake --report`."""
    return SECTIONS.get(wildcards.figure, "More figures")


def one_of(names):
    """A wildcard's constraint: these names; nothing where there are none."""
    return "|".join(map(re.escape, names)) or "(?!)"


wildcard_constraints:
    study=re.escape(STUDY.study),
    model=one_of(STUDY.models),
    task=one_of(STUDY.tasks),
    localization=one_of(dict.fromkeys([*layout.selections(STUDY), *registry.localizations()])),
    objective="|".join(registry.edits()),
    localizer=one_of(LOCALIZERS),
    attack="|".join(registry.methods("attack")),
    figure="|".join(registry.methods("figure")),


def sources(*modules):
    """The source files of modules and of all they import: a rule's code inputs (Snakemake sees no imports)."""
    return [os.path.relpath(path) for path in registry.sources(*modules)]


LOADS = "mechunlearn.cli.options"  # how a job loads its model


def localizer_sources(wildcards):
    return sources(LOADS, "mechunlearn.localize.score", LOCALIZERS[wildcards.localizer], *ASKS)


def edit_sources(wildcards):
    objective = registry.edits()[wildcards.objective]
    return sources(LOADS, "mechunlearn.edit.sequence", objective, *ASKS)


def attack_sources(wildcards):
    return sources("mechunlearn.cli.attack", registry.methods("attack")[wildcards.attack], *ASKS)


def figure_sources(wildcards):
    return sources(registry.methods("figure")[wildcards.figure])


def report_sources():
    """What the report's notebook imports, every figure's captions included."""
    return sources(
        "mechunlearn.report",
        "mechunlearn.timing",
        "mechunlearn.figures.tables",
        "mechunlearn.figures.beside_paper",
        "mechunlearn.figures.verdicts",
        "mechunlearn.figures.mechanisms",
        "mechunlearn.figures.people",
        "mechunlearn.figures.scaling",
        *registry.methods("figure").values(),
    )


def figure_inputs(wildcards):
    """Scores and selections of a model and task."""
    home = HOME.format(**wildcards)
    return {
        "scores": [f"{home}/scores/{name}.parquet" for name in layout.localizers(STUDY)],
        "masks": [f"{home}/masks/{name}-weights.parquet" for name in STUDY.masking.localizations],
        "selections": [f"{home}/selection/{name}.json" for name in layout.selections(STUDY)],
    }


def figure_folder(wildcards):
    return HOME.format(**wildcards)


def study_settings(wildcards):
    return STUDY.model_dump_json()


def selection_inputs(wildcards, pattern=HOME):
    """A localization's scores, fact lookup's selection where it sets the budget, the facts where these form groups."""
    home, name = pattern.format(**wildcards), wildcards.localization
    inputs, settings = {}, STUDY.localize.of_cell(wildcards.model, wildcards.task, name)
    if scorer := settings.scorer(name):
        inputs["scores"] = f"{home}/scores/{scorer}.parquet"
    if settings.follows_lookup(name):
        inputs["lookup"] = f"{home}/selection/fact-lookup.json"
    if layout.grouped(STUDY, wildcards.task, name):
        inputs["facts"] = f"{home}/facts.parquet"
    return inputs


def selection_options(wildcards, input):
    """The same as command line options."""
    keys = [key for key in ("scores", "lookup", "facts") if key in input.keys()]
    return [option for key in keys for option in (f"--{key}", input[key])]


def edit_folder(wildcards):
    return f"{HOME}/edits/{{localization}}/{{objective}}".format(**wildcards)


def edit_options(wildcards):
    return ["--edits", edit_folder(wildcards)]


def edited_blocks(wildcards):
    """How the blocks of a sequential task fared while they were edited, every seed; nothing of other tasks."""
    if wildcards.task not in SEQUENTIAL:
        return []
    return [f"{edit_folder(wildcards)}/seed{seed}/blocks.parquet" for seed in STUDY.seeds]


def dataset(wildcards):
    """Where a task's facts come from; those made for a model lie beside it, and a task may name a file."""
    task = STUDY.tasks[wildcards.task]
    if task.path:
        return rows.local(task.path)
    if task.facts == "biographies":
        return f"models/{people_of(wildcards)}/{SETS[task.facts].file}"
    folder = f"models/{wildcards.model}" if wildcards.model in PLANTED else "data"
    return f"{folder}/{SETS[task.facts].file}"


def people_of(wildcards):
    """Beside which model the biographies lie: the model itself, or one that was trained from it."""
    if wildcards.model in TRAINED:
        return wildcards.model
    return next(name for name in TRAINED if STUDY.models[name].base == wildcards.model)


def biographies(wildcards):
    """The texts of a task about people."""
    if STUDY.tasks[wildcards.task].facts != "biographies":
        return []
    return f"models/{people_of(wildcards)}/biographies.jsonl"


def biography_options(wildcards, input):
    """The same as command line options."""
    return ["--biographies", input.biographies] if input.biographies else []


def choices(wildcards):
    """The multiple choices that a task joins to its facts."""
    return STUDY.tasks[wildcards.task].choices or []


def text_source(wildcards):
    """The file that the study's own text is in; of the hub's the job reads only as far as it must."""
    path = STUDY.text.path
    return path if path and not path.startswith("hub:") else []


def text_settings(wildcards):
    return STUDY.text.model_dump_json()


def rows_source(wildcards):
    return "hub:{repository}@{revision}:{split}".format(**wildcards)


def base_of(wildcards):
    return f"models/{STUDY.models[wildcards.model].base}/model.json"


def made_source(wildcards):
    return STUDY.models[wildcards.model].source


def planting_settings(wildcards):
    return STUDY.planting.model_dump_json()


def cost_options(wildcards, input):
    """What edits took, as a command line option, where a study measures it."""
    return ["--costs", input.costs] if input.costs else []


def biography_settings(wildcards):
    return STUDY.biographies.model_dump_json()


def model_settings(wildcards):
    return STUDY.models[wildcards.model].model_dump_json()


def task_settings(wildcards):
    return STUDY.tasks[wildcards.task].model_dump_json(exclude_none=True)


def screen_settings(wildcards):
    return STUDY.screen.model_dump_json()


def localizer_settings(wildcards):
    return STUDY.localize.for_localizer(wildcards.localizer)


def selection_settings(wildcards):
    settings = STUDY.localize.of_cell(wildcards.model, wildcards.task, wildcards.localization)
    return settings.for_selection(wildcards.localization)


def edit_settings(wildcards):
    return STUDY.edit_settings(wildcards.model, wildcards.task, wildcards.localization, wildcards.objective)


def mask_settings(wildcards):
    asked = [name for name in STUDY.masking.elicitations if name in STUDY.asked(wildcards.task)]
    settings = STUDY.masking.model_copy(update={"elicitations": asked})
    return settings.model_dump_json(exclude={"localizations"})


BENCHMARKS = {"benchmarks", "benchmark_limit", "benchmark_tasks"}


def benchmark_settings(wildcards):
    return STUDY.evaluate.model_dump_json(include=BENCHMARKS)


def evaluate_settings(wildcards):
    evaluate = STUDY.evaluate.model_copy(update={"elicitations": STUDY.asked(wildcards.task)})
    benchmarks = BENCHMARKS if evaluate.benchmarks else set()
    return evaluate.model_dump_json(include={"elicitations", "samples", "texts", "gate", *benchmarks})


def benchmark_sources():
    """What benchmarks run on, where there are any: our module, and the files of a user's own tasks."""
    if not STUDY.evaluate.benchmarks:
        return []
    own = STUDY.evaluate.benchmark_tasks
    files = [os.path.join(folder, name) for folder, _, names in os.walk(own) for name in names] if own else []
    return [*sources("mechunlearn.evaluate.benchmarks"), *(each for each in sorted(files) if "__pycache__" not in each)]


def tasks_of_the_paper(wildcards):
    return json.dumps({name: published.kind(task) for name, task in STUDY.tasks.items()})


def gate_settings(wildcards):
    return STUDY.evaluate.model_dump_json(include={"gate"})


def report_settings(wildcards):
    return STUDY.report.model_dump_json()


def attack_settings(wildcards):
    """An attack's block; where it asks in formats and leaves open in which, as the evaluation does."""
    settings = getattr(STUDY, wildcards.attack.replace("-", "_"))
    if not hasattr(settings, "elicitations"):
        return settings.model_dump_json()
    formats = [name for name in STUDY.asked(wildcards.task) if name != BACKWARDS]
    fitting = [name for name in settings.elicitations if name in formats] or formats
    gate = STUDY.evaluate.gate if settings.gate is None else settings.gate
    return settings.model_copy(update={"elicitations": fitting, "gate": gate}).model_dump_json()


def seed_options(wildcards):
    return [option for seed in STUDY.seeds for option in ("--seed", str(seed))]


# Of the sweep (rules/sweep.smk).


def draw_settings(wildcards):
    return STUDY.sweep.model_dump_json(include={"forget", "seed"})


def trial_settings(wildcards):
    """How trials are measured: not in questions that count in no worst case, nor in those kept for testing."""
    own = STUDY.sweep.elicitations or STUDY.evaluate.elicitations
    asked = [name for name in STUDY.asked(wildcards.task) if name in own and name not in (BACKWARDS, "quiz-test")]
    sweep = STUDY.sweep.model_copy(update={"elicitations": asked})
    return sweep.model_dump_json(include={"elicitations", "texts", "seeds"})


def start_settings(wildcards):
    return STUDY.edit.for_model(wildcards.model).for_cell(wildcards.objective, wildcards.localization)


def sweep_selection_inputs(wildcards):
    return selection_inputs(wildcards, f"{HOME}/sweep")


def trial_selection(wildcards):
    """The study's own selection, but where facts are edited in groups."""
    folder = f"{HOME}/sweep" if layout.grouped(STUDY, wildcards.task, wildcards.localization) else HOME
    return f"{folder}/selection/{{localization}}.json".format(**wildcards)


def trial_sources(wildcards):
    objective = registry.edits()[wildcards.objective]
    return sources(
        LOADS, "mechunlearn.edit.sequence", "mechunlearn.evaluate.trial", "mechunlearn.sweep", objective, *ASKS
    )


def swept_cell(wildcards):
    return layout.Cell(wildcards.model, wildcards.task, wildcards.localization, wildcards.objective)


def former_choice(wildcards):
    """What was chosen for the setting before."""
    cell = swept_cell(wildcards)
    names = layout.sweep_parameters(STUDY, cell)
    before = names[: names.index(wildcards.parameter)]
    return {"former": f"{layout.sweep_home(STUDY.study, cell)}/{before[-1]}.json"} if before else {}


def former_options(wildcards, input):
    """The same as command line options."""
    return ["--former", input.former] if "former" in input.keys() else []


def trials_of(wildcards):
    """The trials of one setting of a cell."""
    cell = swept_cell(wildcards)
    folder = layout.sweep_home(STUDY.study, cell) / wildcards.parameter
    return [f"{folder}/{value}.parquet" for value in layout.sweep_values(STUDY, cell, wildcards.parameter)]


def start_value(wildcards):
    return layout.sweep_start(STUDY, swept_cell(wildcards))[wildcards.parameter]


def light_mb(wildcards, attempt):
    """Memory of a job without torch."""
    return 1000 * attempt


def light_minutes(wildcards, attempt):
    return footprint.START * attempt


def fetch_mb(wildcards, attempt):
    """A quantised model is held in float32 while it is converted; how large it is only its files will tell."""
    return 4000 * attempt


def fetch_minutes(wildcards, attempt):
    return 120 * attempt


def edit_work(size, wildcards, input):
    return work_of(wildcards, size, input.selection, STUDY.tasks[wildcards.task].forget, STUDY.seeds)


def trial_work(size, wildcards, input):
    forget = STUDY.sweep.forget or STUDY.tasks[wildcards.task].forget
    return work_of(wildcards, size, input.selection, forget, STUDY.sweep.seeds)


def work_of(wildcards, size, selection, forget, seeds):
    people = STUDY.tasks[wildcards.task].facts == "biographies"
    # How many facts have a task's answer only the model can tell.
    facts = 10 * STUDY.biographies.problematic if people else forget or 1000
    settings = STUDY.edit.model_validate_json(edit_settings(wildcards))
    return footprint.of_edit(size, selection, settings, facts=facts, seeds=len(seeds), people=people)


def mask_work(size, wildcards, input):
    seeds, benchmarks = len(STUDY.seeds), bool(STUDY.evaluate.benchmarks)
    return footprint.of_mask(size, input.selection, STUDY.masking, seeds=seeds, benchmarks=benchmarks)


def attack_work(size, wildcards, input):
    return footprint.of_attack(size, wildcards.attack, STUDY)


def planting_work(size, wildcards, input):
    return footprint.of_planting(size, STUDY.planting)


def reading_work(size, wildcards, input):
    return footprint.of_reading(size, STUDY.biographies)


def evaluate_work(size, wildcards, input):
    return footprint.times(footprint.BENCHMARK if STUDY.evaluate.benchmarks else footprint.MEASURE, len(STUDY.seeds))


def measure_work(size, wildcards, input):
    return footprint.MEASURE


def localize_work(size, wildcards, input):
    return footprint.times(footprint.LOCALIZE, STUDY.localize.repeats)


def asked(needs, work):
    """What a rule's jobs ask for (footprint.mem_mb, .runtime or .gpu), once their model is there to be looked at."""

    def resource(wildcards, input, attempt):
        size = footprint.size_of(input.get("model") or input.base)
        return needs(size, work(size, wildcards, input), attempt)

    return resource
