"""Losses in training: from the first trained layer on, and through a frozen unembedding, as by the whole network."""

import random

import pytest
import torch

from mechunlearn.artifacts import Component, Selection
from mechunlearn.edit.train import trainable
from mechunlearn.models import cross_entropy as module
from mechunlearn.models.attention import grouped
from mechunlearn.models.cross_entropy import cross_entropy
from mechunlearn.models.interventions import capture
from mechunlearn.models.recompute import recomputed
from mechunlearn.models.training import answer_losses, example, losses

SELECTIONS = {
    "first layer": [Component(0, "mlp")],
    "middle": [Component(2, "mlp"), Component(1, "mlp")],
    "heads": [Component(2, "attention", 1)],
    "last layer": [Component(3, "mlp", neurons=5), Component(3, "attention")],
}
PROMPTS = [[2, 300, 301, 310, 311, 312, 313, 314], [2, 300, 301, 320], [2, 300, 301, 310, 330]]
OTHERS = [[2, 300, 301, 310, 311, 340], [2, 300, 301, 310, 311, 312]]
TEXTS = [[2, *range(400, 412)], [2, 420, 421]]


def slowly(model, examples, texts):
    """Every sequence alone, through every layer, with all logits."""

    def losses(ids, targets):
        logits = model.network(input_ids=torch.tensor([ids])).logits[0].float()
        return torch.nn.functional.cross_entropy(logits[-len(targets) :], torch.tensor(targets))

    answers = [losses(ids, [answer]) for ids, answer in examples]
    return torch.stack(answers), torch.stack([losses(ids[:-1], ids[1:]) for ids in texts])


def quickly(model, examples, texts):
    with grouped(model):
        return losses(model, examples, texts)


def gradients(parameters, losses):
    answers, texts = losses
    found = torch.autograd.grad((answers * torch.arange(1, len(answers) + 1)).sum() + texts.sum(), parameters)
    return [answers.detach(), texts.detach(), *found]


@pytest.mark.parametrize("components", SELECTIONS.values(), ids=SELECTIONS)
@pytest.mark.parametrize("prompts", [PROMPTS, [[2, 300, 310], [4, 300, 310, 311]]], ids=["shared prefix", "none"])
def test_losses_and_gradients_are_those_of_the_whole_network(fresh, family, components, prompts):
    model = fresh(family)
    examples = [(ids, 500 + number) for number, ids in enumerate(prompts)]
    with trainable(model, Selection("", components, 0, 0, 0)) as parameters:
        moving = list(parameters.values())
        for _ in range(2):  # the second time from what was kept, with trained weights elsewhere
            expected = gradients(moving, slowly(model, examples, TEXTS))
            for found, right in zip(gradients(moving, quickly(model, examples, TEXTS)), expected, strict=True):
                torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-4 * right.abs().max().item())
            with torch.no_grad():
                for parameter in moving:
                    parameter += 0.1 * torch.randn_like(parameter)


@pytest.mark.parametrize("components", SELECTIONS.values(), ids=SELECTIONS)
def test_activations_computed_again_give_the_same_gradients_and_keep_less(fresh, family, components):
    model = fresh(family)
    examples = [(ids, 500 + number) for number, ids in enumerate(PROMPTS)]

    def kept(always):
        """Gradients, and the numbers that were kept for them beyond what enters a layer."""
        sizes = []
        counted = torch.autograd.graph.saved_tensors_hooks(lambda it: sizes.append(it.numel()) or it, lambda it: it)
        with counted, recomputed(model, always):
            found = losses(model, examples, TEXTS)
        return gradients(moving, found), sum(sizes)

    with trainable(model, Selection("", components, 0, 0, 0)) as parameters:
        moving = list(parameters.values())
        (expected, most), (found, least) = kept(False), kept(True)
        for right, other in zip(expected, found, strict=True):
            torch.testing.assert_close(other, right, rtol=1e-5, atol=1e-6 * right.abs().max().item())
        assert least < (0.5 if min(each.layer for each in components) < 2 else 1) * most
    assert all("forward" not in layer.__dict__ for layer in model.network.modules())
    layer = model.network.get_submodule(model.layout.module(0))
    layer.forward = hooked = layer.forward  # as accelerate has it of a model on several GPUs
    with recomputed(model, True):
        assert layer.forward is not hooked
    assert layer.__dict__["forward"] is hooked


def test_attention_by_plain_products_ends_with_its_block(fresh, family):
    model = fresh(family)
    usual, ids = model.network.config._attn_implementation, torch.tensor([[2, 300, 301]])
    before = model.network(input_ids=ids).logits
    with grouped(model):
        assert model.network.config._attn_implementation == ("eager" if family == "gemma2" else "grouped")
        torch.testing.assert_close(model.network(input_ids=ids).logits, before, rtol=1e-4, atol=1e-4)
    assert model.network.config._attn_implementation == usual
    assert torch.equal(model.network(input_ids=ids).logits, before)


