"""Relearning: who is measured when, and that the attack leaves no trace."""

from collections import Counter

import pytest
import torch

from mechunlearn.artifacts import MEASUREMENT_COLUMNS, measurement_table
from mechunlearn.attack.relearn import adapters, finetune, relearn, weights
from mechunlearn.config import FinetuneSettings, RelearnSettings
from mechunlearn.errors import DivergenceError, FactError
from mechunlearn.facts import Fact
from mechunlearn.facts.completion import completion
from mechunlearn.facts.roles import halves
from mechunlearn.facts.text import Passage
from mechunlearn.models.scoring import score

PASSAGES = [Passage("a", "sport", "Tiger Woods plays the sport of golf.")]
SETTINGS = RelearnSettings(steps=[0, 1, 3], rank=2, batch=2, texts=1, text_tokens=8)
TEXT = "Fact: LeBron James plays the sport of"


def attacked(model, athletes, seed=0, **changes):
    return relearn(model, athletes, PASSAGES, SETTINGS.model_copy(update=changes), seed)


@torch.no_grad()
def shape_of(model):
    """Everything about a network that an attack could change."""
    network = model.network
    modules = [(name, type(m), m.training, len(m._forward_hooks)) for name, m in network.named_modules()]
    parameters = {name: (value.clone(), value.requires_grad) for name, value in network.named_parameters()}
    return modules, parameters, network(input_ids=torch.tensor([model.encode(TEXT)])).logits


def assert_untouched(model, before):
    modules, parameters, logits = shape_of(model)
    assert modules == before[0]
    assert parameters.keys() == before[1].keys()
    for name, (value, grad) in parameters.items():
        assert torch.equal(value, before[1][name][0]), name
        assert grad == before[1][name][1]
    assert torch.equal(logits, before[2])


@pytest.mark.parametrize("both", [True, False])
def test_every_fact_is_measured_once_a_stage(tiny, athletes, both):
    rows = attacked(tiny("gemma3_text"), athletes, both_halves=both)
    measured = ("forget", "maintain-test")
    by_role = {role: [fact.id for fact in athletes if fact.role == role] for role in measured}
    for step in SETTINGS.steps:
        of_stage = [row for row in rows if row["stage"] == f"relearned@{step}"]
        facts = {role: Counter(row["fact"] for row in of_stage if row["role"] == role) for role in by_role}
        seen = {row["fact"] for row in of_stage if row["role"] == "relearn-train"}
        assert facts["maintain-test"] == Counter(by_role["maintain-test"])
        if both:
            assert facts["forget"] == Counter(by_role["forget"])
            assert seen == set(by_role["forget"])
        else:
            assert set(facts["forget"]) == set(by_role["forget"]) - seen
            assert set(facts["forget"].values()) == {1}
            assert len(seen) == 2
        assert {row["role"] for row in of_stage} == {*by_role, "relearn-train"}
    assert {row["stage"] for row in rows} == {f"relearned@{step}" for step in SETTINGS.steps}
    assert {(row["seed"], row["elicitation"]) for row in rows} == {(0, "completion")}
    assert set(measurement_table(rows).columns) == set(MEASUREMENT_COLUMNS) == set(rows[0])


def test_stage_zero_is_the_model_before(model, athletes):
    with model.autocast():
        before = {row["fact"]: row for row in score(model, [completion(fact)[0] for fact in athletes])}
    for row in attacked(model, athletes):
        if row["stage"] == "relearned@0":
            expected = before[row["fact"]]
            assert row["p_true"] == pytest.approx(expected["p_true"], rel=0.05)
            assert row["p_options"] == pytest.approx(expected["p_options"], rel=0.05)


def test_the_attack_trains(tiny, athletes):
    rows = attacked(tiny("llama"), athletes, steps=[0, 20], learning_rate=1e-2, rank=8, dropout=0.0)
    table = measurement_table(rows)
    mean = table[table.role == "relearn-train"].groupby("stage").p_true.mean()
    assert mean["relearned@20"] > mean["relearned@0"] + 0.2


def test_the_attack_leaves_no_trace(fresh, family, athletes):
    model = fresh(family, "bfloat16")
    before = shape_of(model)
    attacked(model, athletes)
    assert_untouched(model, before)


@pytest.mark.parametrize("fails", [False, True])
def test_adapters_cover_every_linear_layer_and_go(fresh, family, fails):
    model = fresh(family)
    before = shape_of(model)
    components = model.layout.all("attention", "mlp")
    matrices = [name for component in components for name in model.layout.tensors(component)]
    try:
        with adapters(model, SETTINGS) as parameters:
            assert len(parameters) == 2 * len(matrices)
            assert sum(parameter.numel() for parameter in parameters) == sum(
                SETTINGS.rank * sum(model.layout.shapes[name]) for name in matrices
            )
            with torch.no_grad():
                for parameter in parameters:
                    parameter.add_(1)
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    assert_untouched(model, before)


def test_an_attack_depends_on_its_seed_alone(tiny, athletes):
    model = tiny("qwen2")
    table = measurement_table(attacked(model, athletes))
    assert table.equals(measurement_table(attacked(model, athletes)))
    other = measurement_table(attacked(model, athletes, seed=1)).assign(seed=0)
    assert not table.equals(other)


FINETUNE = FinetuneSettings(steps=[0, 1, 15], batch=2, texts=1, text_tokens=8, learning_rate=3e-3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_finetuning_trains_every_weight_and_leaves_no_trace(fresh, athletes, dtype):
    model = fresh("llama", dtype)
    before = shape_of(model)
    rows = finetune(model, athletes, PASSAGES, FINETUNE, 0)
    assert_untouched(model, before)
    table = measurement_table(rows)
    assert set(table.stage) == {f"finetuned@{step}" for step in FINETUNE.steps}
    mean = table[table.role == "relearn-train"].groupby("stage").p_true.mean()
    assert mean["finetuned@15"] > mean["finetuned@0"] + 0.2
    with weights(model) as parameters:
        assert sum(parameter.numel() for parameter in parameters) == sum(
            shape[0] * shape[1] for shape in model.layout.shapes.values()
        )
        parameters[0].data.add_(1)
    assert_untouched(model, before)


def test_finetuning_that_fails_leaves_no_trace(fresh, athletes):
    model = fresh("gemma3_text", "bfloat16")
    before = shape_of(model)
    with pytest.raises(DivergenceError, match="finetuned"):
        finetune(model, athletes, PASSAGES, FINETUNE.model_copy(update={"learning_rate": 1e30}), 0)
    assert_untouched(model, before)


def test_subjects_stay_in_one_half():
    facts = [Fact(f"{s} {r}", s, r, "a", "{} is", ("a", "b"), "b", "forget") for s in "uvwxyz" for r in "mn"]
    for seed in range(5):
        (first, second), swapped = halves(facts, "subjects", seed)
        assert swapped == (second, first)
        assert sorted([*first, *second], key=lambda fact: fact.id) == facts
        assert not {fact.subject for fact in first} & {fact.subject for fact in second}
        assert len(first) == len(second) == 6
    assert any(
        {fact.subject for fact in first} & {fact.subject for fact in second}
        for first, second in (halves(facts, "facts", seed)[0] for seed in range(5))
    )
    with pytest.raises(FactError, match="1 subjects; allowed: two or more"):
        halves(facts[:2], "subjects", 0)
