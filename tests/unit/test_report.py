"""The report is one page that says what the files say and needs nothing else."""

import json
import re
from html import unescape
from pathlib import Path

import pytest
from synthetic_study import build, study
from typer.testing import CliRunner

from mechunlearn import artifacts, registry
from mechunlearn import study as layout
from mechunlearn.cli import app
from mechunlearn.errors import ArtifactError, UserError
from mechunlearn.figures import beside_paper, data, html, verdicts
from mechunlearn.report import build as build_report
from mechunlearn.report import execute

ROOT = Path(__file__).parents[2]
FIGURES = [name for name in registry.methods("figure") if name != "similarity"]  # that one is for biographies alone
NAMES = ["Before the edit", "inject", "npo"]
PLANTED = {f"planted-{layer}": {"source": f"planted:tiny@{layer}"} for layer in (3, 7)}


def complete(made):
    """A made-up study with stand-ins for its figures, and the paper's numbers where the notebook looks for them."""
    build(made)
    folder = Path("results") / made.study
    homes = [folder / model / task for model, task in layout.pairs(made)]
    for path in [folder / "figures/planted.svg", *(home / f"figures/{name}.svg" for home in homes for name in FIGURES)]:
        with artifacts.atomic(path) as temporary:
            temporary.write_text("<svg/>")
    Path("report").symlink_to(ROOT / "report")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The report of a study of two models and two tasks, and its claims."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("study"))
        tasks = {"first": {"facts": "sports", "forget": 16}, "second": {"facts": "sports", "forget": 16, "blocks": 4}}
        models = {"tiny": {"source": "path:a"}, "small": {"source": "path:b"}}
        masking = {"localizations": ["fact-lookup"], "sizes": [0, 10]}
        made = study(models=models, tasks=tasks, masking=masking)
        complete(made)
        build_report(ROOT / "report/report.py", made, Path("report.html"), Path("report.ipynb"))
        return Path("report.html").read_text(), artifacts.read_json("results/made-up/claims.json")


def text_of(page: str) -> str:
    return unescape(re.sub(r"<[^>]+>", " ", re.sub(r"<(style|script)>.*?</\1>", " ", page, flags=re.DOTALL)))


def test_the_page_contains_every_claim_with_its_verdict(page):
    html_text, claims = page
    text = text_of(html_text)
    assert claims
    for claim in claims:
        assert text.count(claim["sentence"]) == 4  # two models, two tasks
        assert claim["verdict"] in text


def test_the_page_tells_of_blocks_where_there_are_some(page):
    text = text_of(page[0])
    assert text.count("The facts come in 4 blocks of 4.") == 2
    assert text.count("Do earlier blocks stay edited?") == 2
    assert "not edited in blocks" not in text


def test_the_page_loads_nothing_from_anywhere(page):
    html_text, _ = page
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", html_text)
    assert not re.search(r"<(link|iframe)\b|<script[^>]*\bsrc|@import|url\(|\bfetch\(|XMLHttpRequest", html_text)


def test_the_contents_link_to_every_section(page):
    html_text, _ = page
    links = re.findall(r'<a href="#([^"]+)">([^<]+)</a>', html_text.partition("</nav>")[0])
    assert links == re.findall(r'<h2 id="([^"]+)">([^<]+)</h2>', html_text)
    assert ("the-answer", "The answer") in links
    assert len(dict(links)) == len(links) > 5


def test_the_drawing_lights_what_fact_lookup_trains(page):
    drawing = page[0].partition('<svg class="overview"')[2].partition("</svg>")[0]
    assert drawing.count('class="lit"') == 3 * 3  # MLPs 2 to 4, in each of three steps
    assert "“Fact lookup”: MLPs 2–4" in unescape(drawing)


def test_every_image_has_a_text(page):
    html_text, _ = page
    images = re.findall(r"<img [^>]*>", html_text)
    # On two models one of the tasks has no blocks, and nothing is probed.
    assert len(images) == 4 * (len(FIGURES) - 1) - 2
    assert all(re.search(r'alt="[^"]{20,}', image) for image in images)


