"""One addressing of components: counts, tensors, slices and modules agree with the network."""

import random

import pytest
import torch

from mechunlearn.artifacts import Component
from mechunlearn.errors import ArtifactError, SourceError
from mechunlearn.models.components import KINDS, PROJECTIONS, inventory

LAYER = 2
NORMED_TOGETHER = ("olmo2",)  # queries and keys of all heads are normed as one, so that heads feel each other's
IDS = torch.tensor([[2, 17, 40, 99, 300, 7]])  # shorter than any sliding window


def test_every_component_counts_what_its_modules_hold(model):
    parameters = dict(model.network.named_parameters())
    for component in model.layout.all(*KINDS):
        tensors = model.layout.tensors(component)
        assert model.layout.parameters(component) == sum(parameters[name].numel() for name in tensors)
        module = model.network.get_submodule(model.layout.module(component.layer, component.kind))
        matrices = [value for name, value in module.named_parameters() if value.dim() == 2]
        assert model.layout.parameters(component) == sum(matrix.numel() for matrix in matrices)


def test_neurons_count_their_share_of_an_mlp(model):
    matrices = 3 if model.layout.naming.gated else 2
    for neurons in (1, 17, 48):
        assert model.layout.parameters(Component(2, "mlp", neurons)) == matrices * 32 * neurons
    assert model.layout.parameters(Component(2, "mlp", 48)) == model.layout.parameters(Component(2, "mlp"))


