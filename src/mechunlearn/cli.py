"""The command line: one command a rule, each also of use on its own.

Every command reads and writes the paths it is given; `--settings` takes the JSON of one block of the configuration,
checked by the same models. Torch is imported only by the commands that run a model.
"""

import json
import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from mechunlearn import artifacts, config
from mechunlearn.errors import UserError
from mechunlearn.facts import EDITED, LOCALIZED, MEASURED

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Localize, edit and attack knowledge in language models.",
)
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
    try:
        return model.model_validate_json(text)
    except ValueError as error:
        raise config.ConfigError(f"--settings: {error}") from None


def main() -> None:
    """Run the command line; a UserError is one sentence on stderr and exit code 1."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    # transformers imports torchao, which warns of each of its kernels that is made for another machine.
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        app()
    except UserError as error:
        print(f"mechunlearn: {error}", file=sys.stderr)
        raise SystemExit(1) from None


@app.command()
def fetch_model(settings: Settings, out: Out) -> None:
    """Bring a model here, verify it and write its manifest."""
    from mechunlearn.models.sources import fetch

    record = fetch(settings_of(config.ModelSettings, settings), out)
    print(f"{record.source}: {len(record.files)} files, weights {record.sha256}")


@app.command()
def plant(
    model: Manifest,
    source: Annotated[str, typer.Option(help="planted:MODEL@LAYER.")],
    text: Text,
    settings: Settings,
    out: Out,
) -> None:
    """Train fictitious facts into one layer's MLP; the facts and what changed lie beside the new manifest."""
    from mechunlearn.edit.plant import plant
    from mechunlearn.facts import sports
    from mechunlearn.facts import text as passages
    from mechunlearn.facts.planted import planted
    from mechunlearn.models import delta
    from mechunlearn.models.sources import DELTA, change

    rules, base = settings_of(config.PlantSettings, settings), _load(model)
    layer = int(source.rpartition("@")[2])
    facts = planted(rules.facts, rules.seed)
    names = plant(base, facts, passages.read(text), layer, rules, rules.seed)
    artifacts.write_text(out.with_name("facts.csv"), sports.table(facts))
    delta.save(out.with_name(DELTA), base, names, {"planted": layer, "settings": rules.model_dump()})
    record = change(model, source, out)
    print(f"{record.source}: {len(facts)} facts, model {record.sha256}")


@app.command()
def read_biographies(
    model: Manifest,
    source: Annotated[str, typer.Option(help="trained:MODEL@pre or trained:MODEL@baseline.")],
    text: Text,
    held_out: HeldOut,
    settings: Settings,
    out: Out,
) -> None:
    """Train a model on biographies; they, the questions and what changed lie beside the new manifest."""
    from mechunlearn.edit.continual import continue_on
    from mechunlearn.facts import biographies
    from mechunlearn.facts import text as passages
    from mechunlearn.models import delta
    from mechunlearn.models.sources import DELTA, change

    rules, base = settings_of(config.BiographySettings, settings), _load(model)
    kind = source.rpartition("@")[2]
    everyone = biographies.people(rules)
    texts, questions = biographies.biographies(everyone, rules.wordings), biographies.questions(everyone)
    training, _ = passages.split(passages.read(text), held_out)
    names, spent = continue_on(base, texts, training, kind, rules)
    artifacts.write_text(out.with_name("biographies.jsonl"), biographies.jsonl(texts))
    artifacts.write_text(out.with_name("questions.jsonl"), biographies.jsonl(questions))
    artifacts.write_json(out.with_name("training.json"), spent)
    delta.save(out.with_name(DELTA), base, names, {"trained": kind, "settings": rules.model_dump()})
    record = change(model, source, out)
    print(f"{record.source}: {len(texts)} texts, {len(questions)} questions, model {record.sha256}")


