"""Facts of a user's own: what a file says is what comes back, and every mistake in it is told."""

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mechunlearn import artifacts
from mechunlearn.cli import app
from mechunlearn.config import validate_study
from mechunlearn.errors import ArtifactError, FactError
from mechunlearn.facts import Fact, own, sports
from mechunlearn.facts.completion import completion
from mechunlearn.registry import load as method
from mechunlearn.study import check_files

ROOT = Path(__file__).parents[2]
ENDINGS = ["csv", "jsonl"]
CAPITAL = "The capital of {} is"
FRANCE = {"subject": "France", "prompt": CAPITAL, "answer": "Paris"}
JAPAN = {"subject": "Japan", "prompt": CAPITAL, "answer": "Tokyo"}


@pytest.fixture
def write(tmp_path):
    """(rows, ending) -> a file of them, written without the package."""

    def write(rows, ending="jsonl"):
        path = tmp_path / f"facts.{ending}"
        if ending == "jsonl":
            text = "".join(json.dumps(row) + "\n" for row in rows)
        else:
            buffer = io.StringIO()
            writer = csv.DictWriter(buffer, dict.fromkeys(name for row in rows for name in row), lineterminator="\n")
            writer.writeheader()
            writer.writerows({k: ";".join(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows)
            text = buffer.getvalue()
        path.write_text(text, encoding="utf-8")
        return path

    return write


def refusal(path):
    """The lines by which a file is refused; the first names it."""
    with pytest.raises(FactError) as caught:
        own.read(path)
    first, *rest = str(caught.value).split("\n  ")
    assert str(path) in first
    return rest


# reading --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_row_becomes_a_fact_with_every_field(write, ending):
    row = {
        "id": "one",
        "subject": "Côte d'Ivoire",
        "relation": "capital",
        "prompt": 'Fact: "Spain", {"a": Madrid}\nFact: {}, of course: ',
        "answer": "Yamoussoukro",
        "alternatives": ["Abidjan", "Bouaké"],
        "new_answer": "Accra, Ghana",
    }
    row["prompt"] = row["prompt"].rstrip()
    options = ("Yamoussoukro", "Accra, Ghana", "Abidjan", "Bouaké")
    expected = Fact("one", row["subject"], "capital", row["answer"], row["prompt"], options, "Accra, Ghana")
    assert own.read(write([row], ending)) == [expected]


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_is_left_out_has_a_default(write, ending):
    first, second = own.read(write([FRANCE, JAPAN], ending))
    assert first == Fact("France", "France", CAPITAL, "Paris", CAPITAL, ("Paris", "Tokyo"))
    assert second == Fact("Japan", "Japan", CAPITAL, "Tokyo", CAPITAL, ("Tokyo", "Paris"))


def test_other_answers_come_from_the_same_relation_only(write):
    rows = [
        {**FRANCE, "relation": "capital"},
        {"subject": "Peru", "prompt": "{}: capital", "answer": "Lima", "relation": "capital"},
        {"subject": "Rome", "prompt": "{} is a", "answer": "city"},
        {"subject": "Etna", "prompt": "{} is a", "answer": "volcano"},
        {**JAPAN, "relation": "capital"},
        {"subject": "Nara", "prompt": "{} is a", "answer": "city"},
    ]
    options = {fact.subject: fact.options for fact in own.read(write(rows))}
    assert options == {
        "France": ("Paris", "Lima", "Tokyo"),
        "Peru": ("Lima", "Paris", "Tokyo"),
        "Rome": ("city", "volcano"),
        "Etna": ("volcano", "city"),
        "Japan": ("Tokyo", "Paris", "Lima"),
        "Nara": ("city", "volcano"),
    }


@pytest.mark.parametrize(
    ("more", "options"),
    [
        ({"alternatives": ["Lyon", "Nice"]}, ("Paris", "Lyon", "Nice")),
        ({"alternatives": ["Lyon", "Paris", "Lyon"]}, ("Paris", "Lyon")),
        ({"new_answer": "Rome"}, ("Paris", "Rome", "Tokyo")),
        ({"new_answer": "Tokyo"}, ("Paris", "Tokyo")),
        ({"new_answer": "Rome", "alternatives": ["Lyon", "Rome"]}, ("Paris", "Rome", "Lyon")),
    ],
)
@pytest.mark.parametrize("ending", ENDINGS)
def test_options_are_answer_new_answer_and_others_each_once(write, ending, more, options):
    fact = own.read(write([{**FRANCE, **more}, JAPAN], ending))[0]
    assert fact.options == options
    assert fact.new_answer == more.get("new_answer", "")


def test_a_repeated_subject_is_told_apart_by_its_relation(write):
    rows = [
        FRANCE,
        {**FRANCE, "relation": "seat"},
        JAPAN,
        {**JAPAN, "id": "my own"},
        {"subject": "Peru", "prompt": CAPITAL, "answer": "Lima", "id": "Chile"},
        {"subject": "Chile", "prompt": CAPITAL, "answer": "Santiago"},
        {"subject": "Oslo", "prompt": "{} lies in", "answer": "Norway", "alternatives": ["Spain"]},
    ]
    rows[1]["alternatives"] = ["Lyon"]
    ids = [fact.id for fact in own.read(write(rows))]
    assert ids == [f"France / {CAPITAL}", "France / seat", "Japan", "my own", "Chile", f"Chile / {CAPITAL}", "Oslo"]


def test_a_file_of_athletes_asks_what_the_shipped_one_asks(write):
    shipped = sports.read(ROOT / "src/mechunlearn/resources/sports/athletes.csv")
    rows = [
        {"subject": fact.subject, "prompt": sports.PROMPT, "answer": fact.answer, "alternatives": list(sports.OPTIONS)}
        for fact in shipped
    ]
    for ending in ENDINGS:
        for mine, theirs in zip(own.read(write(rows, ending)), shipped, strict=True):
            (prompt,), (expected,) = completion(mine), completion(theirs)
            assert (prompt.fact, prompt.text, prompt.subject) == (expected.fact, expected.text, expected.subject)
            assert set(prompt.options) == set(expected.options)
            assert prompt.options[prompt.true] == expected.options[expected.true]


def test_empty_cells_and_lines_count_as_left_out(tmp_path):
    (tmp_path / "facts.csv").write_text(
        "\ufeffsubject,prompt,answer,id,relation,alternatives,new_answer\n"
        "France,{} a,Paris,,,,\n\n,,,,,,\nJapan,{} a,Tokyo,,,Kyoto ; Nara,\n",
        encoding="utf-8",
    )
    nothing = {"id": None, "relation": "", "alternatives": [], "new_answer": None}
    rows = [
        {"subject": "France", "prompt": "{} a", "answer": "Paris", **nothing},
        {"subject": "Japan", "prompt": "{} a", "answer": "Tokyo", **nothing, "alternatives": ["Kyoto", "Nara"]},
    ]
    lines = [json.dumps(rows[0]), "", "  ", json.dumps(rows[1]), ""]
    (tmp_path / "facts.jsonl").write_text("\r\n".join(lines), encoding="utf-8-sig")
    expected = [
        Fact("France", "France", "{} a", "Paris", "{} a", ("Paris", "Tokyo")),
        Fact("Japan", "Japan", "{} a", "Tokyo", "{} a", ("Tokyo", "Kyoto", "Nara")),
    ]
    assert own.read(tmp_path / "facts.csv") == own.read(tmp_path / "facts.jsonl") == expected


def test_line_separators_inside_json_text_end_no_row(tmp_path):
    rows = [{**FRANCE, "prompt": "a\u2028b\x85{} c"}, JAPAN | {"alternatives": ["Kyoto"]}]
    rows[0]["alternatives"] = ["Lyon"]
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (tmp_path / "facts.jsonl").write_text(text, encoding="utf-8")
    assert [fact.prompt for fact in own.read(tmp_path / "facts.jsonl")] == [rows[0]["prompt"], CAPITAL]


def test_capital_letters_in_an_ending_do_not_matter(write):
    path = write([FRANCE, JAPAN], "csv")
    assert own.read(path.rename(path.with_suffix(".CSV")))[1].answer == "Tokyo"


# mistakes -------------------------------------------------------------------------------------------------

BAD_FIELDS = [
    ({"subject": " France"}, ["subject is ' France'", "one line", "spaces"]),
    ({"subject": "Fr\nance"}, [r"subject is 'Fr\nance'", "one line"]),
    ({"subject": ""}, ["subject is missing", "one line"]),
    ({"answer": "Paris "}, ["answer is 'Paris '", "spaces"]),
    ({"answer": "\u00a0Paris"}, [r"answer is '\xa0Paris'", "spaces"]),
    ({"answer": ""}, ["answer is missing"]),
    ({"prompt": "The capital is"}, ["prompt is 'The capital is'", "exactly one {}"]),
    ({"prompt": "{} or {} is"}, ["prompt is '{} or {} is'", "exactly one {}"]),
    ({"prompt": "The capital of {name} is"}, ["prompt is", "{name}", "exactly one {}"]),
    ({"prompt": "The capital of {} is "}, ["prompt is 'The capital of {} is '", "no space at its end"]),
    ({"prompt": "The capital of {} is\n"}, [r"{} is\n'", "no space at its end"]),
    ({"prompt": ""}, ["prompt is missing"]),
    ({"id": "a "}, ["id is 'a '", "spaces"]),
    ({"relation": " a"}, ["relation is ' a'", "spaces"]),
    ({"new_answer": "Paris"}, ["new_answer is 'Paris'", "not the answer"]),
    ({"new_answer": "Rome "}, ["new_answer is 'Rome '", "spaces"]),
    ({"alternatives": ["Lyon", ""]}, ["alternatives is ['Lyon', '']", "JSONL as a list"]),
    ({"alternatives": ["Paris"]}, ["answer is 'Paris'", "nothing to choose it from", "alternatives"]),
]


@pytest.mark.parametrize(("change", "words"), BAD_FIELDS)
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_mistaken_field_is_told_by_row_value_and_what_is_allowed(write, ending, change, words):
    (line,) = refusal(write([JAPAN, {**FRANCE, **change}], ending))
    assert line.startswith("row 3: " if ending == "csv" else "row 2: ")
    assert "; allowed: " in line
    for word in words:
        assert word in line


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"answer": 1889}, ["answer is 1889"]),
        ({"answer": True}, ["answer is True"]),
        ({"answer": ["Paris"]}, ["answer is ['Paris']"]),
        ({"answer": "Pa\ud800ris"}, [r"answer is 'Pa\ud800ris'"]),
        ({"prompt": {"a": 1}}, ["prompt is {'a': 1}", "exactly one {}"]),
        ({"alternatives": "Lyon"}, ["alternatives is 'Lyon'", "as a list"]),
        ({"alternatives": ["Lyon", " Nice", 3]}, ["alternatives is ['Lyon', ' Nice', 3]"]),
        ({"subject": None}, ["subject is missing"]),
        ({"id": 3}, ["id is 3"]),
        ({"relation": ["a"]}, ["relation is ['a']"]),
        ({"capital": "Paris"}, ["'capital' is unknown", "subject, prompt, answer", "new_answer"]),
        ({"answer": "x" * 1000 + " "}, ["answer is 'xxx", "x...; allowed"]),
    ],
)
def test_json_of_another_kind_is_told(write, change, words):
    (line,) = refusal(write([JAPAN, {**FRANCE, **change}]))
    assert line.startswith("row 2: ")
    assert len(line) < 250
    for word in words:
        assert word in line


