"""Facts that are edited in groups, one after another: in blocks, or each where it is looked up."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from made_scores import layout_of, table
from typer.testing import CliRunner

from mechunlearn import artifacts
from mechunlearn.artifacts import Component, Group, Selection
from mechunlearn.cli import app
from mechunlearn.config import EditSettings, EvaluateSettings, LocalizeSettings, TaskSettings
from mechunlearn.edit import keys
from mechunlearn.edit.sequence import edit_in_turn
from mechunlearn.edit.train import Recipe, check, train
from mechunlearn.errors import DivergenceError, FactError
from mechunlearn.facts import roles, sports
from mechunlearn.facts.completion import completion
from mechunlearn.facts.text import Passage
from mechunlearn.localize.groups import select_groups
from mechunlearn.localize.score import score
from mechunlearn.localize.select import select
from mechunlearn.models import delta, scoring
from mechunlearn.models.loading import load
from mechunlearn.registry import methods

PASSAGES = [Passage("a", "sport", "Tiger Woods plays golf."), Passage("b", "sport", "José plays baseball.")]
SETTINGS = EditSettings(steps=3, batch=2, texts=1, text_tokens=8, learning_rate=1e-2)
KNOWN = [sports.plays(f"athlete {number}", "baseball") for number in range(30)]
LAYOUT = layout_of(4)


def in_blocks(facts, count=2):
    """The same facts, those to forget dealt to so many blocks in turn."""
    forget = [fact.id for fact in facts if fact.role == "forget"]
    return [replace(fact, block=1 + forget.index(fact.id) % count if fact.id in forget else 0) for fact in facts]


def state(model):
    return {name: parameter.detach().clone() for name, parameter in model.network.named_parameters()}


# facts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("draw", ["seeded", "first"])
def test_blocks_are_equal_parts_of_the_forget_set_in_the_order_drawn(draw):
    tasks = [TaskSettings(facts="sports", forget=12, draw=draw, blocks=blocks) for blocks in (None, 3)]
    whole, parted = (roles.assign(KNOWN, [True] * 30, task, sports.wrong_sport) for task in tasks)
    assert [replace(fact, block=0) for fact in parted] == whole
    sizes = [sum(fact.block == block for fact in parted) for block in range(4)]
    assert sizes == [18, 4, 4, 4]
    assert all((fact.block > 0) == (fact.role == "forget") for fact in parted)
    fewer = roles.assign(KNOWN, [True] * 30, tasks[0].model_copy(update={"forget": 4}), sports.wrong_sport)
    first = {fact.id for fact in parted if fact.block == 1}
    assert first == {fact.id for fact in fewer if fact.role == "forget"}


def test_facts_keep_their_block_on_disk_and_without_blocks_nothing_changes(athletes, tmp_path):
    for name, facts in (("whole", athletes), ("parted", in_blocks(athletes))):
        artifacts.write_facts(tmp_path / name, facts, [0.9] * len(facts), [1] * len(facts))
        assert artifacts.read_facts(tmp_path / name) == facts
    columns = [list(pd.read_parquet(tmp_path / name).columns) for name in ("whole", "parted")]
    assert columns == [artifacts.FACT_COLUMNS, [*artifacts.FACT_COLUMNS, "block"]]


def test_layers_given_for_each_block_are_those_of_its_facts(athletes):
    layers = {"fact-lookup": {"blocks": [{"mlps": [0, 3]}, {"attention": [1]}]}}
    settings = LocalizeSettings(layers=layers)
    found = select_groups("fact-lookup", LAYOUT, settings, in_blocks(athletes))
    assert [group.components for group in found.groups] == [
        [Component(0, "mlp"), Component(3, "mlp")],
        [Component(1, "attention")],
    ]
    assert set(found.components) == {Component(0, "mlp"), Component(3, "mlp"), Component(1, "attention")}
    again = LocalizeSettings.model_validate_json(settings.for_selection("fact-lookup"))
    assert select_groups("fact-lookup", LAYOUT, again, in_blocks(athletes)) == found


# scores ---------------------------------------------------------------------------------------------------------


def test_every_block_is_scored_by_itself(tiny, athletes):
    facts, model = in_blocks(athletes), tiny("llama")
    settings = LocalizeSettings(tracing={"samples": 2, "map_facts": 0}, repeats=2)
    found = score(model, facts, "causal-tracing", settings)
    for block in (1, 2):
        own = [replace(fact, block=0) for fact in facts if fact.block == block]
        alone = score(model, own, "causal-tracing", settings)
        pd.testing.assert_frame_equal(
            found[found.block == block].drop(columns="block").sort_values(["seed", "fact", "layer"], ignore_index=True),
            alone.sort_values(["seed", "fact", "layer"], ignore_index=True),
        )
    assert set(found.block) == {1, 2}


def test_localizers_may_see_the_facts_to_forget_alone(tiny, athletes):
    settings = LocalizeSettings(tracing={"samples": 1, "map_facts": 0}, facts="forget")
    found = score(tiny("llama"), athletes, "causal-tracing", settings)
    assert set(found.fact) == {fact.id for fact in athletes if fact.role == "forget"}
    assert list(found.columns) == artifacts.SCORE_COLUMNS
    with pytest.raises(FactError, match=r"localize\.facts is forget"):
        score(tiny("llama"), [replace(fact, role="") for fact in athletes], "causal-tracing", settings)


def test_a_few_facts_are_not_the_first_of_a_sorted_file(tiny, athletes):
    settings = LocalizeSettings(tracing={"facts": 4, "samples": 1, "map_facts": 0})
    by_answer = sorted(athletes, key=lambda fact: (fact.answer, fact.id))
    seen = [set(score(tiny("llama"), facts, "causal-tracing", settings).fact) for facts in (by_answer, by_answer[::-1])]
    assert seen[0] == seen[1]
    assert seen[0] != {fact.id for fact in by_answer[:4]}
    assert len({fact.answer for fact in athletes if fact.id in seen[0]}) > 1


# selections -----------------------------------------------------------------------------------------------------


def effects(kind, by_block):
    """Scores of two facts a block: the means of each layer's MLP, by block."""
    parts = []
    for block, means in by_block.items():
        rows = [(f"{block}{fact}", layer, kind, -1, mean) for fact in "ab" for layer, mean in enumerate(means)]
        parts.append(table(rows).assign(block=block))
    return pd.concat(parts, ignore_index=True)


