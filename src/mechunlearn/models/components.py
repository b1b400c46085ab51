"""One addressing of a model's components, read from tensor names and shapes alone. Torch-free.

inventory   a model folder -> every weight matrix of every attention block and MLP
Inventory   counts parameters of components, names their tensors and the modules to hook

Understood are the architectures whose layers hold self_attn.{q,k,v,o}_proj and mlp.{gate,up,down}_proj: Gemma 1
and 2, text-only Gemma 3, Llama, Mistral, Qwen 2 and 3, OLMo 2 and their kin.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from mechunlearn.artifacts import Component, read_json
from mechunlearn.errors import ArtifactError, SourceError

MATRICES = {
    "attention": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
    "mlp": ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
}
_NAME = re.compile(r"^(?P<stack>.*layers)\.(?P<layer>\d+)\.(?P<matrix>(self_attn|mlp)\.\w+_proj)\.weight$")


@dataclass(frozen=True)
class Inventory:
    """The weight matrices of a model: `shapes[tensor name] = (rows, columns)`."""

    stack: str
    layers: int
    heads: int
    shapes: dict[str, tuple[int, int]]

    def tensors(self, component: Component) -> list[str]:
        """The weight matrices of a component, by tensor name."""
        return [f"{self.stack}.{component.layer}.{matrix}.weight" for matrix in MATRICES[component.kind]]

    def parameters(self, component: Component) -> int:
        """How many parameters a component trains; for part of an MLP, those of its neurons."""
        count = sum(rows * columns for rows, columns in (self.shapes[name] for name in self.tensors(component)))
        return count if component.neurons is None else component.neurons * count // self.width(component.layer)

    def width(self, layer: int) -> int:
        """How many neurons a layer's MLP has."""
        return self.shapes[f"{self.stack}.{layer}.mlp.up_proj.weight"][0]

    def all(self, *kinds: str) -> list[Component]:
        """Every component of the kinds given, by layer."""
        return [Component(layer, kind) for layer in range(self.layers) for kind in kinds]

    def module(self, layer: int, part: str = "") -> str:
        """The name of a layer's module: the layer itself, or e.g. its `mlp` or `self_attn.o_proj`."""
        return f"{self.stack}.{layer}" + (f".{part}" if part else "")


def inventory(folder: str | Path) -> Inventory:
    """Read the headers of a folder's safetensors files. Raises SourceError for another architecture."""
    folder = Path(folder)
    config = read_json(folder / "config.json")
    config = config.get("text_config", config)
    shapes: dict[str, tuple[int, int]] = {}
    stack, layers = "", set[int]()
    for file in sorted(folder.glob("*.safetensors")):
        for name, shape in _header(file).items():
            match = _NAME.match(name)
            if match and match["matrix"] in sum(MATRICES.values(), ()):
                stack = match["stack"]
                layers.add(int(match["layer"]))
                shapes[name] = (shape[0], shape[1])
    expected = len(layers) * sum(len(matrices) for matrices in MATRICES.values())
    if not layers or len(shapes) != expected or layers != set(range(len(layers))):
        raise SourceError(
            f"{folder}: the architecture {config.get('model_type')!r} is not supported yet: its layers do not hold "
            f"{', '.join(sum(MATRICES.values(), ()))}. docs/adding-a-model.md says how to add it."
        )
    return Inventory(stack, len(layers), int(config["num_attention_heads"]), shapes)


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