@pytest.mark.parametrize("text", ["{", "null,", '{"a": NaN}{', "[" * 100_000, "1" * 5000])
def test_a_line_that_is_no_json_is_told_and_the_others_still_read(tmp_path, text):
    bad = json.dumps({**FRANCE, "prompt": "no place"})
    (tmp_path / "facts.jsonl").write_text(f"{json.dumps(JAPAN)}\n{text}\n{bad}\n")
    first, second = refusal(tmp_path / "facts.jsonl")
    assert first.startswith("row 2: is not JSON")
    assert second.startswith("row 3: prompt is 'no place'")


@pytest.mark.parametrize("text", ["[]", "5", '"France"', "null", "[{}]"])
def test_a_line_that_is_no_object_is_told(tmp_path, text):
    (tmp_path / "facts.jsonl").write_text(f"{json.dumps(FRANCE)}\n{text}\n{json.dumps(JAPAN)}\n")
    (line,) = refusal(tmp_path / "facts.jsonl")
    assert line.startswith("row 2: is ")
    assert "object" in line


def test_every_mistake_of_every_row_is_told_in_order(write):
    rows = [
        {**FRANCE, "id": "a", "answer": "Paris ", "prompt": "none"},
        {**JAPAN, "id": "b"},
        {**JAPAN, "id": "a", "new_answer": "Tokyo"},
        {"id": "b", "subject": "Oslo", "prompt": "{} lies in", "answer": "Norway", "alternatives": ["Norway"]},
    ]
    for ending, first in (("jsonl", 1), ("csv", 2)):
        lines = refusal(write(rows, ending))
        told = [re.match(r"row (\d+): (\w+) is (.*?)[,;]", line).groups() for line in lines]
        assert told == [
            (str(first), "prompt", "'none'"),
            (str(first), "answer", "'Paris '"),
            (str(first + 2), "id", "'a'"),
            (str(first + 2), "new_answer", "'Tokyo'"),
            (str(first + 3), "id", "'b'"),
            (str(first + 3), "answer", "'Norway'"),
        ]
        assert f"row {first};" in lines[2]
        assert f"row {first + 1};" in lines[4]