FACTS = [
    sports.plays(f"{block}{fact}", "golf").with_role("forget", "baseball", block) for block in (1, 2) for fact in "ab"
]


def test_every_block_is_selected_as_if_there_were_no_other():
    rules = LocalizeSettings(paths={"rule": "threshold", "threshold": 0.1})
    scores = effects("lookup", {1: [0.5, 0.0, 0.3, 0.0], 2: [0.0, 0.0, 0.0, 0.4]})
    lookup = select_groups("fact-lookup", LAYOUT, rules, FACTS, scores)
    assert [(group.block, group.facts) for group in lookup.groups] == [(1, ["1a", "1b"]), (2, ["2a", "2b"])]
    assert [[part.layer for part in group.components] for group in lookup.groups] == [[0, 2], [3]]
    assert lookup.components == [Component(layer, "mlp") for layer in (0, 2, 3)]
    assert lookup.parameters == LAYOUT.parameters(*lookup.components) == lookup.budget
    traced = effects("mlp", {1: [0.1, 0.2, 0.3, 0.4], 2: [0.4, 0.3, 0.2, 0.1]})
    for name, scores in (("causal-tracing-mlps", traced), ("random-mlps", None), ("nonlocalized", None)):
        found = select_groups(name, LAYOUT, rules, FACTS, scores, lookup)
        for group, budget in zip(found.groups, lookup.groups, strict=True):
            block = group.block
            own = Selection("fact-lookup", budget.components, budget.parameters, budget.parameters, lookup.total)
            alone = select(
                name,
                LAYOUT,
                rules.model_copy(update={"seed": block - 1}),
                None if scores is None else scores[scores.block == block],
                own,
            )
            assert (group.components, group.parameters) == (alone.components, alone.parameters)
        assert {part.layer for part in found.components} == {p.layer for g in found.groups for p in g.components}


