"""Batched scoring against one full forward a prompt."""

import random

import pytest
import torch
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

from mechunlearn.facts.text import Passage
from mechunlearn.models import scoring
from mechunlearn.models.packing import last_hidden
from mechunlearn.models.scoring import score, text_hidden, text_scores, unembed

TEXTS = ["José Altuve plays", "the sport of baseball, " * 7, "Question: What sport does Babe Ruth play?"]
AMX = torch.cpu.get_capabilities().get("amx_bf16", False)
NUMBERS = ("p_true", "p_new", "p_options")


def close(value):
    return pytest.approx(value, rel=1e-4, abs=1e-12, nan_ok=True)


def logits(model, ids):
    """(tokens, vocabulary), from the network as Hugging Face runs it."""
    return model.network(input_ids=torch.tensor([list(ids)], device=model.device)).logits[0].float()


@torch.no_grad()
def naive_row(model, prompt):
    probabilities = logits(model, model.encode(prompt.text))[-1].softmax(-1).tolist()
    tokens = [model.tokenizer(option, add_special_tokens=False).input_ids[0] for option in prompt.options]
    options = [probabilities[token] for token in tokens]
    likeliest = options.index(max(options))
    return {
        "fact": prompt.fact,
        "order": prompt.order,
        "p_true": options[prompt.true],
        "p_new": float("nan") if prompt.new is None else options[prompt.new],
        "p_options": sum(options),
        "rank": 1 + sum(other > options[prompt.true] for other in probabilities),
        "choice": {prompt.true: "true", prompt.new: "new"}.get(likeliest, "other"),
        "argmax": model.tokenizer.decode(probabilities.index(max(probabilities))),
        "nll": float("nan"),
        "kl": float("nan"),
    }


def assert_same_rows(rows, expected):
    assert len(rows) == len(expected)
    for row, other in zip(rows, expected, strict=True):
        wanted = {key: close(value) if isinstance(value, float) else value for key, value in other.items()}
        assert row == wanted


def test_score_is_one_full_forward_a_prompt(model, prompts):
    assert_same_rows(score(model, prompts), [naive_row(model, prompt) for prompt in prompts])


def test_score_does_not_depend_on_order_or_company(model, prompts):
    expected = score(model, prompts)
    order = random.Random(0).sample(range(len(prompts)), len(prompts))
    assert_same_rows(score(model, [prompts[index] for index in order]), [expected[index] for index in order])
    for part in (slice(0, 1), slice(2, 3), slice(1, 4), slice(5, 12)):
        assert_same_rows(score(model, prompts[part]), expected[part])


def test_equal_prompts_score_equally(model, prompts):
    assert_same_rows(score(model, [prompts[3]] * 3), score(model, [prompts[3]]) * 3)


def test_last_hidden_has_the_gradients_of_full_forwards(fresh, family, prompts):
    model = fresh(family)
    model.network.requires_grad_(True)
    sequences = [model.encode(prompt.text) for prompt in prompts[1:8]]
    targets = torch.arange(20, 20 + len(sequences))

    def gradients(batch):
        model.network.zero_grad(set_to_none=True)
        cross_entropy(batch, targets).backward()
        return {name: parameter.grad.clone() for name, parameter in model.network.named_parameters()}

    ours = gradients(unembed(model, last_hidden(model, sequences)))
    naive = gradients(torch.stack([logits(model, ids)[-1] for ids in sequences]))
    for name, gradient in naive.items():
        scale = float(gradient.abs().max())
        assert scale > 0
        torch.testing.assert_close(ours[name], gradient, rtol=0, atol=1e-4 * scale, msg=name)


