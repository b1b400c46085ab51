"""Benchmarks through lm-eval: the same items right as by a loop over choices, in rows that metrics can use.

The tasks of tests/unit/benchmark are our own and local; the library's own tasks run on made-up datasets.
"""

import json
from pathlib import Path

import datasets
import pytest
import torch
from synthetic_study import study
from typer.testing import CliRunner

from mechunlearn import registry
from mechunlearn.artifacts import BENCHMARK, measurement_table, read_measurements, write_facts
from mechunlearn.cli import app
from mechunlearn.config import EvaluateSettings, ReportSettings, validate_study
from mechunlearn.errors import ConfigError, SourceError
from mechunlearn.evaluate import benchmarks
from mechunlearn.evaluate.measure import measure
from mechunlearn.figures import tables
from mechunlearn.gate import gates
from mechunlearn.metrics import metrics
from mechunlearn.models import delta
from mechunlearn.study import BASE, Cell

ROOT = Path(__file__).parents[2]
FOLDER = "tests/unit/benchmark"
ITEMS = [json.loads(line) for line in (ROOT / FOLDER / "sports_quiz.jsonl").read_text().splitlines()]


@pytest.fixture(autouse=True, scope="module")
def at_home(tmp_path_factory):
    """The tasks name their files from the project's folder; what `datasets` makes of them goes elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
        yield


def rules(*names, **more):
    return EvaluateSettings(benchmarks=list(names), benchmark_tasks=FOLDER, **more)


@pytest.fixture(scope="module")
def quiz(at_home):
    return benchmarks.load(rules("sports-quiz"))


def loglikelihood(model, context, continuation):
    """log P(continuation | context), token by token."""
    ids, total = model.encode(context), 0.0
    whole = model.encode(context + continuation)
    assert whole[: len(ids)] == ids
    with torch.no_grad():
        for end in range(len(ids), len(whole)):
            logits = model.network(input_ids=torch.tensor([whole[:end]])).logits[0, -1]
            total += float(logits.float().log_softmax(-1)[whole[end]])
    return total


def rightly(model):
    """Which items a model gets right, by the rule: the likeliest choice is the answer."""
    found = {}
    for number, item in enumerate(ITEMS):
        context = f"Question: {item['question']}\nAnswer:"
        likely = [loglikelihood(model, context, f" {choice}") for choice in item["choices"]]
        found[f"sports-quiz/{number}"] = likely.index(max(likely)) == item["answer"]
    return found


def test_an_item_is_right_where_the_answer_is_the_likeliest_choice(model, quiz):
    rows = measurement_table(benchmarks.measure(model, quiz, None, "edited", 3))
    expected = rightly(model)
    assert len(set(expected.values())) == 2
    assert dict(zip(rows.fact, rows.p_true == 1, strict=True)) == expected
    assert rows.p_true.isin([0, 1]).all()
    assert (rows.p_options == 1).all()
    assert ((rows.choice == "true") == (rows["rank"] == 1)).all()
    assert ((rows.choice == "true") == (rows.p_true == 1)).all()
    assert rows[["seed", "stage", "elicitation", "role"]].drop_duplicates().values.tolist() == [
        [3, "edited", "sports-quiz", BENCHMARK]
    ]


def test_the_library_sees_the_tokens_that_we_see(model):
    """BOS above all, which stands before every Gemma's text though its tokenizer adds none."""
    harness, text = benchmarks._harness(model), "Question: Who plays golf?\nAnswer:"
    assert harness.tok_encode(text) == model.encode(text)
    assert (harness.tok_encode(text)[0] == 2) == (model.network.config.model_type.startswith(("gemma", "llama")))
    whole, pair = model.encode(f"{text} Tiger"), harness._encode_pair(text, " Tiger")
    assert [*pair[0], *pair[1]] == whole


def test_the_model_and_its_tokenizer_stay_as_they_were(fresh, quiz):
    model = fresh("gemma3_text")
    weights = {name: value.clone() for name, value in model.network.state_dict().items()}
    ids, pad = model.tokenizer("a b").input_ids, model.tokenizer.pad_token
    first = benchmarks.measure(model, quiz, None, "base", 0)
    assert benchmarks.measure(model, quiz, None, "base", 0) == first
    assert all(torch.equal(value, weights[name]) for name, value in model.network.state_dict().items())
    assert (model.tokenizer("a b").input_ids, model.tokenizer.pad_token) == (ids, pad)


