"""A study is checked before anything runs, and every mistake is one sentence."""

import json
import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from mechunlearn import registry, schema
from mechunlearn.cli import app
from mechunlearn.config import (
    EditSettings,
    EvaluateSettings,
    LocalizeSettings,
    load_study,
    read_mapping,
    validate_study,
)
from mechunlearn.config.models import NAMES as PEOPLE
from mechunlearn.config.study import PASSAGES
from mechunlearn.errors import ConfigError, UserError
from mechunlearn.facts.planted import FIRST, LAST
from mechunlearn.study import check_files

ROOT = Path(__file__).parents[2]
STUDIES = sorted((ROOT / "config").glob("*.yaml"))
SMALLEST = {
    "study": "small",
    "models": {"tiny": {"source": "path:somewhere"}},
    "tasks": {"athletes": {"facts": "sports", "forget": 4}},
    "localizations": ["fact-lookup"],
}


def changed(key, value):
    """The smallest study with one key, e.g. `edit.steps`, set."""
    values = yaml.safe_load(yaml.safe_dump(SMALLEST))
    *path, last = key.split(".")
    place = values
    for part in path:
        place = place.setdefault(part, {})
    place[last] = value
    return values


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.name)
def test_every_study_of_ours_loads(path):
    study = load_study(path)
    assert all(model.sha256 or not model.source.startswith("package:") for model in study.models.values())


def test_the_default_and_smoke_studies_are_there():
    assert {"config.yaml", "smoke.yaml"} <= {path.name for path in STUDIES}


def test_the_schema_and_the_table_agree_with_the_models(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert schema.stale() == []


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("localize.layers_of", {"tini": {}}, "localize.layers_of: unknown name 'tini' - did you mean 'tiny'"),
        ("localize.layers_of.tiny", {"athlete": {}}, "localize.layers_of: unknown name 'athlete' - did you mean"),
        ("localize.layers_of.tiny.athletes", {"random": {"mlps": [1]}}, "localize.layers_of: unknown name 'random'"),
        ("localize.layers.fact-lookup.blocks", [{"mlps": [2]}], "given for 1 blocks, but tasks.athletes has none"),
    ],
)
def test_layers_of_what_a_study_does_not_have_are_refused(key, value, sentence):
    assert sentence in refusal(changed(key, value))


MISTAKES = [  # key, value, what the sentence must name besides
    ("edti", {}, ["did you mean `edit`"]),
    ("edit.stps", 3, ["did you mean `steps`"]),
    ("models.tiny.dtyp", "float32", ["did you mean `dtype`"]),
    ("edit.steps", "many", ["integer"]),
    ("edit.steps", 0, ["greater than or equal to 1"]),
    ("edit", 5, ["dictionary"]),
    ("study", "A b", ["pattern"]),
    ("tasks.athletes.forget", 0, ["greater than or equal to"]),
    ("tasks.athletes.facts", "chess", ["'sports'"]),
    ("tasks.athletes.maintain_test", 1.0, ["less than 1"]),
    ("localize.budget", 0, ["fact-lookup", "greater than 0"]),
    ("localize.budget", "all", ["fact-lookup", "number"]),
    ("localize.budget", 1.5, ["fact-lookup", "less than or equal to 1"]),
    ("localize.protocol", "signed", ["'corrected' or 'published'"]),
    ("localize.granularity", "neurons", ["'blocks' or 'heads'"]),
    ("localize.lookup", "probe", ["'auto', 'probes' or 'path-patching'"]),
    ("localize.repeats", 0, ["greater than or equal to 1"]),
    ("localize.tracing.restore", "last", ["'all' or 'subject'"]),
    ("localize.tracing.map_facts", -1, ["greater than or equal to 0"]),
    ("localize.attribution.corruption", "noise", ["'tokens' or 'swap'"]),
    ("localize.paths.rule", "largest", ["'interval' or 'threshold'"]),
    ("localize.paths.threshold", -0.1, ["greater than or equal to 0"]),
    ("localize.layers", {"base": {"mlps": [1]}}, ["before any edit"]),
    ("localize.layers", {"attacks": {"mlps": [1]}}, ["a folder of results"]),
    ("localize.layers", {"mine-weights": {"mlps": [1]}}, ["ends in -weights"]),
    ("localize.layers.mine", {}, ["`mlps`, `attention` or `heads`"]),
    ("localize.layers.mine.mlp", [1], ["did you mean `mlps`"]),
    ("localize.layers.mine", {"mlps": [1], "blocks": [{"mlps": [2]}]}, ["nothing may be given beside them"]),
    ("models.tiny.source", "hub:google/gemma-7b", ["must name a commit", "hub:OWNER/NAME@"]),
    ("text.path", "hub:some/text", ["must name a commit", "hub:OWNER/NAME@"]),
    ("text.path", "notes.txt", ["must end in .csv, .parquet"]),
    ("text.passages", 1, ["greater than or equal to 2"]),
    ("models.tiny.source", "ftp:somewhere", ["package|hub|path"]),
    ("models.tiny.sha256", "abc", ["pattern"]),
    ("models.tiny.dtype", "int8", ["'bfloat16', 'float16' or 'float32'"]),
    ("models", {}, ["at least 1"]),
    ("relearn.steps", [5, 10], ["start at 0 and ascend"]),
    ("relearn.steps", [0, 5, 5], ["start at 0 and ascend"]),
    ("relearn.steps", [0], ["start at 0 and ascend"]),
    ("relearn.steps", [], ["start at 0 and ascend"]),
    ("edit.learning_rates", {"fact-lookup": -1.0}, ["greater than 0"]),
    ("screen.threshold", 1.5, ["less than or equal to 1"]),
]


