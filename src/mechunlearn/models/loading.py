"""Loading a fetched model: verified weights on the right device, parts where we look for them.

load          manifest -> Model
tokenizer_of  its tokenizer alone
fastest       the number format to load it in, where either will do
check         the network is made as its layout says
"""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from mechunlearn.errors import SourceError
from mechunlearn.models.components import KINDS, layout_of
from mechunlearn.models.delta import apply
from mechunlearn.models.interventions import capture
from mechunlearn.models.model import Model
from mechunlearn.models.scoring import unembed
from mechunlearn.models.sources import DELTA, Manifest, read_manifest, verify

log = logging.getLogger(__name__)


def load(manifest: str | Path, dtype: str | None = None) -> Model:
    """Load a fetched model on the GPU if there is one (on all, where there are several), else on the CPU.

    dtype   the manifest's format unless given, such as what `fastest` says.

    Raises SourceError on damaged files and for an architecture whose parts are not where we look for them.
    """
    record = read_manifest(manifest)
    verify(record)
    if record.base:
        model = load(record.base, dtype)
        apply(Path(record.folder) / DELTA, model)
        return replace(model, manifest=record)
    layout, gpus = layout_of(record), torch.cuda.device_count()
    network = AutoModelForCausalLM.from_pretrained(
        record.folder,
        dtype=getattr(torch, dtype or record.dtype),
        device_map="auto" if gpus > 1 else "cuda" if gpus else "cpu",
        trust_remote_code=False,
    )
    network.eval().requires_grad_(False)
    log.info("loaded %s on %s GPUs, %s threads", record.source, gpus, torch.get_num_threads())
    model = Model(network, tokenizer_of(record), layout, record)
    check(model)
    return model


def tokenizer_of(record: Manifest) -> Any:
    """A model's tokenizer, as transformers has it.

    What we converted from a package was saved in its final form and is read as such. The general way parses Gemma's
    33 MB of JSON several times and builds the tokenizer anew from them, 3 of the 10 seconds that a small job took.
    """
    folder = Path(record.folder)
    if not record.source.startswith("package:"):
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    said = json.loads((folder / "tokenizer_config.json").read_text())
    special = {name: said[name] for name in PreTrainedTokenizerFast.SPECIAL_TOKENS_ATTRIBUTES if name in said}
    return PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **special)


def fastest(manifest: str | Path) -> str:
    """The number format in which a model runs fastest here: its own on a GPU and on CPUs that multiply bfloat16.

    AMX and AVX-512 BF16 multiply bfloat16 faster than float32; other CPUs emulate it and take twice as long.
    """
    stored, can = read_manifest(manifest).dtype, torch.cpu.get_capabilities()
    quick = torch.cuda.is_available() or can.get("amx_bf16") or can.get("avx512_bf16")
    return stored if quick else "float32"


@torch.no_grad()
def check(model: Model) -> None:
    """Raise SourceError where a network is not made of the parts that its layout names.

    Many architectures share names and differ otherwise (scaled residuals or logits, transposed matrices). On a short
    prompt the parts must be there and as wide as we think, what they write must sum to the residual stream, and our
    unembedding must give the network's own logits.
    """
    network, layout = model.network, model.layout
    modules, parameters = dict(network.named_modules()), dict(network.named_parameters())
    written = [layout.written(layer, kind) for layer in range(layout.layers) for kind in KINDS]
    needed = [*written, layout.naming.norm, *(layout.module(layer, "o") for layer in range(layout.layers))]
    wrong = [
        f"it has no {name}" for name in (*layout.shapes, *needed) if name not in modules and name not in parameters
    ]
    if not wrong:
        first, last = (layout.module(0), "input"), (layout.naming.norm, "input")
        mixed, queries = (layout.module(0, "o"), "input"), (layout.module(0, "q"), "output")
        ids = torch.tensor([[5, 7, 11]], device=model.device)
        with capture(model, [first, last, mixed, queries, *((name, "output") for name in written)]) as seen:
            hidden, logits = network.base_model(input_ids=ids).last_hidden_state, network(input_ids=ids).logits
        total = sum((seen[name, "output"].cpu().float() for name in written), seen[first].cpu().float())
        across = layout.shapes[layout.weight(0, "q")][1 if layout.naming.transposed else 0]
        if (seen[mixed].shape[-1], seen[queries].shape[-1]) != (layout.heads * layout.head_size, across):
            wrong.append("its heads are not as wide as their matrices say")
        if not _close(total, seen[last]):
            wrong.append("attention and MLP outputs do not sum to its residual stream")
        if not _close(unembed(model, hidden), logits):
            wrong.append("its logits are not those of its final hidden states")
    if wrong:
        raise SourceError(
            f"{model.manifest.source}: the architecture {network.config.model_type!r} is not supported: {wrong[0]}. "
            "docs/adding-a-model.md says how to add it."
        )


def _close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Equal up to the rounding of bfloat16, by the scale of the values."""
    found, expected = found.cpu().float(), expected.cpu().float()
    return bool((found - expected).norm() <= 0.05 * expected.norm())
