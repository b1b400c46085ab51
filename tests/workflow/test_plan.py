"""What the workflow would do, from dry runs."""

import hashlib
import os
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import yaml

from mechunlearn import published, stages
from mechunlearn import study as layout
from mechunlearn.config import load_study, validate_study
from mechunlearn.errors import ConfigError
from mechunlearn.facts import own
from tests import checkout

STUDIES = sorted(path.name for path in (checkout.ROOT / "config").glob("*.yaml"))


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkout.copy(tmp_path_factory.mktemp("fresh"))


@pytest.fixture(scope="module")
def plan(fresh: Path) -> Callable[[str], dict[str, int]]:
    """The whole plan of one of our studies, made once, with every network out of reach."""

    @cache
    def planned(name: str) -> dict[str, int]:
        with pytest.MonkeyPatch.context() as patch:
            for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
                patch.setenv(variable, "http://127.0.0.1:9")
            return checkout.planned(fresh, config=f"config/{name}")

    return planned


@pytest.mark.parametrize("name", STUDIES)
def test_every_cell_of_a_study_is_edited_evaluated_and_attacked_once(plan, name):
    study = load_study(checkout.ROOT / "config" / name)
    places = len(layout.pairs(study))
    cells = places * len(study.localizations) * len(study.objectives)
    jobs = plan(name)
    edits = jobs.get("edit", 0) + jobs.get("edit_sequential", 0)
    assert [edits, jobs.get("evaluate", 0), jobs.get("attack", 0)] == [cells, cells, cells * len(study.attacks)]
    assert jobs.get("attack_base", 0) == (places * len(study.attacks) if study.objectives else 0)
    assert jobs["evaluate_base"] == places + len(layout.references(study))
    assert jobs.get("localize", 0) >= places * len(layout.localizers(study))
    assert jobs["select"] == places * len(layout.selections(study))


def test_both_sizes_of_the_papers_forget_sets_are_tasks_of_a_study(fresh):
    study = load_study(checkout.ROOT / "config/sizes.yaml")
    assert {(task.facts, task.forget) for task in study.tasks.values()} == {
        (facts, size) for facts in ("sports", "counterfact") for size in (16, 64)
    }
    assert {published.kind(task) for task in study.tasks.values()} == {"sports-athlete", "counterfact"}
    jobs = checkout.planned(fresh, "fetch_all", config="config/sizes.yaml")
    assert (jobs["screen"], jobs["fetch_data"]) == (4, 3)


def test_the_papers_main_grid_is_planned_without_its_models(plan):
    """216 runs: nine localizations of three models' eight tasks (appendix A.6); no model is at hand, nor a network."""
    runs = 0
    for name in ("athletes", "full-sports", "counterfact", "sequential"):
        jobs = plan(f"paper-{name}.yaml")
        runs += jobs.get("edit", 0) + jobs.get("edit_sequential", 0)
        assert jobs["fetch_model"] == 3
    assert runs == 216


def test_layers_by_hand_are_a_second_configuration_file(fresh):
    files = ["config/paper-sequential.yaml", "config/layers/paper-sequential.yaml"]
    target = "results/paper-sequential/gemma-7b/counterfact-4x16/selection/fact-lookup.json"
    process = checkout.run(fresh, "snakemake", "-n", "-p", "--configfile", *files, "--", target)
    assert process.returncode == 0, process.stdout + process.stderr
    assert '"blocks":[{"mlps":[1,3,4,6,9,17,18,19]' in process.stdout
    assert "mechunlearn score" not in process.stdout


def test_the_papers_surgery_has_its_model_weights_and_steps(fresh):
    study = load_study(checkout.ROOT / "config/paper-surgery.yaml")
    assert study.models["llama-2-7b"].source.startswith("hub:meta-llama/Llama-2-7b-hf@")
    assert (study.edit.steps, study.edit.learning_rate, study.edit.surgery.batch) == (120, 2e-4, 8)
    weights = study.edit.surgery
    assert (weights.unlearn_weight, weights.obsolete_weight) == (0.1, 0.1)
    assert (weights.update_weight, weights.retain_weight) == (2.0, 0.5)
    assert (study.biographies.problematic, study.biographies.obsolete) == (119, 119)
    jobs = checkout.planned(fresh, config="config/paper-surgery.yaml")
    assert (jobs["fetch_model"], jobs["read_biographies"]) == (1, 2)