def test_layers_heads_and_widths_are_the_networks(model):
    layout, config = model.layout, model.network.config
    assert (layout.layers, layout.heads) == (config.num_hidden_layers, config.num_attention_heads)
    grouped = config.model_type not in ("gpt2", "gpt_neox")
    assert layout.kv_heads == (config.num_key_value_heads if grouped else config.num_attention_heads)
    assert layout.width == (config.n_inner if config.model_type == "gpt2" else config.intermediate_size)
    assert layout.head_size == (getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def test_every_module_exists(model):
    for layer in range(model.layout.layers):
        for part in ("", *KINDS, *PROJECTIONS, "o"):
            model.network.get_submodule(model.layout.module(layer, part))
        for kind in KINDS:
            model.network.get_submodule(model.layout.written(layer, kind))
    model.network.get_submodule(model.layout.module(model.layout.layers))


# what belongs to a head -----------------------------------------------------------------------------------


def head(number, layer=LAYER):
    return Component(layer, "attention", head=number)


def group_of(layout, number):
    """The heads that share keys and values with a head, itself included."""
    size = layout.heads // layout.kv_heads
    return range(number // size * size, number // size * size + size)


def erase(model, *parts):
    """Set parts of weight matrices to zero."""
    weights = dict(model.network.named_parameters())
    for part in parts:
        weights[part.tensor].data.narrow(part.axis, part.start, part.stop - part.start).zero_()


def seen(model, *names, **more):
    """What modules take in, in a forward of IDS: a tensor each."""
    found, handles = {}, []
    for name in names:

        def keep(module, taken, name=name):
            found[name] = taken[0].detach().clone()

        handles.append(model.network.get_submodule(name).register_forward_pre_hook(keep))
    with torch.no_grad():
        model.network(IDS, use_cache=False, **more)
    for handle in handles:
        handle.remove()
    return [found[name] for name in names]


def mixed(model, **more):
    """What each head hands to the output projection of LAYER: (tokens, heads, head size)."""
    (taken,) = seen(model, model.layout.module(LAYER, "o"), **more)
    return taken[0].unflatten(-1, (model.layout.heads, model.layout.head_size))


def projected(model, kind, **more):
    """Queries, keys or values of LAYER: (tokens, heads, head size)."""
    name = model.layout.module(LAYER, kind)
    (taken,) = seen(model, name, **more)
    with torch.no_grad():
        out = model.network.get_submodule(name)(taken)[0]
    return torch.stack([out[:, start:stop] for start, stop in model.layout.columns(kind)], 1)


@pytest.mark.parametrize("number", [0, 1, 3])
def test_without_its_values_a_group_of_heads_has_nothing_to_say(fresh, family, number):
    model = fresh(family)
    before, (_, _, value, _) = mixed(model), model.layout.slices(head(number))
    erase(model, value)
    after, silent = mixed(model), list(group_of(model.layout, number))
    others = [other for other in range(model.layout.heads) if other not in silent]
    assert torch.all(after[:, silent] == 0)
    assert torch.equal(after[:, others], before[:, others])
    assert before[:, silent].abs().min() > 0


@pytest.mark.parametrize("number", [0, 1, 3])
@pytest.mark.parametrize("kind", ["q", "k"])
def test_without_its_queries_a_head_attends_to_all_alike_and_without_keys_its_group_does(fresh, family, kind, number):
    model = fresh(family)
    before, layout = mixed(model), model.layout
    erase(model, layout.slices(head(number))[PROJECTIONS.index(kind)])
    after, values = mixed(model), projected(model, "v")
    blind = [number] if kind == "q" else list(group_of(layout, number))
    means = values.cumsum(0) / torch.arange(1, len(values) + 1)[:, None, None]
    for other in range(layout.heads):
        if other in blind:
            torch.testing.assert_close(after[:, other], means[:, other * layout.kv_heads // layout.heads])
        elif family not in NORMED_TOGETHER:
            assert torch.equal(after[:, other], before[:, other])


def test_without_its_part_of_the_output_projection_a_head_contributes_nothing(fresh, family):
    model = fresh(family)
    name = model.layout.module(LAYER, "o")
    (taken,), project = seen(model, name), model.network.get_submodule(name)
    start, stop = model.layout.columns("head")[1]
    without = taken.clone()
    without[..., start:stop] = 0
    expected = project(without)
    assert not torch.allclose(expected, project(taken))
    erase(model, model.layout.slices(head(1))[3])
    torch.testing.assert_close(project(taken), expected)


def test_heads_that_are_erased_do_not_contribute(fresh, family):
    """All that belongs to a group of heads is gone: attention puts out what the other heads put out together."""
    model = fresh(family)
    name = model.layout.module(LAYER, "o")
    (taken,), project = seen(model, name), model.network.get_submodule(name)
    group = group_of(model.layout, 3)
    for number in group:
        start, stop = model.layout.columns("head")[number]
        taken[..., start:stop] = 0
    expected = project(taken).detach()
    kept = 2 if family in NORMED_TOGETHER else 0  # there, queries and keys stay
    erase(model, *(part for number in group for part in model.layout.slices(head(number))[kept:]))
    (now,) = seen(model, name)
    torch.testing.assert_close(project(now), expected)


@pytest.mark.parametrize("family", ["llama", "mistral", "phi3", "gpt2", "gpt_neox"])
def test_queries_keys_and_values_make_attention(tiny, family):
    """Attention by its formula, from where the columns are said to lie; at position 0 there is no rotation."""
    model = tiny(family)
    more = {"position_ids": torch.zeros_like(IDS), "attention_mask": torch.ones_like(IDS)}
    q, k, v = (projected(model, kind, **more).transpose(0, 1) for kind in PROJECTIONS)
    k, v = (part.repeat_interleave(model.layout.heads // model.layout.kv_heads, 0) for part in (k, v))
    scores = q @ k.transpose(1, 2) / model.layout.head_size**0.5
    future = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1)
    expected = scores.masked_fill(future, float("-inf")).softmax(-1) @ v
    torch.testing.assert_close(mixed(model, **more).transpose(0, 1), expected)


@pytest.mark.parametrize("neurons", [1, 17, 48])
def test_neurons_that_are_erased_do_not_fire(fresh, family, neurons):
    model = fresh(family)
    out = model.layout.tensors(Component(LAYER, "mlp"))[-1].removesuffix(".weight")
    (before,), project = seen(model, out), model.network.get_submodule(out)
    without = before.clone()
    without[..., :neurons] = 0
    expected = project(without).detach()
    erase(model, *model.layout.slices(Component(LAYER, "mlp", neurons)))
    (after,) = seen(model, out)
    assert torch.equal(after, without)
    torch.testing.assert_close(project(after), expected)
    erase(model, *model.layout.slices(Component(LAYER, "mlp", neurons)))
    torch.testing.assert_close(project(before), expected)  # and what they would say is not read


def test_heads_of_a_group_count_shared_keys_and_values_once(tiny):
    """By hand: 4 heads of 8 on 2 groups, width 32."""
    layout = tiny("llama").layout
    each = 8 * 32  # a head's rows of one matrix
    assert layout.parameters(head(0)) == 4 * each
    assert layout.parameters(head(0), head(1)) == 6 * each
    assert layout.parameters(head(0), head(2)) == 8 * each
    assert layout.parameters(*map(head, range(4))) == 12 * each == layout.parameters(Component(LAYER, "attention"))
    assert layout.parameters(head(0), Component(LAYER, "attention")) == 12 * each
    assert layout.parameters(head(0), head(0)) == 4 * each
    assert tiny("gpt2").layout.parameters(head(0), head(1)) == 8 * each


def test_parameters_of_any_components_are_those_their_slices_cover(model):
    rng, layout = random.Random(0), model.layout
    every = [
        *layout.all(*KINDS),
        *(head(number, layer) for layer in range(4) for number in range(4)),
        *(Component(layer, "mlp", neurons) for layer in range(4) for neurons in (1, 20, 48)),
    ]
    for count in range(1, 12):
        components = rng.sample(every, count)
        covered = {name: torch.zeros(shape, dtype=torch.bool) for name, shape in layout.shapes.items()}
        for component in components:
            for part in layout.slices(component):
                covered[part.tensor].narrow(part.axis, part.start, part.stop - part.start).fill_(True)
        assert layout.parameters(*components) == sum(int(mask.sum()) for mask in covered.values())


# what is refused ------------------------------------------------------------------------------------------


def test_an_architecture_of_other_names_is_refused_by_name(tmp_path):
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = {"hidden_size": 16, "ffn_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = AutoConfig.for_model("opt", **shape, word_embed_proj_dim=16, vocab_size=64, max_position_embeddings=16)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(SourceError, match=r"'opt'.*docs/adding-a-model\.md"):
        inventory(tmp_path)


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
