"""Path patching: which MLPs feed the components that bring out the answer (Guo et al. 2025, 2.2 and A.2.2).

path_patching   direct effects on the answer, then direct effects through the extraction components
recorded        the clean and the corrupted run of a pair
contributions   what a clean value would change in the residual stream, for every head and MLP
direct          the effect of such changes on the answer when nothing between may react
through         their effect when only the extraction components may react

A direct path leaves out everything between sender and receiver: the sender's change is added to the residual stream
that the receiver sees, and all other components keep the values they had. For the answer itself this takes no run
of the model at all, only the final norm.
"""

import copy
from collections.abc import Sequence

import pandas as pd
import torch

from mechunlearn.config import LocalizeSettings
from mechunlearn.errors import FactError
from mechunlearn.facts import Fact
from mechunlearn.localize.corruption import COLUMNS, Pair, logit_difference, normalised, pairs
from mechunlearn.localize.extraction import Extraction, extracting
from mechunlearn.models.interventions import Part
from mechunlearn.models.model import Model
from mechunlearn.models.patching import Patch, Run, Write, layer_alone, record, resume
from mechunlearn.models.scoring import run_prefix
from mechunlearn.progress import track
from mechunlearn.registry import localizer


@localizer("path-patching")
def path_patching(model: Model, facts: Sequence[Fact], settings: LocalizeSettings) -> pd.DataFrame:
    """The direct effect of every MLP on the extraction components, by what it does to the answer.

    In the corrupted run a sender takes its clean value. Kinds `direct-head` and `direct-mlp`: its effect on the answer
    along the direct path alone. The `paths.extraction` components with the largest mean effects are the extraction
    components. Kind `lookup`: the effect of an MLP when these, and nothing else, react to it. Kind `random`: the same
    for random changes of the residual stream as large as the MLP's, `paths.draws` a layer (head: number of the draw).
    The metric is that of attribution patching; an effect of 1 is as much as the whole corruption.

    `protocol: published` follows the released code: only heads extract, and what reacts is everything from the first
    extraction layer on.
    """
    rules, published = settings.paths, settings.protocol == "published"
    found = pairs(model, facts[: rules.facts], settings.attribution.corruption, settings.seed)
    lost, rows = [], []
    for pair in track(found, "direct paths to the answer"):
        clean, corrupt = recorded(model, pair)
        heads, mlps = contributions(model, clean, corrupt)
        low = logit_difference(model, corrupt.hidden, pair.tokens)
        lost.append(float(logit_difference(model, clean.hidden, pair.tokens) - low))
        still = direct(model, corrupt, torch.zeros_like(mlps[0, -1]), pair.tokens)
        for kind, changes in [("direct-head", heads), ("direct-mlp", mlps[:, None, -1])]:
            effects = direct(model, corrupt, changes, pair.tokens) - still
            for layer, values in enumerate(effects.tolist()):
                rows += [
                    (pair.fact, layer, kind, head if kind == "direct-head" else -1, "", value)
                    for head, value in enumerate(values)
                ]
    extraction = extracting(pd.DataFrame(rows, columns=COLUMNS), rules.extraction, heads_only=published)
    reachable = extraction.layers[0 if published else -1]
    if reachable == 0:
        raise FactError(
            f"path patching over {len(found)} facts finds no extraction component above layer 0, so no MLP can feed "
            "one; more of them (localize.paths.extraction) may lie higher."
        )
    generator = torch.Generator().manual_seed(settings.seed)
    for pair in track(found, "paths to the extraction components"):
        clean, corrupt = recorded(model, pair)
        _, mlps = contributions(model, clean, corrupt)
        noise = torch.randn(rules.draws, *mlps.shape, generator=generator).to(mlps)
        noise *= mlps.norm(dim=-1, keepdim=True) / noise.norm(dim=-1, keepdim=True)
        changes = torch.cat([mlps[None], noise])
        low = logit_difference(model, corrupt.hidden, pair.tokens)
        looked_up = through(model, corrupt, changes, extraction, pair.tokens, whole=published) - low
        for draw, values in enumerate(looked_up.tolist(), start=-1):
            kind, reached = ("lookup", model.layout.layers) if draw < 0 else ("random", reachable)
            rows += [(pair.fact, layer, kind, draw, "", value) for layer, value in enumerate(values[:reached])]
    return normalised(pd.DataFrame(rows, columns=COLUMNS), lost)