def test_a_limit_takes_the_first_items(tiny, quiz):
    every = benchmarks.measure(tiny("llama"), quiz, None, "base", 0)
    assert benchmarks.measure(tiny("llama"), quiz, 4, "base", 0) == every[:4]


def test_without_benchmarks_nothing_is_loaded(tiny):
    assert benchmarks.load(EvaluateSettings()) == {}
    assert benchmarks.measure(tiny("llama"), {}, None, "base", 0) == []


def made_up(path, name=None, **_):
    """Rows in the columns of SciQ and of tinyMMLU."""
    rows = {
        "allenai/sciq": [
            {"support": f"Fact {number}.", "question": "Which?", "correct_answer": "wood"}
            | {f"distractor{each}": word for each, word in enumerate(("stone", "glass", "paper"), start=1)}
            for number in range(3)
        ],
        "tinyBenchmarks/tinyMMLU": [
            {"input_formatted": f"{number} plus 1?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:", "answer": number}
            for number in range(4)
        ],
    }[path]
    return datasets.DatasetDict({split: datasets.Dataset.from_list(rows) for split in ("train", "test", "dev")})


def test_the_librarys_own_tasks_run_without_further_packages(tiny, monkeypatch):
    """tinyMMLU's own summary needs a package that is not on PyPI; its items do not."""
    monkeypatch.setattr(datasets, "load_dataset", made_up)
    model, tasks = tiny("gemma3_text"), benchmarks.load(rules("sciq", "tinyMMLU"))
    rows = measurement_table(benchmarks.measure(model, tasks, None, "base", 0))
    assert rows.elicitation.value_counts().to_dict() == {"tinyMMLU": 4, "sciq": 3}
    for number in range(4):
        likely = [
            loglikelihood(model, f"{number} plus 1?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:", f" {letter}")
            for letter in "ABCD"
        ]
        right = rows[rows.fact == f"tinyMMLU/{number}"].choice.item() == "true"
        assert right == (likely.index(max(likely)) == number)


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("sports-essay", ConfigError, ["'sports-essay'", "not multiple choice", "generate_until"]),
        ("sports-lost", SourceError, ["'sports-lost'", "nowhere.jsonl", "HF_HOME", "evaluate.benchmark_tasks"]),
        ("sport-quiz", ConfigError, ["evaluate.benchmarks", "'sport-quiz'", "did you mean 'sports-quiz'"]),
    ],
)
def test_what_cannot_be_measured_is_refused_in_a_sentence(name, error, words):
    with pytest.raises(error) as refused:
        benchmarks.load(rules(name))
    for word in words:
        assert word in str(refused.value)


def test_a_dataset_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(SourceError, match=r"'sciq' cannot be loaded .*allenai/sciq.*HF_HOME"):
        benchmarks.load(rules("sciq"))


def test_names_are_checked_before_anything_runs():
    for name in ("mmlu", "sciq", "tinyMMLU", "sports-quiz", "mmlu_anatomy", "mmlu_stem"):
        assert name in registry.benchmarks(FOLDER), name
    assert "sports-quiz" not in registry.benchmarks()
    made = study(evaluate={"benchmarks": ["mmlu", "sports-quiz"], "benchmark_tasks": FOLDER})
    assert validate_study(json.loads(made.model_dump_json())) == made


@pytest.mark.parametrize(
    ("evaluate", "words"),
    [
        ({"benchmarks": ["mlmu"]}, ["evaluate.benchmarks", "'mlmu'", "did you mean", "'mmlu'"]),
        ({"benchmarks": ["MMLU"]}, ["'MMLU'", "'mmlu'"]),
        ({"benchmarks": ["sports-quiz"]}, ["'sports-quiz'", "evaluate.benchmark_tasks"]),
        ({"benchmarks": ["sciq", "sciq"]}, ["evaluate.benchmarks", "once", "sciq, sciq"]),
        ({"benchmarks": ["text"]}, ["evaluate.benchmarks", "'text'", "format"]),
        ({"benchmark_limit": 0}, ["evaluate.benchmark_limit", "0"]),
        ({"benchmark_tasks": "nowhere"}, ["evaluate.benchmark_tasks", "'nowhere'", "folder"]),
    ],
)
def test_settings_that_cannot_work_are_refused_in_a_sentence(evaluate, words):
    with pytest.raises(ConfigError) as refused:
        study(evaluate=evaluate)
    for word in words:
        assert word in str(refused.value)