def test_facts_with_nothing_to_choose_from_are_told_once_nothing_else_is_wrong(write):
    rows = [FRANCE, {**JAPAN, "prompt": f"{CAPITAL} "}, {"subject": "Oslo", "prompt": "{} is in", "answer": "Norway"}]
    (line,) = refusal(write(rows))
    assert line.startswith("row 2: prompt")
    (line,) = refusal(write([FRANCE, JAPAN, rows[2]]))
    assert line.startswith("row 3: answer is 'Norway', with nothing to choose it from")
    assert "'{} is in'" in line
    first, second = refusal(write([FRANCE, rows[2]]))
    assert first.startswith("row 1: answer is 'Paris', with nothing")
    assert second.startswith("row 2: answer is 'Norway', with nothing")


def test_rows_without_a_subject_are_not_taken_for_each_other(write):
    lines = refusal(write([{"prompt": CAPITAL, "answer": "Paris"}, {"prompt": CAPITAL, "answer": "Tokyo"}]))
    assert [line.split(";")[0] for line in lines] == ["row 1: subject is missing", "row 2: subject is missing"]


def test_a_file_of_nothing_but_mistakes_tells_them(tmp_path):
    (tmp_path / "facts.jsonl").write_text("France\nJapan\n")
    assert [line.split(" (")[0] for line in refusal(tmp_path / "facts.jsonl")] == [
        "row 1: is not JSON",
        "row 2: is not JSON",
    ]


