"""Try learning rates and weights on facts that no report sees, and choose."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mechunlearn import artifacts, config
from mechunlearn.cli.options import (
    Biographies,
    Facts,
    HeldOut,
    Manifest,
    Out,
    Settings,
    Text,
    load,
    settings_of,
)
from mechunlearn.errors import DivergenceError
from mechunlearn.facts import EDITED, MEASURED

if TYPE_CHECKING:
    import pandas as pd

    from mechunlearn.facts.text import Passage

app = typer.Typer()
Parameter = Annotated[str, typer.Option(help="The setting that is tried, e.g. learning_rate.")]
Former = Annotated[
    Path | None,
    typer.Option(help="The choice of the setting before this one, SETTING.json; none for the first."),
]
Objective = Annotated[str, typer.Option()]


@app.command()
def sweep_facts(
    facts: Facts,
    source: Annotated[Path, typer.Option(help="The dataset that they come from: new answers stand there.")],
    task: Annotated[str, typer.Option(help="JSON of the task.")],
    settings: Settings,
    out: Out,
) -> None:
    """Draw the facts of a sweep's trials among those that a task only trains on."""
    from mechunlearn.facts import sets, validation

    rules, sweep = settings_of(config.TaskSettings, task), settings_of(config.SweepSettings, settings)
    given = {fact.id: fact.new_answer for fact in sets.read(rules, source)}
    known = [fact.with_role(fact.role, given[fact.id]) for fact in artifacts.read_facts(facts)]
    drawn = validation.draw(known, rules, sweep, sets.SETS[rules.facts].new_answer)
    screened = artifacts.read_table(facts, artifacts.FACT_COLUMNS).set_index("id")[["p_answer", "rank"]]
    own = screened.loc[[fact.id for fact in drawn]]
    artifacts.write_facts(out, drawn, own["p_answer"].tolist(), own["rank"].tolist())
    kept = sum(fact.role in ("maintain-train", "neighbor") for fact in drawn)
    print(f"{len(drawn) - kept} of {len(drawn)} facts are edited or measured")


@app.command()
def sweep_base(model: Manifest, facts: Facts, text: Text, settings: Settings, held_out: HeldOut, out: Out) -> None:
    """Ask the base model the facts of a sweep's trials, to compare with."""
    from mechunlearn.evaluate.trial import trial

    rules = settings_of(config.SweepSettings, settings)
    _, measured = _passages(text, held_out, rules)
    rows = trial(load(model), artifacts.read_facts(facts, *MEASURED), measured, rules.elicitations, "base", 0)
    artifacts.write_table(out, artifacts.measurement_table(rows))


@app.command()
def sweep_trial(
    model: Manifest,
    facts: Facts,
    text: Text,
    selection: Annotated[Path, typer.Option()],
    objective: Objective,
    edit: Annotated[str, typer.Option(help="JSON of the cell's settings of the edit.")],
    parameter: Parameter,
    value: Annotated[float, typer.Option(help="The value to try.")],
    base: Annotated[Path, typer.Option(help="What the base model answered: formats it cannot use are left out.")],
    gate: Annotated[float, typer.Option(help="The accuracy with which it can use a format.")],
    settings: Settings,
    held_out: HeldOut,
    out: Annotated[Path, typer.Option(help="The rows to write; NAME.json beside them says how training went.")],
    former: Former = None,
    biographies: Biographies = None,
) -> None:
    """Edit with one value of one setting, once a seed, and measure; a training that diverges is an answer, too."""
    from mechunlearn.edit.sequence import edit_in_turn
    from mechunlearn.edit.train import Recipe
    from mechunlearn.evaluate.trial import trial
    from mechunlearn.facts.biographies import read_texts
    from mechunlearn.models import checkpoint
    from mechunlearn.sweep import formats

    rules, chosen = settings_of(config.SweepSettings, settings), artifacts.read_selection(selection)
    tried = {**(artifacts.read_json(former)["settings"] if former else {}), parameter: value}
    edits = settings_of(config.EditSettings, edit).having(objective, tried)
    training, measured = _passages(text, held_out, rules)
    known, people = artifacts.read_facts(facts, *EDITED), read_texts(biographies) if biographies else []
    asked, found = artifacts.read_facts(facts, *MEASURED), formats(artifacts.read_measurements(base), gate)
    rows: list[dict[str, Any]] = []
    losses, diverged = [], ""
    with checkpoint.keeping(out.with_name(f".checkpoints-{out.stem}")) as checkpoints:
        for seed in rules.seeds:
            loaded, recipe = load(model), Recipe(known, training, chosen, objective, edits, seed, people)
            try:
                _, history, _ = edit_in_turn(loaded, recipe, checkpoints)
            except DivergenceError as error:
                rows, diverged = [], str(error)
                print(f"diverged: {error}")
                break
            losses.append([history[0]["loss"], history[-1]["loss"]])
            rows += trial(loaded, asked, measured, found, "edited", seed)
            del loaded  # the next one is loaded when this one has gone
    about = {"settings": tried, "steps": edits.steps, "losses": losses, "diverged": diverged}
    artifacts.write_json(out.with_suffix(".json"), about)
    artifacts.write_table(out, artifacts.measurement_table(rows))