@torch.no_grad()
def test_unembed_gives_the_networks_own_logits(model):
    ids = model.encode("Fact: Tom Brady plays the sport of")
    hidden = model.network.base_model(input_ids=torch.tensor([ids])).last_hidden_state[0]
    torch.testing.assert_close(unembed(model, hidden), logits(model, ids), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_unembed_soft_caps(tiny):
    model, cap = tiny("gemma2"), 10.0
    hidden = torch.randn(6, 32, generator=torch.Generator().manual_seed(0)) * 10
    plain = hidden @ model.network.lm_head.weight.T
    assert plain.abs().max() > 4 * cap
    torch.testing.assert_close(unembed(model, hidden), cap * torch.tanh(plain / cap), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_text_nll_is_each_passages_own_cross_entropy(model):
    passages = [Passage(str(number), "topic", text) for number, text in enumerate(TEXTS)]
    expected = []
    for text in TEXTS:
        ids = model.encode(text)
        expected.append(float(cross_entropy(logits(model, ids)[:-1], torch.tensor(ids[1:]))))
    assert text_scores(model, passages, text_hidden(model, passages))[0] == close(expected)
    assert text_scores(model, passages[::-1], text_hidden(model, passages[::-1]))[0] == close(expected[::-1])


def test_what_is_run_once_takes_the_fewest_tokens():
    """Against every length tried out: leaders are run whole, the others from there on, in a second forward."""
    rng = random.Random(0)
    for _ in range(200):
        starts = [[rng.randint(0, 1) for _ in range(8)] for _ in range(3)]
        longest = rng.randint(5, 15)
        sequences = [[*rng.choice(starts), *(rng.randint(2, 9) for _ in range(5))][:longest] for _ in range(12)]
        taken = {0: 12 * longest}
        for shared in range(1, longest):
            if (longest - shared) % 32 in (1, 2, 3):  # the kernel's own rule; no length here is that itself
                continue
            leaders = len({tuple(ids[:shared]) for ids in sequences})
            taken[shared] = leaders * longest + (12 - leaders) * (longest - shared) + scoring.FORWARD
        assert taken[scoring._worth_sharing(sequences)] == min(taken.values())


def test_batches_hold_every_sequence_once_within_one_group_and_the_budget():
    rng = random.Random(0)
    for _ in range(50):
        sequences = [[0] * rng.randint(1, 30) for _ in range(rng.randint(1, 40))]
        groups = [rng.randint(0, 2) for _ in sequences]
        batches = scoring._batches(sequences, 64, groups)
        assert sorted(index for batch in batches for index in batch) == list(range(len(sequences)))
        assert all(len(batch) * max(len(sequences[index]) for index in batch) <= 64 for batch in batches)
        assert all(len({groups[index] for index in batch}) == 1 for batch in batches)


def test_the_common_prefix_leaves_every_sequence_a_token_of_its_own():
    rng = random.Random(0)
    for _ in range(300):
        sequences = [[rng.randint(0, 1) for _ in range(rng.randint(1, 5))] for _ in range(rng.randint(1, 4))]
        shared = 0
        while all(len(ids) > shared + 1 and ids[shared] == sequences[0][shared] for ids in sequences):
            shared += 1
        assert scoring.common_prefix(sequences) == shared


@torch.no_grad()
@pytest.mark.parametrize("lengths", [range(3, 20), range(29, 37), range(60, 70)])
def test_a_sequence_has_the_bits_in_company_that_it_has_alone(fresh, lengths):
    """In bfloat16 on a CPU, where a last bit moved in the attention would grow; they begin in two ways."""
    model, rng = fresh("qwen2", "bfloat16"), random.Random(0)

    def tokens(count: int) -> list[int]:
        return [rng.randrange(5, 400) for _ in range(count)]

    starts = [tokens(min(lengths) - 2), tokens(min(lengths) - 2)]
    sequences = [[*start, *tokens(length - len(start))] for length in lengths for start in starts for _ in range(3)]
    kinds = [scoring._kind(len(ids)) for ids in sequences]
    for batch in scoring._batches(sequences, scoring.BATCH_TOKENS, kinds):
        together = scoring._hidden_of_kind(model, [sequences[index] for index in batch])
        for index, hidden in zip(batch, together, strict=True):
            alone = model.network.base_model(input_ids=torch.tensor([sequences[index]])).last_hidden_state[0, -1]
            assert torch.equal(hidden, alone), len(sequences[index])


@pytest.mark.skipif(AMX, reason="AMX rounds products by how many rows they have (docs/decisions.md)")
def test_padding_within_a_kind_leaves_the_bits_of_attention():
    """Heads as wide as Gemma's, which show more of what the kernel does than those of tiny models."""
    torch.manual_seed(0)
    for length in range(3, 80):
        padded = [other for other in range(length + 1, 96) if scoring._kind(other) == scoring._kind(length)]
        for _ in range(3):
            parts = torch.randn(3, 1, 4, 96, 256).bfloat16()
            alone = scaled_dot_product_attention(*parts[..., :length, :], is_causal=True)
            for other in padded:
                together = scaled_dot_product_attention(*parts[..., :other, :], is_causal=True)
                assert torch.equal(together[..., :length, :], alone), (length, other)


def test_bfloat16_scores_do_not_depend_on_company(fresh, prompts):
    model = fresh("qwen2", "bfloat16")
    for row, prompt in zip(score(model, prompts), prompts, strict=True):
        alone = score(model, [prompt])[0]
        assert [row[key] for key in NUMBERS] == pytest.approx([alone[key] for key in NUMBERS], abs=1e-3, nan_ok=True)