def test_the_same_fact_twice_is_told(write):
    first, second = refusal(write([FRANCE, JAPAN, FRANCE, FRANCE]))
    assert first.startswith(f"row 3: id is 'France / {CAPITAL}', as in row 1;")
    assert second.startswith("row 4: id is ")


@pytest.mark.parametrize(("bad", "shown", "rest"), [(20, 20, None), (21, 20, "and 1 more"), (500, 20, "and 480 more")])
def test_the_first_twenty_mistakes_are_spelled_out_and_the_rest_counted(write, bad, shown, rest):
    rows = [FRANCE, *({**JAPAN, "id": str(number), "answer": " "} for number in range(bad)), JAPAN]
    lines = refusal(write(rows))
    assert [line.split(":")[0] for line in lines[:shown]] == [f"row {number + 2}" for number in range(shown)]
    assert lines[shown:] == ([rest] if rest else [])


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("subject,prompt,capital", ["'capital' is unknown", "'answer' is missing"]),
        ("subject;prompt;answer", ["'subject;prompt;answer' is unknown", "'subject' is missing"]),
        ("subject,prompt,answer,answer", ["'answer' stands there twice"]),
        ("subject,prompt,answer,", ["'' is unknown"]),
        ("France,{} is,Paris", ["'France' is unknown", "'prompt' is missing"]),
        ("", ["'subject' is missing"]),
    ],
)
def test_columns_that_do_not_fit_are_named_beside_the_allowed_ones(tmp_path, header, words):
    (tmp_path / "facts.csv").write_text(f"{header}\nFrance,The capital of {{}} is,Paris\n")
    with pytest.raises(FactError) as caught:
        own.read(tmp_path / "facts.csv")
    for word in ("facts.csv", *words, *own.FIELDS):
        assert word in str(caught.value)


