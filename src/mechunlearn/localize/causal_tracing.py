"""Causal tracing: which part, restored in a corrupted run, brings the answer back (Meng et al. 2022, section 2).

causal_tracing   per-fact indirect effect of components, and of single states and windows token by token
corrupted_runs   the clean run and the noisy ones of a prompt
components       every MLP and head, restored at many positions at once
states           every state and window, restored at one position each
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch

from mechunlearn.config import LocalizeSettings
from mechunlearn.facts import Fact
from mechunlearn.localize.corruption import COLUMNS, normalised
from mechunlearn.models.components import KINDS
from mechunlearn.models.interventions import Part
from mechunlearn.models.model import Model
from mechunlearn.models.patching import Patch, Run, Write, record, resume
from mechunlearn.models.scoring import probabilities, run_prefix
from mechunlearn.progress import track
from mechunlearn.registry import load as method
from mechunlearn.registry import localizer

WINDOWS = {"mlp": "mlp-window", "attention": "attention-window"}


@dataclass(frozen=True)
class Site:
    """What one patch restores, as it stands in the scores."""

    layer: int
    kind: str
    head: int
    position: str
    patch: Patch


@localizer("causal-tracing")
def causal_tracing(model: Model, facts: Sequence[Fact], settings: LocalizeSettings) -> pd.DataFrame:
    """Indirect effect of every component on each fact's own answer, as a probability.

    The subject's embeddings get Gaussian noise of `noise` standard deviations, measured over the subject tokens of
    all facts traced. In that corrupted run one part is put back to its clean value. The effect is
    P(answer | restored) - P(answer | corrupted), averaged over the noise samples; the noise is the same for every
    part of a fact, and another for every fact.

    Components, kinds `mlp` (head -1) and `head`, are restored at every position from the subject on, before which
    nothing differs, or at the subject's tokens only. For the first `map_facts` facts single states (kind `state`, the
    residual stream after a layer) and windows of MLP or attention outputs around a layer (`mlp-window`,
    `attention-window`) are restored position by position; `position` then names the token's role.

    `protocol: published` follows the released code of Guo et al. 2025: noise of sqrt(3 sigma), P summed over the
    answers of all facts traced, effects divided by the mean of P(clean) - P(corrupted).
    """
    rules, published = settings.tracing, settings.protocol == "published"
    chosen = facts[: rules.facts]
    ask = method("elicitation", "completion")
    prompts = [ask(fact)[0] for fact in chosen]
    located = [model.locate(prompt) for prompt in prompts]
    scale = rules.noise * _spread(model, located)
    if published:
        scale = scale**0.5
    own = [[model.option(prompt.options[prompt.true])] for prompt in prompts]
    pooled = sorted({token for tokens in own for token in tokens})
    rows, lost = [], []
    for number, (fact, (ids, subject)) in track(list(enumerate(zip(chosen, located, strict=True))), "tracing"):
        generator = torch.Generator().manual_seed(random.Random(f"{settings.seed}/{fact.id}").getrandbits(63))
        noise = scale * torch.randn(rules.samples, len(subject), model.width, generator=generator)
        clean, corrupted = corrupted_runs(model, ids, subject, noise)
        restored = tuple(position - subject[0] for position in subject)
        sites = components(model, clean, restored if rules.restore == "subject" else None)
        if number < rules.map_facts:
            sites += states(model, clean, roles(len(clean.tokens[0]), restored), rules.window)
        answers = pooled if published else own[number]
        base = probabilities(model, corrupted.hidden, answers)
        hidden = resume(model, corrupted, [site.patch for site in sites])
        effects = (probabilities(model, hidden, answers) - base).mean(1)
        lost.append(float((probabilities(model, clean.hidden, answers) - base).mean()))
        rows += [
            (fact.id, site.layer, site.kind, site.head, site.position, effect)
            for site, effect in zip(sites, effects.tolist(), strict=True)
        ]
    scores = pd.DataFrame(rows, columns=COLUMNS)
    return normalised(scores, lost) if published else scores


def _spread(model: Model, located: Sequence[tuple[list[int], list[int]]]) -> float:
    """Standard deviation of the embeddings of all subject tokens."""
    tokens = torch.tensor([ids[position] for ids, subject in located for position in subject], device=model.device)
    with torch.no_grad():
        return float(model.network.get_input_embeddings()(tokens).float().std())


def corrupted_runs(model: Model, ids: Sequence[int], subject: Sequence[int], noise: torch.Tensor) -> tuple[Run, Run]:
    """The clean run of a prompt from its subject on, and its runs with noise on the subject's embeddings.

    noise   (samples, subject tokens, d_model)
    """
    start = subject[0]
    places = [position - start for position in subject]
    prefix = run_prefix(model, ids[:start])

    def blur(embedded: torch.Tensor) -> torch.Tensor:
        embedded = embedded.repeat(len(noise), 1, 1)
        embedded[:, places] += noise.to(embedded)
        return embedded

    layout = model.layout
    parts: list[Part] = [(layout.module(layer, kind), "output") for layer in range(layout.layers) for kind in KINDS]
    parts += [(layout.module(layer, "o"), "input") for layer in range(layout.layers)]
    clean = record(model, ids[start:], prefix, parts)
    return clean, record(model, ids[start:], prefix, rows=len(noise), embedded=blur)


def components(model: Model, clean: Run, places: tuple[int, ...] | None = None) -> list[Site]:
    """Every MLP output and every head's part of what o takes in, at the places given or at all."""
    places, layout = places or tuple(range(len(clean.tokens[0]))), model.layout

    def site(layer: int, head: int) -> Site:
        kind, module, side = ("mlp", "mlp", "output") if head < 0 else ("head", "o", "input")
        name = layout.module(layer, module)
        columns = None if head < 0 else layout.columns("head")[head]
        write = Write(layer, name, side, places, clean.parts[name, side], columns)
        return Site(layer, kind, head, "", Patch((write,)))

    return [site(layer, head) for layer in range(layout.layers) for head in range(-1, layout.heads)]


def states(model: Model, clean: Run, names: Sequence[str], window: int) -> list[Site]:
    """Position by position: the residual stream after each layer, and each window of MLP and attention outputs.

    A window around layer l spans the layers from l - window // 2, so many of them, as far as the model has them.
    """
    layout, sites = model.layout, []
    for place, position in enumerate(names):
        for layer in range(layout.layers):
            after = layout.module(layer + 1)
            stream = Write(layer + 1, after, "input", (place,), clean.stream[layer + 1])
            sites.append(Site(layer, "state", -1, position, Patch((stream,))))
            first = max(0, layer - window // 2)
            for kind in KINDS:
                modules = [
                    (near, layout.module(near, kind))
                    for near in range(first, min(layout.layers, layer - window // 2 + window))
                ]
                writes = [Write(near, name, "output", (place,), clean.parts[name, "output"]) for near, name in modules]
                sites.append(Site(layer, WINDOWS[kind], -1, position, Patch(tuple(writes))))
    return sites


def roles(tokens: int, subject: Sequence[int]) -> list[str]:
    """The role of every token from the subject on, as Meng et al. average them (figure 2)."""
    last = subject[-1]

    def role(place: int) -> str:
        if place == last:
            return "last subject token"
        if place < last:
            return "first subject token" if place == 0 else "middle subject tokens"
        if place == tokens - 1:
            return "last token"
        return "first token after" if place == last + 1 else "further tokens"

    return [role(place) for place in range(tokens)]
