"""docs/adding-a-localization.md, followed word by word in a copy of the checkout: every block of code is used."""

import json
import re
import sys
from pathlib import Path

import pytest
import yaml
from matplotlib.text import Text

from mechunlearn import artifacts, registry
from mechunlearn import study as layout
from mechunlearn.figures import data
from mechunlearn.report import build as build_report
from tests import checkout
from tests.following import count_passed, follow_page
from tests.unit import synthetic_study

STUDY = "config/my-study.yaml"
OURS = "Everything"  # a localization of the package, which stands wherever localizations do


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """(a copy in which the page was followed, what its commands printed)."""
    return follow_page("adding-a-localization.md", tmp_path_factory.mktemp("localization"))


def test_the_pages_own_tests_pass(followed):
    _, printed = followed
    assert count_passed(printed) >= 3


def test_the_plan_scores_once_and_treats_both_forms_like_any_other(followed):
    _, printed = followed
    (plan,) = [text for command, text in printed.items() if command.startswith("snakemake")]
    jobs = re.split(r"^rule |^localrule ", plan, flags=re.MULTILINE)
    scored = [job for job in jobs if job.startswith("localize:") and "output-change" in job]
    assert len(scored) == 1
    assert "output_change.py" in scored[0]
    assert "src/mechunlearn/localize/path_patching.py" in scored[0]
    assert not any("output_change.py" in job for job in jobs if job not in scored)
    study = yaml.safe_load((followed[0] / STUDY).read_text())
    for rule, times in (("select", 1), ("edit", 1), ("evaluate", 0), ("attack", len(study["attacks"]))):
        for name in ("output-change", "output-change-mlps"):
            found = [
                job for job in jobs if job.startswith(f"{rule}:") and re.search(rf"localization={name}(,|\n)", job)
            ]
            assert len(found) == times, (rule, name)


def test_the_code_is_in_the_projects_style(followed):
    folder, _ = followed
    for command in (["check"], ["format", "--check"]):
        files = ["output_change.py", "tests/unit/test_output_change.py"]
        process = checkout.run(folder, sys.executable, "-m", "ruff", *command, *files)
        assert process.returncode == 0, process.stdout


def test_the_command_line_scores_with_it(followed, manifest_of, athletes, tmp_path):
    folder, _ = followed
    artifacts.write_facts(tmp_path / "facts.parquet", athletes, [1.0] * len(athletes), [1] * len(athletes))
    given = json.dumps({"plugins": ["output_change.py"], "attribution": {"facts": 2}, "repeats": 2})
    options = ["--model", manifest_of("llama"), "--facts", tmp_path / "facts.parquet", "--method", "output-change"]
    options += ["--settings", given, "--out", tmp_path / "scores.parquet"]
    process = checkout.run(folder, sys.executable, "-m", "mechunlearn", "score", *map(str, options))
    assert process.returncode == 0, process.stderr
    table = artifacts.read_table(tmp_path / "scores.parquet", artifacts.SCORE_COLUMNS)
    assert set(table.seed) == {0, 1}
    assert set(table.kind) == {"head", "mlp"}


@pytest.fixture(scope="module")
def made(followed, tmp_path_factory):
    """A made-up study in which the plugin is one of four localizations, its figures and its report."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("made"))
        Path("output_change.py").write_text((followed[0] / "output_change.py").read_text())
        Path("report").symlink_to(checkout.ROOT / "report")
        study = synthetic_study.study(
            localizations=("fact-lookup", "causal-tracing", "output-change", "nonlocalized"),
            localize={"plugins": ["output_change.py"]},
            masking={"localizations": ["output-change", "nonlocalized"], "sizes": [0, 10]},
            attacks=["relearn"],
        )
        home = synthetic_study.build(study)
        traced = artifacts.read_table(home / "scores/activation-patching.parquet", artifacts.SCORE_COLUMNS)
        artifacts.write_table(home / "scores/output-change.parquet", traced)
        metrics = data.read_metrics(f"results/{study.study}/metrics.csv", *layout.pairs(study)[0])
        figures = {}
        for name in layout.figures(study, home.name):
            figures[name] = registry.load("figure", name)(home, metrics)
            with artifacts.atomic(home / f"figures/{name}.svg") as temporary:
                figures[name].savefig(temporary, format="svg")
        build_report(checkout.ROOT / "report/report.py", study, Path("report.html"), Path("report.ipynb"))
        yield figures, Path("report.html").read_text()


def test_it_stands_in_every_figure_in_which_localizations_stand(made):
    figures, _ = made
    shown = {name: " ".join(text.get_text() for text in figure.findobj(Text)) for name, figure in figures.items()}
    of_localizations = {name for name, text in shown.items() if OURS in text} | {"agreement"}  # of what has scores
    assert {"robustness", "relearning", "trade-off", "localization-map", "worst-case"} < of_localizations
    assert {name for name, text in shown.items() if "output-change" in text} == of_localizations


def test_it_stands_in_every_table_in_which_localizations_stand(made):
    _, page = made
    tables = [table for table in re.findall(r"<table.*?</table>", page, re.DOTALL) if OURS in table]
    assert len(tables) >= 5
    assert all("output-change" in table for table in tables)
