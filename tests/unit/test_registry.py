"""Methods are found without importing them, and so is all that a rule depends on."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from mechunlearn import registry, study
from mechunlearn.config import LocalizeSettings, load_study

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src/mechunlearn"
TORCH_FREE = [
    "config", "study", "registry", "metrics", "claims", "stats", "compare", "timing", "schema", "stages", "artifacts",
    "errors", "cli", "facts", "facts.roles", "facts.sports", "facts.text", "localize.select", "localize.lookup_rules",
    "localize.stability", "models.components", "models.sources",
]  # fmt: skip


@pytest.mark.parametrize("kind", ["localizer", "objective", "closed_form", "attack", "elicitation"])
def test_methods_are_exactly_the_decorated_functions(kind):
    expected = {}
    for path in PACKAGE.rglob("*.py"):
        for name in re.findall(rf'^@{kind}\("([^"]+)"\)$', path.read_text(encoding="utf-8"), re.MULTILINE):
            expected[name] = ".".join(["mechunlearn", *path.relative_to(PACKAGE).with_suffix("").parts])
    assert expected
    assert registry.methods(kind) == expected
    for name, module in expected.items():
        assert registry.load(kind, name).__module__ == module


def test_a_study_names_objectives_and_closed_forms_alike():
    assert registry.edits() == registry.methods("objective") | registry.methods("closed_form")
    assert {"inject", "rome", "memit"} <= set(registry.edits())


def test_every_localization_has_a_localizer_or_is_a_baseline():
    for name in registry.localizations():
        scorer = registry.scorer(name)
        assert scorer in registry.methods("localizer") if scorer else name in registry.BASELINES
    assert registry.localizations()[0] == "fact-lookup"
    assert set(map(registry.scorer, registry.localizations())) == {None, *registry.methods("localizer")}


def test_localizers_of_components_have_a_form_for_mlps_and_localizers_of_mlps_have_not():
    known = registry.localizations()
    assert len(set(known)) == len(known)
    for name in registry.methods("localizer"):
        assert name in known
        assert registry.mlps_only(name) == (name in registry.MLP_LOCALIZERS) == (f"{name}-mlps" not in known)
        assert registry.mlps_only(f"{name}-mlps")


def test_the_papers_nine_localizations_are_there():
    ranked = [f"{name}{form}" for name in ("causal-tracing", "attribution-patching") for form in ("", "-mlps")]
    nine = {"fact-lookup", *ranked, "random", "random-mlps", "all-mlps", "nonlocalized"}
    assert nine <= set(registry.localizations())
    assert {name for name in nine if not registry.budgeted(name)} == {"fact-lookup", "all-mlps", "nonlocalized"}


PLUGIN = """
from mechunlearn.errors import ConfigError
from mechunlearn.registry import localizer

@localizer("NAME")
def mine(model, facts, settings):
    return "scored"
"""


def test_a_localizer_may_lie_in_a_file_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my own.py").write_text(PLUGIN.replace("NAME", "mine-2"))
    plugins = ["my own.py"]
    assert registry.localizers(plugins) == {**registry.methods("localizer"), "mine-2": "my own.py"}
    assert {"mine-2", "mine-2-mlps"} == set(registry.localizations(plugins)) - set(registry.localizations())
    assert registry.load("localizer", "mine-2", plugins)(None, [], None) == "scored"
    assert registry.sources("my own.py") == ["my own.py"]  # what it imports here is of CARRIERS
    assert "mine-2" not in registry.methods("localizer")
    settings = LocalizeSettings(plugins=plugins)
    assert '"plugins":["my own.py"]' in settings.for_localizer("mine-2")
    assert "plugins" not in settings.for_localizer("causal-tracing")


@pytest.mark.parametrize(
    ("file", "text", "sentence"),
    [
        ("none.py", None, "no such file"),
        ("mine.txt", PLUGIN, "must be a .py file"),
        ("mine.py", "def f(): pass", "with a function under"),
        ("mine.py", "def f(:", "is not Python"),
        ("mine.py", PLUGIN.replace("NAME", "fact-lookup"), "is taken"),
        ("mine.py", PLUGIN.replace("NAME", "random-2"), "is taken"),
        ("mine.py", PLUGIN.replace("NAME", "mine-mlps"), "ends in -mlps"),
        ("mine.py", PLUGIN.replace("NAME", "../mine"), "at most 60 of a-z"),
        ("mine.py", PLUGIN.replace("NAME", "Mine"), "at most 60 of a-z"),
        ("mine.py", PLUGIN.replace("NAME", "a" * 61), "at most 60 of a-z"),
        ("mine.py", PLUGIN.replace('"NAME"', ""), "line 5: localizer takes one name in quotes"),
        ("mine.py", PLUGIN.replace('"NAME"', "5"), "takes one name in quotes"),
        ("mine.py", PLUGIN.replace('"NAME"', 'name="mine"'), "takes one name in quotes"),
        ("mine.py", PLUGIN.replace('"NAME"', "NAME"), "takes one name in quotes"),
    ],
)
def test_a_file_without_a_usable_localizer_is_refused_in_a_sentence(tmp_path, monkeypatch, file, text, sentence):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        Path(file).write_text(text)
    with pytest.raises(ValueError, match=sentence):
        registry.localizers([file])
    with pytest.raises(ValueError, match=file):
        LocalizeSettings(plugins=[file])


@pytest.mark.parametrize("name", ["random-2", "random-10", "random-mlps-2", "random-mlps-37"])
def test_further_draws_are_baselines(name):
    family = "random-mlps" if "mlps" in name else "random"
    assert registry.baseline(name) == family
    assert registry.scorer(name) is None
    assert registry.mlps_only(name) == registry.mlps_only(family)
    assert registry.budgeted(name)


@pytest.mark.parametrize(
    "name", ["random-1", "random-0", "random-02", "random-", "random-mlps-1", "all-mlps-2", "random-2-mlps", "random-x"]
)
def test_other_names_are_no_draws(name):
    assert registry.baseline(name) is None


def python(code):
    """What a fresh Python prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def names(*modules):
    return {Path(path).relative_to(PACKAGE).as_posix() for path in registry.sources(*modules)}


