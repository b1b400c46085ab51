"""One addressing of components: counts, tensors and modules agree with the network."""

import pytest

from mechunlearn.artifacts import Component
from mechunlearn.errors import ArtifactError, SourceError
from mechunlearn.models.components import MATRICES, inventory


def test_every_component_counts_what_its_modules_hold(model):
    parameters = dict(model.network.named_parameters())
    for component in model.layout.all(*MATRICES):
        tensors = model.layout.tensors(component)
        assert model.layout.parameters(component) == sum(parameters[name].numel() for name in tensors)
        module = model.network.get_submodule(
            model.layout.module(component.layer, "mlp" if component.kind == "mlp" else "self_attn")
        )
        matrices = [value for name, value in module.named_parameters() if value.dim() == 2]
        assert model.layout.parameters(component) == sum(matrix.numel() for matrix in matrices)


def test_neurons_count_their_share_of_an_mlp(model):
    for neurons in (1, 17, 48):
        assert model.layout.parameters(Component(2, "mlp", neurons)) == 3 * 32 * neurons
    assert model.layout.parameters(Component(2, "mlp", 48)) == model.layout.parameters(Component(2, "mlp"))


def test_layers_heads_and_widths_are_the_networks(model):
    config = model.network.config
    assert (model.layout.layers, model.layout.heads) == (config.num_hidden_layers, config.num_attention_heads)
    assert {model.layout.width(layer) for layer in range(4)} == {config.intermediate_size}


def test_every_module_exists(model):
    for layer in range(model.layout.layers):
        for part in ("", "mlp", "self_attn", "self_attn.o_proj"):
            model.network.get_submodule(model.layout.module(layer, part))


def test_an_architecture_of_other_names_is_refused_by_name(write_model, tmp_path):
    folder = write_model("gpt2", tmp_path / "gpt2")
    with pytest.raises(SourceError, match=r"'gpt2'.*docs/adding-a-model\.md"):
        inventory(folder)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x05" + bytes(7) + b"{...}",
        b"garbage, no header",
        b"\xff" * 64,
    ],
    ids=["empty", "no JSON", "size beyond memory", "size beyond 64 bits"],
)
def test_a_damaged_header_is_named(write_model, tmp_path, content):
    folder = write_model("llama", tmp_path / "llama")
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"model\.safetensors"):
        inventory(folder)
