"""Reading and writing activations."""

import pytest
import torch

from mechunlearn.models.components import KINDS
from mechunlearn.models.interventions import capture, patch
from tests.unit.oracle import stirred

CLEAN, CORRUPT = "Fact: LeBron James plays the sport of", "Fact: Tom Brady plays the sport of"
pytestmark = pytest.mark.usefixtures("no_gradients")


@pytest.fixture
def model(tiny, family):
    return stirred(tiny(family))


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


def parts(model, side="output"):
    """Every part that localization reads or writes, by layer."""
    layout, kinds = model.layout, ("", "mlp", "q", "k", "v", "o")
    names = [layout.module(layer, kind) for layer in range(layout.layers) for kind in kinds]
    if side == "output":  # attention takes in nothing but keywords
        names += [layout.module(layer, "attention") for layer in range(layout.layers)]
        names += [layout.written(layer, kind) for layer in range(layout.layers) for kind in KINDS]
    return [(name, side) for name in dict.fromkeys(names)]


def layers(model, side="output"):
    return [(model.layout.module(layer), side) for layer in range(model.layout.layers)]


def test_captured_layers_are_the_networks_hidden_states(model):
    expected = run(model, CLEAN, output_hidden_states=True).hidden_states
    norm = model.layout.module(model.layout.layers)
    with capture(model, [*layers(model), *layers(model, "input"), (norm, "output")]) as seen:
        run(model, CLEAN)
    for layer, (name, _) in enumerate(layers(model)):
        torch.testing.assert_close(seen[name, "input"], expected[layer], rtol=0, atol=0)
        if layer < model.layout.layers - 1:  # after the last layer they hold the normed state
            torch.testing.assert_close(seen[name, "output"], expected[layer + 1], rtol=0, atol=0)
    torch.testing.assert_close(seen[norm, "output"], expected[-1], rtol=0, atol=0)


@pytest.mark.parametrize("side", ["input", "output"])
def test_patching_with_itself_changes_nothing(model, side):
    expected = run(model, CLEAN).logits
    with capture(model, parts(model, side)) as seen:
        run(model, CLEAN)
    assert {*seen} == {*parts(model, side)}
    changes = {name: lambda _, part=(name, side): seen[part] for name, _ in seen}
    with patch(model, **{f"{side}s": changes}):
        torch.testing.assert_close(run(model, CLEAN).logits, expected, rtol=0, atol=0)


def test_patching_every_layer_restores_the_clean_run(model):
    length, clean, corrupt = pair(model)
    with capture(model, layers(model)) as seen:
        run(model, CLEAN, length)
    with patch(model, {name: lambda _, name=name: seen[name, "output"] for name, _ in seen}):
        patched = run(model, CORRUPT, length).logits
    assert (clean - corrupt).abs().max() > 0.1
    torch.testing.assert_close(patched, clean, rtol=0, atol=1e-5)


@pytest.mark.parametrize("side", ["input", "output"])
def test_patching_any_part_changes_the_run(model, side):
    expected = run(model, CLEAN).logits
    for name, _ in parts(model, side):
        with patch(model, **{f"{side}s": {name: torch.zeros_like}}):
            assert (run(model, CLEAN).logits - expected).abs().max() > 1e-3


def test_captured_values_are_those_before_a_later_patch_and_carry_no_gradients(fresh):
    model, part = fresh("llama"), ("model.layers.1.mlp", "output")
    with torch.enable_grad(), capture(model, [part]) as before, patch(model, {part[0]: torch.zeros_like}):
        model.network.requires_grad_(True)
        with capture(model, [part]) as after:
            run(model, CLEAN)
    assert not before[part].requires_grad
    assert before[part].abs().max() > 0 == after[part].abs().max()


@pytest.mark.parametrize("fails", [False, True])
def test_hooks_live_and_die_in_the_block(model, fails):
    before, names = hooks(model), [name for name, _ in parts(model)]
    changes = dict.fromkeys(names, torch.clone)
    try:
        with capture(model, parts(model)), patch(model, changes, changes):
            assert hooks(model) != before
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    assert hooks(model) == before


def captured(model, names):
    return capture(model, [(name, "output") for name in names])


def patched(model, names):
    return patch(model, dict.fromkeys(names, torch.abs))


@pytest.mark.parametrize("enter", [captured, patched])
def test_a_wrong_name_leaves_no_hooks(tiny, enter):
    model = tiny("llama")
    before = hooks(model)
    with pytest.raises(AttributeError), enter(model, [model.layout.module(0, "mlp"), "model.nothing"]):
        pass
    assert hooks(model) == before
