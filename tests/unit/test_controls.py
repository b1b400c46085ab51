"""Controls: attacks bring back what a model knows and nothing else, and the measurements say so.

Two tiny models of fictitious athletes. One was trained on every fact but those to forget (`unaware`), the other on all
(`aware`). Answers are dealt evenly within each role, so that knowing how common an answer is helps with none.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
import torch

from mechunlearn import registry
from mechunlearn.artifacts import Selection, measurement_table
from mechunlearn.config import EditSettings, attack_settings
from mechunlearn.edit.sequence import edit_in_turn
from mechunlearn.edit.train import Recipe, trainable
from mechunlearn.evaluate.measure import screen
from mechunlearn.facts import EDITED, Fact
from mechunlearn.facts.completion import completion
from mechunlearn.facts.planted import planted
from mechunlearn.facts.sports import SPORTS
from mechunlearn.facts.text import Passage
from mechunlearn.metrics import full_strength, per_fact
from mechunlearn.models.loading import load
from mechunlearn.models.model import Model
from mechunlearn.models.scoring import score
from mechunlearn.models.training import answer_losses, descend, example

CHANCE = 1 / len(SPORTS)
NOISE = 0.15  # 2.7 standard errors of 72 answers, 24 facts by three seeds, that are right a third of the time
COUNTS = {"forget": 24, "maintain-train": 36, "maintain-test": 12}
SEEDS = (0, 1, 2)
PASSAGES = [Passage(str(n), "sport", f"Tiger Woods plays the sport of {sport}.") for n, sport in enumerate(SPORTS)]
TRAINING = {"batch": 12, "texts": 1, "text_tokens": 16}
# Small versions of the attacks; one that is not named here runs as it is by default.
SMALL: dict[str, dict[str, Any]] = {
    "relearn": {**TRAINING, "steps": [0, 18], "rank": 8, "dropout": 0.0, "learning_rate": 1e-2},
    "finetune": {**TRAINING, "steps": [0, 18], "learning_rate": 4e-3},
    "probe": {"examples": 12},
    "quantize": {"group": 16},
    "soft-prompt": {"tokens": 2, "steps": 15, "batch": 12},
    "prompt-search": {"elicitations": ["completion", "question", "choice-text"]},
}
ATTACKS = sorted(registry.methods("attack"))


def facts_of(seed: int) -> list[Fact]:
    """Fictitious athletes in three roles, each sport as often as the others in each."""
    count = sum(COUNTS.values())
    by_sport = {sport: [fact for fact in planted(count, seed) if fact.answer == sport] for sport in SPORTS}
    facts = []
    for role, number in COUNTS.items():
        for sport, new in zip(SPORTS, (*SPORTS[1:], SPORTS[0]), strict=True):
            chosen = [by_sport[sport].pop() for _ in range(number // len(SPORTS))]
            facts += [fact.with_role(role, new if role == "forget" else "") for fact in chosen]
    return facts


def learned(manifest: Any, facts: Sequence[Fact]) -> Model:
    """A tiny model that knows these facts."""
    model, weakest = load(manifest), 0.0
    examples = [example(model, fact, fact.answer) for fact in facts]

    def terms() -> dict[str, torch.Tensor]:
        nonlocal weakest
        losses = answer_losses(model, examples)
        weakest = float((-losses.detach().max()).exp())
        return {"facts": losses.mean()}

    with trainable(model, Selection("all", model.layout.all("attention", "mlp"), 0, 0, 0)) as parameters:
        training = {"steps": 200, "learning_rate": 5e-3, "clip": 1.0, "model": model, "what": "teaching"}
        for _ in descend(parameters.values(), terms, **training):
            if weakest > 0.9:
                break
    assert all(screen(model, facts, 0.8)[0])
    return model


@pytest.fixture(scope="module")
def unaware(manifest_of):
    """seed -> (a model that was never taught its forget facts, the facts)."""
    worlds = {seed: facts_of(seed) for seed in SEEDS}
    return {
        seed: (learned(manifest_of("llama"), [fact for fact in facts if fact.role != "forget"]), facts)
        for seed, facts in worlds.items()
    }


@pytest.fixture(scope="module")
def aware(manifest_of):
    """(a model that was taught all facts, the facts)."""
    facts = facts_of(0)
    return learned(manifest_of("llama"), facts), facts


def attacked(name: str, model: Model, facts: Sequence[Fact], seed: int) -> list[dict[str, Any]]:
    """An attack's measurement rows, by its small settings."""
    settings = attack_settings(name).model_validate(SMALL.get(name, {}))
    rows: list[dict[str, Any]] = registry.load("attack", name)(model, facts, PASSAGES, settings, seed)
    return rows


@pytest.fixture(scope="module")
def attacks(unaware):
    """name -> what an attack gets of every unaware model, fact by fact; p_true is the share of the options."""
    found: dict[str, pd.DataFrame] = {}

    def of(name: str) -> pd.DataFrame:
        if name not in found:
            found[name] = pd.concat(per_fact(measurement_table(attacked(name, *unaware[seed], seed))) for seed in SEEDS)
        return found[name]

    return of