def test_a_row_with_other_cells_than_the_header_is_told(tmp_path):
    rows = ["subject,prompt,answer,id", "France,In {}, the capital is,Paris,", "Japan,{} a,Tokyo", "Peru,{} a,Lima,"]
    (tmp_path / "facts.csv").write_text("\n".join(rows))
    first, second = refusal(tmp_path / "facts.csv")
    assert first.startswith("row 2: has 5 cells; allowed: 4")
    assert second.startswith("row 3: has 3 cells; allowed: 4")


@pytest.mark.parametrize("cell", ['"Lima', '"Lima" x', "x" * 200_000])
def test_a_file_that_is_no_csv_from_a_row_on_is_told_with_what_came_before(tmp_path, cell):
    (tmp_path / "facts.csv").write_text(f"subject,prompt,answer\nFrance,none,Paris\nPeru,{{}} a,{cell}\nA,{{}} a,b\n")
    first, second = refusal(tmp_path / "facts.csv")
    assert first.startswith("row 2: prompt is 'none'")
    assert second.startswith("row 3: is not CSV")


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("text", ["", "\n\n"])
def test_a_file_without_facts_is_refused(tmp_path, ending, text):
    header = "subject,prompt,answer\n" if text and ending == "csv" else ""
    (tmp_path / f"facts.{ending}").write_text(header + text)
    with pytest.raises(FactError, match=rf"facts\.{ending} holds no facts"):
        own.read(tmp_path / f"facts.{ending}")


@pytest.mark.parametrize("ending", ENDINGS)
def test_other_encodings_and_missing_files_are_refused(tmp_path, ending):
    with pytest.raises(FactError, match="cannot be read"):
        own.read(tmp_path / f"facts.{ending}")
    (tmp_path / f"facts.{ending}").write_text("subject,prompt,answer\nPerú,{} a,Lima\n", encoding="latin-1")
    with pytest.raises(FactError, match="not UTF-8"):
        own.read(tmp_path / f"facts.{ending}")


@pytest.mark.parametrize("function", [own.read, own.example])
@pytest.mark.parametrize("name", ["facts.txt", "facts", "facts.json"])
def test_another_ending_is_refused_with_the_allowed_ones(tmp_path, function, name):
    with pytest.raises(FactError, match=r"allowed: \.csv and \.jsonl"):
        function(tmp_path / name)
    assert not (tmp_path / name).exists()


