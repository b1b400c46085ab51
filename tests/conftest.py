"""Tiny random models of several families, with a tokenizer that knows the sports prompts. No network.

write_model   (family, folder) -> a model folder in Hugging Face format
tiny          family -> a loaded float32 model, shared: for tests that leave it as it is
model         the same, for a test that runs on every family
fresh         family, dtype -> a model of the same weights for this test alone
athletes      facts whose names the tokenizer has seen, accents included, with roles and new answers
"""

import os
from functools import cache, partial
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

os.environ.setdefault("OMP_NUM_THREADS", "1")

from mechunlearn.facts import Fact, Prompt, sports
from mechunlearn.facts.completion import completion
from mechunlearn.facts.with_options import choice_text

FAMILIES = (
    "gemma3_text",
    "gemma2",
    "gemma",
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "phi3",
    "gpt2",
    "gpt_neox",
    "olmo2",
)
SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>"]
NAMES = [
    "LeBron James",
    "Babe Ruth",
    "Tom Brady",
    "José Altuve",
    "Shaquille O'Neal",
    "Luka Dončić",
    "A'ja Wilson",
]
NAMES += ["Mookie Betts", "Jerry Rice", "Kobe Bryant", "Derek Jeter", "Joe Montana"]
SPORTS = ["basketball", "baseball", "football"]
ANSWERS = [SPORTS[index] for index in (0, 1, 2, 1, 0, 0, 0, 1, 2, 0, 1, 2)]
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.5,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
}
WINDOWED = {"head_dim": 12, "sliding_window": 8, "query_pre_attn_scalar": 12}
LAYERS = ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"]
CONFIGS = {
    "gemma3_text": {**WINDOWED, "layer_types": LAYERS},
    "gemma2": {
        **WINDOWED,
        "layer_types": LAYERS,
        "final_logit_softcapping": 10.0,
        "attn_logit_softcapping": 3.0,
    },
    "gemma": {"head_dim": 12},
    "llama": {},
    "mistral": {"sliding_window": 8},
    "qwen2": {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
    "qwen3": {"head_dim": 12},
    "phi3": {"sliding_window": 8},
    "gpt2": {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_inner": 48, "n_positions": 256},
    "gpt_neox": {},
    "olmo2": {},
}


class OneStudy(LoadScopeScheduling):
    """One worker runs all files with tests of the finished study, so that it is run once; others take the rest."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "study" if "mark.study" in (self.config.rootpath / file).read_text(encoding="utf-8") else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    # Not xdist's own groups: xdist 3.8 marks them in a field that pytest 9.2 no longer reads, and spreads them.
    return OneStudy(config, log)


def _corpus() -> list[str]:
    facts = [sports.plays(name, "football") for name in NAMES]
    formats = (completion, sports.question, sports.famous)
    asked = [ask(fact)[0].text for fact in facts for ask in formats]
    words = [f" {option}" for option in sports.OPTIONS] + [" A", " B", " C", " D"]
    return asked + words * 100


def _tokenizer(family: str):
    """Byte-level BPE as Llama and Qwen have it; spaces as `▁` and byte fallback as Gemma has it."""
    from tokenizers import (
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
        trainers,
    )
    from transformers import PreTrainedTokenizerFast

    if family.startswith("gemma"):
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("▁"), "merged_with_next")
        steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        tokenizer.decoder = decoders.Sequence(steps)
        alphabet = [f"<0x{byte:02X}>" for byte in range(256)]
        trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=SPECIAL + alphabet, show_progress=False)
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=450,
            special_tokens=SPECIAL,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
    tokenizer.train_from_iterator(_corpus(), trainer)
    if family == "llama":  # adds BOS by itself, so that adding it once more would show
        begin = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
        tokenizer.post_processor = begin
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", unk_token="<unk>"
    )


@cache
def _network(family: str):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    shape = {} if family == "gpt2" else SHAPE
    config = AutoConfig.for_model(family, **{**shape, **CONFIGS[family]}, vocab_size=640)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def _write_model(family: str, folder: Path) -> Path:
    _tokenizer(family).save_pretrained(folder)
    _network(family).save_pretrained(folder)
    return folder


def _fetch(folder: Path, dtype: str) -> Path:
    from mechunlearn.config import ModelSettings
    from mechunlearn.models.sources import fetch

    manifest = folder.parent / f"{folder.name}-{dtype}" / "model.json"
    fetch(ModelSettings(source=f"path:{folder}", dtype=dtype), manifest)
    return manifest


@pytest.fixture(scope="session")
def write_model():
    """(family, folder) -> the folder, now with a tiny random model in it."""
    return _write_model


@pytest.fixture(scope="session")
def manifest_of(tmp_path_factory):
    """(family, dtype) -> the manifest of a tiny model, written once."""
    home = tmp_path_factory.mktemp("models")

    @cache
    def manifest(family: str, dtype: str = "float32") -> Path:
        folder = home / family
        return _fetch(folder if folder.exists() else _write_model(family, folder), dtype)

    return manifest


@pytest.fixture(scope="session")
def tiny(manifest_of):
    """family -> a float32 model shared by all tests, which must not change it."""
    from mechunlearn.models.loading import load

    return cache(lambda family: load(manifest_of(family)))


@pytest.fixture(params=FAMILIES)
def family(request) -> str:
    """Each family in turn."""
    return request.param


@pytest.fixture
def model(tiny, family):
    """The shared model of each family in turn; not to be changed."""
    return tiny(family)


@pytest.fixture
def no_gradients():
    """For tests that compare runs by hooks of their own."""
    import torch

    with torch.no_grad():
        yield


@pytest.fixture
def fresh(manifest_of):
    """(family, dtype) -> a model of this test's own."""
    from mechunlearn.models.loading import load

    return lambda family, dtype="float32": load(manifest_of(family, dtype))


@pytest.fixture
def eight_bits(monkeypatch):
    """Moments of 8 bits for matrices as small as ours, which otherwise have 32 all the same."""
    from bitsandbytes import optim

    monkeypatch.setattr(optim, "AdamW8bit", partial(optim.AdamW8bit, min_8bit_size=1))


@pytest.fixture
def athletes() -> list[Fact]:
    """Twelve athletes: four to forget, five to keep in training, three to keep for testing."""
    roles = ["forget"] * 4 + ["maintain-train"] * 5 + ["maintain-test"] * 3
    facts = [sports.plays(name, answer) for name, answer in zip(NAMES, ANSWERS, strict=True)]
    wrong = {"basketball": "football", "baseball": "basketball", "football": "baseball"}
    return [
        fact.with_role(role, wrong[fact.answer] if role == "forget" else "")
        for fact, role in zip(facts, roles, strict=True)
    ]


@pytest.fixture
def prompts(athletes):
    """Prompts longer and shorter than the sliding window, with and without new answers."""
    short = Prompt("short", "Tom Brady plays", (0, 9), (" golf", " football"), 1, None)
    formats = (completion, choice_text, sports.question)
    asked = [ask(fact) for fact in athletes[:5] for ask in formats]
    return [short, *(prompt for group in asked for prompt in group)]
