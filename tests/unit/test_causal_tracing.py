"""Causal tracing against ROME's loop: one component, one noise sample, one whole forward at a time."""

import pytest
import torch

from mechunlearn.config import LocalizeSettings, TraceSettings
from mechunlearn.facts import Prompt, sports
from mechunlearn.localize.causal_tracing import causal_tracing, trace

SETTINGS = LocalizeSettings(tracing=TraceSettings(facts=2, samples=2))


@torch.no_grad()
def probability(model, ids, answer, subject=(), noise=None, restore=None, clean=None, keep=None):
    """P(answer) of a full forward, with noise on the subject and one component restored to the clean run."""
    handles = []

    def corrupt(module, inputs, output):
        output = output.clone()
        output[0, list(subject)] += noise
        return output

    if noise is not None:
        handles.append(model.network.model.embed_tokens.register_forward_hook(corrupt))
    network = model.network.model
    size = network.layers[0].self_attn.o_proj.in_features // network.config.num_attention_heads
    for layer, block in enumerate(model.network.model.layers):

        def mlp(module, inputs, output, layer=layer):
            if keep is not None:
                keep[layer, "mlp"] = output.clone()
            return clean[layer, "mlp"] if restore == (layer, "mlp") else None

        def mixed(module, inputs, layer=layer):
            if keep is not None:
                keep[layer, "heads"] = inputs[0].clone()
            if restore is None or restore[0] != layer or restore[1] == "mlp":
                return None
            columns = slice(restore[1] * size, (restore[1] + 1) * size)
            changed = inputs[0].clone()
            changed[..., columns] = clean[layer, "heads"][..., columns]
            return (changed,)

        handles += [
            block.mlp.register_forward_hook(mlp),
            block.self_attn.o_proj.register_forward_pre_hook(mixed),
        ]
    try:
        return float(model.network(input_ids=torch.tensor([ids])).logits[0, -1].softmax(-1)[answer])
    finally:
        for handle in handles:
            handle.remove()


def naive_trace(model, ids, subject, answer, noise):
    clean = {}
    probability(model, ids, answer, keep=clean)
    heads = model.network.config.num_attention_heads
    effects = torch.zeros(model.network.config.num_hidden_layers, 1 + heads)
    for layer in range(len(effects)):
        for column, component in enumerate(["mlp", *range(heads)]):
            for sample in noise:
                restored = probability(model, ids, answer, subject, sample, (layer, component), clean)
                effects[layer, column] += restored - probability(model, ids, answer, subject, sample)
    return effects / len(noise)


def likeliest(model, ids):
    """The clean run's own answer, so that effects have a size."""
    with torch.no_grad():
        return int(model.network(input_ids=torch.tensor([ids])).logits[0, -1].argmax())


def situation(model, athletes, start):
    """Ids, subject, answer and noise of a prompt whose subject stands at its start or further on."""
    prompt = sports.completion(athletes[3])[0]
    if start:
        text = "José Altuve plays the sport of"
        prompt = Prompt("fact", text, (0, 11), (" golf",), 0, None)
    ids, subject = model.locate(prompt)
    noise = torch.randn(2, len(subject), 32, generator=torch.Generator().manual_seed(1))
    return ids, subject, likeliest(model, ids), 3 * noise


@pytest.mark.parametrize("start", [False, True], ids=["within the prompt", "at its start"])
def test_trace_is_romes_loop(model, athletes, start):
    ids, subject, answer, noise = situation(model, athletes, start)
    expected = naive_trace(model, ids, subject, answer, noise)
    assert expected.abs().max() > 1e-2
    torch.testing.assert_close(trace(model, ids, subject, answer, noise), expected, rtol=0, atol=1e-5)


def test_without_noise_nothing_has_an_effect(model, athletes):
    ids, subject, answer, noise = situation(model, athletes, start=False)
    effects = trace(model, ids, subject, answer, 0 * noise)
    torch.testing.assert_close(effects, torch.zeros_like(effects), rtol=0, atol=1e-6)


def test_one_row_for_every_fact_and_component(model, athletes):
    scores = causal_tracing(model, athletes, SETTINGS)
    expected = [
        (fact.id, layer, kind, head)
        for fact in athletes[:2]
        for layer in range(4)
        for kind, head in [("mlp", -1), *(("head", head) for head in range(4))]
    ]
    assert list(scores[["fact", "layer", "kind", "head"]].itertuples(index=False, name=None)) == expected


def test_causal_tracing_depends_on_its_seed_alone(model, athletes):
    scores = causal_tracing(model, athletes, SETTINGS)
    assert scores.equals(causal_tracing(model, athletes, SETTINGS))
    assert not scores.equals(causal_tracing(model, athletes, SETTINGS.model_copy(update={"seed": 1})))


def test_noise_has_the_stated_size(tiny, athletes, monkeypatch):
    """`noise` standard deviations of the subject embeddings as the network puts them out."""
    model, seen = tiny("gemma3_text"), []
    monkeypatch.setattr(
        "mechunlearn.localize.causal_tracing.trace",
        lambda *given: seen.append(given[-1]) or torch.zeros(4, 5),
    )
    settings = LocalizeSettings(tracing=TraceSettings(facts=2, samples=200, noise=2.0))
    causal_tracing(model, athletes, settings)
    located = [model.locate(sports.completion(fact)[0]) for fact in athletes[:2]]
    tokens = torch.tensor([ids[position] for ids, subject in located for position in subject])
    spread = model.network.model.embed_tokens(tokens).std()
    drawn = torch.cat([noise.flatten() for noise in seen]).std()
    assert float(drawn / spread) == pytest.approx(2.0, rel=0.02)
