"""Requests against what jobs were measured to take, and against sums done by hand.

measured_peaks.csv: every job of the default study on Gemma 3 270M, as Snakemake measured it on one thread of an EPYC
with AVX-512 BF16, and what each edit trained.
"""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from mechunlearn import footprint
from mechunlearn.artifacts import Component, Selection, write_selection
from mechunlearn.config import load_study
from mechunlearn.footprint import Size, Work
from tests import checkout

PEAKS = pd.read_csv(Path(__file__).parent / "measured_peaks.csv", keep_default_na=False)
SMALL = Size(536_223_056, 18, attention=1_638_400, mlp=3_932_160, adapter=237_312, values=6400)  # Gemma 3 270M
LARGE = Size(
    18_483_000_000, 42, 44_040_192, 154_140_672, 3_096_576, 2 * 3584 + 16 * 256 + 2 * 14336, 3584
)  # Gemma 2 9B


@pytest.fixture(scope="module")
def study():
    return load_study(checkout.ROOT / "config" / "config.yaml")


def asked(job, study, folder: Path) -> Work:
    if job.phase == "edit":
        layers = range(int(job.first_layer), SMALL.layers)
        components = [Component(layer, kind) for kind in ("mlp", "attention") for layer in layers]
        path, count = folder / "selection.json", 1
        while SMALL.holding(components[:count]) < 0.99 * int(job.trained):
            count += 1
        write_selection(path, Selection(job.job, components[:count], int(job.trained), 0, 0))
        return footprint.of_edit(SMALL, path, study.edit, facts=16, seeds=1, people=False)
    if job.phase == "attack":
        return footprint.of_attack(SMALL, next(name for name in study.attacks if job.job.startswith(name)), study)
    return {"evaluate": footprint.MEASURE, "localize": footprint.LOCALIZE}[job.phase]


@pytest.mark.parametrize("job", PEAKS.itertuples(), ids=lambda job: f"{job.phase} {job.job}")
def test_a_request_is_above_the_measured_peak_and_not_far_above(job, study, tmp_path):
    work = asked(job, study, tmp_path)
    assert 1.1 < footprint.mem_mb(SMALL, work) / job.max_rss_mb < 3.5
    assert footprint.runtime(SMALL, work) * 60 > 5 * job.seconds


@pytest.mark.parametrize(("phase", "most"), [("edit", 1.6), ("evaluate", 1.9), ("localize", 2.3)])
def test_the_largest_peaks_are_met_closely(phase, most, study, tmp_path):
    jobs = PEAKS[PEAKS.phase == phase]
    largest = next(jobs.nlargest(1, "max_rss_mb").itertuples())
    assert footprint.mem_mb(SMALL, asked(largest, study, tmp_path)) / largest.max_rss_mb < most


def test_what_training_adds_is_sixteen_bytes_a_parameter(study, tmp_path):
    jobs = PEAKS[PEAKS.phase == "edit"].set_index("job")
    everything, lookup = jobs.loc["nonlocalized"], jobs.loc["fact-lookup"]
    layers = int(lookup.first_layer)  # below these, no activations were kept
    kept = footprint.COPIES * SMALL.values * asked(next(jobs.reset_index().itertuples()), study, tmp_path).kept * layers
    measured = (everything.max_rss_mb - lookup.max_rss_mb) * 1e6 - kept
    assert measured / (int(everything.trained) - int(lookup.trained)) == pytest.approx(footprint.TRAINED, rel=0.2)


def test_moments_of_8_bits_take_less(study, tmp_path):
    everything = [Component(layer, kind) for layer in range(42) for kind in ("attention", "mlp")]
    write_selection(tmp_path / "selection.json", Selection("", everything, LARGE.matrices, 0, 0))
    needs = []
    for optimizer in ("adamw", "adamw-8bit"):
        settings = study.edit.model_copy(update={"optimizer": optimizer})
        work = footprint.of_edit(LARGE, tmp_path / "selection.json", settings, facts=16, seeds=1, people=False)
        needs.append(footprint.memory(LARGE, work))
    moments = 2 * (1 + 4 / 256)  # bytes a weight: 8 bits each, and a scale for every 256
    assert needs[0] - needs[1] == pytest.approx(LARGE.matrices * (8 - moments), rel=1e-6)


def test_memory_by_hand():
    work = Work(trained=10, kept=100, layers=3, at_once=7)
    assert footprint.memory(Size(weights=1000, layers=9, values=5), work) == 1000 + 10 * 16 + 100 * 3 * 5 * 16
    assert footprint.memory(Size(weights=1000, layers=9, values=5), Work(at_once=7)) == 1000 + 7 * 5 * 16
    large = Size(weights=10**10, layers=9, values=5, width=2)
    assert footprint.memory(large, work) == 10**10 + 10 * 16 + 100 * 5 * 16 + 100 * 3 * 2 * 4


def test_gpus_are_asked_for_by_large_models_only():
    five_mlps = Work(trained=5 * LARGE.mlp, kept=64 * 2 * 24 + 400, layers=40)
    everything = Work(trained=LARGE.matrices, kept=64 * 2 * 24 + 400)
    assert footprint.gpu(SMALL, Work(trained=SMALL.matrices)) == 0
    assert footprint.gpu(LARGE, footprint.MEASURE) == footprint.gpu(LARGE, footprint.LOCALIZE) == 1
    assert footprint.gpu(LARGE, five_mlps) < footprint.gpu(LARGE, everything)
    assert footprint.mem_mb(LARGE, footprint.MEASURE) == pytest.approx(1.25 * (18_483 + 1000), rel=0.01)


def test_another_attempt_asks_for_more_memory_and_time_but_no_more_gpus():
    for size in (SMALL, LARGE):
        once, twice = (
            [needs(size, footprint.LOCALIZE, attempt) for needs in (footprint.mem_mb, footprint.runtime)]
            for attempt in (1, 2)
        )
        assert twice == [2 * each for each in once]
        assert footprint.gpu(size, footprint.LOCALIZE, 2) == footprint.gpu(size, footprint.LOCALIZE)


def test_a_size_is_read_from_a_models_files(manifest_of):
    from mechunlearn.models.loading import load

    manifest = manifest_of("gemma3_text")
    model, size = load(manifest), footprint.size_of(manifest)
    matrices = [parameter for name, parameter in model.network.named_parameters() if name in model.layout.shapes]
    assert size.matrices == sum(each.numel() for each in matrices)
    assert size.adapter == sum(sum(each.shape) for each in matrices)
    assert size.layers == model.layout.layers
    heads = [Component(1, "attention", 0), Component(1, "attention", 1), Component(2, "mlp", neurons=3)]
    assert size.holding(heads) == model.layout.parameters(Component(1, "attention"), Component(2, "mlp"))
    whole = sum(each.numel() * 4 for each in model.network.parameters())
    assert whole <= size.weights < 1.1 * whole + 20_000  # the file's header is in it


def test_what_cannot_be_known_yet(tmp_path, manifest_of):
    with pytest.raises(FileNotFoundError):
        footprint.size_of(tmp_path / "model.json")
    (tmp_path / "model.json").write_text(Path(manifest_of("llama")).read_text().replace("llama", "gone"))
    assert footprint.size_of(tmp_path / "model.json") == Size()


def test_a_job_that_reads_a_size_does_not_load_snakemake():
    code = "import sys, mechunlearn.footprint; sys.exit('snakemake' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