def refusal(values):
    with pytest.raises(ConfigError) as caught:
        validate_study(values, "study.yaml")
    message = str(caught.value)
    assert message.startswith("study.yaml: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize(("key", "value", "words"), MISTAKES)
def test_a_mistake_is_a_sentence_with_key_value_and_what_is_allowed(key, value, words):
    message = refusal(changed(key, value))
    assert f"`{key}" in message
    if "unknown key" not in message:
        assert (repr(value) if not isinstance(value, dict) else "") in message
    for word in words:
        assert word in message
    assert len(re.findall(r"\. `", message)) == 0  # one sentence: the smallest study is right elsewhere


NAMES = [
    ("localizations", ["fact-lokup"], "fact-lookup", registry.localizations()),
    ("objectives", ["injct"], "inject", registry.edits()),
    ("attacks", ["relern"], "relearn", registry.methods("attack")),
    ("evaluate.elicitations", ["completion", "questoin"], "question", registry.methods("elicitation")),
    ("prompt_search.elicitations", ["completion", "questoin"], "question", EvaluateSettings().elicitations),
    ("edit.learning_rates", {"nonlocalised": 1e-4}, "nonlocalized", registry.localizations()),
    ("edit.optimizers", {"tinny": "adamw-8bit"}, "tiny", ["tiny"]),
]


@pytest.mark.parametrize(("key", "value", "meant", "known"), NAMES)
def test_an_unknown_name_comes_with_the_nearest_and_all_known_ones(key, value, meant, known):
    message = refusal(changed(key, value))
    assert f"{key}: unknown name '{list(value)[-1]}' - did you mean '{meant}'?" in message
    for name in known:
        assert name in message


@pytest.mark.parametrize(
    "key", ["localizations", "objectives", "attacks", "evaluate.elicitations", "prompt_search.elicitations"]
)
def test_a_name_stands_once(key):
    names = {"localizations": "fact-lookup", "objectives": "inject", "attacks": "relearn"}
    name = names.get(key, "completion")
    message = refusal(changed(key, [name, name]))
    assert f"{key}: every name may stand there once, got {name}, {name}" in message


@pytest.mark.parametrize("key", ["study", "models", "tasks", "localizations"])
def test_a_required_key_is_named(key):
    values = {name: value for name, value in SMALLEST.items() if name != key}
    assert f"`{key}` is required." in refusal(values)


def test_the_training_prompt_must_be_measured():
    assert "`completion`" in refusal(changed("evaluate.elicitations", ["question"]))


def test_two_mistakes_are_two_sentences():
    values = changed("edit.steps", 0)
    values["seeds"] = [-1]
    message = refusal(values)
    assert "`edit.steps` is 0" in message
    assert "`seeds[0]` is -1" in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("models.tiny.source", "hub:google/gemma-7b@"),
        ("models.tiny.source", "hub:google/gemma-7b@main"),
        ("seeds", [0, 0]),
        ("edit.learning_rate", float("inf")),
        ("localize.layers", {"mine": {"mlps": [3, 3]}}),
        ("localize.layers", {"mine": {"mlps": [-1]}}),
        ("localize.layers", {"mine": {"mlps": [1.5]}}),
        ("localize.layers", {"mine": {"heads": [[3, 0], [3, 0]]}}),
        ("localize.layers", {"mine": {"heads": [[3]]}}),
        ("localize.layers", {"mine": {"heads": [[3, 0, 1]]}}),
        ("localize.layers", {"mine": {"heads": [3]}}),
        ("localize.layers", {"mine": {"attention": [3], "heads": [[3, 0]]}}),
        ("localize.layers", {"mine": {"mlps": [], "attention": [], "heads": []}}),
        ("localize.layers", {"mine/../yours": {"mlps": [3]}}),
        ("localize.layers", {"..": {"mlps": [3]}}),
        ("localize.layers", {"Mine": {"mlps": [3]}}),
    ],
)
def test_values_that_cannot_work_are_refused(key, value):
    refusal(changed(key, value))