@app.command()
def fetch_data(source: Path, out: Path) -> None:
    """Check a shipped dataset and put it into data/."""
    from mechunlearn.facts import text
    from mechunlearn.facts.sets import SETS

    readers = {fact_set.file: fact_set.read for fact_set in SETS.values()}
    items = readers.get(f"{source.parent.name}/{source.name}", text.read)(source)
    with artifacts.atomic(out) as temporary:
        temporary.write_bytes(source.read_bytes())
    print(f"{out}: {len(items)} rows")


@app.command()
def fetch_rows(source: str, out: Path) -> None:
    """Bring a dataset here from the hub, given as hub:OWNER/NAME@REVISION:SPLIT."""
    from mechunlearn.facts import rows

    with artifacts.atomic(out) as temporary:
        count = rows.download(source, temporary)
    print(f"{out}: {count} rows")


@app.command()
def fetch_text(settings: Settings, out: Out) -> None:
    """Take the passages of a study's own text from a file or the hub."""
    from mechunlearn.facts import text, upstream

    rules = settings_of(config.TextSettings, settings)
    if rules.path is None:
        raise config.ConfigError("text.path is null: it must name a source; the package's passages need no such job.")
    passages = upstream.read_passages(rules.path, rules.passages, rules.characters)
    artifacts.write_text(out, text.lines(passages))
    print(f"{out}: {len(passages)} passages")


@app.command()
def facts_template(out: Path) -> None:
    """Write an example of a file of your own facts, as .csv or .jsonl."""
    from mechunlearn.facts import own

    artifacts.write_text(out, own.example(out))
    print(f"{out}: {len(own.EXAMPLE)} facts")


@app.command()
def screen(model: Manifest, facts: Facts, settings: Settings, task: Annotated[str, typer.Option()], out: Out) -> None:
    """Ask the base model every fact and give the known ones their roles in a task."""
    from mechunlearn.evaluate.measure import screen
    from mechunlearn.facts import roles, upstream
    from mechunlearn.facts.sets import SETS, read

    rules = settings_of(config.TaskSettings, task)
    every = read(rules, facts)
    loaded = _load(model)
    if rules.facts == "counterfact-upstream":
        found, every = len(every), upstream.distinct(every, loaded.option)
        print(f"{found - len(every)} of {found} facts left out: true and new answer begin with the same token")
    known, p_answer, rank = screen(loaded, every, settings_of(config.ScreenSettings, settings).threshold)
    assigned = roles.assign(every, known, rules, SETS[rules.facts].new_answer)
    artifacts.write_facts(out, assigned, p_answer, rank)
    print(f"{sum(known)} of {len(every)} facts known")


@app.command()
def score(model: Manifest, facts: Facts, method: Annotated[str, typer.Option()], settings: Settings, out: Out) -> None:
    """Score a model's components by one localizer, on the facts the model knows, once a run."""
    from mechunlearn.localize.score import score

    known, rules = artifacts.read_facts(facts, *LOCALIZED), settings_of(config.LocalizeSettings, settings)
    artifacts.write_table(out, score(_load(model), known, method, rules))


@app.command()
def localize(
    model: Annotated[str, typer.Option(help="A folder in Hugging Face format, OWNER/NAME[@COMMIT] or a model.json.")],
    facts: Annotated[Path, typer.Option(help="Your facts: .csv or .jsonl (see facts-template), or facts.parquet.")],
    method: Annotated[
        str, typer.Option(help="A localization, e.g. fact-lookup or causal-tracing-mlps.")
    ] = "fact-lookup",
    out: Annotated[Path, typer.Option(help="The folder for scores, selection and figures.")] = Path("localization"),
    budget: Annotated[
        float, typer.Option(help="Share of the parameters to select, where the method has no own.")
    ] = 0.1,
    threshold: Annotated[float, typer.Option(help="A fact is known where its answer has more than this.")] = 0.5,
    dtype: Annotated[config.Format, typer.Option(help="The number format of the weights.")] = "bfloat16",
    settings: Annotated[str, typer.Option(help="JSON of the `localize` block of the configuration.")] = "{}",
) -> None:
    """Find the parts of a model that hold your facts: which layers should be edited?"""
    from mechunlearn import standalone

    rules = settings_of(config.LocalizeSettings, json.dumps({"budget": budget, **json.loads(settings)}))
    scores, selection, known, every = standalone.localize(model, dtype, facts, method, rules, threshold, out)
    standalone.show(scores, selection, known, every)
    for path in standalone.draw(out):
        print(path)


