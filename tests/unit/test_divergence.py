"""The divergence in parts against all logits at once."""

import pytest
import torch

from mechunlearn.models import divergence
from mechunlearn.models.divergence import divergences


def plainly(model, before, after):
    logs = [model.network.get_output_embeddings()(states).double() for states in (before, after)]
    if cap := getattr(model.network.config, "final_logit_softcapping", None):
        logs = [cap * torch.tanh(each / cap) for each in logs]
    p, q = (each.log_softmax(-1) for each in logs)
    return (p.exp() * (p - q)).sum(-1)


@pytest.mark.parametrize("family", ["gemma3_text", "gemma2", "llama"])  # gemma2 caps its logits
@pytest.mark.parametrize("part", [7, 4096])
def test_values_and_both_gradients_are_those_of_all_logits(fresh, monkeypatch, family, part):
    monkeypatch.setattr(divergence, "PART", part)
    model = fresh(family)
    torch.manual_seed(0)
    width = model.network.get_output_embeddings().weight.shape[1]
    before, after = (30 * torch.randn(5, width) for _ in range(2))
    after[2] = before[2]
    weights, found = torch.rand(5), {}
    for name, function in {"ours": divergences, "plain": plainly}.items():
        sides = [states.clone().requires_grad_(True) for states in (before, after)]
        values = function(model, *sides)
        (values.float() * weights).sum().backward()
        found[name] = [values.detach().float(), *(states.grad for states in sides)]
    assert found["plain"][0][0] > 0.1
    for ours, plain in zip(found["ours"], found["plain"], strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=2e-5)


def test_equal_states_diverge_by_nothing_and_get_no_gradient(fresh):
    model = fresh("gemma3_text", dtype="bfloat16")
    states = torch.randn(3, model.network.get_output_embeddings().weight.shape[1]).bfloat16()
    after = states.clone().requires_grad_(True)
    values = divergences(model, states, after)
    values.sum().backward()
    assert values.abs().max() == 0
    assert after.grad.abs().max() == 0


def test_a_trained_unembedding_is_refused(fresh):
    model = fresh("llama")
    model.network.get_output_embeddings().weight.requires_grad_(True)
    with pytest.raises(ValueError, match="unembedding is trained"):
        divergences(model, torch.zeros(1, 32), torch.zeros(1, 32))