def test_what_is_trained_in_all_holds_the_largest_part_of_an_mlp():
    rules = LocalizeSettings(budget=15)  # half an MLP, of whichever layer comes first in a block
    scores = effects("mlp", {1: [0.9, 0.0, 0.0, 0.0], 2: [0.0, 0.9, 0.0, 0.0]})
    found = select_groups("causal-tracing-mlps", LAYOUT, rules, FACTS, scores)
    assert found.components == [Component(0, "mlp", 5), Component(1, "mlp", 5)]
    assert found.details["part"] == {"0": 0.5, "1": 0.5}


def test_a_block_in_which_nothing_is_found_is_named():
    rules = LocalizeSettings(paths={"rule": "threshold", "threshold": 0.1})
    scores = effects("lookup", {1: [0.5, 0, 0, 0], 2: [0.0, 0, 0, 0]})
    with pytest.raises(FactError, match=r"^block 2: fact lookup finds no layer"):
        select_groups("fact-lookup", LAYOUT, rules, FACTS, scores)


def test_facts_with_the_same_mlps_are_one_group_and_every_fact_has_one():
    layout, rules = layout_of(12), LocalizeSettings()
    peaks = {"f0": [3], "f1": [7], "f2": [3], "f4": [3], "f5": [3, 7]}
    effects = {name: [1.0 if layer in layers else 0.0 for layer in range(12)] for name, layers in peaks.items()}
    effects["f3"] = [0.5, 0.1] * 6  # none is two standard deviations above the mean; layer 6 is the largest
    effects["f3"][6] = 0.51
    facts = [sports.plays(name, "golf").with_role("forget", "baseball") for name in sorted(effects)]
    scores = table(
        [(name, at, "lookup", -1, value) for name, values in effects.items() for at, value in enumerate(values)]
    )
    found = select_groups("fact-lookup-per-fact", layout, rules, facts, scores)
    groups = [(tuple(part.layer for part in group.components), group.facts) for group in found.groups]
    assert groups == [((3,), ["f0", "f2", "f4"]), ((3, 7), ["f5"]), ((6,), ["f3"]), ((7,), ["f1"])]
    late, probed = sports.plays("late", "golf").with_role("forget"), table([("f0", 0, "probe-subject", -1, 1.0)])
    with pytest.raises(FactError, match=r"no effects of 1 of 7 facts, such as 'late'"):
        select_groups("fact-lookup-per-fact", layout, rules, [*facts, late], scores)
    with pytest.raises(FactError, match=r"localize\.lookup can be path-patching"):
        select_groups("fact-lookup-per-fact", layout, rules, facts, probed)


def test_groups_come_back_from_disk_and_a_selection_without_them_has_no_such_key(tmp_path):
    whole = Selection("a", [Component(0, "mlp")], 1, 1, 9)
    grouped = replace(whole, groups=[Group(["f"], [Component(0, "mlp", 3)], 1, 2)])
    for selection in (whole, grouped):
        artifacts.write_selection(tmp_path / "selection.json", selection)
        assert artifacts.read_selection(tmp_path / "selection.json") == selection
        assert ("groups" in (tmp_path / "selection.json").read_text()) == bool(selection.groups)


# editing --------------------------------------------------------------------------------------------------------

PARTS = [[Component(1, "mlp")], [Component(2, "attention"), Component(1, "mlp", 5)]]


def grouped(facts, blocks):
    """Two groups of the facts to forget with parts of their own; in blocks, or both in none."""
    forget = [fact.id for fact in facts if fact.role == "forget"]
    groups = [Group(forget[place::2], PARTS[place], 0, place + 1 if blocks else 0) for place in (0, 1)]
    return Selection("by hand", [part for parts in PARTS for part in parts], 0, 0, 0, groups=groups)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("blocks", [False, True])