@app.command()
def sweep_choose(
    trials: Annotated[list[Path], typer.Argument(help="The trials of one setting, VALUE.parquet.")],
    parameter: Parameter,
    objective: Objective,
    start: Annotated[float, typer.Option(help="The cell's own value, which the best trial before had.")],
    base: Annotated[Path, typer.Option(help="What the base model answered.")],
    gate: Annotated[float, typer.Option(help="The accuracy with which it can use a format.")],
    rule: Annotated[str, typer.Option(help="worst-case or paper.")],
    settings: Settings,
    out: Out,
    table: Annotated[Path, typer.Option(help="The table of the trials to write.")],
    former: Former = None,
) -> None:
    """Choose a setting's value among its trials and the best of those before."""
    from mechunlearn import sweep

    before = artifacts.read_json(former) if former else {"settings": {}, "trial": None}
    paths = {float(path.stem): path for path in trials}
    if before["trial"]:
        paths[start] = Path(before["trial"])
    found = [sweep.Trial(value, _rows(path)) for value, path in paths.items()]
    report = settings_of(config.ReportSettings, settings)
    compared = sweep.compare(parameter, found, artifacts.read_measurements(base), objective, gate, report)
    value = sweep.chosen(compared, rule)
    artifacts.write_table(table, compared)
    own = before["settings"] if value is None else {**before["settings"], parameter: value}
    edge = len(paths) > 1 and value in (min(paths), max(paths))
    trial = before["trial"] if value is None else str(paths[value])
    artifacts.write_json(out, {"settings": own, "trial": trial, "edge": edge})
    print(f"{parameter}: {value}" + (", the end of its grid: others beyond may be better" if edge else ""))


@app.command()
def sweep_tables(
    study_config: Annotated[str, typer.Option(help="JSON of the whole study.")],
    out: Annotated[Path, typer.Option(help="The table of all trials to write, a CSV file.")],
    latex: Annotated[Path, typer.Option(help="The same, and what was chosen, for a paper.")],
    chosen: Annotated[Path, typer.Option(help="What was chosen, a YAML file: a study's `swept`.")],
    figure: Annotated[Path, typer.Option(help="The SVG file to write; a PNG and a PDF are written beside it.")],
) -> None:
    """Gather the trials and choices of all cells."""
    import pandas as pd

    from mechunlearn import study as layout
    from mechunlearn import sweep
    from mechunlearn.figures import style
    from mechunlearn.figures import sweep as drawing

    study = settings_of(config.Study, study_config)
    parts, choices = [], {}
    for cell in layout.sweep_cells(study):
        folder, names = layout.sweep_home(study.study, cell), layout.sweep_parameters(study, cell)
        choices[cell] = artifacts.read_json(folder / f"{names[-1]}.json")["settings"]
        for name in names:
            part = artifacts.read_table(folder / f"{name}.csv", sweep.STAGE)
            part.insert(0, "model", cell.model)
            parts.append(part.assign(task=cell.task, localization=cell.localization, objective=cell.objective))
    if not parts:
        raise config.ConfigError(f"objectives: {', '.join(study.objectives) or 'none'} has no setting to sweep.")
    table = pd.concat(parts)[sweep.COLUMNS]
    artifacts.write_table(out, table)
    artifacts.write_text(latex, sweep.latex(table, choices, study.sweep.rule))
    about = f"Chosen by `snakemake sweep` in the study {study.study}, rule {study.sweep.rule}."
    artifacts.write_text(chosen, sweep.to_yaml(choices, about))
    style.save(drawing.draw(table, study.sweep.rule), figure)
    print(sweep.to_yaml(choices, about))


def _passages(text: Path, held_out: int, rules: config.SweepSettings) -> "tuple[list[Passage], list[Passage]]":
    """(to train on, to measure), both out of those that a study trains on. Raises ConfigError where too few are."""
    from mechunlearn.facts import text as passages

    training, _ = passages.split(passages.read(text), held_out)
    if rules.texts >= len(training):
        raise config.ConfigError(
            f"sweep.texts is {rules.texts}, but evaluate.texts leaves {len(training)} passages; allowed: fewer than "
            "these, so that some are left to train on."
        )
    return passages.split(training, rules.texts)


def _rows(path: Path) -> "pd.DataFrame | None":
    """A trial's rows; None where it diverged."""
    diverged = artifacts.read_json(path.with_suffix(".json"))["diverged"]
    return None if diverged else artifacts.read_measurements(path)