@pytest.mark.parametrize("text", ["[]", "5", "", "study: [", "\t"])
def test_a_file_that_is_no_mapping_is_refused_by_name(tmp_path, text):
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"study\.yaml"):
        load_study(tmp_path / "study.yaml")


def test_names_by_hand_and_further_draws_are_localizations():
    values = changed(
        "localize.layers", {"gemma-7b-ct": {"mlps": [21, 22], "heads": [[3, 0]]}, "fact-lookup": {"mlps": [2]}}
    )
    values["localizations"] = ["gemma-7b-ct", "random-2", "random-mlps-13"]
    values["edit"] = {"learning_rates": {"gemma-7b-ct": 1e-5, "random-7": 1e-5}}
    study = validate_study(values)
    assert study.localize.layers["gemma-7b-ct"].heads == [(3, 0)]
    assert study.localize.scorer("fact-lookup") is None
    values["localizations"] = ["gemma-7b-ap"]
    assert "did you mean 'gemma-7b-ct'?" in refusal(values)


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ({"forget": 64, "blocks": 5}, ["blocks is 5", "must divide `forget`, 64"]),
        ({"answer": "baseball", "blocks": 2}, ["may not be given with `answer`"]),
        ({"forget": 4, "blocks": 1}, ["greater than or equal to 2"]),
    ],
)
def test_blocks_divide_the_facts_to_forget(task, words):
    message = refusal(changed("tasks.athletes", {"facts": "sports", **task}))
    assert all(word in message for word in words)
    assert validate_study(changed("tasks.athletes", {"facts": "sports", "forget": 64, "blocks": 4}))


def test_fact_by_fact_every_edited_fact_must_be_localized():
    study = {**SMALLEST, "localizations": ["fact-lookup-per-fact"]}
    assert "allowed: 'forget'" in refusal(study)
    assert "'path-patching'" in refusal({**study, "localize": {"facts": "forget", "lookup": "probes"}})
    many = {"tasks": {"athletes": {"facts": "sports", "forget": 64}}, "localize": {"facts": "forget"}}
    assert "localize.paths.facts is 32" in refusal({**study, **many})
    assert "allowed for tasks.athletes: at least 64" in refusal({**study, **many})
    many["tasks"]["athletes"]["blocks"] = 2
    assert validate_study({**study, **many})
    by_hand = {"layers": {"fact-lookup-per-fact": {"mlps": [1]}}}
    assert validate_study({**study, "localize": by_hand})


def test_layers_for_no_localization_are_refused():
    values = changed("localize.layers", {"fact-lokup": {"mlps": [2]}})
    assert "localize.layers: unknown name 'fact-lokup' - did you mean 'fact-lookup'?" in refusal(values)


def test_a_study_may_localize_only():
    study = validate_study({**SMALLEST, "objectives": [], "attacks": []})
    assert (study.objectives, study.attacks) == ([], [])


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing\.yaml"):
        load_study(tmp_path / "nothing.yaml")


