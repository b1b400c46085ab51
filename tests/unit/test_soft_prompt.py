"""Soft prompts against plain forwards of embedded inputs; who is measured when; no trace is left."""

import random
from collections import Counter
from math import log
from statistics import fmean

import pytest
import torch
from torch.nn.functional import cross_entropy

from mechunlearn.artifacts import MEASUREMENT_COLUMNS, measurement_table
from mechunlearn.attack.soft_prompt import embeddings, soft_prompt, train
from mechunlearn.config import SoftPromptSettings
from mechunlearn.models.packing import last_hidden
from mechunlearn.models.scoring import score, unembed
from mechunlearn.models.training import answer_losses, example
from tests.unit.test_relearn import assert_untouched, shape_of

SETTINGS = SoftPromptSettings(tokens=3, steps=2, batch=2)
SCALED = {"gemma", "gemma2", "gemma3_text"}


def attacked(model, athletes, seed=0, **changes):
    return soft_prompt(model, athletes, [], SETTINGS.model_copy(update=changes), seed)


def vectors_of(model, tokens=3):
    """Vectors of another size than any embedding."""
    drawn = torch.randn(tokens, model.width, generator=torch.Generator().manual_seed(3))
    return (1.5 * drawn).requires_grad_(True)


def plain_logits(model, ids, vectors):
    """(vocabulary,) at the last token, of one prompt with vectors after BOS: no cache, no batch, weights by hand."""
    weight = model.network.get_input_embeddings().weight
    scale = model.width**0.5 if model.network.config.model_type in SCALED else 1.0
    after = 1 if ids[0] == model.tokenizer.bos_token_id else 0
    embedded = weight[torch.tensor(ids)] * scale
    inputs = torch.cat([embedded[:after], vectors, embedded[after:]])
    return model.network(inputs_embeds=inputs[None]).logits[0, -1]


def test_loss_and_gradient_are_those_of_one_full_forward_a_prompt(model, athletes):
    examples = [example(model, fact, fact.answer) for fact in athletes[:6]]
    ours, plain = vectors_of(model), vectors_of(model)
    losses = answer_losses(model, examples, ours)
    logits = torch.stack([plain_logits(model, ids, plain) for ids, _ in examples])
    expected = cross_entropy(logits, torch.tensor([answer for _, answer in examples]), reduction="none")
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-4)
    weights = torch.arange(1.0, 7.0)
    (losses * weights).sum().backward()
    (expected * weights).sum().backward()
    scale = float(plain.grad.abs().max())
    assert scale > 0
    torch.testing.assert_close(ours.grad, plain.grad, rtol=0, atol=1e-4 * scale)