def test_the_page_shows_no_code(page):
    html_text, _ = page
    assert "import " not in text_of(html_text)
    assert "display(" not in html_text


def test_formats_that_do_not_count_are_named_with_their_accuracy(page):
    text = text_of(page[0])
    assert re.search(r"Multiple choice, by letter\s+n/a: the base model is right for 0\.23", text)


def test_a_study_that_only_localizes_has_a_report(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = study("only", objectives=[], attacks=[])
    complete(made)
    build_report(ROOT / "report/report.py", made, Path("report.html"), Path("report.ipynb"))
    text = text_of(Path("report.html").read_text())
    assert "MLPs 2–4" in text  # what fact lookup trains
    assert artifacts.read_json("results/only/claims.json") == []
    assert "Nothing is edited here" in text
    assert "Two methods overlap by 0.22" in text
    assert "(tiny, sports-athlete-16): fact lookup 60 and causal tracing 8 (4 of them token by token)." in text
    assert text.count("This study has no edit.") == 1
    for word in ("claims of the paper", "Beside the paper", "All results", "planted", "Forgetting is measured"):
        assert word not in text


def test_objectives_are_compared_and_only_inject_is_held_to_the_papers_claims(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = {"objectives": {"npo": {"learning_rates": {"fact-lookup": 3e-3}}}}
    made = study("several", ("fact-lookup", "nonlocalized"), objectives=["inject", "npo"], edit=own)
    complete(made)
    timing = Path("results/several/timing/edit/tiny-sports-athlete-16-fact-lookup-npo.tsv")
    artifacts.write_text(timing, "s\tmax_rss\n41.6\t2000\n")
    build_report(ROOT / "report/report.py", made, Path("report.html"), Path("report.ipynb"))
    text = text_of(Path("report.html").read_text())
    claims = artifacts.read_json("results/several/claims.json")
    assert {claim["objective"] for claim in claims} == {"inject"}
    assert text.count("Of 7 claims of the paper") == 1
    assert "the true answer is least likely for" in text
    assert "Learning rates and weights, as the configuration gives them" in text
    assert re.search(r"npo\s+Fact lookup\s+0\.003\s+1\s+1\s+1\s+Everything \(nonlocalized\)\s+0\.0001", text)
    rows = re.findall(r"(Before the edit|inject|npo)(?:\s+\d\.\d\d \[\d\.\d\d, \d\.\d\d\]){5}\s+(\d+|–)\s", text)
    assert rows == [("Before the edit", "–"), ("inject", "–"), ("npo", "42"), *[(name, "–") for name in NAMES]]


def test_planted_models_are_told_together(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tasks = {"real": {"facts": "sports", "forget": 16}, "made-up": {"facts": "planted", "forget": 16}}
    models = {"tiny": {"source": "path:a"}, **PLANTED}
    made = study("truth", ("causal-tracing", "attribution-patching"), models=models, tasks=tasks, objectives=[])
    complete(made)
    build_report(ROOT / "report/report.py", made, Path("report.html"), Path("report.ipynb"))
    text = text_of(Path("report.html").read_text())
    best = "“Activation patching”, “Causal tracing” and “Integrated gradients” (mean rank 1.0 [1.0, 1.0], first in 2 of"
    assert f"The layer in which facts were planted is ranked highest by {best} 2 models), lowest by " in text
    assert "Can the methods be trusted?" in text
    assert re.search(r"Figure \d+\. Which method finds the layer in which facts were planted\?", text)
    assert "a copy of tiny, and nothing else was changed; a copy each for the layers 3 and 7" in " ".join(text.split())
    assert re.findall(r"Figure (\d+)\.", text) == [str(number) for number in range(1, text.count("Figure ") + 1)]


def test_a_study_of_planted_models_alone_has_a_report(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    models = {"tiny": {"source": "path:a"}, **PLANTED}
    tasks = {"made-up": {"facts": "planted", "forget": 16}}
    made = study("truth", ("causal-tracing",), models=models, tasks=tasks, objectives=[], attacks=[])
    complete(made)
    build_report(ROOT / "report/report.py", made, Path("report.html"), Path("report.ipynb"))
    text = text_of(Path("report.html").read_text())
    assert "causal tracing takes the parts" in text
    assert "The model was asked" not in text
    assert "tiny has 72.0 k parameters" in text


def test_figures_that_have_nothing_to_show_are_named_among_the_limits(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = study("quiet", ("random", "all-mlps"), attacks=[])
    complete(made)
    for scores in Path("results").rglob("scores/*.parquet"):
        scores.unlink()
    build_report(ROOT / "report/report.py", made, Path("report.html"), Path("report.ipynb"))
    html_text = Path("report.html").read_text()
    limits = text_of(html_text).partition("Limits")[2]
    for absent in ("relearning attack", "causal tracing by token", "estimate from gradients", "chosen from scores"):
        assert f"This study has no {absent}" in limits.replace("localization that is chosen", "chosen")
    assert "Can the methods be trusted?" not in html_text
    assert "Can the methods be trusted?" in page[0]


def test_a_failing_cell_is_one_sentence_and_leaves_the_old_report(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("bad.py").write_text("# %% tags=['parameters']\nCONFIG = ''\n\n# %%\nraise ValueError('no such thing')\n")
    Path("report.html").write_text("old")
    with pytest.raises(UserError, match=r"bad\.py failed: ValueError: no such thing"):
        build_report(Path("bad.py"), study(), Path("report.html"), Path("report.ipynb"))
    assert Path("report.html").read_text() == "old"
    assert not Path("report.ipynb").exists()


def test_a_notebook_without_its_parameter_is_refused(tmp_path):
    path = tmp_path / "plain.py"
    path.write_text("# %%\nprint(1)\n")
    with pytest.raises(UserError, match="parameters"):
        execute(path, "{}")


def test_a_missing_figure_is_named(tmp_path):
    with pytest.raises(ArtifactError, match=r"gone\.svg"):
        html.picture(tmp_path / "gone.svg", "A figure", "found", "seen")


def test_published_values_stand_beside_ours(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    build(study())
    metrics = data.read_metrics("results/made-up/metrics.csv")
    table = beside_paper.table(metrics, "inject", ROOT / "report/published", "sports-athlete")
    assert "0.99 (0.96 to 1.00)" in table  # fact lookup's edit accuracy, mean and range over models and sizes
    assert beside_paper.table(metrics, "inject", ROOT / "report/published", "other") == ""


def test_a_claim_whose_interval_takes_in_its_bound_is_called_open():
    claim = {"id": "maintain", "verdict": "not reproduced", "value": -0.1, "low": -0.2, "high": -0.05}
    assert "1 of them because the interval is too wide" in verdicts.summary([claim])
    assert "too wide" not in verdicts.summary([{**claim, "high": -0.15}])


def test_a_measured_claim_says_what_could_have_been_shown():
    about = {"sentence": "s", "statistic": "t", "paper": "p", "section": "1", "published": "x", "note": ""}
    claim = {**about, "id": "relearning", "verdict": "not reproduced", "value": 0.0, "low": -0.1, "high": 0.12, "n": 16}
    assert "a difference smaller than 0.11 (half the interval)" in verdicts.claims([claim])
    value = {**claim, "id": "standard-prompting", "value": 0.8, "low": 0.7, "high": 0.9}
    assert "a value within 0.10 of 0.75 (half the interval) would have stayed open" in verdicts.claims([value])
    for other in ({"verdict": "not measurable here", "value": None}, {"n": 0}):
        assert "half the interval" not in verdicts.claims([{**claim, **other}])


def test_the_commands_write_what_the_rules_expect(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = study()
    home = build(made)
    metrics, svg = "results/made-up/metrics.csv", home / "figures/robustness.svg"
    named = ["--name", "robustness", "--results", str(home), "--metrics", metrics, "--out", str(svg)]
    paper = ["--published", str(ROOT / "report/published"), "--tasks", json.dumps({"sports-athlete-16": ""})]
    for command in (["figure", *named], ["claims", metrics, *paper, "--out", "claims.json"]):
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
    assert svg.exists()
    assert svg.with_suffix(".png").exists()
    assert {claim["verdict"] for claim in json.loads(Path("claims.json").read_text())} >= {"not measurable here"}
