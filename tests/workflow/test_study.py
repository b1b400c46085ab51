"""The smoke study, run for real from fetch to report."""

import json
import os
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml
from safetensors.torch import load_file

from mechunlearn import artifacts, footprint, registry
from mechunlearn import study as layout
from mechunlearn.config import load_study
from mechunlearn.config.edit import of_surgery
from mechunlearn.facts import MEASURED
from mechunlearn.models.loading import load
from tests import checkout

pytestmark = pytest.mark.study


def test_it_ends_with_a_report_and_nothing_left_to_do(finished):
    assert (finished / "results/smoke/report.html").stat().st_size > 100_000
    assert checkout.planned(finished) == {}


def test_it_says_where_the_report_is_and_how_long_each_phase_took(finished):
    (finished / "results/smoke/report.html").unlink()
    process = checkout.snakemake(finished)
    assert "Report: results/smoke/report.html" in process.stdout + process.stderr
    for phase in ("fetch", "localize", "edit", "evaluate", "attack", "figures"):
        assert f"  {phase} " in process.stdout + process.stderr


def test_no_job_took_more_memory_than_it_asks_for(finished):
    study = load_study(finished / checkout.SMOKE)
    size = footprint.size_of(finished / "models/gemma-3-270m/model.json")
    cell = finished / "results/smoke/gemma-3-270m/sports-athlete-4"
    asked = {"evaluate": dict.fromkeys(["base", *study.localizations], footprint.MEASURE)}
    asked["localize"] = dict.fromkeys(layout.localizers(study), footprint.LOCALIZE)
    asked["edit"] = {
        name: footprint.of_edit(
            size, cell / f"selection/{name}.json", study.edit, facts=4, seeds=len(study.seeds), people=False
        )
        for name in study.localizations
    }
    asked["attack"] = {
        f"{attack}-{name}": footprint.of_attack(size, attack, study)
        for attack in study.attacks
        for name in ["base", *study.localizations]
    }
    for phase, works in asked.items():
        for job, work in works.items():
            end = "" if phase == "localize" or job.endswith("base") else "-inject"
            file = finished / f"results/smoke/timing/{phase}/gemma-3-270m-sports-athlete-4-{job}{end}.tsv"
            assert pd.read_csv(file, sep="\t").max_rss.max() < footprint.mem_mb(size, work), file.name


def test_every_number_carries_its_n_and_its_interval(finished):
    metrics = pd.read_csv(finished / "results/smoke/metrics.csv")
    assert (metrics.n > 0).all()
    assert ((metrics.low <= metrics.value + 1e-6) & (metrics.value <= metrics.high + 1e-6)).all()
    claims = json.loads((finished / "results/smoke/claims.json").read_text())
    assert {claim["verdict"] for claim in claims} <= {"reproduced", "not reproduced", "not measurable here"}


def test_the_edit_did_what_it_was_trained_for(finished):
    metrics = pd.read_csv(finished / "results/smoke/metrics.csv", keep_default_na=False)
    rows = metrics.query("elicitation == 'completion' and role == 'forget' and metric == 'p_true' and against == ''")
    before = float(rows[rows.stage == "base"].value.iloc[0])
    after = rows[(rows.stage == "edited") & (rows.localization == "fact-lookup")].value.astype(float).iloc[0]
    assert after < before / 2


@pytest.mark.parametrize(
    ("changed", "reruns", "spares"),
    [
        ("edit/train.py", {"edit", "evaluate", "attack", "metrics"}, {"localize", "screen", "evaluate_base"}),
        ("attack/relearn.py", {"attack", "metrics"}, {"edit", "evaluate", "localize"}),
        ("localize/attribution_patching.py", {"localize", "select"}, {"screen", "evaluate_base"}),
        ("localize/select.py", {"select"}, {"localize", "screen", "evaluate_base"}),
        ("metrics.py", {"metrics"}, {"edit", "evaluate", "attack", "localize"}),
    ],
)
def test_changing_a_source_reruns_what_depends_on_it_and_no_more(finished, source, changed, reruns, spares):
    source(changed)
    jobs = checkout.planned(finished)
    assert reruns <= set(jobs)
    assert not spares & set(jobs)


def test_changing_one_attack_spares_the_others(finished, source):
    source("attack/quantize.py")
    jobs = checkout.planned(finished)
    assert (jobs["attack"], jobs["attack_base"]) == (3, 1)


def test_changing_one_localizer_spares_the_other(finished, source):
    source("localize/activation_patching.py")
    assert checkout.planned(finished)["localize"] == 1


def test_changing_a_figure_redraws_that_figure_only(finished, source):
    source("figures/relearning.py")
    jobs = checkout.planned(finished)
    assert jobs["figure"] == 1
    assert set(jobs) <= {"figure", "figures", "report", "all"}


def test_a_new_learning_rate_reruns_its_own_cell_only(finished):
    text = (finished / checkout.SMOKE).read_text()
    (finished / "config/other.yaml").write_text(text.replace("nonlocalized: 3.0e-5", "nonlocalized: 2.0e-5"))
    jobs = checkout.planned(finished, config="config/other.yaml")
    assert (jobs["edit"], jobs["evaluate"], jobs["attack"]) == (1, 1, 4)


