"""One addressing of a model's components for every architecture, read from tensor names and shapes. Torch-free.

layout_of   a model's manifest -> Inventory
inventory   the same from a model folder
Inventory   counts parameters of components, names their tensors and the modules to hook
Slice       the part of a weight matrix that belongs to a component
NAMINGS     what each group of architectures calls its parts: adding an architecture means adding a line

Weight matrices only: biases and norms belong to no component and are never trained.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

from mechunlearn.artifacts import Component, read_json
from mechunlearn.errors import ArtifactError, SourceError
from mechunlearn.models.sources import Manifest, read_manifest

KINDS = ("attention", "mlp")
PROJECTIONS = ("q", "k", "v")


@dataclass(frozen=True)
class Naming:
    """The names of a layer's parts.

    qkv         modules that make queries, keys and values; one name where one matrix holds all three
    mixed       one matrix holds q, k and v head after head instead of all q, then all k, then all v
    into, out   the MLP's matrices into and out of its neurons; `into` is one name where gate and up are one matrix
    gated       the MLP has a gate
    transposed  matrices are stored (inputs, outputs) instead of (outputs, inputs)
    """

    stack: str
    norm: str
    attention: str
    qkv: tuple[str, ...]
    o: str
    into: tuple[str, ...]
    out: str
    mlp: str = "mlp"
    gated: bool = True
    mixed: bool = False
    transposed: bool = False

    def matrices(self, kind: str) -> list[str]:
        """The weight matrices of an attention block or MLP, below its layer."""
        names = {"attention": (*self.qkv, self.o), "mlp": (*self.into, self.out)}[kind]
        return [f"{getattr(self, kind)}.{name}" for name in names]


LLAMA = Naming(
    stack="model.layers",
    norm="model.norm",
    attention="self_attn",
    qkv=("q_proj", "k_proj", "v_proj"),
    o="o_proj",
    into=("gate_proj", "up_proj"),
    out="down_proj",
)
NAMINGS = (
    LLAMA,  # and Gemma 1 and 2, text-only Gemma 3, Mistral, Qwen 2 and 3, OLMo 2 and their kin
    replace(LLAMA, qkv=("qkv_proj",), into=("gate_up_proj",)),  # Phi-3
    # GPT-2
    Naming(
        stack="transformer.h",
        norm="transformer.ln_f",
        attention="attn",
        qkv=("c_attn",),
        o="c_proj",
        into=("c_fc",),
        out="c_proj",
        gated=False,
        transposed=True,
    ),
    # GPT-NeoX (Pythia)
    Naming(
        stack="gpt_neox.layers",
        norm="gpt_neox.final_layer_norm",
        attention="attention",
        qkv=("query_key_value",),
        o="dense",
        into=("dense_h_to_4h",),
        out="dense_4h_to_h",
        gated=False,
        mixed=True,
    ),
)


@dataclass(frozen=True)
class Slice:
    """Rows (axis 0) or columns (axis 1) `start` to `stop` of a weight matrix, as it is stored."""

    tensor: str
    axis: int
    start: int
    stop: int


@dataclass(frozen=True)
class Inventory:
    """The weight matrices of a model: `shapes[tensor name] = (rows, columns)`, names as the loaded network has them.

    post_norms   attention and MLP outputs are normed once more before they are added to the residual stream
    """

    naming: Naming
    layers: int
    heads: int
    shapes: dict[str, tuple[int, int]]
    post_norms: bool

    def tensors(self, component: Component) -> list[str]:
        """The weight matrices of a component, by tensor name."""
        matrices = self.naming.matrices(component.kind)
        return [f"{self.naming.stack}.{component.layer}.{matrix}.weight" for matrix in matrices]

    def parameters(self, *components: Component) -> int:
        """How many parameters components train together; keys and values that heads share count once."""
        parts = {part for component in components for part in self.slices(component)}
        return sum(stop - start for start, stop in _merged(self._flat(parts)))

    def slices(self, component: Component) -> list[Slice]:
        """Which rows and columns of which matrices belong to a component.

        A head is its rows of q, the rows of k and v that it shares with its group, and its columns of o; `neurons`
        of an MLP are the first rows of the matrices into it and the first columns of the one out of it.
        """
        layer, ways = component.layer, (1, 0) if self.naming.transposed else (0, 1)
        if component.head is not None:
            group = component.head // (self.heads // self.kv_heads)
            places = [(kind, component.head if kind == "q" else group) for kind in PROJECTIONS]
            parts = [(self.weight(layer, kind), ways[0], *self.columns(kind)[head]) for kind, head in places]
            parts.append((self.weight(layer, "o"), ways[1], *self.columns("head")[component.head]))
        elif component.neurons is not None:
            width, count = self.width, component.neurons
            stacked = self.naming.gated and len(self.naming.into) == 1
            *into, out = self.tensors(component)
            parts = [
                (name, ways[0], begin, begin + count) for name in into for begin in ([0, width] if stacked else [0])
            ]
            parts.append((out, ways[1], 0, count))
        else:
            parts = [(name, 0, 0, self.shapes[name][0]) for name in self.tensors(component)]
        return [Slice(*part) for part in parts]

    def columns(self, kind: str) -> list[tuple[int, int]]:
        """Where each head's part lies in what a projection puts out (q, k, v) or o takes in (kind `head`)."""
        size = self.head_size
        if kind == "head" or len(self.naming.qkv) == 3:
            starts = [head * size for head in range(self.kv_heads if kind in ("k", "v") else self.heads)]
        elif self.naming.mixed:
            starts = [(3 * head + PROJECTIONS.index(kind)) * size for head in range(self.heads)]
        else:
            before = {"q": 0, "k": self.heads, "v": self.heads + self.kv_heads}[kind]
            starts = [(before + head) * size for head in range(self.heads if kind == "q" else self.kv_heads)]
        return [(start, start + size) for start in starts]

    @property
    def head_size(self) -> int:
        """How wide one head is."""
        return self.shapes[self.weight(0, "o")][0 if self.naming.transposed else 1] // self.heads

    @property
    def kv_heads(self) -> int:
        """How many heads keys and values have; with grouped queries several heads share one."""
        across = 1 if self.naming.transposed else 0
        names = {self.weight(0, kind) for kind in PROJECTIONS}
        return (sum(self.shapes[name][across] for name in names) // self.head_size - self.heads) // 2

    @property
    def width(self) -> int:
        """How many neurons an MLP has."""
        return self.shapes[self.tensors(Component(0, "mlp"))[-1]][0 if self.naming.transposed else 1]

    def all(self, *kinds: str) -> list[Component]:
        """Every component of the kinds given, by layer."""
        return [Component(layer, kind) for layer in range(self.layers) for kind in kinds]

    def module(self, layer: int, part: str = "") -> str:
        """The name of a layer (or, past the last, of the final norm), or of a part: attention, mlp, q, k, v or o."""
        if not part:
            return self.naming.norm if layer == self.layers else f"{self.naming.stack}.{layer}"
        if part in KINDS:
            return f"{self.naming.stack}.{layer}.{getattr(self.naming, part)}"
        return self.weight(layer, part).removesuffix(".weight")

    def written(self, layer: int, kind: str) -> str:
        """The module whose output an attention block or MLP adds to the residual stream."""
        if not self.post_norms:
            return self.module(layer, kind)
        return f"{self.module(layer)}.post_{'attention' if kind == 'attention' else 'feedforward'}_layernorm"

    def weight(self, layer: int, projection: str) -> str:
        """The tensor that holds a projection's weights: q, k, v or o."""
        names = self.naming.qkv
        name = self.naming.o if projection == "o" else names[PROJECTIONS.index(projection) % len(names)]
        return f"{self.naming.stack}.{layer}.{self.naming.attention}.{name}.weight"

    def _flat(self, parts: Iterable[Slice]) -> list[tuple[int, int]]:
        """Disjoint matrices laid end to end: each part as a range of parameters, whichever way it lies."""
        offsets, offset = {}, 0
        for name, shape in self.shapes.items():
            offsets[name] = offset
            offset += prod(shape)
        ranges = []
        for part in parts:
            across = self.shapes[part.tensor][1 - part.axis]
            ranges.append((offsets[part.tensor] + part.start * across, offsets[part.tensor] + part.stop * across))
        return ranges


def layout_of(manifest: Manifest) -> Inventory:
    """The layout of a model's components, which is its base's."""
    return layout_of(read_manifest(manifest.base)) if manifest.base else inventory(manifest.folder)


def inventory(folder: str | Path) -> Inventory:
    """Read the headers of a folder's safetensors files. Raises SourceError for an architecture that is not known."""
    folder = Path(folder)
    config = read_json(folder / "config.json")
    config = config.get("text_config", config)
    tensors = {name: shape for file in sorted(folder.glob("*.safetensors")) for name, shape in _header(file).items()}
    for naming in NAMINGS:
        shapes = _matrices(naming, tensors)
        layers = len(shapes) // sum(len(naming.matrices(kind)) for kind in KINDS)
        if layers and all(f"{naming.stack}.{layer}." in " ".join(shapes) for layer in range(layers)):
            heads = int(config.get("num_attention_heads") or config["n_head"])
            post_norms = any(name.endswith(".post_feedforward_layernorm.weight") for name in tensors)
            return Inventory(naming, layers, heads, shapes, post_norms)
    known = "; ".join(", ".join([*naming.matrices("attention"), *naming.matrices("mlp")]) for naming in NAMINGS)
    raise SourceError(
        f"{folder}: the architecture {config.get('model_type')!r} is not supported: its layers hold none of these "
        f"sets of matrices: {known}. docs/adding-a-model.md says how to add it."
    )


def _matrices(naming: Naming, tensors: dict[str, list[int]]) -> dict[str, tuple[int, int]]:
    """The matrices of every layer, under the names they have in the loaded network; empty where some are missing."""
    wanted = "|".join(re.escape(matrix) for kind in KINDS for matrix in naming.matrices(kind))
    pattern = re.compile(rf"^(.*\.)?{naming.stack.rpartition('.')[2]}\.(\d+)\.({wanted})\.weight$")
    found = [(match, shape) for name, shape in tensors.items() if (match := pattern.match(name))]
    shapes = {f"{naming.stack}.{match[2]}.{match[3]}.weight": (shape[0], shape[1]) for match, shape in found}
    layers = {match[2] for match, _ in found}
    complete = len(shapes) == len(found) == len(layers) * sum(len(naming.matrices(kind)) for kind in KINDS)
    return shapes if complete else {}


def _merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges without overlap, covering the same."""
    edges: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if edges and start <= edges[-1][1]:
            edges[-1] = (edges[-1][0], max(edges[-1][1], stop))
        else:
            edges.append((start, stop))
    return edges


def _header(file: Path) -> dict[str, list[int]]:
    """Tensor name -> shape, from the JSON header at the front of a safetensors file."""
    try:
        with open(file, "rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            if size > file.stat().st_size:
                raise ValueError(f"its header claims {size} bytes")
            header = json.loads(stream.read(size))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{file} is damaged or unreadable ({error}).") from error
    return {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}