def test_groups_are_edits_one_after_another_each_on_its_own_facts(fresh, athletes, dtype, blocks):
    facts = in_blocks(athletes) if blocks else athletes
    selection = grouped(facts, blocks)
    model, oracle = fresh("llama", dtype), fresh("llama", dtype)
    names, history, rows = edit_in_turn(model, Recipe(facts, PASSAGES, selection, "inject", SETTINGS, 4))
    expected = []
    asked = [completion(fact)[0] for fact in facts if fact.block]
    measured = [scoring.score(oracle, asked)] if blocks else []
    for number, group in enumerate(selection.groups, start=1):
        own = [fact for fact in facts if fact.role != "forget" or fact.id in group.facts]
        part = Selection("by hand", group.components, 0, 0, 0)
        tensors, losses = train(oracle, Recipe(own, PASSAGES, part, "inject", SETTINGS, f"4, group {number} of 2"))
        expected.append((number, tensors, losses))
        measured += [scoring.score(oracle, asked)] if blocks else []
    assert all(torch.equal(tensor, state(model)[name]) for name, tensor in state(oracle).items())
    assert names == sorted({name for _, tensors, _ in expected for name in tensors})
    assert history == [{"group": number, **row} for number, _, losses in expected for row in losses]
    assert len(measured) == (3 if blocks else 0)
    assert [row["p_new"] for row in rows] == [row["p_new"] for found in measured for row in found]
    places = [(f"edited@{after}", f"block-{fact.block}") for after in (0, 1, 2) for fact in facts if fact.block]
    assert [(row["stage"], row["role"]) for row in rows] == places


@pytest.mark.parametrize("objective", [*methods("objective"), *methods("closed_form")])
def test_every_objective_edits_in_groups(fresh, athletes, objective):
    model = fresh("llama")
    before, selection = state(model), grouped(in_blocks(athletes), True)
    small = {"steps": 2, "prefixes": 1}
    given = {**SETTINGS.model_dump(), "learning_rate": 1e-4, "rome": small, "memit": small}
    settings = EditSettings.model_validate(given)
    own = replace(selection, groups=[replace(group, components=[Component(1, "mlp")]) for group in selection.groups])
    names, history, rows = edit_in_turn(model, Recipe(in_blocks(athletes), PASSAGES, own, objective, settings, 4))
    assert {row["group"] for row in history} == {1, 2}
    assert {row["stage"] for row in rows} == {"edited@0", "edited@1", "edited@2"}
    changed = {name for name, value in state(model).items() if not torch.equal(value, before[name])}
    assert changed == set(names)


def test_covariances_are_the_base_models_in_every_group(fresh, athletes, monkeypatch):
    monkeypatch.setattr(keys, "_covariances", {})
    facts, model, base = in_blocks(athletes), fresh("llama"), fresh("llama")
    groups = [replace(group, components=[Component(layer, "mlp")])
              for layer, group in zip((0, 2), grouped(facts, True).groups, strict=True)]  # fmt: skip
    selection = replace(grouped(facts, True), groups=groups)
    settings = EditSettings(rome={"steps": 2, "prefixes": 1})
    edit_in_turn(model, Recipe(facts, PASSAGES, selection, "rome", settings, 4))
    kept = dict(keys._covariances)
    monkeypatch.setattr(keys, "_covariances", {})
    keys.covariances(base, [Component(0, "mlp"), Component(2, "mlp")], PASSAGES, 0)
    assert kept.keys() == keys._covariances.keys()
    assert all(torch.equal(kept[key], keys._covariances[key]) for key in kept)


def test_a_step_holds_no_fact_twice(fresh, athletes, monkeypatch):
    seen, model = [], fresh("llama")

    def loss(batch):
        seen.append((len(batch.new), len({tuple(ids) for ids, _ in batch.new}), len(batch.retain)))
        return {"inject": sum(parameter.sum() for parameter in model.network.parameters() if parameter.requires_grad)}

    monkeypatch.setattr("mechunlearn.edit.train.method", lambda *_: lambda *_: loss)
    settings = SETTINGS.model_copy(update={"batch": 3, "learning_rate": 1e-9})
    edit_in_turn(model, Recipe(athletes, PASSAGES, grouped(athletes, False), "inject", settings, 0))
    assert set(seen) == {(2, 2, 3)}


def test_a_selection_without_groups_is_edited_at_once(fresh, athletes):
    selection = Selection("by hand", PARTS[0], 0, 0, 0)
    model, oracle = fresh("llama"), fresh("llama")
    names, history, rows = edit_in_turn(model, Recipe(athletes, PASSAGES, selection, "inject", SETTINGS, 4))
    tensors, losses = train(oracle, Recipe(athletes, PASSAGES, selection, "inject", SETTINGS, 4))
    assert (names, history) == (sorted(tensors), losses)
    assert rows == []
    assert all(torch.equal(tensor, state(model)[name]) for name, tensor in state(oracle).items())


