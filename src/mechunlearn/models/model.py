"""A model ready to run: the network, a tokenizer that begins as the model was trained, the layout of its parts.

Model.encode   text -> token ids, with BOS where the model expects one
Model.locate   the same for a prompt, with the positions of its subject
Model.begin    BOS alone, where the model expects it
"""

from dataclasses import dataclass, field
from typing import Any

import torch

from mechunlearn.errors import FactError
from mechunlearn.facts import Prompt
from mechunlearn.models.components import Inventory
from mechunlearn.models.sources import Manifest

# A tokenizer says by itself whether its model begins with BOS: Llama's adds it, GPT-2's and Qwen's never do. Only
# Gemma's chat-style tokenizers leave it to the template, though every Gemma was trained with it.
ALWAYS_BOS = "gemma"


@dataclass(frozen=True)
class Frozen:
    """The first layer that a training may change, and what entered it: token ids -> (tokens, d_model)."""

    layer: int
    kept: dict[tuple[int, ...], torch.Tensor] = field(default_factory=dict)


@dataclass
class Model:
    """A causal language model with its tokenizer, the layout of its components and where it came from."""

    network: Any
    tokenizer: Any
    layout: Inventory
    manifest: Manifest
    frozen: Frozen | None = None  # while an edit trains: see models/frozen.py
    _options: dict[str, int] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """Where the input ids go."""
        device: torch.device = self.network.get_input_embeddings().weight.device
        return device

    def autocast(self) -> torch.autocast:
        """Training computes in bfloat16 where the network's weights are in 16 bits, else in their float32."""
        half = self.network.dtype != torch.float32
        return torch.autocast(self.device.type, torch.bfloat16, enabled=half)

    @property
    def stored(self) -> torch.dtype:
        """The format in which the model's weights are kept on disk, whichever they were loaded in."""
        dtype: torch.dtype = getattr(torch, self.manifest.dtype)
        return dtype

    @property
    def width(self) -> int:
        """How wide the residual stream is: d_model."""
        return int(self.network.config.hidden_size)

    @property
    def embeddings(self) -> str:
        """The name of the module that embeds the input ids."""
        module = self.network.get_input_embeddings()
        return str(next(name for name, each in self.network.named_modules() if each is module))

    def encode(self, text: str) -> list[int]:
        """Token ids of a text. BOS stands first where the model's own tokenizer puts it, and for every Gemma.

        A chat-style tokenizer leaves BOS to its template; without it a base model's answers are garbage.
        """
        ids: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        return [*self.begin(), *ids]

    def locate(self, prompt: Prompt) -> tuple[list[int], list[int]]:
        """(token ids, positions of the subject's tokens) of a prompt. Raises FactError where none are found."""
        encoded = self.tokenizer(prompt.text, add_special_tokens=False, return_offsets_mapping=True)
        begin, (start, end) = self.begin(), prompt.subject
        positions = [
            index + len(begin)
            for index, (left, right) in enumerate(encoded.offset_mapping)
            if left < end and right > start and right > left
        ]
        if not positions:
            raise FactError(f"the subject of {prompt.text!r} has no tokens of its own.")
        return [*begin, *encoded.input_ids], positions

    def option(self, text: str) -> int:
        """The first token of an answer with its leading space."""
        if text not in self._options:
            self._options[text] = self.tokenizer(text, add_special_tokens=False).input_ids[0]
        return self._options[text]

    def begin(self) -> list[int]:
        """What every sequence begins with: BOS, or nothing."""
        bos = self.tokenizer.bos_token_id
        adds = bos is not None and self.tokenizer("a").input_ids[:1] == [bos]
        return [bos] if adds or self.network.config.model_type.startswith(ALWAYS_BOS) else []