# the example ----------------------------------------------------------------------------------------------


def test_the_example_is_the_same_in_both_formats_and_shows_every_field(tmp_path):
    for ending in ENDINGS:
        path = tmp_path / f"facts.{ending}"
        artifacts.write_text(path, own.example(path))
    facts = own.read(tmp_path / "facts.csv")
    assert own.read(tmp_path / "facts.jsonl") == facts
    assert [(fact.subject, fact.answer) for fact in facts] == [(row.subject, row.answer) for row in own.EXAMPLE]
    assert len(own.EXAMPLE) in (5, 6)
    assert len({fact.relation for fact in facts}) == 2
    given = {name for row in own.EXAMPLE for name in row.model_fields_set}
    assert given == set(own.FIELDS)
    header = (tmp_path / "facts.csv").read_text().splitlines()[0]
    assert header.split(",") == list(own.FIELDS)


def test_the_example_lands_in_facts_parquet_unchanged(tmp_path):
    artifacts.write_text(tmp_path / "facts.csv", own.example(tmp_path / "facts.csv"))
    facts = own.read(tmp_path / "facts.csv")
    artifacts.write_facts(tmp_path / "facts.parquet", facts, [0.5] * len(facts), [1] * len(facts))
    assert artifacts.read_facts(tmp_path / "facts.parquet") == facts


def test_the_command_writes_the_example_and_never_over_a_file(tmp_path):
    path = tmp_path / "folder" / "facts.csv"
    result = CliRunner().invoke(app, ["facts-template", str(path)])
    assert result.exit_code == 0, result.output
    assert f"{path}: {len(own.EXAMPLE)} facts" in result.output
    assert len(own.read(path)) == len(own.EXAMPLE)
    path.write_text("mine")
    assert isinstance(CliRunner().invoke(app, ["facts-template", str(path)]).exception, FactError)
    assert path.read_text() == "mine"


def test_the_documented_fields_are_the_fields():
    section = (ROOT / "docs/data.md").read_text().split("## Your own facts")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([^|]+) \|$", section, re.MULTILINE)
    assert sorted(name for name, _ in rows) == sorted(own.FIELDS)
    assert {name for name, left_out in rows if left_out == "required"} == set(own.REQUIRED)


def test_reading_facts_needs_no_torch():
    code = "import sys, mechunlearn.facts.own, mechunlearn.facts.planted; print('torch' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "False"


def test_facts_are_asked_in_their_own_other_wordings(write):
    other = ["{} is governed from", "Of all cities in {}, the capital is"]
    france, japan = own.read(write([{**FRANCE, "paraphrases": other}, JAPAN]))
    asked = method("elicitation", "paraphrase")(france)
    assert [prompt.text for prompt in asked] == [wording.replace("{}", "France") for wording in other]
    assert [prompt.text[slice(*prompt.subject)] for prompt in asked] == ["France", "France"]
    assert method("elicitation", "paraphrase")(japan) == []


def test_paraphrases_are_asked_for_only_where_a_fact_has_some(write):
    study = {
        "study": "some",
        "models": {"m": {"source": "path:m"}},
        "localizations": ["nonlocalized"],
        "evaluate": {"elicitations": ["completion", "paraphrase"]},
    }

    def check(**more):
        others = [{**JAPAN, "subject": name, "answer": name[::-1]} for name in ("Peru", "Chile")]
        own_facts = {"t": {"facts": "own", "path": str(write([{**FRANCE, **more}, JAPAN, *others])), "forget": 2}}
        check_files(validate_study({**study, "tasks": own_facts}))

    check(paraphrases=["{} is governed from"])
    with pytest.raises(ArtifactError, match=r"evaluate.elicitations has paraphrase, but no fact of tasks.t"):
        check()