def test_a_study_of_localization_alone_selects_draws_and_what_is_given_by_hand(fresh):
    study = yaml.safe_load((fresh / checkout.SMOKE).read_text())
    layers = {"gemma.7b-ct": {"mlps": [1, 2], "attention": [3], "heads": [[5, 0]]}, "fact-lookup": {"mlps": [2, 3]}}
    names = ["gemma.7b-ct", "random-2", "random-mlps-13", "causal-tracing"]
    change = {"localizations": names, "objectives": [], "attacks": [], "localize": {"layers": layers}}
    study |= {"sweep": {}, "masking": {}}  # which name a localization that this study has not
    (fresh / "config" / "hand.yaml").write_text(yaml.safe_dump({**study, "edit": {}, **change}))
    jobs = checkout.planned(fresh, config="config/hand.yaml")
    (fresh / "config" / "hand.yaml").unlink()
    assert (jobs["localize"], jobs["select"], jobs["evaluate_base"], jobs["report"]) == (1, 5, 1, 1)
    assert not {"edit", "evaluate", "attack"} & set(jobs)


def test_a_task_may_name_a_file_or_a_dataset_of_the_hub(fresh):
    revision = hashlib.sha1(b"any commit").hexdigest()
    study = yaml.safe_load((fresh / checkout.SMOKE).read_text())
    tasks = {
        "mine": {"facts": "own", "path": "my facts.csv", "forget": 2},
        "theirs": {"facts": "counterfact-upstream", "path": f"hub:some/facts@{revision}:part", "forget": 2},
    }
    (fresh / "config" / "named.yaml").write_text(
        yaml.safe_dump({**study, "tasks": tasks, "evaluate": {"elicitations": ["completion"]}})
    )
    process = checkout.snakemake(fresh, "-n", config="config/named.yaml")
    assert "tasks.mine.path is 'my facts.csv', but there is no such file." in process.stdout + process.stderr
    (fresh / "my facts.csv").write_text("subject,prompt,answer\n")
    process = checkout.snakemake(fresh, "-n", config="config/named.yaml")
    assert process.returncode
    assert "my facts.csv holds no facts" in process.stdout + process.stderr
    (fresh / "my facts.csv").unlink()
    (fresh / "my facts.csv").write_text(own.example(fresh / "my facts.csv"))
    jobs = checkout.planned(fresh, "fetch_all", config="config/named.yaml")
    (fresh / "my facts.csv").unlink()
    (fresh / "config" / "named.yaml").unlink()
    assert (jobs["fetch_rows"], jobs["fetch_data"], jobs["screen"]) == (1, 1, 2)


def test_a_study_may_name_its_own_text(fresh):
    revision = hashlib.sha1(b"any commit").hexdigest()
    study = yaml.safe_load((fresh / checkout.SMOKE).read_text())
    config, text = fresh / "config" / "text.yaml", fresh / "my text.jsonl"
    for path in (str(text.relative_to(fresh)), f"hub:monology/pile-uncopyrighted@{revision}:train"):
        config.write_text(yaml.safe_dump({**study, "text": {"path": path}}))
        if not path.startswith("hub:"):
            process = checkout.snakemake(fresh, "-n", config="config/text.yaml")
            assert "text.path is 'my text.jsonl', but there is no such file." in process.stdout + process.stderr
            text.write_text("")
        jobs = checkout.planned(fresh, config="config/text.yaml")
        assert (jobs["fetch_text"], jobs["fetch_data"], jobs["edit"]) == (1, 1, 3)  # the athletes are ours
    config.unlink()
    text.unlink()