@app.command()
def select(
    model: Manifest,
    localization: Annotated[str, typer.Option()],
    settings: Settings,
    out: Out,
    scores: Annotated[
        Path | None, typer.Option(help="Scores of its localizer; none for a baseline or layers given by hand.")
    ] = None,
    lookup: Annotated[Path | None, typer.Option(help="Fact lookup's selection, where it sets the budget.")] = None,
    facts: Annotated[
        Path | None, typer.Option(help="The facts, where blocks or single facts have selections of their own.")
    ] = None,
) -> None:
    """Choose what a localization may train, within the budget, and tell how far such a choice can be relied on."""
    from mechunlearn.localize.groups import select_groups
    from mechunlearn.localize.select import select
    from mechunlearn.localize.stability import stability
    from mechunlearn.models.components import layout_of
    from mechunlearn.models.sources import read_manifest

    layout, rules = layout_of(read_manifest(model)), settings_of(config.LocalizeSettings, settings)
    table = artifacts.read_table(scores, artifacts.SCORE_COLUMNS) if scores else None
    by_lookup = artifacts.read_selection(lookup) if lookup else None
    if facts:
        selection = select_groups(localization, layout, rules, artifacts.read_facts(facts, *EDITED), table, by_lookup)
    else:
        selection = select(localization, layout, rules, table, by_lookup)
    if table is not None and not facts:
        selection.details["stability"] = stability(selection, layout, rules, table)
    artifacts.write_selection(out, selection)
    print(f"{localization}: {selection.parameters:,} of {selection.total:,} parameters, budget {selection.budget:,}")


@app.command()
def edit(
    model: Manifest,
    facts: Facts,
    text: Text,
    selection: Annotated[Path, typer.Option()],
    objective: Annotated[str, typer.Option()],
    settings: Settings,
    seed: Seeds,
    held_out: HeldOut,
    out: Annotated[Path, typer.Option(help="The folder for seedK/delta.safetensors and seedK/history.json.")],
    biographies: Biographies = None,
) -> None:
    """Train an edit of the selected components, once a seed, and keep what changed."""
    from mechunlearn.edit.sequence import edit_in_turn
    from mechunlearn.facts import text as passages
    from mechunlearn.facts.biographies import read_texts
    from mechunlearn.models import delta

    chosen, rules = artifacts.read_selection(selection), settings_of(config.EditSettings, settings)
    training, _ = passages.split(passages.read(text), held_out)
    known = artifacts.read_facts(facts, *EDITED)
    people = read_texts(biographies) if biographies else []
    about = {
        "localization": chosen.localization,
        "objective": objective,
        "settings": rules.model_dump(exclude=rules.others(objective)),
    }
    for number in seed:
        base = _load(model)
        names, history, rows = edit_in_turn(base, known, training, chosen, objective, rules, number, people)
        folder = out / f"seed{number}"
        artifacts.write_json(folder / "history.json", history)
        if rows:
            artifacts.write_table(folder / BLOCKS, artifacts.measurement_table(rows))
        delta.save(folder / "delta.safetensors", base, names, {**about, "seed": number})


