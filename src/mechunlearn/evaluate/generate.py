"""Free generation: does the true or the new answer appear in what the model writes?

generate   measurement rows, one a text
sample     continuations of prompts of one length, token by token
mentions   is an answer among the words of a text?
"""

import re
from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache

from mechunlearn.facts import Fact
from mechunlearn.models.model import Model
from mechunlearn.models.scoring import unembed
from mechunlearn.registry import load as method

TOKENS = 8


def generate(model: Model, facts: Sequence[Fact], samples: int, stage: str, seed: int) -> list[dict[str, Any]]:
    """Rows of so many sampled texts a fact: the training prompt, gone on with to the end of the line.

    `order` numbers the texts and `argmax` holds each one. p_true and p_new are 1 where the answer appears, else 0;
    `choice` is the answer that appears alone.
    """
    ask = method("elicitation", "completion")
    prompts = {fact.id: model.encode(ask(fact)[0].text) for fact in facts}
    generator = torch.Generator(model.device).manual_seed(seed)
    rows: list[dict[str, Any]] = []
    for length in sorted({len(ids) for ids in prompts.values()}):  # of one length, so that nothing is padded
        group = [fact for fact in facts if len(prompts[fact.id]) == length for _ in range(samples)]
        written = sample(model, [prompts[fact.id] for fact in group], TOKENS, generator)
        for number, (fact, ids) in enumerate(zip(group, written, strict=True)):
            text = model.tokenizer.decode(ids, skip_special_tokens=True).partition("\n")[0]
            rows.append(_row(fact, text) | {"order": number % samples, "stage": stage, "seed": seed})
    return rows


@torch.no_grad()
def sample(
    model: Model, sequences: Sequence[Sequence[int]], tokens: int, generator: torch.Generator
) -> list[list[int]]:
    """So many tokens after each sequence, drawn from the whole distribution; sequences of one length.

    Not `generate` of transformers: that unembeds a slice of the hidden states, which bfloat16 on a CPU multiplies a
    thousand times slower than the same numbers in one piece.
    """
    cache, step = DynamicCache(), torch.tensor([list(sequence) for sequence in sequences], device=model.device)
    written = []
    for _ in range(tokens):
        hidden = model.network.base_model(input_ids=step, past_key_values=cache).last_hidden_state[:, -1]
        shares = unembed(model, hidden.contiguous()).softmax(-1)
        step = torch.multinomial(shares.to(model.device), 1, generator=generator)
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