def test_planning_never_imports_torch(fresh, tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("raise ImportError('the plan must not need torch')")
    environment = checkout.environment(fresh)
    monkeypatch.setattr(
        checkout,
        "environment",
        lambda folder: {**environment, "PYTHONPATH": f"{tmp_path}{os.pathsep}{environment['PYTHONPATH']}"},
    )
    assert checkout.planned(fresh)["edit"] == 3


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"edit": {"learning_rat": 1}}, "unknown key `edit.learning_rat`; did you mean `learning_rate`?"),
        ({"localizations": ["fact-lokup"]}, "unknown name 'fact-lokup' - did you mean 'fact-lookup'?"),
        ({"localize": {"budget": 0}}, "`localize.budget` is 0"),
        ({"edit": {"steps": "many"}}, "`edit.steps` is 'many'"),
    ],
)
def test_a_wrong_configuration_ends_the_plan_with_one_sentence(fresh, change, sentence):
    study = yaml.safe_load((fresh / checkout.SMOKE).read_text())
    (fresh / "config" / "wrong.yaml").write_text(yaml.safe_dump({**study, **change}))
    process = checkout.snakemake(fresh, "-n", config="config/wrong.yaml")
    (fresh / "config" / "wrong.yaml").unlink()
    assert process.returncode != 0
    assert sentence in process.stdout + process.stderr
    assert "Traceback" not in process.stderr


@pytest.mark.parametrize(
    "target", ["fetch_all", "localize_all", "edit_all", "evaluate_all", "attack_all", "figures", "report", "sweep"]
)
def test_every_phase_is_a_target(fresh, target):
    assert checkout.planned(fresh, target)[target] == 1


@pytest.mark.parametrize("name", STUDIES)
def test_a_sweep_plans_every_trial_once_and_no_edit_of_the_study(fresh, name):
    study = load_study(checkout.ROOT / "config" / name)
    cells, jobs = layout.sweep_cells(study), checkout.planned(fresh, "sweep", config=f"config/{name}")
    places = {(cell.model, cell.task) for cell in cells}
    trials = sum(
        len(layout.sweep_values(study, cell, setting))
        for cell in cells
        for setting in layout.sweep_parameters(study, cell)
    )
    assert [jobs.get(rule, 0) for rule in ("sweep_facts", "sweep_base")] == [len(places)] * 2
    assert jobs.get("sweep_trial", 0) == trials
    assert jobs.get("sweep_choose", 0) == len(layout.sweep_choices(study))
    grouped = {
        (cell.model, cell.task, cell.localization)
        for cell in cells
        if layout.grouped(study, cell.task, cell.localization)
    }
    assert jobs.get("sweep_select", 0) == len(grouped)
    assert not {"edit", "edit_sequential", "evaluate", "evaluate_base", "attack", "report"} & set(jobs)


def test_a_swept_value_reruns_its_own_cell_alone(fresh):
    study = load_study(fresh / checkout.SMOKE)
    (task,) = study.tasks
    content = {"gemma-3-270m": {task: {"nonlocalized": {"inject": {"learning_rate": 1e-6}}}}}
    (fresh / "config" / "swept.txt").write_text(yaml.safe_dump(content))
    (fresh / "config" / "reading.yaml").write_text(
        yaml.safe_dump({**yaml.safe_load((fresh / checkout.SMOKE).read_text()), "swept": "config/swept.txt"})
    )
    process = checkout.snakemake(fresh, "-n", "--printshellcmds", "edit_all", config="config/reading.yaml")
    (fresh / "config" / "reading.yaml").unlink()
    (fresh / "config" / "swept.txt").unlink()
    edits = [line for line in process.stdout.splitlines() if "learning_rate" in line and "--settings" in line]
    assert len(edits) == 3, process.stdout + process.stderr
    assert sum('"learning_rate":1e-6' in line or '"learning_rate":1e-06' in line for line in edits) == 1


MORE = {  # files that the default study does not have: of masked weights, of text and of several sizes
    "localizations": ["fact-lookup", "causal-tracing", "nonlocalized"],
    "text": {"path": "my text.jsonl"},
    "masking": {"localizations": ["fact-lookup"]},
    "tasks": {f"sports-athlete-{size}": {"facts": "sports", "forget": size} for size in (4, 8, 16)},
    "evaluate": {"elicitations": ["completion"]},
    "sweep": {},
}