def test_a_single_example_has_them_too(model, athletes):
    vectors = vectors_of(model)
    ids, answer = example(model, athletes[0], athletes[0].answer)
    expected = cross_entropy(plain_logits(model, ids, vectors)[None], torch.tensor([answer]))
    torch.testing.assert_close(answer_losses(model, [(ids, answer)], vectors)[0], expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_scores_are_those_of_one_full_forward_a_prompt(model, prompts):
    vectors = vectors_of(model)
    for row, prompt in zip(score(model, prompts, vectors), prompts, strict=True):
        probabilities = plain_logits(model, model.encode(prompt.text), vectors).float().softmax(-1)
        options = [float(probabilities[model.option(option)]) for option in prompt.options]
        assert row["p_true"] == pytest.approx(options[prompt.true], rel=1e-3, abs=1e-9)
        assert row["p_options"] == pytest.approx(sum(options), rel=1e-3, abs=1e-9)


@torch.no_grad()
def test_embeddings_of_tokens_are_the_tokens_themselves(model):
    words = [word for word in range(len(model.tokenizer)) if word not in model.tokenizer.all_special_ids]
    tokens = random.Random(5).choices(words, k=4)
    begin, rest = model.begin(), model.encode("Fact: Tom Brady plays")[len(model.begin()) :]
    vectors = embeddings(model, 4, random.Random(5))
    assert vectors.dtype == torch.float32
    expected = model.network(input_ids=torch.tensor([[*begin, *tokens, *rest]])).logits[0, -1]
    found = unembed(model, last_hidden(model, [[*begin, *rest]], vectors))[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_vectors_stand_first_where_a_model_has_no_bos(tiny):
    model = tiny("qwen2")
    assert model.begin() == []
    ids = model.encode("Fact: Tom Brady plays")
    whole = torch.cat([vectors_of(model), model.network.get_input_embeddings()(torch.tensor(ids))])
    expected = model.network(inputs_embeds=whole[None]).logits[0, -1]
    found = unembed(model, last_hidden(model, [ids], vectors_of(model)))[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_training_lowers_the_loss(model, athletes):
    true = [example(model, fact, fact.answer) for fact in athletes[:2]]
    retain = [example(model, fact, fact.answer) for fact in athletes[4:6]]
    settings = SETTINGS.model_copy(update={"steps": 25, "learning_rate": 0.3})
    ends = train(model, true, retain, settings, random.Random(0), "training")
    with torch.no_grad():
        before, after = (answer_losses(model, [*true, *retain], vectors).mean() for vectors in ends)
    assert after < before


def test_steps_do_not_depend_on_the_size_of_the_embeddings(fresh, athletes):
    moved = []
    for factor in (1.0, 1e-3):
        model = fresh("llama")
        with torch.no_grad():
            model.network.get_input_embeddings().weight *= factor
        examples = [example(model, fact, fact.answer) for fact in athletes[:2]]
        start, end = train(model, examples, examples, SETTINGS, random.Random(0), "training")
        moved.append(float((end - start).norm() / start.norm()))
    assert moved[0] == pytest.approx(moved[1], rel=0.2)


def test_the_trained_half_is_measured_through_trained_vectors(tiny, athletes):
    rows = attacked(tiny("llama"), athletes, steps=25, learning_rate=0.3)
    nll = {
        stage: -fmean(log(row["p_true"]) for row in rows if (row["role"], row["stage"]) == ("attack-train", stage))
        for stage in ("soft-prompt@0", "soft-prompt@25")
    }
    assert nll["soft-prompt@25"] < nll["soft-prompt@0"] - 1


@pytest.mark.parametrize("both", [True, False])
def test_every_fact_is_measured_once_a_stage(tiny, athletes, both):
    rows = attacked(tiny("gemma3_text"), athletes, both_halves=both)
    ids = {role: {fact.id for fact in athletes if fact.role == role} for role in ("forget", "maintain-test")}
    assert {row["stage"] for row in rows} == {"soft-prompt@0", "soft-prompt@2"}
    for stage in ("soft-prompt@0", "soft-prompt@2"):
        of_stage = [row for row in rows if row["stage"] == stage]
        found = {
            role: Counter(row["fact"] for row in of_stage if row["role"] == role) for role in (*ids, "attack-train")
        }
        assert sum(map(Counter.total, found.values())) == len(of_stage)
        assert found["maintain-test"] == Counter(ids["maintain-test"])
        seen, unseen = found["attack-train"], found["forget"]
        assert seen | unseen == Counter(ids["forget"])
        assert bool(seen & unseen) == both
    assert {(row["seed"], row["elicitation"], row["order"]) for row in rows} == {(0, "completion", 0)}
    assert all(row["p_new"] == row["p_new"] for row in rows if row["role"] != "maintain-test")
    assert set(measurement_table(rows).columns) == set(MEASUREMENT_COLUMNS) == set(rows[0])


def test_vectors_are_trained_on_one_half_and_measured_on_the_other(tiny, athletes, monkeypatch):
    model, trained = tiny("llama"), []

    def spy(model, examples, soft):
        trained[-1] |= {model.tokenizer.decode(ids) for ids, _ in examples}
        return answer_losses(model, examples, soft)

    def begin(*arguments):
        trained.append(set())
        return train(*arguments)

    monkeypatch.setattr("mechunlearn.attack.soft_prompt.answer_losses", spy)
    monkeypatch.setattr("mechunlearn.attack.soft_prompt.train", begin)
    rows = attacked(model, athletes, steps=8, split="subjects")
    by_role = {role: [fact for fact in athletes if fact.role == role] for role in ("maintain-train", "maintain-test")}
    forget = [fact for fact in athletes if fact.role == "forget"]
    assert len(trained) == 2
    seen = [{fact.id for fact in forget if any(fact.subject in text for text in texts)} for texts in trained]
    assert seen[0] & seen[1] == set()
    assert seen[0] | seen[1] == {fact.id for fact in forget}
    for texts in trained:
        assert all(any(fact.subject in text for text in texts) for fact in by_role["maintain-train"])
        assert not any(fact.subject in text for text in texts for fact in by_role["maintain-test"])
    at_zero = [row for row in rows if row["stage"] == "soft-prompt@0"]
    runs = [[row["fact"] for row in at_zero if row["role"] == role] for role in ("forget", "attack-train")]
    size = len(seen[1])
    assert set(runs[0][:size]) == seen[1] == set(runs[1][len(seen[0]) :])


def test_the_attack_leaves_no_trace(fresh, family, athletes):
    model = fresh(family, "bfloat16")
    before = shape_of(model)
    attacked(model, athletes)
    assert_untouched(model, before)
    assert all(parameter.grad is None for parameter in model.network.parameters())


def test_an_attack_depends_on_its_seed_alone(tiny, athletes):
    model = tiny("qwen2")
    table = measurement_table(attacked(model, athletes))
    torch.manual_seed(9)
    assert table.equals(measurement_table(attacked(model, athletes)))
    other = measurement_table(attacked(model, athletes, seed=1)).assign(seed=0)
    assert not table.equals(other)
