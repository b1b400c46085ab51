"""Damaged, foreign and unwritable files: one clear sentence, and nothing half-written taken for a whole file."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import checkout

PACKAGE = """
from pathlib import Path
MODEL_NAME, EXPECTED_SHA256 = "tiny.gguf", "{digest}"
def assemble(target):
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    {body}
    return target
"""


def mechunlearn(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**checkout.environment(checkout.ROOT), "PYTHONPATH": f"{checkout.ROOT / 'src'}:{folder}"}
    return subprocess.run(
        [sys.executable, "-m", "mechunlearn", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def fetch(folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    return mechunlearn(
        folder, "fetch-model", "--settings", json.dumps(settings), "--out", str(folder / "models/m/model.json")
    )


def refused(process: subprocess.CompletedProcess[str], *words: str) -> None:
    """It failed with a sentence that has these words, and with no traceback."""
    assert process.returncode == 1, process.stdout + process.stderr
    assert process.stderr.strip().splitlines()[-1].startswith("mechunlearn: ")
    assert "Traceback" not in process.stderr
    for word in words:
        assert word in process.stderr


@pytest.mark.parametrize(
    "body",
    [
        "target.write_bytes(b'truncated')",
        "raise ValueError('Assembled file sha256 did not match expected value')",
        "raise FileNotFoundError('Missing chunk files: part02')",
    ],
    ids=["wrong bytes", "wrong checksum", "missing chunk"],
)
def test_a_damaged_package_is_refused_and_leaves_nothing(tmp_path, body):
    (tmp_path / "broken_model.py").write_text(PACKAGE.format(digest="0" * 64, body=body))
    refused(fetch(tmp_path, source="package:broken-model"), "package:broken-model is damaged", "--force-reinstall")
    assert not list((tmp_path / "models").rglob("*.*"))


def test_a_package_that_is_not_installed_is_named(tmp_path):
    refused(fetch(tmp_path, source="package:no-such-model"), "package:no-such-model is not installed", "make setup")


def test_tokens_stand_in_no_message_and_in_no_file(tmp_path, monkeypatch, write_model):
    """Neither where a hub cannot be reached, nor in the manifest of what was fetched, nor in a plan."""
    token = "hf_" + "SeCrEt" * 6
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, token)
    monkeypatch.setenv("HF_ENDPOINT", f"http://{token}@127.0.0.1:9")
    unreachable = fetch(tmp_path, source="hub:google/gemma-7b@" + "0" * 40)
    refused(unreachable, "cannot be reached from here")
    write_model("llama", tmp_path / "llama")
    fetched = fetch(tmp_path, source=f"path:{tmp_path / 'llama'}", dtype="float32")
    assert fetched.returncode == 0, fetched.stderr
    planned = checkout.snakemake(checkout.copy(tmp_path / "copy"), "-n", "-p")
    assert planned.returncode == 0, planned.stderr
    for process in (unreachable, fetched, planned):
        assert token not in process.stdout + process.stderr
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix in ("", ".json", ".log", ".tsv")]
    assert written
    assert not [path for path in written if token.encode() in path.read_bytes()]


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "pytorch_model.bin").write_bytes(b"pickle")
    refused(fetch(tmp_path, source=f"path:{tmp_path / 'folder'}"), "pytorch_model.bin", "can run code", "refused")
    (tmp_path / "folder" / "pytorch_model.bin").unlink()
    refused(fetch(tmp_path, source=f"path:{tmp_path / 'folder'}"), "config.json and *.safetensors are needed")


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 64 KB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk]).returncode:
        pytest.skip("mounting a small file system needs root")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_is_named_and_leaves_no_part(small_disk):
    source = checkout.ROOT / "src/mechunlearn/resources/text/passages.jsonl"
    process = mechunlearn(small_disk.parent, "fetch-data", str(source), str(small_disk / "passages.jsonl"))
    refused(process, str(small_disk / "passages.jsonl"), "No space left on device")
    assert not list(small_disk.iterdir())


def test_a_full_disk_while_the_model_is_converted(small_disk):
    body = "target.write_bytes(b'x' * 1_000_000)"
    (small_disk.parent / "large_model.py").write_text(PACKAGE.format(digest="0" * 64, body=body))
    process = mechunlearn(
        small_disk.parent,
        "fetch-model", "--settings", '{"source": "package:large-model"}', "--out", str(small_disk / "model.json"),
    )  # fmt: skip
    refused(process, "cannot hold the model", "No space left on device")
    assert not list(small_disk.iterdir())


def test_a_read_only_results_folder_is_named(small_disk):
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    source = checkout.ROOT / "src/mechunlearn/resources/sports/athletes.csv"
    process = mechunlearn(small_disk.parent, "fetch-data", str(source), str(small_disk / "results/athletes.csv"))
    refused(process, str(small_disk / "results"), "Read-only file system")


def test_a_results_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "results").write_text("in the way")
    source = checkout.ROOT / "src/mechunlearn/resources/sports/athletes.csv"
    refused(mechunlearn(tmp_path, "fetch-data", str(source), str(tmp_path / "results/a.csv")), "cannot be written")


@pytest.mark.parametrize("folder", ["results", "logs"])
def test_a_workflow_that_cannot_write_says_so_before_any_job(tmp_path, folder):
    copy = checkout.copy(tmp_path)
    (copy / folder).write_text("in the way")
    process = checkout.snakemake(copy)
    assert process.returncode != 0
    assert f"{folder}/ cannot be written" in process.stderr
    assert "Traceback" not in process.stderr


@pytest.mark.study
@pytest.mark.parametrize("damage", ["truncated", "garbage", "foreign"])
def test_a_delta_that_is_not_whole_or_not_ours_is_refused(finished, tmp_path, damage):
    cell = finished / "results/smoke/gemma-3-270m/sports-athlete-4"
    delta = (cell / "edits/fact-lookup/inject/seed0/delta.safetensors").read_bytes()
    digest = json.loads((finished / "models/gemma-3-270m/model.json").read_text())["sha256"].encode()
    damaged = {
        "truncated": delta[: len(delta) // 2],
        "garbage": b"?" * 1000,
        "foreign": delta.replace(digest, b"0" * 64),
    }
    (tmp_path / "edits/seed0").mkdir(parents=True)
    (tmp_path / "edits/seed0/delta.safetensors").write_bytes(damaged[damage])
    process = checkout.run(
        finished,
        "mechunlearn", "evaluate",
        "--model", "models/gemma-3-270m/model.json",
        "--facts", str(cell / "facts.parquet"),
        "--text", "data/text/passages.jsonl",
        "--settings", '{"elicitations": ["completion"], "texts": 2}',
        "--edits", str(tmp_path / "edits"),
        "--out", str(tmp_path / "out.parquet"),
    )  # fmt: skip
    refused(process, "delta.safetensors", "fits only its own base" if damage == "foreign" else "is damaged")
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.study
def test_weights_that_changed_on_disk_are_refused(finished, tmp_path):
    folder = checkout.copy(tmp_path, finished / "models") / "models/gemma-3-270m"
    weights = folder / "weights/model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.unlink()
    weights.write_bytes(content)
    facts = finished / "results/smoke/gemma-3-270m/sports-athlete-4/facts.parquet"
    process = mechunlearn(
        tmp_path,
        "localize", "--model", str(folder / "model.json"), "--facts", str(facts),
        "--method", "fact-lookup", "--settings", "{}", "--out", str(tmp_path / "scores.parquet"),
    )  # fmt: skip
    refused(process, "does not match its sha256", "fetch again")