def test_dvc_has_every_file_that_the_default_study_writes(fresh):
    """By the workflow's own list of outputs: each is one of a stage, or below one, and of one stage only."""
    values = yaml.safe_load((checkout.ROOT / "config/config.yaml").read_text()) | MORE
    (fresh / "config/dvc.yaml").write_text(yaml.safe_dump(values))
    (fresh / "my text.jsonl").write_text("")
    summary = checkout.snakemake(fresh, "--summary", config="config/dvc.yaml")
    (fresh / "config/dvc.yaml").unlink()
    (fresh / "my text.jsonl").unlink()
    written = [line.split("\t")[0] for line in summary.stdout.splitlines() if line.count("\t") >= 5][1:]
    pipeline = yaml.safe_load(stages.text(validate_study(values)))
    outs = [
        next(iter(out)) for stage in pipeline["stages"].values() for out in stage["outs"] + stage.get("metrics", [])
    ]
    assert len(written) > 100
    for path in written:
        owners = [out for out in outs if path == out or path.startswith(f"{out}/")]
        assert len(owners) == 1 or (path.startswith("data/") and not owners), path
    assert set(pipeline["plots"]) <= set(written)


def test_dvc_takes_every_stage_as_it_is_written(fresh):
    checkout.run(fresh, "git", "init", "-q")
    listed = checkout.run(fresh, "dvc", "stage", "list", "--name-only")
    assert listed.stdout.split() == ["fetch", "localize", "edit", "evaluate", "attack", "figures", "report"]


def test_a_default_study_with_models_made_from_others_is_refused_in_one_sentence():
    values = yaml.safe_load((checkout.ROOT / "config/config.yaml").read_text())
    values["models"]["planted-3"] = {"source": "planted:gemma-3-270m@3"}
    values["tasks"]["planted"] = {"facts": "planted", "forget": 4}
    with pytest.raises(ConfigError, match=r"planted:gemma-3-270m@3'.*from package:, hub: or path:"):
        stages.text(validate_study(values))


def test_every_stage_of_dvc_depends_on_all_that_the_workflow_reads():
    for stage in yaml.safe_load((checkout.ROOT / "dvc.yaml").read_text())["stages"].values():
        assert {"Snakefile", "rules", "src/mechunlearn", "config/config.yaml"} <= set(stage["deps"])


def test_data_dvc_pins_the_resources_as_they_are(fresh):
    checkout.run(fresh, "git", "init", "-q")
    assert "up to date" not in checkout.run(fresh, "dvc", "status", "data.dvc").stdout  # data/ is not there yet
    assert "src/mechunlearn/resources" not in checkout.run(fresh, "dvc", "status", "data.dvc").stdout


def test_dvc_never_deletes_what_snakemake_made():
    pipeline = yaml.safe_load((checkout.ROOT / "dvc.yaml").read_text())["stages"].values()
    outs = [out for stage in pipeline for out in stage["outs"] + stage.get("metrics", [])]
    assert all(next(iter(out.values()))["persist"] for out in outs)
    names = [next(iter(out)) for out in outs]
    assert len(set(names)) == len(names)


def test_every_rule_asks_for_memory_and_time(fresh):
    texts = [file.read_text() for file in sorted((fresh / "rules").glob("*.smk"))]
    rules = [rule for text in texts for rule in re.split(r"^(?=rule |use rule )", text, flags=re.MULTILINE)]
    silent = [
        rule.split(":")[0] for rule in rules if "shell:" in rule and not ("mem_mb=" in rule and "runtime=" in rule)
    ]
    assert len(rules) > 20
    assert silent == []


def test_a_cluster_gets_the_same_plan(fresh):
    """Needs no Slurm; rejects what the profile misspells."""
    profile = "--workflow-profile", "profiles/slurm"
    assert checkout.planned(fresh, *profile) == checkout.planned(fresh)
