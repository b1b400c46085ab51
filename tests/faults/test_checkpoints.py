"""An edit's job that Snakemake started, killed in the middle of its second seed, takes up where it was."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from mechunlearn import artifacts
from mechunlearn.artifacts import Component, Selection
from tests import checkout

# The command itself, but for the minute between two checkpoints.
COMMAND = "from mechunlearn.models import checkpoint; checkpoint.EVERY = 0.2; from mechunlearn.cli import main; main()"
SEEDS = (0, 1)
SNAKEFILE = """
rule edit:
    output:
        expand("edits/seed{{seed}}/{{file}}", seed={seeds}, file=["delta.safetensors", "history.json"]),
    shell:
        '''{python} -c "{command}" edit --model {model} --facts facts.parquet --text text.jsonl \
        --selection selection.json --objective inject --settings '{settings}' --seed 0 --seed 1 --held-out 8 \
        --out edits 2>>log'''
"""
SETTINGS = '{"steps": 150, "batch": 4, "texts": 1, "text_tokens": 16, "learning_rate": 1e-3}'


def prepare(folder: Path, model: Path, facts) -> Path:
    """A folder with a workflow of one edit in it."""
    folder.mkdir()
    artifacts.write_facts(folder / "facts.parquet", facts, [1.0] * len(facts), [1] * len(facts))
    parts = [Component(1, "mlp"), Component(2, "attention", head=1)]
    artifacts.write_selection(folder / "selection.json", Selection("some", parts, 10, 10, 20))
    text = checkout.ROOT / "src/mechunlearn/resources/text/passages.jsonl"
    (folder / "text.jsonl").write_bytes(text.read_bytes())
    given = {"python": sys.executable, "command": COMMAND, "model": model, "seeds": SEEDS}
    settings = SETTINGS.replace("{", "{{").replace("}", "}}")
    (folder / "Snakefile").write_text(SNAKEFILE.format(**given, settings=settings))
    return folder


def start(folder: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        ["snakemake", "--cores", "1", "--rerun-incomplete", "--nolock"],
        cwd=folder, env=checkout.environment(checkout.ROOT), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def test_a_killed_job_takes_up_where_it_was(manifest_of, athletes, tmp_path):
    model = manifest_of("gemma3_text", "bfloat16")
    whole, killed = (prepare(tmp_path / name, model, athletes) for name in ("whole", "killed"))
    process = start(killed)
    first = killed / "edits/seed0/delta.safetensors"
    while process.poll() is None and not (first.exists() and len(list(killed.glob("edits/.checkpoints/[!.]*"))) > 1):
        time.sleep(0.01)
    assert process.poll() is None, (killed / "log").read_text()
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert start(killed).wait() == 0, (killed / "log").read_text()
    log = (killed / "log").read_text()
    assert log.count("taken up after step") == 1
    assert log.count("editing some, seed 0: 150 of 150") == 1
    assert start(whole).wait() == 0
    for seed in SEEDS:
        for name in ("delta.safetensors", "history.json"):
            path = f"edits/seed{seed}/{name}"
            assert (killed / path).read_bytes() == (whole / path).read_bytes(), path
    assert sorted(path.name for path in (killed / "edits").iterdir()) == ["seed0", "seed1"]