def test_the_losses_of_all_groups_together_must_fall():
    begin_and_end = [[(1.0, 1.5), (2.0, 1.0)], [(1.0, 3.0), (2.0, 1.0)]]
    falls, rises = (
        [[{"step": step, "loss": loss} for step, loss in enumerate(losses)] for losses in pairs]
        for pairs in begin_and_end
    )
    check(falls, "inject", SETTINGS)
    with pytest.raises(DivergenceError, match=r"the loss rose from 3\.000 to 4\.000 in 2 steps"):
        check(rises, "inject", SETTINGS)

    check(rises, "rome", SETTINGS)  # whose losses are not the model's


@pytest.mark.parametrize(("facts", "steps"), [(1, 10), (15, 10), (16, 10), (17, 20), (400, 250)])
def test_epochs_are_passes_over_the_facts(facts, steps):
    assert EditSettings(epochs=10, batch=16).for_facts(facts).steps == steps
    assert EditSettings(steps=7).for_facts(facts) == EditSettings(steps=7)


# the commands ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["causal-tracing-mlps", "fact-lookup-per-fact"])
def test_the_phases_of_a_study_in_blocks_or_fact_by_fact(tmp_path, manifest_of, athletes, name):
    sequential = name != "fact-lookup-per-fact"
    facts = in_blocks(athletes) if sequential else athletes
    files = {key: str(tmp_path / key) for key in ("facts", "text", "scores", "selection", "edits", "rows")}
    artifacts.write_facts(files["facts"], facts, [0.9] * len(facts), [1] * len(facts))
    lines = [f'{{"id": "{p.id}", "topic": "{p.topic}", "text": "{p.text}"}}\n' for p in PASSAGES]
    artifacts.write_text(files["text"], "".join(lines))
    settings = LocalizeSettings(
        seed=1,
        budget=0.2,
        facts="forget",
        lookup="path-patching",
        tracing={"samples": 1, "map_facts": 0},
        paths={"draws": 1},
    )
    rules = EditSettings(epochs=2, batch=2, texts=1, text_tokens=8, learning_rate=1e-3)
    evaluate = EvaluateSettings(elicitations=["completion"], samples=0, texts=1)
    scorer = settings.scorer(name)

    def run(*options):
        done = CliRunner().invoke(app, [options[0], "--model", str(manifest_of("llama")), *map(str, options[1:])])
        assert done.exit_code == 0, (done.output, done.exception)

    own, text = ("--facts", files["facts"]), ("--text", files["text"])
    run("score", *own, "--method", scorer, "--settings", settings.for_localizer(scorer), "--out", files["scores"])
    run(
        *("select", "--localization", name, "--settings", settings.for_selection(name), *own),
        *("--scores", files["scores"], "--out", files["selection"]),
    )
    run(
        *("edit", *own, *text, "--selection", files["selection"], "--objective", "inject"),
        *("--settings", rules.model_dump_json(), "--seed", 0, "--held-out", 1, "--out", files["edits"]),
    )
    run(
        *("evaluate", *own, *text, "--settings", evaluate.model_dump_json(), "--edits", files["edits"], "--seed", 0),
        *("--out", files["rows"]),
    )
    selection = artifacts.read_selection(files["selection"])
    edited = sorted(fact for group in selection.groups for fact in group.facts)
    assert edited == sorted(fact.id for fact in facts if fact.role == "forget")
    rows = artifacts.read_measurements(files["rows"])
    stages = {"edited", "edited@0", "edited@1", "edited@2"} if sequential else {"edited"}
    assert set(rows.stage) == stages
    assert (tmp_path / "edits/seed0/blocks.parquet").is_file() == sequential
    if sequential:  # what was stored is what was measured in the end
        last = rows[rows.stage == "edited@2"].set_index("fact").p_new.sort_index()
        final = rows[(rows.stage == "edited") & (rows.role == "forget")].set_index("fact").p_new.sort_index()
        np.testing.assert_allclose(last, final, rtol=1e-5)
    model = load(manifest_of("llama"), "float32")
    before = state(model)
    delta.apply(tmp_path / "edits/seed0/delta.safetensors", model)
    moved = {key for key, tensor in state(model).items() if not torch.equal(tensor, before[key])}
    assert moved <= {tensor for part in selection.components for tensor in model.layout.tensors(part)}
    assert moved