def test_sources_are_what_a_module_imports_at_any_depth():
    found = names("mechunlearn.edit.train")
    direct = {
        "edit/train.py",
        "edit/objectives.py",
        "artifacts.py",
        "models/model.py",
        "models/training.py",
    }
    assert direct | {"models/packing.py", "models/components.py", "facts/text.py"} <= found
    assert not any(name.startswith(("config", "cli", "figures", "localize", "attack")) for name in found)
    assert not found & {"errors.py", "progress.py", "registry.py"}
    assert not found & {"report.py", "claims.py", "metrics.py"}


@pytest.mark.parametrize("module", ["mechunlearn.edit.train", "mechunlearn.metrics"])
def test_sources_cover_what_python_really_imports(module):
    """Every module of the package that an import loads, but for the carriers and the packages' __init__ files."""
    ours = "m.__file__ for name, m in sys.modules.items() if name.startswith('mechunlearn')"
    loaded = {Path(path) for path in python(f"import sys, {module}; print(*({ours}))").split()}
    carriers = {PACKAGE / "errors.py", PACKAGE / "progress.py", PACKAGE / "registry.py", *PACKAGE.glob("config/*.py")}
    needed = {str(path) for path in loaded - carriers if path.name != "__init__.py"}
    assert needed <= set(registry.sources(module))


def test_what_runs_on_every_start_imports_no_torch():
    modules = ", ".join(f"mechunlearn.{name}" for name in TORCH_FREE)
    code = f"import sys, {modules}; print(*{{'torch', 'transformers', 'peft', 'sklearn'}} & set(sys.modules))"
    assert python(code).strip() == ""


# a study's files ------------------------------------------------------------------------------------------


@pytest.fixture
def default():
    return load_study(ROOT / "config/config.yaml")


def test_every_measurement_file_tells_its_cell(default):
    files = study.measurement_files(default)
    cells = [study.cell_of(path) for path in files]
    assert len(set(files)) == len(files) == len(set(cells))
    base = [cell for cell in cells if cell.localization == study.BASE and not cell.attack]
    edits = [cell for cell in cells if cell.localization != study.BASE and not cell.attack]
    attacks = [cell for cell in cells if cell.attack]
    places = len(default.models) * len(default.tasks)
    per_place = len(default.localizations) * len(default.objectives)
    assert (len(base), len(edits)) == (places, places * per_place)
    assert len(attacks) == places * (1 + per_place) * len(default.attacks)  # the base model, too
    assert {cell.localization for cell in edits} == set(default.localizations)
    placed = {(cell.model, cell.task) for cell in cells}
    assert placed == {(model, task) for model in default.models for task in default.tasks}


def test_fact_lookup_is_needed_where_it_sets_the_budget(default):
    only = default.model_copy(update={"localizations": ["random-mlps"]})
    assert study.localizers(only) == ["fact-lookup"]
    assert study.selections(only) == ["fact-lookup", "random-mlps"]
    fixed = only.model_copy(update={"localize": only.localize.model_copy(update={"budget": 0.1})})
    assert study.localizers(fixed) == []
    assert study.selections(fixed) == ["random-mlps"]
    both = default.model_copy(update={"localizations": ["causal-tracing", "causal-tracing-mlps"]})
    assert study.localizers(both) == ["fact-lookup", "causal-tracing"]
    unbudgeted = default.model_copy(update={"localizations": ["nonlocalized", "all-mlps"]})
    assert study.localizers(unbudgeted) == []
    assert study.selections(unbudgeted) == ["nonlocalized", "all-mlps"]


def test_what_is_given_by_hand_needs_no_localizer(default):
    layers = {"mine": {"mlps": [1]}, "fact-lookup": {"mlps": [2]}, "causal-tracing": {"attention": [3]}}
    localize = LocalizeSettings(layers=layers)
    names = ["random", "mine", "causal-tracing", "causal-tracing-mlps"]
    mine = default.model_copy(update={"localizations": names, "localize": localize})
    assert study.selections(mine) == ["fact-lookup", *names]
    assert study.localizers(mine) == ["causal-tracing"]
    assert [name for name in study.selections(mine) if localize.follows_lookup(name)] == [
        "random",
        "causal-tracing-mlps",
    ]


@pytest.mark.parametrize("name", ["attribution-patching", "integrated-gradients-mlps"])
def test_estimates_from_gradients_come_with_what_they_estimate(default, name):
    estimated = default.model_copy(update={"localizations": ["nonlocalized", name]})
    gradients = ["attribution-patching", "integrated-gradients"]
    own = name.removesuffix("-mlps")
    others = [other for other in gradients if other != own]
    assert study.localizers(estimated) == ["fact-lookup", own, *others, "activation-patching"]


def test_a_study_without_edits_measures_the_base_model_alone(default):
    bare = default.model_copy(update={"objectives": [], "attacks": []})
    assert {study.cell_of(path).localization for path in study.measurement_files(bare)} == {study.BASE}
    assert len(study.targets(bare, "selection/{localization}.json")) == len(default.tasks) * len(default.localizations)
    assert study.targets(bare, "edits/{localization}/{objective}", "attacks/{attack}/{localization}") == []