def test_settings_never_change():
    study = validate_study(SMALLEST)
    with pytest.raises(ValueError, match="frozen"):
        study.edit.steps = 3


# what a cell reads ----------------------------------------------------------------------------------------


def test_a_cell_has_the_nearest_learning_rate():
    settings = EditSettings(
        learning_rate=1e-4,
        learning_rates={"nonlocalized": 2e-5},
        objectives={"npo": {"learning_rate": 3e-5, "learning_rates": {"random": 4e-5}, "steps": 7}},
    )
    read = {
        (objective, place): EditSettings.model_validate_json(settings.for_cell(objective, place))
        for objective in ("npo", "inject")
        for place in ("fact-lookup", "nonlocalized", "random")
    }
    rates = {cell: found.learning_rate for cell, found in read.items()}
    assert [rates["inject", place] for place in ("fact-lookup", "nonlocalized", "random")] == [1e-4, 2e-5, 1e-4]
    assert [rates["npo", place] for place in ("fact-lookup", "nonlocalized", "random")] == [3e-5, 3e-5, 4e-5]
    assert (read["npo", "random"].steps, read["inject", "random"].steps) == (7, 40)


IDLE = [  # what would be read by nothing, or ask nothing
    ({"edit": {"objectives": {"surgery-npo": {"forget_weight": 2.0}}}}, "forget_weight is 2, which surgery-npo"),
    ({"edit": {"objectives": {"gradient-ascent": {"text_weight": 2.0}}}}, "text_weight is 2, which gradient"),
    ({"edit": {"objectives": {"memit": {"steps": 9}}}}, "edit.objectives.memit.steps: memit is a closed form"),
    ({"edit": {"objectives": {"npo": {"surgery": {}}}}}, "edit.objectives.npo.surgery: only `surgery`"),
    ({"objectives": ["surgery-no-ascent"], "edit": {"surgery": {"update_weight": 0}}}, "nothing to forget or to learn"),
    ({"masking": {"localizations": ["fact-lookup"], "elicitations": ["famous"]},
      "evaluate": {"elicitations": ["completion"]}}, "masking.elicitations: unknown name 'famous'"),
    ({"masking": {"localizations": ["fact-lookup"], "elicitations": ["famous"]},
      "evaluate": {"elicitations": ["completion", "famous"]},
      "tasks": {"many": {"facts": "counterfact", "forget": 4}, "some": {"facts": "sports", "forget": 4}}},
     "allowed for the task 'many'"),
    ({"biographies": {"problematic": 4000}}, "people together; allowed: 3124"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "sentence"), IDLE)
def test_what_nothing_would_read_is_refused(change, sentence):
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        validate_study({**SMALLEST, **change})


def test_there_are_as_many_names_as_the_settings_say():
    assert len(FIRST.split()) * len(LAST.split()) == PEOPLE


def test_an_objectives_own_steps_count_and_not_the_studys_epochs():
    settings = EditSettings(epochs=2, objectives={"npo": {"steps": 3}})
    cells = {name: EditSettings.model_validate_json(settings.for_cell(name, "random")) for name in ("npo", "inject")}
    assert [cells[name].for_facts(64).steps for name in ("npo", "inject")] == [3, 8]


def test_a_closed_form_reads_its_own_block_alone():
    assert EditSettings(steps=9, npo={"beta": 1}).for_cell("rome", "random") == EditSettings().for_cell(
        "rome", "random"
    )
    assert EditSettings(rome={"steps": 9}).for_cell("rome", "random") != EditSettings().for_cell("rome", "random")


def test_a_model_has_its_own_optimizer():
    settings = EditSettings(optimizers={"large": "adamw-8bit"})
    found = [settings.for_model(name).for_cell("inject", "random") for name in ("large", "small")]
    assert found == [EditSettings(optimizer=each).for_cell("inject", "random") for each in ("adamw-8bit", "adamw")]
    assert found[1] == EditSettings().for_cell("inject", "random")