@app.command()
def mask(
    model: Manifest,
    facts: Facts,
    text: Text,
    selection: Annotated[Path, typer.Option()],
    settings: Settings,
    seed: Seeds,
    held_out: HeldOut,
    out: Out,
    weights: Annotated[Path, typer.Option(help="The table of masked weights to write, by size and component.")],
) -> None:
    """Learn which of the selected weights can be set to zero to forget, and measure with ever more of them at zero."""
    import pandas as pd

    from mechunlearn.edit.masking import learn
    from mechunlearn.evaluate.measure import measure
    from mechunlearn.facts import text as passages
    from mechunlearn.models.masks import counts, learned, masked, region, smallest

    chosen, rules = artifacts.read_selection(selection), settings_of(config.MaskingSettings, settings)
    if rules.sizes[-1] > chosen.parameters:
        raise config.ConfigError(
            f"masking.sizes: {rules.sizes[-1]} is more than the {chosen.parameters} weights of {chosen.localization}."
        )
    training, other = passages.split(passages.read(text), held_out)
    known, loaded = artifacts.read_facts(facts, *LOCALIZED), _load(model)
    measured = [fact for fact in known if fact.role in MEASURED]
    rows: list[dict[str, Any]] = []
    every, tables = counts(loaded.layout, region(loaded.layout, chosen.components)), []
    for number in seed:
        masks = learn(loaded, known, training, chosen, rules, number)
        print(f"{learned(masks):,} masks are below 1; more weights cannot be chosen and are not masked")
        for size in filter(lambda size: size <= learned(masks), rules.sizes):
            gone = smallest(masks, size)
            with masked(loaded, gone):
                rows += measure(loaded, measured, other, rules.elicitations, f"masked@{size}", number)
            tables.append(counts(loaded.layout, gone).assign(of=every.weights, seed=number, size=size))
    artifacts.write_table(weights, pd.concat(tables)[artifacts.MASK_COLUMNS])
    artifacts.write_table(out, artifacts.measurement_table(rows))


