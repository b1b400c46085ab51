"""Batched scoring: what a model answers, read at the last position of each prompt.

unembed        hidden states -> float32 logits
token_logits   the same for a few tokens
probabilities  of single answers, from hidden states
score          prompts -> one measurement row each
option_nll     prompts -> mean cross-entropy a token of each option
text_hidden    passages -> final hidden states
text_scores    the same -> mean cross-entropy and KL divergence a token

With 262,144 words in Gemma's vocabulary the unembedding is most of the model, so it is computed only where it is
read. Prompts are padded on the right: attention is causal, so padding changes nothing before it.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import cycle, groupby, pairwise
from typing import Any

import torch
from transformers import DynamicCache

from mechunlearn.errors import FactError
from mechunlearn.facts import Prompt
from mechunlearn.facts.text import Passage
from mechunlearn.models.model import Model
from mechunlearn.models.packing import last_hidden

BATCH_TOKENS = 4096
CACHED_ROWS = 8
QUERIES, FEW = 32, (1, 2, 3)  # that a CPU's attention takes at a time; rests that it treats otherwise
KEYS = 16 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 8  # in one of its vectors
FORWARD = 32  # tokens that take as long as a forward's own overhead does on a CPU

# Keys and values of every layer: (rows, kv heads, tokens, head size) each.
KeysValues = list[tuple[torch.Tensor, torch.Tensor]]


def at_last(hidden: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """What stands at each row's last real position: (rows, tokens, ...) -> (rows, ...)."""
    return hidden[torch.arange(len(hidden), device=hidden.device), lengths.to(hidden.device) - 1]


def run_prefix(model: Model, ids: Sequence[int]) -> KeysValues:
    """Keys and values of a prefix, one row; empty for no prefix. Differentiable."""
    if not ids:
        return []
    cache, tokens = DynamicCache(), torch.tensor([list(ids)], device=model.device)
    model.network.base_model(input_ids=tokens, past_key_values=cache)
    return [(layer.keys, layer.values) for layer in cache.layers]


def repeat(prefix: KeysValues, rows: int) -> DynamicCache:
    """A fresh cache that holds the same prefix for every row."""
    return cached([(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1)) for keys, values in prefix])


def cached(prefix: KeysValues) -> DynamicCache:
    """A fresh cache that holds these keys and values."""
    cache = DynamicCache()
    for layer, (keys, values) in enumerate(prefix):
        cache.update(keys, values, layer)
    return cache