def test_a_cell_reads_no_other_cells_settings():
    base = EditSettings().for_cell("npo", "random")
    others = [
        {"learning_rates": {"nonlocalized": 1e-3}},
        {"objectives": {"inject": {"steps": 3}, "npo": {"learning_rates": {"nonlocalized": 1e-3}}}},
        {"simnpo": {"beta": 7.0}},
        {"rmu": {"layer": 3}},
    ]
    own = [{"clip": 0.5}, {"npo": {"beta": 7.0}}, {"objectives": {"npo": {"retain_weight": 3.0}}}]
    assert {EditSettings(**change).for_cell("npo", "random") for change in others} == {base}
    assert len({base, *(EditSettings(**change).for_cell("npo", "random") for change in own)}) == 4
    assert "npo" not in EditSettings().for_cell("gradient-ascent", "random")


def test_a_variant_of_surgery_may_have_the_whole_block_of_its_own():
    own = {"surgery-npo": {"surgery": {"unlearn_weight": 2.0}}}
    settings = EditSettings(surgery={"unlearn_weight": 0.3, "batch": 4}, objectives=own)
    cells = {name: json.loads(settings.for_cell(name, "random")) for name in ("surgery", "surgery-npo", "npo")}
    assert (cells["surgery"]["surgery"]["unlearn_weight"], cells["surgery"]["surgery"]["batch"]) == (0.3, 4)
    assert (cells["surgery-npo"]["surgery"]["unlearn_weight"], cells["surgery-npo"]["surgery"]["batch"]) == (2.0, 1)
    assert "surgery" not in cells["npo"]


def test_a_localizer_sees_its_own_settings_alone():
    def read(localizer, **change):
        return LocalizeSettings(**change).for_localizer(localizer)

    general = [{"budget": 0.5}, {"granularity": "heads"}, {"layers": {"mine": {"mlps": [1]}}}]
    selecting = [{"paths": {"rule": "threshold"}}, {"paths": {"threshold": 0.5}}]
    for name in registry.methods("localizer"):
        for change in [*general, *selecting]:
            assert read(name, **change) == read(name)
        for change in ({"seed": 1}, {"repeats": 2}):
            assert read(name, **change) != read(name)
    assert read("fact-lookup", tracing={"samples": 9}) == read("fact-lookup")
    assert read("causal-tracing", probes={"folds": 9}) == read("causal-tracing")
    assert read("attribution-patching", attribution={"steps": 9}) == read("attribution-patching")
    assert read("path-patching", attribution={"facts": 9}) == read("path-patching")
    for name, change in [
        ("fact-lookup", {"probes": {"folds": 9}}),
        ("fact-lookup", {"lookup": "probes"}),
        ("fact-lookup", {"paths": {"draws": 9}}),
        ("causal-tracing", {"protocol": "published"}),
        ("integrated-gradients", {"attribution": {"steps": 9}}),
        ("attribution-patching", {"attribution": {"corruption": "swap"}}),
        ("path-patching", {"attribution": {"corruption": "swap"}}),
        ("path-patching", {"protocol": "published"}),
    ]:
        assert read(name, **change) != read(name)


@pytest.mark.parametrize("name", sorted(registry.methods("localizer")))
def test_what_a_localizer_is_handed_is_what_its_source_reads(name):
    """Blocks and keys of the settings that its modules name, against those that a change of would rerun it."""
    files = [Path(path) for path in registry.sources(registry.methods("localizer")[name])]
    code = " ".join(path.read_text() for path in files if path.parent.name == "localize")
    read = set(re.findall(r"\bsettings\.(\w+)", code)) - {"steps"}
    handed = set(json.loads(LocalizeSettings().for_localizer(name))) - {"repeats", "facts"}  # which `score` reads
    assert handed == read


def test_a_localizer_of_a_users_own_is_handed_all_that_localizers_read():
    handed = json.loads(LocalizeSettings(tracing={"samples": 9}).for_localizer("mine"))
    assert handed["tracing"]["samples"] == 9
    assert {"probes", "attribution", "paths", "protocol", "seed"} <= set(handed)


def test_every_run_of_a_localizer_has_its_own_seed():
    assert [run.seed for run in LocalizeSettings(seed=5, repeats=3).runs()] == [5, 6, 7]
    assert LocalizeSettings().runs() == [LocalizeSettings()]


