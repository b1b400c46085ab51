"""Quantisation: weights rounded to the nearest level along their inputs, and the model whole again afterwards."""

from collections import Counter

import pytest
import torch
from torchao.quantization import Int8WeightOnlyConfig, IntxWeightOnlyConfig, quantize_
from torchao.quantization.granularity import PerGroup

from mechunlearn.artifacts import MEASUREMENT_COLUMNS, measurement_table
from mechunlearn.attack import quantize as module
from mechunlearn.attack.quantize import quantize, round_off, rounded
from mechunlearn.config import QuantizeSettings
from mechunlearn.errors import ConfigError
from mechunlearn.facts.completion import completion
from mechunlearn.models.scoring import score
from tests.unit.test_relearn import assert_untouched, shape_of

GROUP = 16
SETTINGS = QuantizeSettings(group=GROUP)


def nearest(values, bits):
    """Values that share a scale, each at the nearest of its levels; and whether it lies halfway between two."""
    largest = max(abs(value) for value in values)
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    step = largest / ((high - low) / 2)
    levels = [min(range(low, high + 1), key=lambda level: abs(level * step - value)) for value in values]
    halfway = [abs(abs(value / step) % 1 - 0.5) < 1e-3 for value in values]
    return [level * step for level in levels], halfway


def assert_nearest(found, weight, bits):
    """(outputs, inputs) matrices, by an independent rounding of one scale's values at a time."""
    assert found.shape == weight.shape
    assert found.dtype == weight.dtype
    width = GROUP if bits == 4 else weight.shape[1]
    wrong = 0
    for before, after in zip(weight.tolist(), found.tolist(), strict=True):
        for start in range(0, len(before), width):
            expected, halfway = nearest(before[start : start + width], bits)
            step = max(map(abs, before[start : start + width])) / (2**bits - 1) * 2
            for value, other, tie in zip(expected, after[start : start + width], halfway, strict=True):
                wrong += abs(value - other) > (1.01 * step if tie else 1e-4 * step)
    assert wrong == 0


@pytest.mark.parametrize("bits", [8, 4])
def test_a_matrix_is_rounded_to_the_nearest_level(bits):
    weight = torch.randn(6, 48, generator=torch.Generator().manual_seed(bits)) * 0.03
    found = round_off(weight, bits, GROUP)
    assert_nearest(found, weight, bits)
    assert not torch.equal(found, weight)
    assert max(len(row.unique()) for row in found.reshape(-1, GROUP)) <= 2**bits


@pytest.mark.parametrize("bits", [8, 4])
def test_rounded_weights_multiply_as_torchaos_own_tensors(bits):
    generator = torch.Generator().manual_seed(0)
    linear, inputs = torch.nn.Linear(48, 20), torch.randn(7, 48, generator=generator)
    expected = torch.nn.functional.linear(inputs, round_off(linear.weight, bits, GROUP), linear.bias)
    four = IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(GROUP))
    quantize_(linear, Int8WeightOnlyConfig(set_inductor_config=False) if bits == 8 else four)
    assert type(linear.weight) is not torch.nn.Parameter
    torch.testing.assert_close(linear(inputs), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_small_weights_are_rounded_as_large_ones_and_none_are_lost(bits, dtype):
    weight = torch.randn(6, 48, generator=torch.Generator().manual_seed(0)).to(dtype)
    found, small = round_off(weight, bits, GROUP), round_off(weight * 2**-12, bits, GROUP)
    assert found.dtype == dtype
    assert torch.equal(small, found * 2**-12)
    exact = round_off(weight.float(), bits, GROUP)
    torch.testing.assert_close(found.float(), exact, rtol=0 if dtype == torch.float32 else 2**-8, atol=0)
    assert torch.equal(round_off(torch.zeros(3, 32, dtype=dtype), bits, GROUP), torch.zeros(3, 32, dtype=dtype))


@pytest.mark.parametrize("bits", [8, 4])
def test_attention_and_mlp_matrices_are_rounded_along_their_inputs_and_nothing_else(fresh, family, bits):
    model = fresh(family)
    before = shape_of(model)
    weights = {name: value.clone() for name, value in model.network.named_parameters()}
    with rounded(model, bits, GROUP):
        for name, value in model.network.named_parameters():
            assert torch.equal(value, weights[name]) == (name not in model.layout.shapes), name
            if ".0." in name and name in model.layout.shapes:
                assert value.is_contiguous()
                pair = (value, weights[name])
                assert_nearest(*(each.T if model.layout.naming.transposed else each for each in pair), bits)
    assert_untouched(model, before)


def test_rows_are_the_kept_and_forgotten_facts_of_the_rounded_model(model, athletes):
    rows = quantize(model, athletes, [], SETTINGS, 3)
    measured = [fact for fact in athletes if fact.role != "maintain-train"]
    assert Counter(row["stage"] for row in rows) == {"int8": len(measured), "int4": len(measured)}
    assert {(row["seed"], row["elicitation"]) for row in rows} == {(3, "completion")}
    assert set(measurement_table(rows).columns) == set(MEASUREMENT_COLUMNS) == set(rows[0])
    for bits in (8, 4):
        with rounded(model, bits, GROUP):
            expected = score(model, [completion(fact)[0] for fact in measured])
        found = [row for row in rows if row["stage"] == f"int{bits}"]
        assert [(row["fact"], row["role"]) for row in found] == [(fact.id, fact.role) for fact in measured]
        assert [row["p_true"] for row in found] == [row["p_true"] for row in expected]


def test_fewer_bits_change_more(tiny, athletes):
    model = tiny("llama")
    table = measurement_table(quantize(model, athletes, [], SETTINGS, 0)).set_index(["stage", "fact"]).p_options
    whole = {row["fact"]: row["p_options"] for row in score(model, [completion(fact)[0] for fact in athletes])}
    off = {bits: sum(abs(value - whole[fact]) for fact, value in table[f"int{bits}"].items()) for bits in (8, 4)}
    assert 0 < off[8] < off[4]


def test_only_the_bits_asked_for(tiny, athletes):
    rows = quantize(tiny("llama"), athletes, [], QuantizeSettings(bits=[8], group=7), 0)
    assert {row["stage"] for row in rows} == {"int8"}


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_group_that_does_not_divide_the_inputs_is_an_error_for_the_user(model, athletes):
    assert {width for shape in model.layout.shapes.values() for width in shape} >= {32, 48}
    with pytest.raises(ConfigError, match=r"^quantize\.group is 32, .* take 32 and 48 inputs; allowed: divisors of 16"):
        quantize(model, athletes, [], QuantizeSettings(), 0)


@pytest.mark.parametrize("fails", ["", "score", "round_off"])
def test_the_attack_leaves_no_trace(fresh, family, athletes, monkeypatch, fails):
    model, calls = fresh(family, "bfloat16"), []
    before = shape_of(model)
    whole = getattr(module, fails or "score")

    def breaks(*given):
        calls.append(given)
        if fails and len(calls) == (2 if fails == "score" else 5):
            raise KeyboardInterrupt
        return whole(*given)

    monkeypatch.setattr(module, fails or "score", breaks)
    try:
        quantize(model, athletes, [], SETTINGS, 0)
        assert not fails
    except KeyboardInterrupt:
        assert fails
    assert_untouched(model, before)
