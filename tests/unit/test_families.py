"""What localization takes for granted of a decoder, on a tiny random model of every family."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from accelerate import dispatch_model
from safetensors.torch import load_file, save_file

from mechunlearn.config import LocalizeSettings, ModelSettings
from mechunlearn.errors import SourceError
from mechunlearn.localize.causal_tracing import causal_tracing, components, states
from mechunlearn.localize.corruption import nodes
from mechunlearn.localize.path_patching import path_patching
from mechunlearn.models.components import KINDS
from mechunlearn.models.loading import load
from mechunlearn.models.packing import last_hidden
from mechunlearn.models.patching import Patch, Write, record, resume
from mechunlearn.models.scoring import probabilities, token_logits, unembed
from mechunlearn.models.sources import fetch
from tests.unit.oracle import FEW, close, costly, forward, put, stirred

CLEAN = "Fact: Tiger Woods plays the sport of golf\nFact: LeBron James plays the sport of"
CORRUPT = "Fact: Tiger Woods plays the sport of golf\nFact: Tom Brady plays the sport of"
WINDOWED = ("gemma3_text", "gemma2", "mistral", "qwen2", "phi3")
pytestmark = pytest.mark.usefixtures("no_gradients")


@pytest.fixture
def model(tiny, family):
    return stirred(tiny(family))


@pytest.fixture
def ids(model):
    """Two prompts of one length, longer than any sliding window."""
    clean, corrupt = model.encode(CLEAN), model.encode(CORRUPT)
    length = min(len(clean), len(corrupt))
    assert length > 8
    return clean[-length:], corrupt[-length:]


def written(layout):
    return [(layout.written(layer, kind), "output") for layer in range(layout.layers) for kind in KINDS]


def ends(layout):
    """What enters the first layer and the final norm."""
    return (layout.module(0), "input"), (layout.module(layout.layers), "input")


# what is added to the residual stream ----------------------------------------------------------------------------


def test_heads_contributions_sum_to_the_attention_output(model, ids):
    layout = model.layout
    for layer in range(layout.layers):
        taken, put_out = (layout.module(layer, "o"), "input"), (layout.module(layer, "attention"), "output")
        _, seen = forward(model, ids[0], keep=[taken, put_out])
        o = model.network.get_submodule(taken[0])
        weight = o.weight.T if layout.naming.transposed else o.weight
        heads = [seen[taken][..., start:stop] @ weight[:, start:stop].T for start, stop in layout.columns("head")]
        bias = 0 if o.bias is None else o.bias
        assert len(heads) == layout.heads > 1
        close(sum(heads) + bias, seen[put_out])


def test_the_embedding_and_what_is_written_sum_to_the_final_stream(model, ids):
    first, final = ends(model.layout)
    _, seen = forward(model, ids[0], keep=[*written(model.layout), first, final])
    close(seen[first] + sum(seen[part] for part in written(model.layout)), seen[final])


def test_a_silenced_component_writes_nothing_and_all_others_what_they_write(model, ids):
    layout, (first, final) = model.layout, ends(model.layout)
    for layer, kind in ((0, "attention"), (1, "mlp"), (3, "attention")):
        silent = (layout.module(layer, kind), "output")
        others = [part for part in written(layout) if part != (layout.written(layer, kind), "output")]
        _, seen = forward(model, ids[0], [(silent, put(0))], keep=[*others, first, final])
        close(seen[first] + sum(seen[part] for part in others), seen[final])


def test_all_components_of_the_clean_run_in_the_corrupted_one_give_the_clean_logits(model, ids):
    """But for the embeddings, which no component writes, the final stream is then the clean one."""
    first, final = ends(model.layout)
    parts = written(model.layout)
    clean, seen = forward(model, ids[0], keep=[*parts, first, final])
    corrupt, other = forward(model, ids[1], keep=[first])
    changes = [(part, put(seen[part])) for part in parts]
    _, patched = forward(model, ids[1], changes, keep=[final])
    close(patched[final] - other[first], seen[final] - seen[first])
    embedding = (final, lambda stream: stream + seen[first] - other[first])
    logits, _ = forward(model, ids[1], [*changes, embedding])
    assert (corrupt - clean).abs().max() > 0.1 * clean.abs().max()
    close(logits, clean)


def test_token_ids_enter_through_the_embeddings_alone(model, ids):
    embedded = (model.embeddings, "output")
    clean, seen = forward(model, ids[0], keep=[embedded])
    logits, _ = forward(model, ids[1], [(embedded, put(seen[embedded]))])
    torch.testing.assert_close(logits, clean, rtol=0, atol=0)


def test_logits_and_probabilities_are_the_networks(model, ids):
    """Soft-capping and biases included, and for single tokens as for all of them."""
    logits = forward(model, ids[0])[0]
    hidden = last_hidden(model, [ids[0]])[0]
    close(unembed(model, hidden), logits)
    close(token_logits(model, hidden, [7, 500, 7]), logits[[7, 500, 7]])
    for tokens in ([7], [7, 30, 500]):
        close(probabilities(model, hidden[None, None], tokens)[0, 0], logits.softmax(-1)[tokens].sum())
    many = torch.randn(3, 4, model.width, generator=torch.Generator().manual_seed(0))
    close(probabilities(model, many, [7, 30], rows=5), unembed(model, many).softmax(-1)[..., [7, 30]].sum(-1))


def test_a_bias_of_the_unembedding_counts(tiny):
    model = stirred(tiny("llama"))
    network = deepcopy(model.network)
    network.lm_head.bias = torch.nn.Parameter(torch.randn(640, generator=torch.Generator().manual_seed(0)))
    model, ids = replace(model, network=network), model.encode(CLEAN)
    hidden = last_hidden(model, [ids])[0]
    close(token_logits(model, hidden, [7, 500]), forward(model, ids)[0][[7, 500]])


# sites ------------------------------------------------------------------------------------------------------------


def of_nodes(model, run, change):
    """A patch of every node, by (kind, layer, head), at all places; the value is a function of the recorded one."""
    places = tuple(range(run.tokens.shape[1]))
    return {
        (node.kind, node.layer, node.head): Patch(
            (Write(node.layer, *node.part, places, change(run.parts[node.part]), node.columns),)
        )
        for node in nodes(model.layout)
    }


def recorded(model, ids):
    layout = model.layout
    parts = [*{node.part for node in nodes(layout)}, *((name, "output") for name, _ in written(layout))]
    parts += [(layout.module(layer, "attention"), "output") for layer in range(layout.layers)]
    return record(model, ids, [], list(dict.fromkeys(parts)))


def test_a_self_patch_of_every_site_changes_nothing(model, ids):
    run = recorded(model, ids[0])
    sites = components(model, run) + states(model, run, ["token"] * len(ids[0]), 2)
    assert {site.kind for site in sites} == {"mlp", "head", "state", "mlp-window", "attention-window"}
    patches = [*(site.patch for site in sites), *of_nodes(model, run, torch.clone).values()]
    close(resume(model, run, patches), run.hidden.expand(len(patches), -1, -1))


def test_zeros_in_any_node_change_the_run(model, ids):
    run, layout = recorded(model, ids[0]), model.layout
    patches = of_nodes(model, run, torch.zeros_like)
    changes = (resume(model, run, [*patches.values()]) - run.hidden).abs().amax((1, 2))
    assert len(patches) == layout.layers * (2 * layout.heads + 2 * layout.kv_heads + 2)
    dead = [name for name, change in zip(patches, changes, strict=True) if change < 1e-3 * run.hidden.abs().max()]
    assert not dead


# heads ------------------------------------------------------------------------------------------------------------


def visible(model, layer, length):
    """Where the last token of a prompt looks."""
    config = model.network.config
    windowed = config.sliding_window if getattr(config, "sliding_window", None) else length
    kinds = getattr(config, "layer_types", None)
    windowed = length if kinds and kinds[layer] == "full_attention" else windowed
    return slice(max(0, length - windowed), length)


@pytest.mark.parametrize("kind", ["q", "k", "v"])
def test_a_heads_columns_are_its_own_queries_keys_and_values(model, family, ids, kind):
    """Without queries or keys a head mixes the values it can see evenly; without values it has none to mix.

    So which columns are which, whose group is whose, and fused matrices' order all show at the last token.
    """
    layout, count = model.layout, len(ids[0])
    for layer in range(layout.layers):
        made, taken = (layout.module(layer, kind), "output"), (layout.module(layer, "o"), "input")
        values = (layout.module(layer, "v"), "output")
        _, before = forward(model, ids[0], keep=[taken, values])
        shared = 1 if kind == "q" else layout.heads // layout.kv_heads
        for number, columns in enumerate(layout.columns(kind)):
            _, after = forward(model, ids[0], [(made, put(0, columns=columns))], [taken])
            for head, (start, stop) in enumerate(layout.columns("head")):
                found = after[taken][0, -1, start:stop]
                if head // shared == number:
                    own = layout.columns("v")[head * layout.kv_heads // layout.heads]
                    mean = before[values][0, visible(model, layer, count), slice(*own)].mean(0)
                    expected = torch.zeros_like(mean) if kind == "v" else mean
                    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
                elif family != "olmo2" or kind == "v":  # one norm spans all its heads' queries, one all their keys
                    torch.testing.assert_close(found, before[taken][0, -1, start:stop], rtol=0, atol=1e-6)


def test_attention_by_hand_from_a_heads_columns(tiny):
    """Where no rotation and no norm stand between, softmax(q k / sqrt(size)) v is what o takes in."""
    model = stirred(tiny("gpt2"))
    layout, ids = model.layout, model.encode(CLEAN)
    for layer in range(layout.layers):
        made, taken = (layout.module(layer, "q"), "output"), (layout.module(layer, "o"), "input")
        _, seen = forward(model, ids, keep=[made, taken])
        for head in range(layout.heads):
            q, k, v = (seen[made][0, :, slice(*layout.columns(kind)[head])] for kind in ("q", "k", "v"))
            scores = (q @ k.T / layout.head_size**0.5).masked_fill(torch.ones(len(ids), len(ids)).triu(1) > 0, -1e9)
            assert scores.softmax(-1)[-1].max() > 0.3  # far from uniform
            close(scores.softmax(-1) @ v, seen[taken][0, :, slice(*layout.columns("head")[head])])


# what the test models exercise ------------------------------------------------------------------------------------


def with_settings(model, **settings):
    """The same weights in a network of other settings."""
    config = deepcopy(model.network.config)
    for name, value in settings.items():
        setattr(config, name, value)
    attention = model.network.config._attn_implementation
    network = type(model.network)._from_config(config, attn_implementation=attention, dtype=torch.float32).eval()
    network.load_state_dict(model.network.state_dict())
    return network


def logits_of(network, ids):
    return network(input_ids=torch.tensor([ids])).logits[0, -1]


@pytest.mark.parametrize("family", WINDOWED)
def test_sliding_windows_matter_beyond_the_window_alone(model, ids):
    wide = with_settings(model, sliding_window=256)
    inside, beyond = ids[0][-8:], ids[0]
    close(logits_of(wide, inside), logits_of(model.network, inside))
    change = (logits_of(wide, beyond) - logits_of(model.network, beyond)).abs().max()
    assert change > 0.01 * logits_of(model.network, beyond).abs().max()


@pytest.mark.parametrize("cap", ["attn_logit_softcapping", "final_logit_softcapping"])
def test_soft_capping_matters(tiny, cap):
    model = stirred(tiny("gemma2"))
    ids = model.encode(CLEAN)
    change = (logits_of(with_settings(model, **{cap: None}), ids) - logits_of(model.network, ids)).abs().max()
    assert change > 0.01 * logits_of(model.network, ids).abs().max()


# what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["opt", "bloom", "mixtral", "falcon", "gpt_bigcode", "cohere", "granite"])
def test_an_unsupported_architecture_names_itself_and_where_to_read_on(write_model, tmp_path, architecture):
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 640}
    shape |= {"intermediate_size": 24, "num_local_experts": 2, "ffn_dim": 24, "word_embed_proj_dim": 16}
    shape |= {"num_key_value_heads": 2, "logits_scaling": 7.0, "residual_multiplier": 0.5}  # read by granite alone
    folder = write_model("llama", tmp_path / architecture)
    config = AutoConfig.for_model(architecture, **shape)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    fetch(ModelSettings(source=f"path:{folder}", dtype="float32"), tmp_path / "model.json")
    with pytest.raises(SourceError, match=rf"'{architecture}'.*docs/adding-a-model\.md"):
        load(tmp_path / "model.json")


@pytest.mark.parametrize("name", ["mlp.up_proj", "self_attn.o_proj"])
def test_a_renamed_matrix_is_refused(write_model, tmp_path, name):
    folder = write_model("llama", tmp_path / "llama")
    tensors = load_file(folder / "model.safetensors")
    renamed = {key.replace(f"1.{name}.", f"1.{name}_new."): tensor for key, tensor in tensors.items()}
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    fetch(ModelSettings(source=f"path:{folder}", dtype="float32"), tmp_path / "model.json")
    with pytest.raises(SourceError, match=r"'llama'.*docs/adding-a-model\.md"):
        load(tmp_path / "model.json")


# several devices --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FEW)
def test_a_network_spread_over_devices_is_localized_the_same(fresh, family, athletes, tmp_path):
    """Layers that accelerate moves in and out as they run, as `device_map` has it where one device is too small."""
    settings = LocalizeSettings.model_validate(
        {"tracing": {"facts": 2, "samples": 2, "map_facts": 1}, "paths": {"facts": 2, "draws": 1, "extraction": 3}}
    )
    model = fresh(family)
    facts = costly(model, athletes)
    expected = [method(model, facts, settings) for method in (causal_tracing, path_patching)]
    outside = ("", model.layout.naming.stack, model.layout.naming.stack.rpartition(".")[0])
    modules = [name for name, _ in model.network.named_modules() if name.count(".") <= 1 and name not in outside]
    places = dict.fromkeys(modules, "cpu")
    places |= {model.layout.module(layer): "disk" if layer % 2 else "cpu" for layer in range(model.layout.layers)}
    dispatch_model(model.network, places, main_device="cpu", offload_dir=tmp_path, force_hooks=True)
    assert model.network.get_submodule(model.layout.module(1, "o")).weight.device.type == "meta"
    for method, table in zip((causal_tracing, path_patching), expected, strict=True):
        found = method(model, facts, settings)
        torch.testing.assert_close(torch.tensor(found.effect), torch.tensor(table.effect), rtol=0, atol=1e-5)