def test_a_selection_sees_what_it_reads_alone():
    layers = {"mine": {"mlps": [1]}, "fact-lookup": {"mlps": [2]}}

    def read(name, **change):
        return LocalizeSettings(**change).for_selection(name)

    for name in registry.localizations():
        for change in ({"tracing": {"samples": 9}}, {"repeats": 3}, {"layers": {"mine": {"mlps": [1]}}}):
            assert read(name, **change) == read(name)
        assert read(name, seed=1) != read(name)
        assert read(name, protocol="published") != read(name)
    assert read("random", budget=0.5) != read("random")
    assert read("random", granularity="heads") != read("random")
    assert read("fact-lookup", paths={"rule": "threshold"}) != read("fact-lookup")
    assert read("fact-lookup", budget=0.5) == read("fact-lookup")
    assert json.loads(read("mine", layers=layers)) == {
        "layers": {"mine": {"mlps": [1], "attention": [], "heads": [], "blocks": []}}
    }
    assert read("mine", layers=layers, seed=3) == read("mine", layers=layers)


def test_what_a_phase_is_handed_reads_back_as_settings():
    settings = LocalizeSettings(budget=0.5, tracing={"samples": 9})
    again = LocalizeSettings.model_validate_json(settings.for_localizer("causal-tracing"))
    assert again.tracing == settings.tracing
    assert LocalizeSettings.model_validate_json(settings.for_selection("random")).budget == 0.5
    given = LocalizeSettings(layers={"mine": {"heads": [[3, 1]]}})
    assert LocalizeSettings.model_validate_json(given.for_selection("mine")).layers == given.layers


def test_of_a_studys_own_text_some_must_be_left_to_train_on():
    values = changed("text", {"path": "notes.jsonl", "passages": 48})
    assert "evaluate.texts is 48: it must be less than text.passages, 48" in refusal(values)
    values["text"]["passages"] = 49
    assert validate_study(values).text.passages == 49


TWICE = "study: one\nedit: {steps: 3}\nedit: {batch: 2}\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (TWICE, "study.yaml, line 3: not valid YAML: `edit` stands there twice."),
        (
            "tasks:\n  a: {facts: sports}\n  a: {facts: own}\n",
            "line 3: not valid YAML: `a` stands there twice.",
        ),
        ("study: [", "study.yaml, line 1: not valid YAML: "),
        ("study: 2024-99-99", "study.yaml: not valid YAML: month must be in 1..12"),
        ("[" * 3000, "study.yaml: not valid YAML: "),
        ("- study", "study.yaml: must hold keys and values"),
        ("", "study.yaml: must hold keys and values"),
    ],
)
def test_a_file_that_is_not_what_it_seems_is_named_with_its_line(tmp_path, text, sentence):
    (tmp_path / "study.yaml").write_text(text)
    for read in (load_study, lambda path: CliRunner().invoke(app, ["run", "-n", "--configfile", path])):
        try:
            error = read(str(tmp_path / "study.yaml")).exception
        except ConfigError as raised:
            error = raised
        assert isinstance(error, ConfigError)
        assert sentence in str(error)
        assert "\n" not in str(error)


def test_what_is_merged_in_may_stand_there_again(tmp_path):
    (tmp_path / "study.yaml").write_text("a: &all {x: 1, y: 2}\nb: {<<: *all, x: 3}\n")
    assert read_mapping(tmp_path / "study.yaml")["b"] == {"x": 3, "y": 2}