def pad(sequences: Sequence[Sequence[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids padded on the right with 0, lengths)."""
    longest = max(len(sequence) for sequence in sequences)
    ids = torch.tensor([[*sequence, *[0] * (longest - len(sequence))] for sequence in sequences], device=device)
    return ids, torch.tensor([len(sequence) for sequence in sequences], device=device)


def unembed(model: Model, hidden: torch.Tensor) -> torch.Tensor:
    """Logits of hidden states, in float32: (..., d_model) -> (..., vocabulary)."""
    return _capped(model, model.network.get_output_embeddings()(hidden).float())


def _few_rows(model: Model, hidden: torch.Tensor) -> Iterator[torch.Tensor]:
    """`unembed`, a few rows at a time: in float32 they fit a processor's cache, where all of them would not."""
    for rows in model.network.get_output_embeddings()(hidden).split(CACHED_ROWS):
        yield _capped(model, rows.float())


def _capped(model: Model, logits: torch.Tensor) -> torch.Tensor:
    cap = getattr(model.network.config, "final_logit_softcapping", None)
    return logits if cap is None else cap * torch.tanh(logits / cap)


def token_logits(model: Model, hidden: torch.Tensor, tokens: Sequence[int]) -> torch.Tensor:
    """Logits of single tokens, in float32: (..., d_model) -> (..., tokens). Differentiable."""
    head = model.network.get_output_embeddings()
    bias = None if head.bias is None else head.bias[list(tokens)].float()
    logits = torch.nn.functional.linear(hidden.to(head.weight.device).float(), head.weight[list(tokens)].float(), bias)
    return _capped(model, logits)


@torch.no_grad()
def probabilities(model: Model, hidden: torch.Tensor, tokens: Sequence[int], rows: int = 256) -> torch.Tensor:
    """Summed probability of tokens, over the full vocabulary: (..., d_model) -> (...), float32."""
    flat = hidden.reshape(-1, hidden.shape[-1])
    found = []
    for part in flat.split(rows):
        logits = unembed(model, part)
        found.append((logits[:, list(tokens)] - logits.logsumexp(-1, keepdim=True)).exp().sum(-1))
    return torch.cat(found).reshape(hidden.shape[:-1])


@torch.no_grad()
def score(model: Model, prompts: Sequence[Prompt], soft: torch.Tensor | None = None) -> list[dict[str, Any]]:
    """One row a prompt, in the order given: p_true, p_new, p_options, rank, choice, argmax (see artifacts).

    Prompts that are `whole` are judged by the perplexity of their options: p_true is then the reciprocal perplexity
    of the true one, `rank` its place among the options and `argmax` the likeliest option.

    soft   vectors that stand in every prompt between BOS and the rest (packing.packed); not for `whole`.
    """
    sequences = [model.encode(prompt.text) for prompt in prompts]
    rows: list[dict[str, Any]] = [{} for _ in prompts]
    whole = [index for index, prompt in enumerate(prompts) if prompt.whole]
    for index, nll in zip(whole, option_nll(model, [prompts[index] for index in whole]), strict=True):
        rows[index] = _whole_row(prompts[index], nll)
    first = [index for index, prompt in enumerate(prompts) if not prompt.whole]
    kinds = [_kind(len(sequences[index])) for index in first]
    for members in _batches([sequences[index] for index in first], BATCH_TOKENS, kinds):
        batch = [first[member] for member in members]
        ids = [sequences[index] for index in batch]
        hidden = _hidden_of_kind(model, ids) if soft is None else last_hidden(model, ids, soft)
        probabilities = (row for logits in _few_rows(model, hidden) for row in logits.softmax(-1))
        for index, row in zip(batch, probabilities, strict=True):
            rows[index] = _row(model, prompts[index], row)
    return rows


def _kind(length: int) -> tuple[int, int]:
    """Sequences of one kind get the same bits from a CPU's attention, however they are padded within their kind.

    That kernel takes 32 queries and a vector of keys at a time. Keys beyond the last whole vector get another
    exponential than the rest, and up to three queries left over another product than more of them. In bfloat16 a last
    bit so moved grows to 0.04 of a probability; in float32 it stays a last bit.
    """
    left = length % QUERIES
    return length if length < KEYS else length // KEYS * KEYS, left if left in FEW else 0


def _hidden_of_kind(model: Model, sequences: Sequence[Sequence[int]]) -> torch.Tensor:
    """`last_hidden` of sequences of one kind, with the bits that each has when it runs alone.

    What several begin with is run once: the first of them whole, and the others after its keys and values there, which
    saw as many keys as in each of them.
    """
    shared = _worth_sharing(sequences)
    own = [tuple(ids[:shared]) if shared else place for place, ids in enumerate(sequences)]
    first = {beginning: own.index(beginning) for beginning in dict.fromkeys(own)}
    leaders, cache = list(first.values()), DynamicCache()
    inputs, lengths = pad([sequences[place] for place in leaders], model.device)
    hidden = at_last(model.network.base_model(input_ids=inputs, past_key_values=cache).last_hidden_state, lengths)
    others = [place for place in range(len(sequences)) if first[own[place]] != place]
    if not others:
        return hidden
    rows = [leaders.index(first[own[place]]) for place in others]
    prefix = [(each.keys[rows, :, :shared], each.values[rows, :, :shared]) for each in cache.layers]
    inputs, lengths = pad([sequences[place][shared:] for place in others], model.device)
    after = model.network.base_model(input_ids=inputs, past_key_values=cached(prefix)).last_hidden_state
    back = torch.tensor([*leaders, *others]).argsort()
    return torch.cat([hidden, at_last(after, lengths)])[back]


def _worth_sharing(sequences: Sequence[Sequence[int]]) -> int:
    """How many first tokens of sequences of one kind to run once for all that begin so: what takes fewest tokens."""
    longest, ordered = max(map(len, sequences)), sorted(map(tuple, sequences))
    alike = [common_prefix(pair) for pair in pairwise(ordered)]
    left = longest % QUERIES

    def takes(shared: int) -> int:
        if not shared:
            return len(sequences) * longest
        leaders = 1 + sum(each < shared for each in alike)
        return leaders * longest + (len(sequences) - leaders) * (longest - shared) + FORWARD

    def same_bits(shared: int) -> bool:
        rest = (longest - shared) % QUERIES
        return rest == left if left in FEW else rest not in FEW

    return min(filter(same_bits, range(min(map(len, sequences)))), key=takes)


def _row(model: Model, prompt: Prompt, probabilities: torch.Tensor) -> dict[str, Any]:
    tokens = [model.option(option) for option in prompt.options]
    if len(set(tokens)) < len(tokens):
        raise FactError(
            f"the answers {', '.join(prompt.options)} begin with the same token in this model's vocabulary."
        )
    rank = int((probabilities > probabilities[tokens[prompt.true]]).sum()) + 1
    return _among(prompt, probabilities[tokens]) | {
        "rank": rank,
        "argmax": model.tokenizer.decode(int(probabilities.argmax())),
    }


def _whole_row(prompt: Prompt, nll: torch.Tensor) -> dict[str, Any]:
    return _among(prompt, (-nll).exp()) | {
        "rank": int((nll < nll[prompt.true]).sum()) + 1,
        "argmax": prompt.options[int(nll.argmin())],
    }


def _among(prompt: Prompt, options: torch.Tensor) -> dict[str, Any]:
    """What a row says of the options, given a value each; the largest is chosen."""
    options = options.double()
    names = {prompt.true: "true", prompt.new: "new"}
    return {
        "fact": prompt.fact,
        "order": prompt.order,
        "p_true": float(options[prompt.true]),
        "p_new": float("nan") if prompt.new is None else float(options[prompt.new]),
        "p_options": float(options.sum()),
        "choice": names.get(int(options.argmax()), "other"),
        "nll": float("nan"),
        "kl": float("nan"),
    }


@torch.no_grad()
def option_nll(model: Model, prompts: Sequence[Prompt]) -> list[torch.Tensor]:
    """Mean cross-entropy a token of every option after its prompt, in nats: (options,) a prompt.

    The logarithm of the option's perplexity (Veldanda et al. 2024, train.py). An option's tokens but the last have to
    be run; options of one token need the prompt alone, which is run once for all of them.
    """
    runs: dict[tuple[int, ...], tuple[int, list[tuple[int, int, list[int]]]]] = {}
    found = [torch.zeros(len(prompt.options)) for prompt in prompts]
    for number, prompt in enumerate(prompts):
        asked = model.encode(prompt.text)
        for place, option in enumerate(prompt.options):
            answer = model.tokenizer(option, add_special_tokens=False).input_ids
            key = (len(asked), *asked, *answer[:-1])
            runs.setdefault(key, (len(asked), []))[1].append((number, place, answer))
    sequences = [list(key[1:]) for key in runs]
    readers = list(runs.values())
    for batch in _batches(sequences, BATCH_TOKENS, [_kind(len(ids)) for ids in sequences]):
        inputs, lengths = pad([sequences[index] for index in batch], model.device)
        hidden = model.network.base_model(input_ids=inputs).last_hidden_state
        for index, row, length in zip(batch, hidden, lengths.tolist(), strict=True):
            start, answers = readers[index]
            shares = torch.cat([logits.log_softmax(-1) for logits in _few_rows(model, row[start - 1 : length])])
            for number, place, answer in answers:
                found[number][place] = -shares[range(len(answer)), answer].mean()
    return found


@torch.no_grad()
def text_hidden(model: Model, passages: Sequence[Passage]) -> list[torch.Tensor]:
    """The final (normed) hidden states of each passage that predict its next tokens: (tokens - 1, d_model) each."""
    sequences = [model.encode(passage.text) for passage in passages]
    found: list[torch.Tensor] = [torch.empty(0)] * len(passages)
    for batch in _batches(sequences, BATCH_TOKENS // 2, [_kind(len(ids)) for ids in sequences]):
        inputs, lengths = pad([sequences[index] for index in batch], model.device)
        hidden = model.network.base_model(input_ids=inputs).last_hidden_state
        for index, row, length in zip(batch, hidden, lengths.tolist(), strict=True):
            found[index] = row[: length - 1].clone()
    return found


@torch.no_grad()
def text_scores(
    model: Model,
    passages: Sequence[Passage],
    hidden: Sequence[torch.Tensor],
    base: Sequence[torch.Tensor] | None = None,
) -> tuple[list[float], list[float]]:
    """(cross-entropy, KL(base || now)) of each passage, means a token in nats, from what `text_hidden` gave.

    base   what it gave before an edit: edits leave the unembedding as it is, so no more has to be kept of the base
           model. Without it the divergences are missing (nan).
    """
    nlls, divergences = [], []
    for passage, before, after in zip(passages, base or hidden, hidden, strict=True):
        targets = torch.tensor(model.encode(passage.text)[1:], device=after.device)[:, None].split(CACHED_ROWS)
        olds = _few_rows(model, before) if base else cycle([None])
        losses, moved = [], []
        for logits, next_tokens, old in zip(_few_rows(model, after), targets, olds, strict=False):
            now = logits.log_softmax(-1)
            losses.append(-now.gather(-1, next_tokens.to(now.device))[:, 0])
            if old is not None:
                then = old.log_softmax(-1)
                moved.append(torch.linalg.vecdot(then.exp(), then.sub_(now)))
        nlls.append(float(torch.cat(losses).mean()))
        divergences.append(float(torch.cat(moved).mean()) if moved else math.nan)
    return nlls, divergences


def _batches(sequences: Sequence[Sequence[int]], tokens: int, kinds: Sequence[Any]) -> list[list[int]]:
    """Indices in batches of one kind, at most `tokens` padded tokens each; those that begin alike stand together."""
    batches: list[list[int]] = []
    order = sorted(range(len(sequences)), key=lambda index: (kinds[index], sequences[index], index))
    for _, members in groupby(order, key=lambda index: kinds[index]):
        batch, longest = list[int](), 0
        for index in members:
            longest = max(longest, len(sequences[index]))
            if batch and (len(batch) + 1) * longest > tokens:
                batches.append(batch)
                batch, longest = [], len(sequences[index])
            batch.append(index)
        batches.append(batch)
    return batches


def common_prefix(sequences: Sequence[Sequence[int]]) -> int:
    """How many first tokens all sequences share, leaving each at least one of its own."""
    first, last = min(map(list, sequences)), max(map(list, sequences))
    limit = min(len(sequence) for sequence in sequences) - 1
    for index in range(limit):
        if first[index] != last[index]:
            return index
    return limit
