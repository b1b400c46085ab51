"""Reading and writing activations."""

import pytest
import torch

from mechunlearn.models.interventions import capture, patch

CLEAN, CORRUPT = "Fact: LeBron James plays the sport of", "Fact: Tom Brady plays the sport of"
pytestmark = pytest.mark.usefixtures("no_gradients")


@pytest.fixture
def no_gradients():
    with torch.no_grad():
        yield


def run(model, text, length=None, **options):
    ids = model.encode(text)[:length]
    return model.network(input_ids=torch.tensor([ids]), **options)


def pair(model):
    """The two prompts, cut to the same length."""
    length = min(len(model.encode(text)) for text in (CLEAN, CORRUPT))
    return length, run(model, CLEAN, length).logits, run(model, CORRUPT, length).logits


def hooks(model):
    modules = model.network.named_modules()
    return [(name, len(m._forward_hooks), len(m._forward_pre_hooks)) for name, m in modules]


def layers(model, part=""):
    return [model.layout.module(layer, part) for layer in range(model.layout.layers)]


def test_captured_layers_are_the_networks_hidden_states(model):
    expected = run(model, CLEAN, output_hidden_states=True).hidden_states
    with capture(model, layers(model)) as seen:
        run(model, CLEAN)
    for layer, name in enumerate(layers(model)[:-1]):  # of the last layer they hold the normed state
        torch.testing.assert_close(seen[name], expected[layer + 1], rtol=0, atol=0)
    normed = model.network.model.norm(seen[layers(model)[-1]])
    torch.testing.assert_close(normed, expected[-1], rtol=0, atol=0)


@pytest.mark.parametrize("part", ["", "mlp", "self_attn", "self_attn.o_proj"])
def test_patching_an_output_with_itself_changes_nothing(model, part):
    expected = run(model, CLEAN).logits
    with capture(model, layers(model, part)) as seen:
        run(model, CLEAN)
    with patch(model, {name: lambda _, name=name: seen[name] for name in seen}):
        torch.testing.assert_close(run(model, CLEAN).logits, expected, rtol=0, atol=0)


@pytest.mark.parametrize("part", ["mlp", "self_attn.o_proj"])
def test_patching_an_input_with_itself_changes_nothing(model, part):
    with patch(model, inputs=dict.fromkeys(layers(model, part), torch.clone)):
        patched = run(model, CLEAN).logits
    torch.testing.assert_close(patched, run(model, CLEAN).logits, rtol=0, atol=0)


def test_patching_every_layer_restores_the_clean_run(model):
    length, clean, corrupt = pair(model)
    with capture(model, layers(model)) as seen:
        run(model, CLEAN, length)
    with patch(model, {name: lambda _, name=name: seen[name] for name in seen}):
        patched = run(model, CORRUPT, length).logits
    assert (clean - corrupt).abs().max() > 0.1
    torch.testing.assert_close(patched, clean, rtol=0, atol=1e-5)


def test_patching_one_layer_changes_the_run(model):
    expected = run(model, CLEAN).logits
    for part in ("mlp", "self_attn.o_proj"):
        for where in ("outputs", "inputs"):
            with patch(model, **{where: {model.layout.module(1, part): torch.zeros_like}}):
                assert (run(model, CLEAN).logits - expected).abs().max() > 1e-3


@pytest.mark.parametrize("fails", [False, True])
def test_hooks_live_and_die_in_the_block(model, fails):
    before, names = hooks(model), layers(model, "mlp")
    changes = dict.fromkeys(names, torch.clone)
    try:
        with capture(model, names), patch(model, changes, changes):
            assert hooks(model) != before
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    assert hooks(model) == before


@pytest.mark.parametrize("enter", [capture, lambda m, names: patch(m, dict.fromkeys(names, torch.abs))])
def test_a_wrong_name_leaves_no_hooks(fresh, enter):
    model = fresh("llama")
    before = hooks(model)
    with pytest.raises(AttributeError), enter(model, [model.layout.module(0, "mlp"), "model.nothing"]):
        pass
    assert hooks(model) == before
