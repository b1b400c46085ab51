"""Probes: the right states, honest predictions."""

from collections import Counter

import numpy as np
import pytest
import torch

from mechunlearn.config import LocalizeSettings, ProbeSettings
from mechunlearn.errors import FactError
from mechunlearn.facts.completion import completion
from mechunlearn.localize.probes import probe, probes, residual_stream
from tests.unit.oracle import close, forward, stirred


@pytest.fixture
def model(tiny, family):
    return stirred(tiny(family))


@torch.no_grad()
def states_by_hand(model, sequences):
    """(layers, sequences, d_model) after every layer at the last token, by one forward each."""
    layers = range(1, model.layout.layers + 1)
    after = [(model.layout.module(layer), "input") for layer in layers]  # of the next one, or of the final norm
    runs = [forward(model, ids, keep=after)[1] for ids in sequences]
    return torch.stack([torch.stack([seen[part][0, -1] for seen in runs]) for part in after])


def test_residual_stream_is_one_forward_a_prompt(model, prompts, athletes):
    texts = [prompt.text for prompt in prompts] + [fact.subject for fact in athletes]
    sequences = [model.encode(text) for text in texts]
    expected = states_by_hand(model, sequences)
    for rows in (1, 3, 64):
        close(torch.tensor(residual_stream(model, sequences, rows)), expected)


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


def settings(folds=2, seed=0):
    return LocalizeSettings(probes=ProbeSettings(facts=10, folds=folds), seed=seed)


@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
def test_each_row_is_one_probe_of_one_fact(model, athletes):
    """Of the residual stream at the end of the name alone and of the whole prompt; and one row for chance."""
    facts = athletes[:10]
    answers = np.array([fact.answer for fact in facts])
    texts = {
        "probe-subject": [fact.subject for fact in facts],
        "probe-prompt": [completion(fact)[0].text for fact in facts],
    }
    expected = [("", -1, "chance", -1, "", Counter(answers).most_common()[0][1] / 10)]
    for kind, asked in texts.items():
        for layer, states in enumerate(residual_stream(model, [model.encode(text) for text in asked])):
            right = probe(states, answers, 2, 5) == answers
            expected += [(fact.id, layer, kind, -1, "", float(hit)) for fact, hit in zip(facts, right, strict=True)]
    scores = probes(model, athletes, settings(seed=5))
    assert scores.columns.tolist() == ["fact", "layer", "kind", "head", "position", "effect"]
    assert list(scores.itertuples(index=False, name=None)) == expected
    assert 0 < scores[scores.kind != "chance"].effect.mean() < 1


def test_fewer_facts_of_an_answer_than_folds_are_an_error_for_the_user(tiny, athletes):
    rarest = min(Counter(fact.answer for fact in athletes[:10]).values())
    probes(tiny("llama"), athletes, settings(folds=rarest))
    with pytest.raises(FactError, match=rf"localize\.probes\.folds is {rarest + 1}.* 2 to {rarest}"):
        probes(tiny("llama"), athletes, settings(folds=rarest + 1))
