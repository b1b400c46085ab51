"""The paper's studies: every run of its main grid once, each with the rate and weight that the paper printed for it."""

import itertools
import json
from pathlib import Path

import pytest
import yaml

from mechunlearn import study as layout
from mechunlearn.config import load_study, validate_study

CONFIG = Path(__file__).parents[2] / "config"
GRID = ("athletes", "full-sports", "counterfact", "sequential")
STUDIES = {name: load_study(CONFIG / f"paper-{name}.yaml") for name in (*GRID, "scaling", "masking")}

# Tables 6 and 7 as printed: a line for each model and tuned localization, learning rate / lambda 1 in each setting.
COLUMNS = ("64 athletes", "basketball to golf", "16 facts", "64 facts")
PRINTED = """
gemma-7b    fact-lookup     1e-5/5    2e-5/5    5e-6/.1   1e-5/2
gemma-7b    causal-tracing  1e-5/.1   5e-6/1    5e-6/.2   2e-5/1
gemma-7b    nonlocalized    2e-6/.2   5e-6/1    5e-6/.2   2e-6/1
gemma-2-9b  fact-lookup     1e-5/1    5e-5/5    5e-5/2    2e-5/.5
gemma-2-9b  causal-tracing  5e-5/5    5e-5/5    5e-5/2    2e-5/2
gemma-2-9b  nonlocalized    2e-5/5    1e-5/5    5e-6/1    5e-6/1
llama-3-8b  fact-lookup     5e-5/5    5e-5/.2   1e-4/1    5e-5/.2
llama-3-8b  causal-tracing  1e-4/2    5e-5/1    2e-5/.1   5e-5/2
llama-3-8b  nonlocalized    2e-5/2    1e-5/.1   2e-5/2    1e-5/.2
"""
RATES = {
    (model, tuned, column): tuple(map(float, cell.split("/")))
    for model, tuned, *cells in map(str.split, PRINTED.strip().splitlines())
    for column, cell in zip(COLUMNS, cells, strict=True)
}
# Section A.6: what was not tuned took over the values of what was.
SETTING = {
    "athletes-16": "64 athletes",
    "athletes-64": "64 athletes",
    "baseball": "basketball to golf",
    "basketball": "basketball to golf",
    "football": "basketball to golf",
    "counterfact-16": "16 facts",
    "counterfact-64": "64 facts",
    "counterfact-4x16": "64 facts",
}
TUNED = {
    "fact-lookup": "fact-lookup",
    "random-mlps": "fact-lookup",
    "causal-tracing-mlps": "fact-lookup",
    "attribution-patching-mlps": "fact-lookup",
    "causal-tracing": "causal-tracing",
    "attribution-patching": "causal-tracing",
    "random": "causal-tracing",
    "nonlocalized": "nonlocalized",
    "all-mlps": "nonlocalized",
}


def cells(study):
    return [(*pair, name) for pair, name in itertools.product(layout.pairs(study), study.localizations)]


def with_layers(name):
    """A study of the paper's with its published layers, as Snakemake merges two configuration files."""
    study = yaml.safe_load((CONFIG / f"paper-{name}.yaml").read_text())
    study["localize"] |= yaml.safe_load((CONFIG / "layers" / f"paper-{name}.yaml").read_text())["localize"]
    return validate_study(study)


def test_the_main_grid_has_the_papers_216_runs():
    runs = [cell for name in GRID for cell in cells(STUDIES[name])]
    assert len(runs) == len(set(runs)) == 216
    assert all(len(study.seeds) >= 3 for study in STUDIES.values())


@pytest.mark.parametrize("name", GRID)
def test_each_run_trains_as_printed(name):
    study = STUDIES[name]
    for model, task, localization in cells(study):
        settings = json.loads(study.edit_settings(model, task, localization, "inject"))
        printed = RATES[model, TUNED[localization], SETTING[task]]
        assert (settings["learning_rate"], settings["forget_weight"]) == printed, (model, task, localization)
        assert settings["steps"] == (25 if study.tasks[task].blocks else 50)
        assert (settings["batch"], settings["retain_weight"], settings["text_weight"]) == (64, 1, 1)
        assert (settings["text_tokens"], settings["clip"]) == (100, 1)


@pytest.mark.parametrize("name", GRID)
def test_relearning_is_the_papers(name):
    relearn = STUDIES[name].relearn
    assert (relearn.rank, relearn.alpha, relearn.dropout, relearn.learning_rate) == (512, 32, 0.05, 2e-4)
    assert relearn.steps[-1] == 20


def test_every_model_and_text_is_pinned_to_one_commit():
    pinned = {}
    for study in STUDIES.values():
        for name, model in study.models.items():
            assert pinned.setdefault(name, model.source) == model.source
        assert pinned.setdefault("text", study.text.path) == study.text.path
    assert {name: source.split("@")[0] for name, source in pinned.items()} == {
        "gemma-7b": "hub:google/gemma-7b",
        "gemma-2-9b": "hub:google/gemma-2-9b",
        "llama-3-8b": "hub:meta-llama/Meta-Llama-3-8B",
        "text": "hub:monology/pile-uncopyrighted",
    }


@pytest.mark.parametrize("name", GRID)
def test_the_authors_layers_are_an_option(name):
    study = with_layers(name)
    counts = {"gemma-7b": (6, 8, 5), "gemma-2-9b": (5, 5, 8), "llama-3-8b": (4, 4, 4)}  # sports, first 16, first 64
    for model, task in layout.pairs(study):
        settings = study.localize.of_cell(model, task, "fact-lookup")
        given = settings.layers["fact-lookup"]
        places = given.blocks or [given]
        assert len(places) == (study.tasks[task].blocks or 1)
        which = {"counterfact-16": 1, "counterfact-4x16": 1, "counterfact-64": 2}.get(task, 0)
        assert len(places[0].mlps) == counts[model][which]
        assert not settings.scorer("fact-lookup")
        assert study.localize.of_cell(model, task, "random").follows_lookup("random")
        assert "layers" not in json.loads(study.localize.of_cell(model, task, "random").for_selection("random"))
        assert STUDIES[name].localize.of_cell(model, task, "fact-lookup").scorer("fact-lookup")  # without them the rule
