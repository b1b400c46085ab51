"""Probes: the right states, honest predictions."""

import numpy as np
import pytest
import torch

from mechunlearn.config import LocalizeSettings, ProbeSettings
from mechunlearn.errors import UserError
from mechunlearn.facts import sports
from mechunlearn.localize.fact_lookup import fact_lookup, probe, residual_stream


@torch.no_grad()
def naive_states(model, ids):
    """(layers, d_model) after every layer at the last token of one full forward."""
    seen = []
    handles = [
        block.register_forward_hook(lambda module, inputs, output: seen.append(output[0, -1].clone()))
        for block in model.network.model.layers
    ]
    model.network(input_ids=torch.tensor([ids]))
    for handle in handles:
        handle.remove()
    return torch.stack(seen).numpy()


@pytest.mark.parametrize("rows", [1, 3, 64])
def test_residual_stream_is_one_forward_a_prompt(model, prompts, athletes, rows):
    texts = [prompt.text for prompt in prompts] + [fact.subject for fact in athletes]
    sequences = [model.encode(text) for text in texts]
    expected = np.stack([naive_states(model, ids) for ids in sequences], axis=1)
    states = residual_stream(model, sequences, rows)
    assert states.shape == (4, len(sequences), 32)
    np.testing.assert_allclose(states, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.fixture
def planted():
    """(states that hold their answer in two directions, answers)."""
    rng = np.random.default_rng(0)
    answers = np.array(["baseball"] * 80 + ["basketball"] * 50 + ["football"] * 50)
    states = rng.normal(size=(len(answers), 16))
    states[answers == "basketball", 3] += 5
    states[answers == "football", 7] -= 5
    return states, answers


def test_a_probe_finds_a_planted_direction(planted):
    states, answers = planted
    assert (probe(states, answers, folds=5, seed=0) == answers).mean() > 0.9


def test_a_probe_of_permuted_answers_stays_near_the_commonest(planted):
    states, answers = planted
    accuracies = []
    for seed in range(5):
        permuted = np.random.default_rng(seed).permutation(answers)
        accuracies.append((probe(states, permuted, folds=5, seed=0) == permuted).mean())
    assert np.mean(accuracies) == pytest.approx(80 / 180, abs=0.08)


def test_predictions_are_out_of_fold():
    """With more directions than facts a probe can learn anything by heart, but not predict noise."""
    states = np.random.default_rng(0).normal(size=(60, 200))
    answers = np.array(["a", "b"] * 30)
    assert (probe(states, answers, folds=5, seed=0) == answers).mean() < 0.75


def test_probes_depend_on_their_seed_alone(planted):
    states, answers = planted
    states = states + np.random.default_rng(1).normal(size=states.shape) * 3
    first = probe(states, answers, folds=5, seed=0)
    assert (first == probe(states, answers, folds=5, seed=0)).all()
    assert (first != probe(states, answers, folds=5, seed=1)).any()


def test_one_row_for_every_fact_layer_and_probe(model, athletes):
    settings = LocalizeSettings(probes=ProbeSettings(facts=10, folds=2))
    scores = fact_lookup(model, athletes, settings)
    chance = scores[scores.kind == "chance"]
    commonest = max(sum(fact.answer == sport for fact in athletes[:10]) for sport in sports.SPORTS)
    assert chance.effect.tolist() == [commonest / 10]
    rest = scores[scores.kind != "chance"]
    keys = set(rest[["fact", "layer", "kind"]].itertuples(index=False, name=None))
    kinds = ("probe-subject", "probe-prompt")
    assert keys == {(fact.id, layer, kind) for fact in athletes[:10] for layer in range(4) for kind in kinds}
    assert len(rest) == len(keys)
    assert set(rest.effect) <= {0.0, 1.0}


def test_fewer_facts_than_folds_is_an_error_for_the_user(tiny, athletes):
    with pytest.raises(UserError, match="folds"):
        fact_lookup(tiny("llama"), athletes[:4], LocalizeSettings())
