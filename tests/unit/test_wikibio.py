"""The authors' columns of LLM Surgery, in files of our own making."""

import csv
from collections import Counter

import pytest

from mechunlearn.errors import FactError
from mechunlearn.facts import wikibio


def asked(about, by_name=True):
    return repr(
        [
            {"Q": f"Question {n} about {about}?", "option1": f"a{n}", "option2": f"b{n}", "option3": f"c{n}"}
            | {"correct answer": "option2" if by_name else f"b{n}"}
            for n in range(10)
        ]
    )


def write(path, rows):
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return path


@pytest.fixture
def files(tmp_path):
    rows = [
        {"wiki_bio_text": f"True {n}.", "wiki_bio_text_qa": asked(f"true {n}", n % 2 == 0)}
        | {"gpt4_bio_text": f"Made up {n}.", "gpt4_inaccurate_text_qa": asked(f"made up {n}")}
        for n in range(5)
    ]
    (tmp_path / "concepts.txt").write_text("".join(f"Person {n}\n" for n in range(5)))
    return write(tmp_path / "bios.csv", rows), tmp_path / "concepts.txt", rows


def test_the_first_half_is_obsolete_and_updated_and_the_rest_problematic(files):
    texts, questions = wikibio.read(*files[:2])
    assert [(text.person, text.stream) for text in texts] == [
        ("Person 0", "obsolete"), ("Person 0", "update"), ("Person 1", "obsolete"), ("Person 1", "update"),
        ("Person 2", "problematic"), ("Person 3", "problematic"), ("Person 4", "problematic"),
    ]  # fmt: skip
    assert texts[1].text == "This is a Wikipedia passage about Person 0. Made up 0."
    assert Counter((each.stream, each.split) for each in questions) == {
        (stream, split): 5 * count
        for stream, count in (("obsolete", 2), ("update", 2), ("problematic", 3))
        for split in ("validation", "test")
    }
    assert all(each.answer in each.options and each.answer[0] == "b" for each in questions)


def test_questions_are_split_as_published(files):
    from sklearn.model_selection import train_test_split

    _, questions = wikibio.read(*files[:2])
    expected = train_test_split(list(range(10)), shuffle=True, test_size=0.5, random_state=42)
    own = [each for each in questions if (each.person, each.stream) == ("Person 0", "obsolete")]
    for split, numbers in zip(("validation", "test"), expected, strict=True):
        assert [each.question for each in own if each.split == split] == [
            f"Question {n} about true 0?" for n in numbers
        ]


def test_kept_texts_come_with_their_questions(tmp_path):
    texts = write(tmp_path / "web.csv", [{"text": f"Web {n}."} for n in range(4)])
    qa = write(tmp_path / "qa.csv", [{"qa": asked(f"web {n}")} for n in range(4)])
    kept, questions = wikibio.read_kept(texts, qa, count=3)
    assert [text.text for text in kept] == ["Web 0.", "Web 1.", "Web 2."]
    assert Counter(each.person for each in questions) == {"text 0": 10, "text 1": 10, "text 2": 10}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"wiki_bio_text": " "}, "row 3: wiki_bio_text is ' '; it must be text"),
        ({"wiki_bio_text_qa": "no list"}, "row 3: wiki_bio_text_qa is 'no list', not a list of questions"),
        ({"wiki_bio_text_qa": asked("x").replace("option2'}", "option9'}")}, "the correct answer is 'option9'"),
    ],
)
def test_damaged_rows_are_named(files, tmp_path, change, message):
    path, concepts, rows = files
    write(path, [rows[0], {**rows[1], **change}, *rows[2:]])
    with pytest.raises(FactError, match=message):
        wikibio.read(path, concepts)


def test_every_row_needs_its_person(files, tmp_path):
    (tmp_path / "concepts.txt").write_text("Person 0\n")
    with pytest.raises(FactError, match="names 1 people"):
        wikibio.read(*files[:2])
