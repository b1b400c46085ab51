"""Bring models, data and text here, make models with planted or read facts, and screen the facts by the model."""

from pathlib import Path
from typing import Annotated

import typer

from mechunlearn import artifacts, config
from mechunlearn.cli.options import Facts, HeldOut, Manifest, Out, Settings, Text, load, settings_of

app = typer.Typer()


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

    rules, base = settings_of(config.PlantSettings, settings), load(model)
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
    from mechunlearn.models import checkpoint, delta
    from mechunlearn.models.sources import DELTA, change

    rules, base = settings_of(config.BiographySettings, settings), load(model)
    kind = source.rpartition("@")[2]
    everyone = biographies.people(rules)
    texts, questions = biographies.biographies(everyone, rules.wordings), biographies.questions(everyone)
    training, _ = passages.split(passages.read(text), held_out)
    with checkpoint.keeping(out.with_name(".checkpoints")) as checkpoints:
        names, spent = continue_on(base, texts, training, kind, rules, checkpoints)
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
    loaded = load(model)
    if rules.facts == "counterfact-upstream":
        found, every = len(every), upstream.distinct(every, loaded.option)
        print(f"{found - len(every)} of {found} facts left out: true and new answer begin with the same token")
    known, p_answer, rank = screen(loaded, every, settings_of(config.ScreenSettings, settings).threshold)
    assigned = roles.assign(every, known, rules, SETS[rules.facts].new_answer)
    artifacts.write_facts(out, assigned, p_answer, rank)
    print(f"{sum(known)} of {len(every)} facts known")