def strongest(table: pd.DataFrame, role: str) -> pd.Series:
    """Mean p_true by stage and format, each attack at its full strength; probes over their layers."""
    kept = table[(table.role == role) & table.stage.isin([*full_strength(table.stage.unique()), *probed(table)])]
    return kept.groupby([kept.stage.str.replace(r"^probed@.*", "probed", regex=True), "elicitation"]).p_true.mean()


def probed(table: pd.DataFrame) -> list[str]:
    """The stages of a probe, by layer; none of another attack."""
    stages = [stage for stage in table.stage.unique() if stage.startswith("probed@")]
    return sorted(stages, key=lambda stage: int(stage.partition("@")[2]))


# nothing comes back that was never there ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ATTACKS)
def test_what_a_model_never_knew_stays_at_chance(attacks, name):
    found = strongest(attacks(name), "forget")
    assert len(found) > 0
    assert found.between(CHANCE - NOISE, CHANCE + NOISE).all(), found


@pytest.mark.parametrize("name", ["relearn", "finetune"])
def test_the_same_attacks_do_teach_what_they_train_on(attacks, name):
    """Else staying at chance would say nothing."""
    assert strongest(attacks(name), "relearn-train").min() > CHANCE + 2 * NOISE


def accuracy(table: pd.DataFrame, role: str, stages: Sequence[str]) -> pd.Series:
    """How often the probe says the true answer, by format."""
    kept = table[(table.role == role) & table.stage.isin(stages)]
    return kept.groupby("elicitation").accuracy_true.mean()


@pytest.mark.parametrize("place", ["last", "subject"])
def test_a_probe_without_knowledge_equals_its_permuted_control(attacks, place):
    table = attacks("probe")
    found = accuracy(table, "forget", probed(table))
    assert found[f"probe-{place}"] == pytest.approx(found[f"probe-{place}-permuted"], abs=NOISE)
    assert found[f"probe-{place}-permuted"] == pytest.approx(CHANCE, abs=NOISE)


def test_a_probe_reads_what_the_model_does_know(attacks):
    table = attacks("probe")
    found = accuracy(table, "maintain-test", probed(table)[-1:])
    assert found["probe-last"] > 0.9
    assert found["probe-last-permuted"] == pytest.approx(CHANCE, abs=2 * NOISE)


# what is there is found ---------------------------------------------------------------------------------------------


def first(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The forget facts at the stage that an attack begins with; of a probe, in its last layer at the prompt's end."""
    table = measurement_table(rows).query("role == 'forget'")
    if layers := probed(table):
        return table[(table.stage == layers[-1]) & (table.elicitation == "probe-last")]
    return table[table.stage == rows[0]["stage"]]


# A soft prompt's first stage has random vectors in front of the prompt, which no screening had.
@pytest.mark.parametrize("name", [name for name in ATTACKS if name != "soft-prompt"])
def test_before_any_edit_each_attack_finds_the_facts_as_screened(aware, name):
    model, facts = aware
    _, p_answer, ranks = screen(model, facts, 0.5)
    screened = {fact.id: found for fact, *found in zip(facts, p_answer, ranks, strict=True)}
    forget = first(attacked(name, model, facts, 0))
    assert set(forget.fact) == {fact.id for fact in facts if fact.role == "forget"}
    assert (forget.choice == "true").mean() > 0.9
    for row in forget[forget.stage.str.endswith("@0")].itertuples():
        assert [row.p_true, row.rank] == [pytest.approx(screened[row.fact][0], abs=1e-4), screened[row.fact][1]]


# an edit moves what it is told to -----------------------------------------------------------------------------------


def edited(aware: Any, **settings: float) -> list[list[dict[str, Any]]]:
    """Rows of the maintain-train, the maintain-test and the forget facts after all MLPs were edited."""
    model, facts = aware
    model = replace(model, network=deepcopy(model.network))
    known = [fact for fact in facts if fact.role in EDITED]
    selection = Selection("all-mlps", model.layout.all("mlp"), 0, 0, 0)
    rules = EditSettings(steps=60, batch=24, texts=1, text_tokens=16, learning_rate=2e-3, text_weight=0, **settings)
    edit_in_turn(model, Recipe(known, PASSAGES, selection, "inject", rules, 0))
    roles = ("maintain-train", "maintain-test", "forget")
    return [score(model, [completion(fact)[0] for fact in facts if fact.role == role]) for role in roles]


def test_an_edit_leaves_the_facts_it_maintains_as_they_were(aware):
    kept, unseen, forgotten = edited(aware)
    assert {row["rank"] for row in kept} == {1}
    assert min(row["p_true"] for row in kept) > 0.8
    assert {row["choice"] for row in forgotten} == {"new"}
    # Of others, which it never saw, most stays: 36 facts to keep do not pin such a small model down.
    left, gone = (sum(row["p_true"] for row in rows) / len(rows) for rows in (unseen, forgotten))
    assert left > 0.5 > 0.05 > gone


def test_an_edit_that_maintains_nothing_changes_them(aware):
    """Else leaving them as they were would be no merit of the edit's."""
    kept, *_ = edited(aware, retain_weight=0.0)
    assert sum(row["rank"] == 1 for row in kept) < 0.95 * len(kept)  # how many differs by processor
    assert min(row["p_true"] for row in kept) < 0.1
