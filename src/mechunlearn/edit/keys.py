"""What closed forms know of an MLP: its last matrix, the keys that go into it, and where subjects stand.

written        the MLPs that a closed form writes in a selection
matrix         the tensor that turns an MLP's keys into its output
contexts       a fact's prompt, alone and behind beginnings of other texts, split at the subject's last token
run            final hidden states of many split prompts
at_subjects    what parts of the model put out or take in at the subjects' last tokens
covariances    C = E[k k^T] of the keys on text, once a process
write          add a change to the matrix, in the model's own format

A key is what the MLP's last matrix takes in, at the last token of a subject (Meng et al. 2022, section 3.1); a value is
what it puts out, before any norm that follows. Gates and norms therefore make no difference.
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from mechunlearn.artifacts import Component, Selection
from mechunlearn.config import ClosedFormSettings
from mechunlearn.errors import ConfigError
from mechunlearn.facts import Fact, Prompt
from mechunlearn.facts.text import Passage
from mechunlearn.models.interventions import Part, capture, skip
from mechunlearn.models.model import Model
from mechunlearn.models.scoring import KeysValues, at_last, cached, pad
from mechunlearn.registry import load as method

ROWS = 128
_covariances: dict[tuple[str, str, int], torch.Tensor] = {}


@dataclass(frozen=True)
class Split:
    """Token ids of a prompt, those before the subject's last token and those from it on."""

    head: list[int]
    tail: list[int]


@dataclass(frozen=True)
class Run:
    """The heads of many prompts as they were run: keys and values padded on the left, and which of them are real."""

    cache: KeysValues
    real: torch.Tensor


def written(model: Model, selection: Selection, objective: str) -> list[Component]:
    """The whole MLPs of a selection by layer; where it has none, those of which it holds some neurons.

    The model's last MLP is left out: no later token reads what it puts out at a subject. Raises ConfigError where
    nothing is left.
    """
    last = model.layout.layers - 1
    mlps = [part for part in selection.components if part.kind == "mlp" and part.layer < last]
    if not mlps:
        raise ConfigError(
            f"objectives: {objective} writes MLPs below the last layer, but the localization "
            f"{selection.localization!r} selects none; leave out one of the two."
        )
    whole = [part for part in mlps if part.neurons is None]
    return sorted(whole or mlps, key=lambda part: part.layer)


def matrix(model: Model, part: Component) -> tuple[str, str]:
    """(tensor, module) of an MLP's last matrix."""
    tensor = model.layout.tensors(part)[-1]
    return tensor, tensor.removesuffix(".weight")


def contexts(
    model: Model, facts: Sequence[Fact], passages: Sequence[Passage], settings: ClosedFormSettings, seed: int
) -> list[list[Split]]:
    """Each fact's training prompt: alone, then behind the first words of `settings.prefixes` passages.

    The papers let the model write the prefixes; here they begin texts that it shall keep.
    """
    drawn = random.Random(f"prefixes-{seed}").choices(passages, k=settings.prefixes)
    starts = ["", *(" ".join(passage.text.split()[: settings.prefix_words]) + ". " for passage in drawn)]
    asked = [method("elicitation", "completion")(fact)[0] for fact in facts]
    return [[split(model, prompt, start) for start in starts] for prompt in asked]


def split(model: Model, prompt: Prompt, start: str = "") -> Split:
    """A prompt behind a text, split at its subject's last token."""
    subject = (prompt.subject[0] + len(start), prompt.subject[1] + len(start))
    ids, places = model.locate(replace(prompt, text=start + prompt.text, subject=subject))
    return Split(ids[: places[-1]], ids[places[-1] :])


@torch.no_grad()
def begin(model: Model, prompts: Sequence[Split]) -> Run:
    """Run the heads of prompts, which nothing at the subject's last token can change."""
    longest = max(len(prompt.head) for prompt in prompts)
    lengths = torch.tensor([len(prompt.head) for prompt in prompts], device=model.device)
    real = torch.arange(longest, device=model.device)[None] >= longest - lengths[:, None]
    if not longest:
        return Run([], real)
    rows = [[0] * (longest - len(prompt.head)) + prompt.head for prompt in prompts]
    cache = cached([])
    model.network.base_model(
        input_ids=torch.tensor(rows, device=model.device),
        attention_mask=real.long(),
        position_ids=(real.cumsum(1) - 1).clamp(min=0),
        past_key_values=cache,
    )
    return Run([(layer.keys, layer.values) for layer in cache.layers], real)


