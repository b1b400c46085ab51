"""Causal tracing: which component, restored in a corrupted run, brings the answer back (Meng et al. 2022, 2).

causal_tracing   per-fact indirect effect of every MLP output and attention head
trace            the same for one prompt
"""

from collections.abc import Callable, Sequence

import pandas as pd
import torch

from mechunlearn.config import LocalizeSettings
from mechunlearn.facts import Fact
from mechunlearn.models.interventions import patch
from mechunlearn.models.loading import Model
from mechunlearn.models.scoring import repeat, run_prefix, unembed
from mechunlearn.progress import track
from mechunlearn.registry import load as method
from mechunlearn.registry import localizer

Rows = torch.Tensor


@localizer("causal-tracing")
def causal_tracing(model: Model, facts: Sequence[Fact], settings: LocalizeSettings) -> pd.DataFrame:
    """Indirect effect of every component on each fact's own answer, as a probability.

    The subject's embeddings get Gaussian noise of `noise` standard deviations, measured over the subject tokens of
    all facts traced. In that corrupted run one component is restored to its clean output, at every position from
    the subject on (before it nothing differs). The effect is P(answer | restored) - P(answer | corrupted), averaged
    over the noise samples; the noise is the same for every component.

    Returns one row per fact and component: kind `mlp` (head -1) and kind `head`.
    """
    chosen = facts[: settings.tracing.facts]
    ask = method("elicitation", "completion")
    prompts = [ask(fact)[0] for fact in chosen]
    located = [model.locate(prompt) for prompt in prompts]
    scale = settings.tracing.noise * _spread(model, located)
    rows = []
    for fact, prompt, (ids, subject) in track(list(zip(chosen, prompts, located, strict=True)), "tracing"):
        generator = torch.Generator().manual_seed(settings.seed)
        width = model.network.config.hidden_size
        noise = scale * torch.randn(settings.tracing.samples, len(subject), width, generator=generator)
        effects = trace(model, ids, subject, model.option(prompt.options[prompt.true]), noise)
        for layer, effect in enumerate(effects.tolist()):
            rows.append((fact.id, layer, "mlp", -1, effect[0]))
            rows.extend((fact.id, layer, "head", head, value) for head, value in enumerate(effect[1:]))
    return pd.DataFrame(rows, columns=["fact", "layer", "kind", "head", "effect"])


def _spread(model: Model, located: Sequence[tuple[list[int], list[int]]]) -> float:
    """Standard deviation of the embeddings of all subject tokens."""
    tokens = torch.tensor([ids[position] for ids, subject in located for position in subject], device=model.device)
    return float(model.network.get_input_embeddings()(tokens).float().std())


@torch.no_grad()
def trace(model: Model, ids: Sequence[int], subject: Sequence[int], answer: int, noise: torch.Tensor) -> torch.Tensor:
    """Indirect effects on P(answer) of one prompt: (layers, 1 + heads), MLP first.

    noise   (samples, subject tokens, d_model), added to the embeddings of the subject's tokens

    All restorations of a layer share one forward: its rows are (1 + heads) components x samples. The part of the
    prompt before the subject is the same in every run and is run once.
    """
    layout, start, samples = model.layout, subject[0], len(noise)
    prefix = run_prefix(model, ids[:start])
    suffix = torch.tensor([ids[start:]], device=model.device)
    places = [position - start for position in subject]
    clean = _clean(model, suffix, prefix)
    noise = noise.to(device=model.device, dtype=model.network.dtype)

    def corrupt(repeats: int) -> Callable[[torch.Tensor], torch.Tensor]:
        def change(embedded: torch.Tensor) -> torch.Tensor:
            embedded = embedded.clone()
            embedded[:, places] += noise.repeat(repeats, 1, 1)
            return embedded

        return change

    def run(repeats: int, outputs: dict[str, Callable], inputs: dict[str, Callable]) -> torch.Tensor:
        rows = repeats * samples
        with patch(model, {embeddings: corrupt(repeats), **outputs}, inputs):
            hidden = model.network.model(
                input_ids=suffix.expand(rows, -1), past_key_values=repeat(prefix, rows)
            ).last_hidden_state[:, -1]
        return unembed(model, hidden).softmax(-1)[:, answer].reshape(repeats, samples)

    embedding = model.network.get_input_embeddings()
    embeddings = next(name for name, module in model.network.named_modules() if module is embedding)
    base = run(1, {}, {})
    effects = torch.zeros(layout.layers, 1 + layout.heads)
    for layer in range(layout.layers):
        mlp, heads = layout.module(layer, "mlp"), layout.module(layer, "self_attn.o_proj")

        def restore_mlp(output: torch.Tensor, name: str = mlp) -> torch.Tensor:
            output = output.clone()
            output[:samples] = clean[name]
            return output

        def restore_heads(mixed: torch.Tensor, name: str = heads) -> torch.Tensor:
            mixed = mixed.clone()
            size = mixed.shape[-1] // layout.heads
            for head in range(layout.heads):
                rows, columns = (
                    slice((1 + head) * samples, (2 + head) * samples),
                    slice(head * size, (head + 1) * size),
                )
                mixed[rows, :, columns] = clean[name][..., columns]
            return mixed

        restored = run(1 + layout.heads, {mlp: restore_mlp}, {heads: restore_heads})
        effects[layer] = (restored - base).mean(-1).cpu()
    return effects


def _clean(
    model: Model, suffix: torch.Tensor, prefix: list[tuple[torch.Tensor, torch.Tensor]]
) -> dict[str, torch.Tensor]:
    """What every MLP puts out, and what every attention output projection takes in, in the clean run."""
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Callable[[torch.Tensor], torch.Tensor]:
        def look(tensor: torch.Tensor) -> torch.Tensor:
            seen[name] = tensor
            return tensor

        return look

    layers = range(model.layout.layers)
    mlps = [model.layout.module(layer, "mlp") for layer in layers]
    heads = [model.layout.module(layer, "self_attn.o_proj") for layer in layers]
    with patch(model, {name: keep(name) for name in mlps}, {name: keep(name) for name in heads}):
        model.network.model(input_ids=suffix, past_key_values=repeat(prefix, 1))
    return seen
