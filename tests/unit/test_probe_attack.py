"""Probes of an edited model: which facts, which states, honest probabilities, and a control without knowledge."""

import logging
import warnings
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from mechunlearn.artifacts import MEASUREMENT_COLUMNS, measurement_table
from mechunlearn.attack import probe as module
from mechunlearn.attack.probe import groups, hidden_states, permuted, probe, read_off
from mechunlearn.config import ProbeAttackSettings
from mechunlearn.facts.completion import completion
from mechunlearn.models.states import states
from tests.unit.oracle import close, stirred
from tests.unit.test_relearn import assert_untouched, shape_of

SETTINGS = ProbeAttackSettings(examples=2)
SPORTS = ("baseball", "basketball", "football")
NAMES = {"probe-last", "probe-subject", "probe-last-permuted", "probe-subject-permuted"}


@pytest.fixture
def facts(athletes):
    """Two to forget, two to keep for testing, eight to learn from: two or more of each sport."""
    roles = ["forget"] * 2 + ["maintain-test"] * 2 + ["maintain-train"] * 8
    new = {"basketball": "football", "baseball": "basketball"}
    return [
        fact.with_role(role, new[fact.answer] if role == "forget" else "")
        for fact, role in zip(athletes, roles, strict=True)
    ]


# which facts ------------------------------------------------------------------------------------------------


def of_role(facts, *roles):
    return [fact for fact in facts if fact.role in roles]


def test_classes_are_the_answers_with_enough_examples(facts):
    group = groups(facts, 2)["sport"]
    assert group.trained == of_role(facts, "maintain-train")
    assert group.measured == of_role(facts, "forget", "maintain-test")
    counts = Counter(fact.answer for fact in group.trained)
    assert min(counts.values()) == 2
    assert len(counts) == 3


def test_facts_whose_answers_are_no_class_are_left_out(facts):
    train = of_role(facts, "maintain-train")
    rare = next(fact for fact in train if fact.answer == "football")
    fewer = [fact for fact in facts if fact != rare]  # one football player left: no class
    group = groups(fewer, 2)["sport"]
    assert {fact.answer for fact in group.trained} == {"basketball", "baseball"}
    first, second = of_role(facts, "forget")
    assert first.new_answer == "football"
    assert second in group.measured
    assert first not in group.measured
    assert all(fact.answer != "football" for fact in group.measured)


def test_relations_are_apart(facts):
    other = [replace(fact, id=f"other {fact.id}", relation="other") for fact in facts]
    single = [replace(fact, id=f"single {fact.id}", relation="single", answer="golf", new_answer="") for fact in facts]
    found = groups([*single, *facts, *other], 2)
    assert list(found) == ["sport", "other"]
    assert all(fact.relation == name for name, group in found.items() for fact in [*group.trained, *group.measured])


def test_nothing_to_probe_is_no_rows_and_a_line_that_says_why(tiny, facts, caplog):
    caplog.set_level(logging.INFO)
    assert probe(tiny("llama"), facts, [], ProbeAttackSettings(examples=5), 0) == []
    assert "no relation has two answers with 5 maintain-train facts each" in caplog.text
    caplog.clear()
    assert probe(tiny("llama"), of_role(facts, "maintain-train"), [], SETTINGS, 0) == []
    assert "no fact's answers are among those that 2 maintain-train facts" in caplog.text