def test_a_sequence_met_in_other_company_keeps_its_loss(fresh, family):
    model = fresh(family)
    ask = [(ids, 500) for ids in [*PROMPTS, *OTHERS]]
    alone = torch.cat([slowly(model, [each], TEXTS)[0] for each in ask])
    with trainable(model, Selection("", SELECTIONS["heads"], 0, 0, 0)), torch.no_grad():
        for order in ([0, 1, 2], [0, 3, 4], [4, 2], [4], [4, 4, 0]):
            found = answer_losses(model, [ask[index] for index in order])
            torch.testing.assert_close(found, alone[order], rtol=1e-4, atol=1e-4)


def test_frozen_layers_run_once_a_sequence_and_only_inside_the_block(fresh):
    model = fresh("gemma3_text")
    examples, layers = [(ids, 500) for ids in PROMPTS], range(model.layout.layers)

    def ran(examples):
        places = [(f"{model.layout.module(layer)}.mlp", "output") for layer in layers]
        with capture(model, places) as seen, torch.no_grad():
            answer_losses(model, examples)
        return [layer for layer, place in enumerate(places) if place in seen]

    with trainable(model, Selection("", [Component(2, "mlp")], 0, 0, 0)):
        assert ran(examples) == [0, 1, 2, 3]
        assert ran(examples[:2]) == [2, 3]
        assert ran([*examples, (OTHERS[0], 500)]) == [0, 1, 2, 3]
    assert model.frozen is None
    assert ran(examples) == [0, 1, 2, 3]


def test_what_is_kept_dies_with_the_block(fresh, athletes):
    """A second edit of the same model must not begin from what the first one left."""
    model = fresh("llama")
    examples = [example(model, fact, fact.answer) for fact in athletes]
    with trainable(model, Selection("", [Component(3, "mlp")], 0, 0, 0)), torch.no_grad():
        answer_losses(model, examples)
    with torch.no_grad():
        model.network.get_parameter(model.layout.weight(0, "q")).mul_(-1)
    expected, _ = slowly(model, examples, TEXTS)
    with trainable(model, Selection("", [Component(3, "mlp")], 0, 0, 0)):
        torch.testing.assert_close(answer_losses(model, examples), expected, rtol=1e-4, atol=1e-4)


def naive(model, hidden, targets):
    head = model.network.get_output_embeddings()
    logits = torch.nn.functional.linear(hidden, head.weight.float(), head.bias)
    if cap := getattr(model.network.config, "final_logit_softcapping", None):
        logits = cap * torch.tanh(logits / cap)
    return torch.nn.functional.cross_entropy(logits, targets, reduction="none")


@pytest.mark.parametrize("scale", [0.1, 1, 30])
@pytest.mark.parametrize("part", [64, 100, 4096])
def test_cross_entropy_is_that_of_all_logits(tiny, family, scale, part, monkeypatch):
    monkeypatch.setattr(module, "PART", part)
    model, generator = tiny(family), torch.Generator().manual_seed(0)
    hidden = scale * torch.randn(9, model.width, generator=generator)
    targets = torch.tensor([0, 63, 64, 99, 100, 639, 5, 5, 300])
    weights = torch.randn(9, generator=generator)
    found, right = (hidden.clone().requires_grad_() for _ in range(2))
    losses, expected = cross_entropy(model, found, targets), naive(model, right, targets)
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-5)
    ((losses + expected) * weights).sum().backward()
    torch.testing.assert_close(found.grad, right.grad, rtol=1e-4, atol=1e-5 * right.grad.abs().max().item())


def test_near_certainty_the_gradient_keeps_its_precision(tiny):
    """The gradient is then a small difference of large numbers, where it is taken from all probabilities."""
    model = tiny("llama")
    weight = model.network.get_output_embeddings().weight
    hidden = (40 * weight[7] / weight[7].square().sum())[None].detach()
    found, right = hidden.clone().requires_grad_(), hidden.double().requires_grad_()
    cross_entropy(model, found, torch.tensor([7])).sum().backward()
    logits = torch.nn.functional.linear(right, weight.double())
    torch.nn.functional.cross_entropy(logits, torch.tensor([7])).backward()
    assert logits.softmax(-1)[0, 7].item() > 1 - 1e-4
    torch.testing.assert_close(found.grad.double(), right.grad, rtol=1e-3, atol=0)


def test_in_bfloat16_the_gradient_is_right_but_for_rounding(fresh, family):
    model, generator = fresh(family, "bfloat16"), torch.Generator().manual_seed(0)
    hidden = (3 * torch.randn(6, model.width, generator=generator)).bfloat16()
    targets = torch.randint(0, 640, (6,), generator=generator)

    def gradient(loss, hidden):
        hidden = hidden.clone().requires_grad_()
        loss(model, hidden, targets).sum().backward()
        return hidden.grad.float()

    right, found = gradient(naive, hidden.float()), gradient(cross_entropy, hidden)
    assert (found - right).norm() < 0.02 * right.norm()


def test_a_trained_unembedding_is_refused(fresh):
    model = fresh("llama")
    model.network.get_output_embeddings().weight.requires_grad_(True)
    with pytest.raises(ValueError, match="unembedding"):
        cross_entropy(model, torch.randn(2, model.width), torch.tensor([random.randrange(9), 1]))
