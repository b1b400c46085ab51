"""A model ready to run: verified weights, a tokenizer that begins as the model was trained, the device.

load      manifest -> Model
encode    text -> token ids, with BOS where the model expects one
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mechunlearn.errors import FactError
from mechunlearn.facts import Prompt
from mechunlearn.models.components import Inventory, inventory
from mechunlearn.models.sources import Manifest, read_manifest, verify

log = logging.getLogger(__name__)

# A tokenizer says by itself whether its model begins with BOS: Llama's adds it, GPT-2's and Qwen's never do. Only
# Gemma's chat-style tokenizers leave it to the template, though every Gemma was trained with it.
ALWAYS_BOS = "gemma"


@dataclass
class Model:
    """A causal language model with its tokenizer, the layout of its components and where it came from."""

    network: Any
    tokenizer: Any
    layout: Inventory
    manifest: Manifest
    _options: dict[str, int] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """Where the input ids go."""
        device: torch.device = self.network.get_input_embeddings().weight.device
        return device

    def encode(self, text: str) -> list[int]:
        """Token ids of a text. BOS stands first where the model's own tokenizer puts it, and for every Gemma.

        A chat-style tokenizer leaves BOS to its template; without it a base model's answers are garbage.
        """
        ids: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        return [*self._begin(), *ids]

    def locate(self, prompt: Prompt) -> tuple[list[int], list[int]]:
        """(token ids, positions of the subject's tokens) of a prompt. Raises FactError where none are found."""
        encoded = self.tokenizer(prompt.text, add_special_tokens=False, return_offsets_mapping=True)
        begin, (start, end) = self._begin(), prompt.subject
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

    def _begin(self) -> list[int]:
        bos = self.tokenizer.bos_token_id
        adds = bos is not None and self.tokenizer("a").input_ids[:1] == [bos]
        return [bos] if adds or self.network.config.model_type.startswith(ALWAYS_BOS) else []


def load(manifest: str | Path, dtype: str | None = None) -> Model:
    """Load a fetched model on the GPU if there is one, else on the CPU. Raises SourceError on damaged files.

    dtype   the manifest's format unless given, e.g. float32 for tracing.
    """
    record = read_manifest(manifest)
    verify(record)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = AutoModelForCausalLM.from_pretrained(
        record.folder, dtype=getattr(torch, dtype or record.dtype), device_map=device, trust_remote_code=False
    )
    network.eval().requires_grad_(False)
    tokenizer = AutoTokenizer.from_pretrained(record.folder, trust_remote_code=False)
    log.info("loaded %s on %s, %s threads", record.source, device, torch.get_num_threads())
    return Model(network, tokenizer, inventory(record.folder), record)