def recorded(model: Model, pair: Pair) -> tuple[Run, Run]:
    """The clean and the corrupted run, with what heads and MLPs write."""
    layout, start = model.layout, pair.subject[0]
    parts: list[Part] = []
    for layer in range(layout.layers):
        parts += [(layout.module(layer, "o"), "input"), (layout.module(layer, "attention"), "output")]
        parts += [(layout.written(layer, kind), "output") for kind in ("attention", "mlp")]
    parts = list(dict.fromkeys(parts))
    prefix = run_prefix(model, pair.clean[:start])
    return record(model, pair.clean[start:], prefix, parts), record(model, pair.corrupt[start:], prefix, parts)


@torch.no_grad()
def contributions(model: Model, clean: Run, corrupt: Run) -> tuple[torch.Tensor, torch.Tensor]:
    """What the corrupted run's residual stream would gain if one sender had its clean value.

    Returns heads' gains at the last position, (layers, heads, d_model), and MLPs' at every position from the subject
    on, (layers, tokens, d_model), in float32. Where attention's output is normed before it is added, a head's gain is
    what the norm makes of the output with that head exchanged.
    """
    layout, heads, mlps = model.layout, [], []
    for layer in range(layout.layers):
        o, written = (layout.module(layer, "o"), "input"), (layout.written(layer, "attention"), "output")
        mixed = corrupt.parts[o][:, -1].repeat(layout.heads, 1)
        for head, (start, stop) in enumerate(layout.columns("head")):
            mixed[head, start:stop] = clean.parts[o][0, -1, start:stop]
        output = model.network.get_submodule(o[0])(mixed)
        if layout.post_norms:
            output = model.network.get_submodule(written[0])(output)
        heads.append(output.float() - corrupt.parts[written][:, -1].float())
        mlp = (layout.written(layer, "mlp"), "output")
        mlps.append((clean.parts[mlp].float() - corrupt.parts[mlp].float())[0])
    device = corrupt.hidden.device
    return torch.stack([each.to(device) for each in heads]), torch.stack([each.to(device) for each in mlps])


@torch.no_grad()
def direct(model: Model, run: Run, changes: torch.Tensor, tokens: Sequence[int]) -> torch.Tensor:
    """The metric when changes (..., d_model) are added to the run's final residual stream: (...).

    In float32, for that stream is long: in 16 bits most changes would be rounded away.
    """
    norm = copy.deepcopy(model.network.get_submodule(model.layout.naming.norm)).float().to(changes.device)
    return logit_difference(model, norm(run.stream[-1][0, -1].float().to(changes.device) + changes), tokens)


@torch.no_grad()
def through(
    model: Model, run: Run, changes: torch.Tensor, extraction: Extraction, tokens: Sequence[int], whole: bool = False
) -> torch.Tensor:
    """The metric when a layer's MLP adds a change to the stream and only the extraction components see it.

    changes   (draws, layers, tokens, d_model): added after the layer's MLP
    whole     the change enters the whole stream before the first extraction layer instead

    Each extraction component puts out what it makes of the changed stream, the receivers before it unchanged; then
    the model runs on from there. Returns (draws, layers).
    """
    layout, draws = model.layout, len(changes)
    places = tuple(range(run.tokens.shape[1]))
    columns = layout.columns("head")
    writes: list[list[Write]] = [[] for _ in range(draws * layout.layers)]
    if whole:
        first = extraction.layers[0]
        changed = run.stream[first] + changes[:, :first].to(run.stream[first])
        for draw in range(draws):
            for layer in range(first):
                value = changed[draw, layer][None]
                writes[draw * layout.layers + layer].append(Write(first, layout.module(first), "input", places, value))
    else:
        for receiver in extraction.layers:
            senders = [(draw, layer) for draw in range(draws) for layer in range(receiver)]
            if not senders:
                continue
            o, mlp = (layout.module(receiver, "o"), "input"), (layout.module(receiver, "mlp"), "output")
            attention = (layout.module(receiver, "attention"), "output")
            stream = run.stream[receiver] + changes[:, :receiver].flatten(0, 1).to(run.stream[receiver])
            seen = layer_alone(model, run, receiver, stream, [o, mlp], {attention[0]: run.parts[attention]})
            for row, (draw, layer) in enumerate(senders):
                own = writes[draw * layout.layers + layer]
                own += [
                    Write(receiver, *o, places, seen[o][row : row + 1], columns[head])
                    for at, head in extraction.heads
                    if at == receiver
                ]
                if receiver in extraction.mlps:
                    own.append(Write(receiver, *mlp, places, seen[mlp][row : row + 1]))
    metric = logit_difference(model, run.hidden, tokens).repeat(draws * layout.layers)
    sending = [number for number, each in enumerate(writes) if each]
    if sending:
        hidden = resume(model, run, [Patch(tuple(writes[number])) for number in sending])
        metric[sending] = logit_difference(model, hidden, tokens)[:, 0]
    return metric.reshape(draws, layout.layers)