# states -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_hidden_states_are_the_networks_own_one_prompt_at_a_time(tiny, family, facts):
    model = stirred(tiny(family))
    chosen = [replace(facts[0], prompt="{} plays the sport of"), *facts]
    expected = torch.zeros(model.layout.layers + 1, 2, len(chosen), model.width)
    for number, prompt in enumerate(completion(fact)[0] for fact in chosen):
        ids = model.encode(prompt.text)
        found = model.network(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
        end = len(model.encode(prompt.text[: prompt.subject[1]])) - 1
        assert 0 < end < len(ids) - 1
        for layer, hidden in enumerate(found):
            expected[layer, :, number] = hidden[0, [len(ids) - 1, end]]
    found = hidden_states(model, chosen)
    assert found.dtype == np.float32
    for layer in range(len(expected)):
        close(torch.tensor(found[layer]), expected[layer])


@pytest.mark.parametrize("family", ["gemma3_text", "gpt2"])
@pytest.mark.parametrize("rows", [1, 2, 64])
def test_positions_within_what_all_prompts_share(model, rows):
    """A shared beginning is run once, but never a position that is asked for."""
    texts = ["Fact: LeBron James plays the sport of", "Fact: LeBron James plays the game of", "Fact: LeBron James"]
    sequences = [model.encode(text) for text in texts]
    positions = [[1, len(ids) - 1, 3] for ids in sequences]
    part = (model.layout.module(1), "input")
    found = states(model, [part], sequences, positions, rows)
    for number, (ids, at) in enumerate(zip(sequences, positions, strict=True)):
        with torch.no_grad():
            hidden = model.network(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states[1][0]
        close(torch.tensor(found[0, :, number]), hidden[at])


# probes -----------------------------------------------------------------------------------------------------


def planted(answers, seed=0, width=24, noise=0.3):
    """(facts, width) states in which each answer has a third of the directions."""
    found = np.random.default_rng(seed).normal(scale=noise, size=(len(answers), width)).astype(np.float32)
    for row, answer in zip(found, answers, strict=True):
        row[SPORTS.index(answer) :: len(SPORTS)] += 3
    return found


def many(facts, count):
    """Facts to measure, so many of each sport."""
    made = [
        replace(facts[-1], id=f"{sport} {n}", answer=sport, new_answer="") for n in range(count) for sport in SPORTS
    ]
    return [fact.with_role("maintain-test") for fact in made]


def test_planted_answers_are_read_off_and_permuted_ones_are_not(facts):
    measured, answers = many(facts, 20), [*SPORTS] * 10
    trained, stream = planted(answers), planted([fact.answer for fact in measured], 1)
    assert {row["choice"] for row in read_off(trained, answers, stream, measured)} == {"true"}
    right = [
        row["choice"] == "true"
        for seed in range(20)
        for row in read_off(trained, permuted(answers, str(seed)), stream, measured)
    ]
    assert np.mean(right) == pytest.approx(1 / 3, abs=0.12)


def by_hand(trained, answers, stream):
    """Probabilities of the penalised regression, by torch and in float64: sum of losses + |weights|^2 / (2 C)."""
    center, spread = trained.astype(np.float64).mean(0), trained.astype(np.float64).std(0)
    inputs, others = (torch.tensor((each - center) / spread) for each in (trained, stream))
    classes = sorted(set(answers))
    labels = torch.tensor([classes.index(answer) for answer in answers])
    weights = torch.zeros(inputs.shape[1], len(classes), dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(len(classes), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights, bias], max_iter=2000, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        losses = torch.nn.functional.cross_entropy(inputs @ weights + bias, labels, reduction="sum")
        total = losses + weights.square().sum() / (2 * 0.01)
        total.backward()
        return total

    optimizer.step(loss)
    return classes, (others @ weights + bias).softmax(-1).detach().numpy()


def test_rows_hold_the_probabilities_of_the_penalised_regression(facts):
    group = groups(facts, 2)["sport"]
    answers = [fact.answer for fact in group.trained]
    trained = planted(answers, noise=2)
    stream = planted([fact.answer for fact in group.measured], 1, noise=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # also where a probe did not converge
        rows = read_off(trained, answers, stream, group.measured)
    classes, shares = by_hand(trained, answers, stream)
    for row, fact, share in zip(rows, group.measured, shares, strict=True):
        of = dict(zip(classes, share, strict=True))
        said = max(of, key=of.get)
        assert row["p_true"] == pytest.approx(of[fact.answer], abs=1e-3)
        assert row["p_new"] == pytest.approx(of.get(fact.new_answer, float("nan")), abs=1e-3, nan_ok=True)
        assert row["rank"] == sorted(of, key=of.get, reverse=True).index(fact.answer) + 1
        assert row["argmax"] == said
        assert row["choice"] == ("true" if said == fact.answer else "new" if said == fact.new_answer else "other")
        assert row["p_options"] == 1
        assert np.isnan(row["nll"])


def test_permuted_answers_are_the_same_ones_and_differ_by_seed():
    answers = [*SPORTS] * 10
    assert sorted(permuted(answers, "0")) == sorted(answers)
    assert permuted(answers, "0") == permuted(answers, "0")
    assert permuted(answers, "0") != permuted(answers, "1")


# the attack -------------------------------------------------------------------------------------------------


def test_every_fact_stands_once_at_each_layer_and_place(model, facts):
    rows = probe(model, facts, [], SETTINGS, 4)
    measured = of_role(facts, "forget", "maintain-test")
    expected = {
        (f"probed@{layer}", name, fact.role, fact.id)
        for layer in range(model.layout.layers + 1)
        for name in NAMES
        for fact in measured
    }
    found = [(row["stage"], row["elicitation"], row["role"], row["fact"]) for row in rows]
    assert Counter(found) == Counter(expected)
    assert {row["seed"] for row in rows} == {4}
    assert set(measurement_table(rows).columns) == set(MEASUREMENT_COLUMNS) == set(rows[0])
    for row in rows:
        assert np.isnan(row["p_new"]) == (row["role"] == "maintain-test")


def test_probes_learn_from_kept_facts_and_say_what_is_in_the_state(tiny, facts, monkeypatch):
    """Forgotten facts hold their new answer at the end of the prompt, their true one at the subject."""

    def stream(model, chosen):
        last = planted([fact.new_answer or fact.answer for fact in chosen], 1, noise=0.1)
        subject = planted([fact.answer for fact in chosen], 2, noise=0.1)
        return np.stack([np.stack([last, subject])] * 3)

    other = [replace(fact, id=f"other {fact.id}", relation="other") for fact in facts[::-1]]
    monkeypatch.setattr(module, "hidden_states", stream)
    rows = probe(tiny("llama"), [*facts, *other], [], SETTINGS, 0)
    said = {(row["elicitation"], row["role"], row["choice"]) for row in rows if "permuted" not in row["elicitation"]}
    assert said == {
        ("probe-last", "forget", "new"),
        ("probe-last", "maintain-test", "true"),
        ("probe-subject", "forget", "true"),
        ("probe-subject", "maintain-test", "true"),
    }
    assert {row["stage"] for row in rows} == {"probed@0", "probed@1", "probed@2"}


def test_only_the_control_depends_on_the_seed(tiny, facts):
    model = tiny("qwen2")
    table = measurement_table(probe(model, facts, [], SETTINGS, 0))
    assert table.equals(measurement_table(probe(model, facts, [], SETTINGS, 0)))
    other = measurement_table(probe(model, facts, [], SETTINGS, 1)).assign(seed=0)
    control = table.elicitation.str.endswith("-permuted")
    assert table[~control].equals(other[~control])
    assert not table[control].equals(other[control])


@pytest.mark.parametrize("fails", [False, True])
def test_the_attack_leaves_no_trace(fresh, family, facts, monkeypatch, fails):
    model = fresh(family, "bfloat16")
    before = shape_of(model)
    if fails:
        norm = model.network.get_submodule(model.layout.module(model.layout.layers))
        monkeypatch.setattr(norm, "forward", lambda *given: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            probe(model, facts, [], SETTINGS, 0)
        monkeypatch.undo()
    else:
        probe(model, facts, [], SETTINGS, 0)
    assert_untouched(model, before)