def test_every_objective_edits_where_fact_lookup_points_and_everywhere(finished):
    study = yaml.safe_load((finished / checkout.SMOKE).read_text())
    names = set(registry.edits()) - {"inject"}  # which the study has
    study["objectives"] = sorted(name for name in names if not of_surgery(name))
    study["edit"] |= {"steps": 1, "batch": 2, "learning_rate": 1e-5, "learning_rates": {"nonlocalized": 2e-6}}
    study["edit"] |= {"rmu": {"alpha": 5, "steering": 2}}
    _edits(finished, study, "gemma-3-270m/sports-athlete-4")


def test_every_variant_of_surgery_does_so_with_people(finished):
    study = yaml.safe_load((finished / checkout.SMOKE).read_text())
    study["objectives"] = sorted(name for name in registry.methods("objective") if of_surgery(name))
    study["models"]["theta-pre"] = {"source": "trained:gemma-3-270m@pre"}
    study["tasks"] = {"biographies": {"facts": "biographies"}}
    study["biographies"] = {
        **dict.fromkeys(("problematic", "obsolete", "retain", "kept", "texts"), 2),
        **dict.fromkeys(("wordings", "epochs"), 1),
    }
    study["localize"] = {"layers": {"fact-lookup": {"mlps": [3]}}}  # of people who are hardly known none would be found
    study["edit"] |= {"steps": 1}
    study["evaluate"] |= {"elicitations": ["completion"]}
    _edits(finished, study, "theta-pre/biographies")


def _edits(folder, study, place):
    """Make all edits of a study; each of its cells must have changed something, and only what it may."""
    study |= {"localizations": ["fact-lookup", "nonlocalized"], "masking": {}}
    (folder / "config/edits.yaml").write_text(yaml.safe_dump(study))
    process = checkout.snakemake(folder, "edit_all", config="config/edits.yaml")
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-3000:]
    home = folder / "results/smoke" / place
    base = load(folder / "models" / Path(place).parent / "model.json").network.state_dict()
    for localization in ("fact-lookup", "nonlocalized"):
        deltas = [home / f"edits/{localization}/{name}/seed0/delta.safetensors" for name in study["objectives"]]
        chosen = {
            component.layer
            for component in artifacts.read_selection(home / f"selection/{localization}.json").components
        }
        for delta in deltas:
            edited = load_file(delta)
            assert {int(name.split(".layers.")[1].split(".")[0]) for name in edited} <= chosen
            assert any((tensor != base[name]).any() for name, tensor in edited.items()), delta


def test_snakemakes_own_report_has_the_papers_chapters(finished, tmp_path):
    process = checkout.snakemake(finished, "--report", str(tmp_path / "report.html"))
    assert process.returncode == 0, process.stderr[-3000:]
    page = (tmp_path / "report.html").read_text()
    for chapter in ("2.2 Localization", "3.1 Asking in other ways", "3.2 Relearning and other attacks", "Report"):
        assert f'"{chapter}": {{' in page
    assert "Bars: means over facts" in page  # a caption


@pytest.mark.parametrize(
    ("folders", "offset"),
    [(("src", "data", "models", "report", "config"), 86_400), (("results/smoke", "models"), -10 * 365 * 86_400)],
    ids=["sources of a clock that is a day ahead", "results restored with old times"],
)
def test_clocks_that_disagree_rerun_nothing(finished, folders, offset):
    files = [path for name in folders for path in (finished / name).rglob("*") if path.is_file()]
    times = {path: path.stat() for path in files}
    try:
        for path in files:
            os.utime(path, (time.time() + offset,) * 2)
        assert checkout.planned(finished) == {}
    finally:
        for path, before in times.items():
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_sweep_chooses_what_a_study_reads_and_touches_no_reported_fact(finished):
    process = checkout.snakemake(finished, "sweep")
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-3000:]
    home = finished / "results/smoke/gemma-3-270m/sports-athlete-4"
    reported = artifacts.read_facts(home / "facts.parquet", *MEASURED)
    trials = list((home / "sweep/fact-lookup/inject").glob("*/*.parquet"))
    assert len(trials) == 3
    for path in trials:
        assert not {fact.id for fact in reported} & set(artifacts.read_measurements(path).fact)
    swept = yaml.safe_load((finished / "results/smoke/swept.yaml").read_text())
    chosen = swept["gemma-3-270m"]["sports-athlete-4"]["fact-lookup"]["inject"]
    study = yaml.safe_load((finished / checkout.SMOKE).read_text())
    assert all(chosen[name] in values for name, values in study["sweep"]["grids"].items())
    (finished / "config/reading.yaml").write_text(
        yaml.safe_dump({**study, "swept": "results/smoke/swept.yaml", "edit": {**study["edit"], "learning_rate": 0.5}})
    )
    jobs = checkout.planned(finished, "edit_all", config="config/reading.yaml")
    assert jobs["edit"] == 1 + (chosen != {"learning_rate": 1e-4, "forget_weight": 1.0})  # its own and the default rate
    assert checkout.planned(finished, "sweep") == {}


def test_too_large_a_forget_set_is_refused_as_soon_as_screening_knows(finished):
    text = (finished / checkout.SMOKE).read_text()
    (finished / "config/large.yaml").write_text(
        text.replace("forget: 4", "forget: 400").replace("study: smoke", "study: large")
    )
    process = checkout.snakemake(finished, config="config/large.yaml")
    assert process.returncode != 0
    assert "forget is 400, but the model knows" in process.stdout + process.stderr
    assert not list((finished / "results/large").rglob("*.safetensors"))