def test_of_several_files_later_ones_go_before(tmp_path):
    files = {"first": {**SMALLEST, "edit": {"steps": 3, "batch": 2}}, "second": {"edit": {"steps": 5}, "seeds": [1]}}
    paths = [tmp_path / f"{name}.yaml" for name in files]
    for path, values in zip(paths, files.values(), strict=True):
        path.write_text(yaml.safe_dump(values))
    study = load_study(*paths)
    assert (study.edit.steps, study.edit.batch, study.seeds) == (5, 2, [1])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--configfile", "nothing.yaml"], "--configfile nothing.yaml: there is no such file"),
        (["--configfile=nothing.yaml"], "--configfile nothing.yaml: there is no such file"),
        (["--configfile=a.yaml", "--configfile=b.yaml"], "--configfile stands there twice"),
        (["--configfile=config/smoke.yaml", "figures", "--config", "a.b=5"], "--config a.b=5: allowed is KEY=VALUE"),
        (["--configfile", "."], ".: not a readable configuration file (Is a directory)."),
        (["--configfile", "a.yaml", "-n", "--configfile", "b.yaml"], "--configfile stands there twice"),
        (["--config", "relearn.rank=5"], "--config relearn.rank=5: allowed is KEY=VALUE with a key of the highest"),
    ],
)
def test_mistakes_on_the_command_line_of_a_run_are_one_sentence(arguments, sentence):
    done = CliRunner().invoke(app, ["run", *arguments])
    assert isinstance(done.exception, ConfigError)
    assert sentence in str(done.exception)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({1: "x"}, "`1` is 1: keys should be strings"),
        ({"a[b": 1}, "unknown key `a[b`"),
        ({"float": 1}, "unknown key `float`"),
        ({"models": {"int": {"sorce": "package:a"}}}, "`models.int.source` is required"),
        ({"tasks": {"literal-1": {}}}, "`tasks.literal-1.facts` is required"),
    ],
)
def test_a_key_is_named_whatever_it_looks_like(values, sentence):
    assert sentence in refusal({**SMALLEST, **values})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "--settings is '{': not JSON"),
        ("[1]", "--settings: Input should be"),
        ('{"budgett": 1}', "--settings: unknown key `budgett`; did you mean `budget`?"),
        ('{"budget": -1}', "--settings: `budget` is -1: "),
    ],
)
def test_settings_of_a_command_are_checked_like_a_studys(text, sentence):
    given = ["localize", "--model", "a", "--facts", "b", "--settings", text]
    done = CliRunner().invoke(app, given)
    assert isinstance(done.exception, ConfigError), done.exception
    assert sentence in str(done.exception)
    assert "\n" not in str(done.exception)


def test_a_study_is_checked_with_the_files_that_it_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def said(**task):
        Path("study.yaml").write_text(yaml.safe_dump({**SMALLEST, "tasks": {"own": task}}))
        return CliRunner().invoke(app, ["validate", "study.yaml"]).exception

    own = {"facts": "own", "forget": 2}
    assert "tasks.own.path is 'mine.csv', but there is no such file" in str(said(**own, path="mine.csv"))
    Path("mine.csv").write_text("subject,prompt,answer,relation\nBrazil,The capital of {} is,,capital\n")
    assert "mine.csv" in str(said(**own, path="mine.csv"))
    assert "answer" in str(said(**own, path="mine.csv"))
    Path("my {facts}.csv").write_text("subject")
    assert "a path with braces" in str(said(**own, path="my {facts}.csv"))


def test_a_studys_file_is_not_taken_for_single_settings():
    done = CliRunner().invoke(app, ["run", "--config", "config/smoke.yaml"])
    assert isinstance(done.exception, ConfigError)
    assert str(done.exception).endswith("--configfile config/smoke.yaml.")


def test_a_task_cannot_ask_for_more_or_others_than_its_facts_are():
    def said(**task):
        with pytest.raises(UserError) as caught:
            check_files(validate_study({**SMALLEST, "tasks": {"some": {"facts": "sports", **task}}}))
        return str(caught.value)

    assert "tasks.some.forget is 1000000: `sports` has 599 facts" in said(forget=1000000)
    assert "tasks.some.answer is 'baskeball': unknown name 'baskeball' - did you mean 'basketball'?" in said(
        answer="baskeball"
    )
    assert "tasks.some.new_answer is 'quidditch'" in said(answer="basketball", new_answer="quidditch")
    assert "tasks.some.new_answer is 'basketball'" in said(answer="basketball", new_answer="basketball")
    check_files(validate_study({**SMALLEST, "tasks": {"some": {"facts": "counterfact", "forget": 400}}}))


def test_the_packages_own_text_does_not_last_for_any_number():
    assert len(Path("src/mechunlearn/resources/text/passages.jsonl").read_text().splitlines()) == PASSAGES
    for key in ("evaluate.texts", "sweep.texts"):
        assert f"{key} is 192: it must be less than the package's passages, 192" in refusal(changed(key, 192))
