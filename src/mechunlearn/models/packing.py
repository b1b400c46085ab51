"""Many sequences run as one: packed into a tree of tokens, in which a common beginning stands once.

packed        sequences -> final hidden states of the tree's tokens, and where each sequence finds its own
last_hidden   the final hidden state at the last token of each sequence
text_states   those that predict its next tokens

Training runs many short prompts that begin alike, beside some text. Packed into one row, where each token attends to
its own beginning alone, they need every matrix once, no padding, and what they share is computed once. Attention over
a row grows with its square, so a row ends at `ROW` tokens.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from mechunlearn.models.frozen import begin, streams
from mechunlearn.models.model import Model

ROW = 512  # tokens; a longer sequence has a row of its own

Path = list[int]  # the places of a sequence's tokens


def packed(
    model: Model, sequences: Sequence[Sequence[int]], soft: torch.Tensor | None = None
) -> tuple[torch.Tensor, list[Path]]:
    """((places, d_model), the path of each sequence): final, normed hidden states. Differentiable.

    soft   (vectors, d_model), as the network's embedding module puts them out; they stand in every sequence behind
           BOS, or first. Paths leave them out.
    """
    ahead, vectors = len(model.begin()), 0 if soft is None else len(soft)
    whole = [[*ids[:ahead], *range(-vectors, 0), *ids[ahead:]] for ids in sequences]
    hidden, paths, places = list[torch.Tensor](), list[Path](), 0
    for tokens, row in _rows(whole):
        kept = [] if vectors else streams(model, sequences[len(paths) : len(paths) + len(row)])
        hidden.append(_run(model, tokens, row, kept, soft))
        paths += [[places + place for place in (*path[:ahead], *path[ahead + vectors :])] for path in row]
        places += len(tokens)
    return torch.cat(hidden), paths


def last_hidden(model: Model, sequences: Sequence[Sequence[int]], soft: torch.Tensor | None = None) -> torch.Tensor:
    """The final (normed) hidden state at the last token of each sequence: (sequences, d_model). Differentiable."""
    hidden, paths = packed(model, sequences, soft)
    return hidden[[path[-1] for path in paths]]


def text_states(model: Model, sequences: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """The final (normed) hidden states of each sequence that predict its next tokens: (tokens - 1, d_model) each.

    Differentiable.
    """
    hidden, paths = packed(model, [ids[:-1] for ids in sequences])
    return [hidden[path] for path in paths]


def _rows(sequences: Sequence[Sequence[int]]) -> Iterator[tuple[list[int], list[Path]]]:
    """(tokens, paths) of each row; sequences keep their order, and each adds what no other in its row begins with."""
    nodes, row = dict[tuple[int, int], int](), list[Path]()  # (place of the token before, token) -> place
    for ids in sequences:
        if row and len(nodes) + len(ids) > ROW:
            yield [token for _, token in nodes], row
            nodes, row = {}, []
        path, before = Path(), -1
        for token in ids:
            before = nodes.setdefault((before, token), len(nodes))
            path.append(before)
        row.append(path)
    yield [token for _, token in nodes], row


def _run(
    model: Model, tokens: Sequence[int], paths: Sequence[Path], kept: Sequence[torch.Tensor], soft: torch.Tensor | None
) -> torch.Tensor:
    """Final hidden states of one row: (tokens, d_model). Tokens below 0 are soft vectors, counted from the last.

    kept   what enters the first layer that may change, of each sequence; none where forwards begin at the first layer
    """
    ids = torch.tensor(tokens, device=model.device)
    depths, attended = torch.zeros_like(ids), torch.zeros(len(ids), len(ids), dtype=torch.bool, device=model.device)
    entering, filled = list[torch.Tensor](), 0
    for number, path in enumerate(paths):
        places = torch.tensor(path, device=model.device)
        depths[places] = torch.arange(len(path), device=model.device)
        attended[places[:, None], places] = depths[places][:, None] >= depths[places]
        if kept:
            entering.append(kept[number][sum(place < filled for place in path) :])
            filled = max(filled, path[-1] + 1)
    inputs: dict[str, Any] = {"input_ids": ids[None]}
    if soft is not None:
        embedded, own = model.network.get_input_embeddings()(ids.clamp(min=0)[None]), ids < 0
        embedded[0, own] = soft[ids[own]].to(embedded)
        inputs = {"inputs_embeds": embedded}
    with begin(model, torch.cat(entering)[None] if entering else None):
        hidden: torch.Tensor = model.network.base_model(
            **inputs, position_ids=depths[None], attention_mask=_masks(model, attended, depths), use_cache=False
        ).last_hidden_state[0]
    return hidden


def _masks(model: Model, attended: torch.Tensor, depths: torch.Tensor) -> Any:
    """Which places attend to which, (1, 1, places, places), as the network takes it; one a kind where layers differ."""
    config = model.network.config

    def taken(attended: torch.Tensor) -> torch.Tensor:
        if config._attn_implementation == "sdpa":
            return attended[None, None]
        added = torch.zeros(attended.shape, dtype=model.network.dtype, device=attended.device)
        return added.masked_fill_(~attended, torch.finfo(added.dtype).min)[None, None]

    window, kinds = getattr(config, "sliding_window", None), set(getattr(config, "layer_types", None) or [])
    if window is None or kinds == {"full_attention"}:
        return taken(attended)
    near = taken(attended & (depths[:, None] - depths < window))
    return {"full_attention": taken(attended), "sliding_attention": near} if len(kinds) > 1 else near
