"""Fictitious people: their texts and questions."""

import json
from collections import Counter

import pytest

from mechunlearn.config import BiographySettings
from mechunlearn.errors import FactError
from mechunlearn.facts import biographies
from mechunlearn.facts.attributes import ATTRIBUTES

SETTINGS = BiographySettings(problematic=5, obsolete=4, retain=3, kept=2, wordings=5)
PEOPLE = biographies.people(SETTINGS)
TEXTS = biographies.biographies(PEOPLE, SETTINGS.wordings)
QUESTIONS = biographies.questions(PEOPLE)
PERSON = {person.name: person for person in PEOPLE}


def attributes(person, stream):
    return PERSON[person].updated if stream == "update" else PERSON[person].attributes


def test_the_same_seed_gives_the_same_people_texts_and_questions_and_another_seed_others():
    again = biographies.people(SETTINGS)
    assert again == PEOPLE
    assert biographies.biographies(again, 5) == TEXTS
    assert biographies.questions(again) == QUESTIONS
    others = biographies.people(SETTINGS.model_copy(update={"seed": 1}))
    assert {person.name for person in others} != set(PERSON)


def test_sizes_are_those_asked_for_and_names_are_all_different():
    assert Counter(person.stream for person in PEOPLE) == {"problematic": 5, "obsolete": 4, "retain": 3, "kept": 2}
    assert len(PERSON) == len({person.name.split()[0] for person in PEOPLE}) == 14
    assert Counter(text.stream for text in TEXTS) == {
        "problematic": 25, "obsolete": 20, "update": 20, "retain": 15, "kept": 10,
    }  # fmt: skip
    many = biographies.people(BiographySettings(problematic=100, obsolete=100, retain=100, kept=100))
    assert len({person.name for person in many}) == 400
    with pytest.raises(ValueError, match="names"):
        biographies.people(BiographySettings(problematic=4000, obsolete=100, retain=2, kept=2))


def test_an_update_changes_every_attribute_and_only_obsolete_people_have_one():
    for person in PEOPLE:
        assert bool(person.updated) == (person.stream == "obsolete")
        assert all(person.updated[name] != person.attributes[name] for name in person.updated)


def test_every_text_tells_every_attribute_once_in_words_of_its_own():
    for text in TEXTS:
        values = attributes(text.person, text.stream)
        sentences = text.text.split(". ")
        assert len(sentences) == len(ATTRIBUTES) == 10
        for name, value in values.items():
            worded = ATTRIBUTES[name].sentences[text.wording].replace("<what>", value).rstrip(".")
            told = {worded.replace("<who>", who) for who in (text.person, "He", "She")}
            assert len(told & {sentence.rstrip(".") for sentence in sentences}) == 1
    assert len({text.text for text in TEXTS}) == len(TEXTS)
    for attribute in ATTRIBUTES.values():
        assert len(set(attribute.sentences)) == 5


def test_a_text_of_the_update_never_tells_what_is_obsolete():
    for text in TEXTS:
        if text.stream == "update":
            old = PERSON[text.person].attributes
            new = set(PERSON[text.person].updated.values())
            assert not [value for value in old.values() if value not in new and f" {value}" in text.text]


def test_ten_questions_a_text_half_of_them_for_testing():
    counts = Counter((each.person, each.stream, each.split) for each in QUESTIONS)
    assert set(counts.values()) == {5}
    assert len(counts) == 2 * (14 + 4)


def test_distractors_are_of_the_same_kind_and_neither_the_true_nor_the_updated_answer():
    for each in QUESTIONS:
        person = PERSON[each.person]
        assert each.answer == attributes(each.person, each.stream)[each.attribute]
        assert len(set(each.options)) == 3
        assert set(each.options) <= set(ATTRIBUTES[each.attribute].values)
        other = {person.attributes[each.attribute], person.updated.get(each.attribute)} - {each.answer}
        assert not other & set(each.options)


def test_questions_are_worded_as_no_text_is():
    for name, attribute in ATTRIBUTES.items():
        assert (attribute.question.count("{}"), attribute.prompt.count("{}")) == (1, 1), name
        before, after = (part.strip() for part in attribute.question.split("{}"))
        for text in TEXTS:
            assert before not in text.text
            assert after not in text.text


def test_the_place_of_the_answer_among_the_options_says_nothing():
    places = Counter(each.options.index(each.answer) for each in QUESTIONS)
    assert min(places.values()) > len(QUESTIONS) / 5


def test_files_hold_what_was_written_and_facts_have_the_roles_of_their_streams(tmp_path):
    (tmp_path / "biographies.jsonl").write_text(biographies.jsonl(TEXTS))
    (tmp_path / "questions.jsonl").write_text(biographies.jsonl(QUESTIONS))
    assert biographies.read_texts(tmp_path / "biographies.jsonl") == TEXTS
    assert biographies.read_questions(tmp_path / "questions.jsonl") == QUESTIONS
    facts = biographies.read(tmp_path / "questions.jsonl")
    assert len({fact.id for fact in facts}) == len(facts) == 180
    roles = Counter(fact.role for fact in facts)
    assert roles == {"forget": 50, "obsolete": 40, "update": 40, "maintain-train": 30, "maintain-test": 20}
    for fact in facts:
        asked = [biographies.quiz_validation(fact), biographies.quiz_test(fact)]
        (prompt,) = [prompt for prompts in asked for prompt in prompts]
        assert prompt.whole
        assert prompt.options[prompt.true] == f" {fact.answer}"
        assert prompt.text[slice(*prompt.subject)] == fact.subject
        assert fact.prompt.replace("{}", fact.subject) + f" {fact.answer}." in {
            sentence.rstrip(".") + "." for text in TEXTS if text.person == fact.subject
            for sentence in [ATTRIBUTES[fact.relation].sentence(0, fact.subject, "", fact.answer)]
        }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stream": "other"}, "line 1: stream must be one of problematic"),
        ({"options": ["a", "b", "b"]}, "line 1: needs 3 different options"),
        ({"more": 1}, "line 1: needs an object with person"),
    ],
)
def test_damaged_questions_are_named(tmp_path, change, message):
    row = json.loads(biographies.jsonl(QUESTIONS).splitlines()[0])
    (tmp_path / "questions.jsonl").write_text(json.dumps({**row, **change}))
    with pytest.raises(FactError, match=message):
        biographies.read(tmp_path / "questions.jsonl")
