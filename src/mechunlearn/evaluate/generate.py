"""Free generation: does the true or the new answer appear in what the model writes?

generate   measurement rows, one a text
sample     continuations of prompts, token by token
mentions   is an answer among the words of a text?
"""

import re
from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from transformers import DynamicCache

from mechunlearn.facts import Fact
from mechunlearn.models.model import Model
from mechunlearn.models.scoring import unembed
from mechunlearn.registry import load as method

TOKENS = 8
PROMPTS = 32  # run at once: all their samples' logits are held together


def generate(model: Model, facts: Sequence[Fact], samples: int, stage: str, seed: int) -> list[dict[str, Any]]:
    """Rows of so many sampled texts a fact: the training prompt, gone on with to the end of the line.

    `order` numbers the texts and `argmax` holds each one. p_true and p_new are 1 where the answer appears, else 0;
    `choice` is the answer that appears alone.
    """
    ask = method("elicitation", "completion")
    prompts = [model.encode(ask(fact)[0].text) for fact in facts]
    generator = torch.Generator(model.device).manual_seed(seed)
    parts = [prompts[start : start + PROMPTS] for start in range(0, len(prompts), PROMPTS)]
    written = chain.from_iterable(sample(model, part, samples, TOKENS, generator) for part in parts)
    rows: list[dict[str, Any]] = []
    for fact in facts:
        for number in range(samples):
            text = model.tokenizer.decode(next(written), skip_special_tokens=True).partition("\n")[0]
            rows.append(_row(fact, text) | {"order": number, "stage": stage, "seed": seed})
    return rows


@torch.no_grad()
def sample(
    model: Model, sequences: Sequence[Sequence[int]], samples: int, tokens: int, generator: torch.Generator
) -> list[list[int]]:
    """So many continuations of each sequence, of so many tokens, drawn from the whole distribution.

    Every prompt is run once for all its continuations, padded on the left, so that all go on at one place. A token is
    drawn by one uniform number a row, where it falls among the summed probabilities: `torch.multinomial` draws one a
    word, and takes longer for that than the model runs.

    Not `generate` of transformers: that unembeds a slice of the hidden states, which bfloat16 on a CPU multiplies a
    thousand times slower than the same numbers in one piece.
    """
    longest = max(map(len, sequences))
    gaps = [longest - len(sequence) for sequence in sequences]
    padded = [[*[0] * gap, *sequence] for gap, sequence in zip(gaps, sequences, strict=True)]
    step = torch.tensor(padded, device=model.device)
    mask = torch.tensor([[0] * gap + [1] * (longest - gap) for gap in gaps], device=model.device)
    places, cache, written = (mask.cumsum(-1) - 1).clamp(min=0), DynamicCache(), []
    for number in range(tokens):
        hidden = model.network.base_model(
            input_ids=step, attention_mask=mask, position_ids=places, past_key_values=cache
        ).last_hidden_state[:, -1]
        if not number:
            hidden, mask, places = (each.repeat_interleave(samples, 0) for each in (hidden, mask, places[:, -1:]))
            cache.batch_repeat_interleave(samples)
        sums = unembed(model, hidden.contiguous()).softmax(-1).cumsum(-1)
        drawn = torch.rand(len(sums), 1, generator=generator, device=model.device).to(sums.device)
        step = torch.searchsorted(sums, drawn * sums[:, -1:], right=True).clamp(max=sums.shape[1] - 1).to(model.device)
        mask, places = torch.cat([mask, torch.ones_like(step)], dim=1), places + 1
        written.append(step)
    found: list[list[int]] = torch.cat(written, dim=1).tolist()
    return found


def _row(fact: Fact, text: str) -> dict[str, Any]:
    true = mentions(text, fact.answer)
    new = mentions(text, fact.new_answer) if fact.new_answer else False
    return {
        "elicitation": "generation",
        "role": fact.role,
        "fact": fact.id,
        "p_true": float(true),
        "p_new": float(new) if fact.new_answer else float("nan"),
        "p_options": 1.0,
        "rank": 1 if true else 2,
        "choice": "other" if true == new else "true" if true else "new",
        "argmax": text,
        "nll": float("nan"),
        "kl": float("nan"),
    }


def mentions(text: str, answer: str) -> bool:
    """Does the answer stand in the text as whole words, in any case?"""
    return re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", text, re.IGNORECASE) is not None