@app.command()
def evaluate(
    model: Manifest,
    facts: Facts,
    text: Text,
    settings: Settings,
    out: Out,
    edits: Annotated[Path | None, typer.Option(help="Folder of seedK/delta.safetensors; none: the base model.")] = None,
    base: Base = None,
    states: Annotated[
        Path | None, typer.Option(help="The base's hidden states on the text: written for the base, else read for KL.")
    ] = None,
    biographies: Biographies = None,
    seed: Seeds = [0],  # noqa: B006
) -> None:
    """Measure the base model, or an edit's every seed: all elicitations, held-out text, text of its own, benchmarks."""
    from mechunlearn.evaluate import benchmarks, streams
    from mechunlearn.evaluate.generate import generate
    from mechunlearn.evaluate.measure import measure
    from mechunlearn.facts import text as passages
    from mechunlearn.facts.biographies import read_texts
    from mechunlearn.gate import usable
    from mechunlearn.models import text_states
    from mechunlearn.models.scoring import text_hidden

    rules = settings_of(config.EvaluateSettings, settings)
    _, held_out = passages.split(passages.read(text), rules.texts)
    known, formats = artifacts.read_facts(facts, *MEASURED), rules.elicitations
    if base:
        formats = usable(artifacts.read_measurements(base), formats, rules.gate)
    forget = [fact for fact in known if fact.role == "forget"] if rules.samples else []
    tasks, people = benchmarks.load(rules), streams.chosen(read_texts(biographies) if biographies else [])
    inside = streams.states(_load(model), people) if people and edits else None
    rows: list[dict[str, Any]] = []
    for number in seed if edits else seed[:1]:
        loaded, stage = (_edited(model, edits, number), "edited") if edits else (_load(model), "base")
        hidden, before = text_hidden(loaded, held_out), None
        if states and edits:
            before = text_states.read(states, loaded, held_out)
        elif states:
            text_states.save(states, loaded, held_out, hidden)
        rows += measure(loaded, known, held_out, formats, stage, number, hidden, before)
        rows += streams.measure(loaded, people, stage, number, inside)
        if edits and (edits / f"seed{number}" / BLOCKS).is_file():
            table = artifacts.read_measurements(edits / f"seed{number}" / BLOCKS)
            rows += [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
        rows += generate(loaded, forget, rules.samples, stage, number)
        rows += benchmarks.measure(loaded, tasks, rules.benchmark_limit, stage, number)
    artifacts.write_table(out, artifacts.measurement_table(rows))


@app.command()
def attack(
    model: Manifest,
    facts: Facts,
    text: Text,
    method: Annotated[str, typer.Option()],
    settings: Settings,
    edits: Annotated[Path, typer.Option()],
    seed: Seeds,
    held_out: HeldOut,
    out: Out,
    base: Base = None,
) -> None:
    """Attack every seed of an edit by one method and measure what comes back."""
    from mechunlearn import registry
    from mechunlearn.facts import text as passages
    from mechunlearn.gate import usable

    function, rules = registry.load("attack", method), settings_of(config.attack_settings(method), settings)
    if base and isinstance(rules, config.AskingSettings) and rules.gate is not None:
        asked = usable(artifacts.read_measurements(base), rules.elicitations, rules.gate)
        rules = rules.model_copy(update={"elicitations": asked})
    training, _ = passages.split(passages.read(text), held_out)
    known = artifacts.read_facts(facts, *LOCALIZED)
    rows: list[dict[str, Any]] = []
    for number in seed:
        rows += function(_edited(model, edits, number), known, training, rules, number)
    artifacts.write_table(out, artifacts.measurement_table(rows))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def run(context: typer.Context) -> None:
    """Run the workflow; arguments go to snakemake. A lock that a killed run left behind is removed first."""
    from mechunlearn.workflow import clear_stale_lock

    clear_stale_lock()
    command = Path(sys.executable).with_name("snakemake")
    os.environ["PATH"] = f"{command.parent}{os.pathsep}{os.environ['PATH']}"
    os.execv(command, ["snakemake", *context.args])


@app.command()
def schema(
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail where a file is out of date.")] = False,
) -> None:
    """Regenerate config/schema.json and the table in config/README.md from the configuration's models."""
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
def figure(
    name: Annotated[str, typer.Option(help="The figure.")],
    results: Annotated[Path, typer.Option(help="The folder of a model and task, results/STUDY/MODEL/TASK.")],
    metrics: Annotated[Path, typer.Option(help="The study's metrics.csv.")],
    out: Annotated[Path, typer.Option(help="The SVG file to write; a PNG is written beside it.")],
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
    figure: Annotated[Path, typer.Option(help="The SVG file to write; a PNG is written beside it.")],
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
            paths = {name: folder / f"{name}.parquet" for name in registry.methods("localizer")}
            scores = {name: artifacts.read_table(path, artifacts.SCORE_COLUMNS) for name, path in paths.items()}
            found.append((model, task, where[1], scores))
    style.save(planted.draw(write_planted(out, found)), figure)


@app.command()
def scaling(
    study_config: Annotated[str, typer.Option(help="JSON of the whole study.")],
    metrics: Annotated[Path, typer.Option(help="The study's metrics.csv.")],
    out: Annotated[Path, typer.Option(help="The SVG file to write; a PNG is written beside it.")],
) -> None:
    """Draw how edits fare with the number of facts, where a study's tasks differ in it."""
    from mechunlearn.figures import data, scaling, style
    from mechunlearn.study import sizes

    tasks = sizes(settings_of(config.Study, study_config))
    style.save(scaling.draw(data.read_metrics(metrics), tasks), out)


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


def _load(model: Path) -> Any:
    """A model in the format that is fastest here."""
    from mechunlearn.models.loading import fastest, load

    return load(model, fastest(model))


def _edited(model: Path, edits: Path, seed: int) -> Any:
    """One seed's edit of a model."""
    from mechunlearn.models import delta

    loaded = _load(model)
    delta.apply(edits / f"seed{seed}" / "delta.safetensors", loaded)
    return loaded


if __name__ == "__main__":
    main()