def finish(model: Model, prompts: Sequence[Split], heads: Run) -> torch.Tensor:
    """The tails of prompts whose heads were run: (prompts, d_model), final hidden states. Differentiable.

    The first token of each row is its subject's last.
    """
    ids, lengths = pad([prompt.tail for prompt in prompts], model.device)
    places = torch.arange(ids.shape[1], device=model.device)[None]
    hidden = model.network.base_model(
        input_ids=ids,
        attention_mask=torch.cat([heads.real, places < lengths[:, None]], 1).long(),
        position_ids=heads.real.sum(1, keepdim=True) + places,
        past_key_values=cached(heads.cache),
    ).last_hidden_state
    return at_last(hidden, lengths)


@torch.no_grad()
def at_subjects(model: Model, parts: Sequence[Part], facts: Sequence[Sequence[Split]]) -> list[torch.Tensor]:
    """Parts at the subjects' last tokens, mean over each fact's contexts: (facts, width) each, float32."""
    found: list[list[torch.Tensor]] = [[] for _ in parts]
    for group in batches(facts):
        prompts = [prompt for fact in group for prompt in fact]
        heads = begin(model, prompts)
        with capture(model, parts) as seen:
            finish(model, prompts, heads)
        for values, part in zip(found, parts, strict=True):
            values.append(seen[part][:, 0].float().unflatten(0, (len(group), -1)).mean(1))
    return [torch.cat(values) for values in found]


def batches(facts: Sequence[Sequence[Split]]) -> list[Sequence[Sequence[Split]]]:
    """Facts in groups of at most ROWS prompts."""
    size = max(1, ROWS // len(facts[0]))
    return [facts[start : start + size] for start in range(0, len(facts), size)]


@torch.no_grad()
def covariances(
    model: Model, parts: Sequence[Component], passages: Sequence[Passage], ridge: float
) -> list[torch.Tensor]:
    """C = E[k k^T] over the tokens of passages, one matrix a part: (neurons, neurons), float32, on the model's device.

    `ridge` times the median of C's diagonal is added to its diagonal: few tokens leave directions that no key has, and
    the mean would follow the few neurons that are a thousand times as active as the others.

    They are those of the base model: an edit in groups has them all remembered before its first group.
    """
    remember(model, parts, passages)
    found, home = [], _home(model, passages)
    for part in parts:
        whole = _covariances[*home, part.layer]
        floor = ridge * whole.diagonal().median()
        found.append((whole + floor * torch.eye(len(whole), device=whole.device))[: part.neurons, : part.neurons])
    return found


@torch.no_grad()
def remember(model: Model, parts: Sequence[Component], passages: Sequence[Passage]) -> None:
    """Compute covariances of a model that no edit has changed yet, and keep them for the job."""
    home = _home(model, passages)
    missing = [part for part in parts if (*home, part.layer) not in _covariances]
    if not missing:
        return
    sides: list[Part] = [(matrix(model, part)[1], "input") for part in missing]
    sequences = sorted((model.encode(passage.text) for passage in passages), key=len)
    sums = [torch.zeros(()) for _ in missing]
    above = range(max(part.layer for part in missing) + 1, model.layout.layers)
    for start in range(0, len(sequences), 16):
        ids, lengths = pad(sequences[start : start + 16], model.device)
        with skip(model, above), capture(model, sides) as seen:
            model.network.base_model(input_ids=ids, use_cache=False)
        for index, side in enumerate(sides):
            real = torch.arange(ids.shape[1], device=seen[side].device)[None] < lengths.to(seen[side].device)[:, None]
            keys = seen[side][real].float()
            sums[index] = sums[index].to(keys.device) + keys.T @ keys
    for part, total in zip(missing, sums, strict=True):
        _covariances[*home, part.layer] = total / sum(map(len, sequences))


def _home(model: Model, passages: Sequence[Passage]) -> tuple[str, str]:
    """The hashes of base model and text."""
    text = hashlib.sha256("\0".join(passage.text for passage in passages).encode()).hexdigest()
    return model.manifest.sha256, text


@torch.no_grad()
def write(model: Model, part: Component, change: torch.Tensor) -> None:
    """Add a change (d_model, neurons) to an MLP's last matrix and round it as the model is stored."""
    parameter = model.network.get_parameter(matrix(model, part)[0])
    weights = parameter.T if model.layout.naming.transposed else parameter
    columns = weights[:, : part.neurons]
    columns.copy_((columns.float() + change).to(model.stored))