def test_without_the_library_names_are_left_to_the_job(monkeypatch):
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    registry.benchmarks.cache_clear()
    assert study(evaluate={"benchmarks": ["mlmu"]}).evaluate.benchmarks == ["mlmu"]
    registry.benchmarks.cache_clear()


def test_the_command_measures_base_and_edit_on_the_same_items(manifest_of, fresh, athletes, tmp_path):
    """`mechunlearn evaluate` as the workflow calls it; an edit of nothing gets the same items right."""
    passage = {"id": "a", "topic": "sport", "text": "Tiger Woods plays golf."}
    text, facts, base = tmp_path / "text.jsonl", tmp_path / "facts.parquet", tmp_path / "base.parquet"
    text.write_text("".join(json.dumps({**passage, "id": each}) + "\n" for each in "abc"))
    write_facts(facts, athletes, [0.9] * len(athletes), [1] * len(athletes))
    model = fresh("gemma3_text")
    delta.save(tmp_path / "seed0/delta.safetensors", model, ["model.layers.1.mlp.down_proj.weight"], {})
    given = ["--model", str(manifest_of("gemma3_text")), "--facts", str(facts), "--text", str(text)]
    settings = rules("sports-quiz", benchmark_limit=6, elicitations=["completion"], texts=1, gate=0.0)
    given += ["--settings", settings.model_dump_json()]
    for more in (
        ["--out", str(base)],
        ["--base", str(base), "--edits", str(tmp_path), "--out", f"{base}.edited.parquet"],
    ):
        done = CliRunner().invoke(app, ["evaluate", *given, *more])
        assert done.exit_code == 0, done.output
    first, second = read_measurements(base), read_measurements(f"{base}.edited.parquet")
    expected = dict(list(rightly(model).items())[:6])
    for table, stage in ((first, "base"), (second, "edited")):
        own = table[table.role == BENCHMARK]
        assert set(own.stage) == {stage}
        assert dict(zip(own.fact, own.choice == "true", strict=True)) == expected


def test_rows_become_accuracies_with_n_interval_and_paired_change(fresh, athletes, quiz):
    """An edited model beside its base; benchmarks are no format, so no gate forbids them."""
    cells, right = {}, {}
    for place, stage in ((BASE, "base"), ("fact-lookup", "edited")):
        model = fresh("llama")
        if stage == "edited":
            with torch.no_grad():
                model.network.model.layers[2].mlp.down_proj.weight.neg_()
        right[place] = rightly(model)
        rows = measure(model, [fact for fact in athletes if fact.role == "forget"], [], ["completion"], stage, 0)
        rows += benchmarks.measure(model, quiz, None, stage, 0)
        cells[Cell("m", "t", place, "" if place == BASE else "inject")] = measurement_table(rows)
    assert right[BASE] != right["fact-lookup"]
    assert set(gates(cells[Cell("m", "t", BASE, "")])) == {"completion"}
    found = metrics(cells, EvaluateSettings(gate=1.0), ReportSettings(bootstrap=200))
    own = found[(found.role == BENCHMARK) & (found.metric == "accuracy_true")]
    change = {item: right["fact-lookup"][item] - before for item, before in right[BASE].items()}
    for place, against, values in (
        (BASE, "", right[BASE]),
        ("fact-lookup", "", right["fact-lookup"]),
        ("fact-lookup", BASE, change),
    ):
        row = own[(own.localization == place) & (own.against == against)].iloc[0]
        assert row.value == pytest.approx(sum(values.values()) / len(ITEMS))
        assert row.low < row.value < row.high
        assert (row.n, row.counts, row.elicitation) == (len(ITEMS), True, "sports-quiz")
    page = tables.benchmarks(found, "inject")
    for word in ("sports-quiz: accuracy", f"n = {len(ITEMS)}", "Fact lookup"):
        assert word in page
    assert tables.benchmarks(found[found.role != BENCHMARK], "inject") == ""
