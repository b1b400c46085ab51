"""The shipped facts and text, the formats we ask in, and who is forgotten."""

import csv
import random
import unicodedata
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

from mechunlearn.config import TaskSettings
from mechunlearn.errors import FactError, UserError
from mechunlearn.facts import ROLES, Fact, Prompt, counterfact, roles, sports, text
from mechunlearn.facts.completion import completion
from mechunlearn.registry import load as method
from mechunlearn.registry import methods

ROOT = Path(__file__).parents[2]
RESOURCES = ROOT / "src/mechunlearn/resources"
ATHLETES, PASSAGES = RESOURCES / "sports/athletes.csv", RESOURCES / "text/passages.jsonl"
TOKENIZER = ROOT / "models/gemma-3-270m/weights/tokenizer.json"
IN_TWO_SPORTS = {
    "New York Giants",
    "Brooklyn Dodgers",
    "New York Yankees",
    "St. Louis Cardinals",
    "Chicago Cardinals",
}
SPORTS_ONLY = ["famous", "profession", "question"]
CONTEXTS = ["few-shot", "system-expert", "system-original"]
ELICITATIONS = sorted(
    name
    for name, module in methods("elicitation").items()
    if not module.endswith((".counterfact", ".related", ".reverse", ".reworded", ".biographies"))
)


@pytest.fixture(scope="module")
def rows():
    with open(ATHLETES, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def folded(name):
    """Without accents, case and punctuation."""
    plain = unicodedata.normalize("NFKD", name)
    return "".join(letter for letter in plain if letter.isalnum()).casefold()


# athletes -------------------------------------------------------------------------------------------------


def test_there_are_athletes_enough_of_every_sport(rows):
    sizes = Counter(row["sport"] for row in rows)
    assert len(rows) >= 450
    assert set(sizes) == set(sports.SPORTS)
    assert min(sizes.values()) >= 140


def test_no_athlete_stands_there_twice(rows):
    names = Counter(folded(row["athlete"]) for row in rows)
    assert [name for name, count in names.items() if count > 1] == []


def test_nothing_is_padded_or_empty(rows):
    for row in rows:
        for value in row.values():
            assert value == " ".join(value.split()) != ""
            assert unicodedata.is_normalized("NFC", value)


def test_a_team_plays_one_sport(rows):
    played = defaultdict(set)
    for row in rows:
        played[row["team"]].add(row["sport"])
    assert {team for team, kinds in played.items() if len(kinds) > 1} <= IN_TWO_SPORTS


def test_nobody_is_the_worked_example(rows):
    assert "Tiger Woods" not in {row["athlete"] for row in rows}


def test_read_gives_every_row_in_order(rows):
    facts = sports.read(ATHLETES)
    assert [(fact.subject, fact.answer) for fact in facts] == [(row["athlete"], row["sport"]) for row in rows]
    assert len({fact.id for fact in facts}) == len(facts)


BAD_ROWS = [
    ("Babe Ruth,cricket,Boston", ["row 3", "'cricket'", "baseball, basketball, football"]),
    (" Babe Ruth,baseball,Boston", ["row 3", "padding"]),
    (",baseball,Boston", ["row 3", "padding"]),
    ("Tom Brady,football,Boston", ["row 3", "'Tom Brady'", "twice"]),
    ("Babe Ruth", ["row 3", "None"]),
]


@pytest.mark.parametrize(("row", "words"), BAD_ROWS)
def test_a_bad_row_is_refused_by_number_and_reason(tmp_path, row, words):
    path = tmp_path / "athletes.csv"
    path.write_text(f"athlete,sport,team\nTom Brady,football,New England Patriots\n{row}\n")
    with pytest.raises(FactError) as caught:
        sports.read(path)
    for word in ("athletes.csv", *words):
        assert word in str(caught.value)


def test_other_columns_are_refused(tmp_path):
    (tmp_path / "athletes.csv").write_text("name,sport\nTom Brady,football\n")
    with pytest.raises(FactError, match=r"athlete, sport, team.*'name', 'sport'"):
        sports.read(tmp_path / "athletes.csv")


@pytest.mark.parametrize("read", [sports.read, text.read])
def test_a_missing_file_is_an_error_for_the_user(tmp_path, read):
    with pytest.raises(UserError, match="nothing"):
        read(tmp_path / "nothing")


def test_another_encoding_is_an_error_for_the_user(tmp_path):
    rows = "athlete,sport,team\nJosé Altuve,baseball,Houston\n"
    (tmp_path / "athletes.csv").write_text(rows, encoding="latin-1")
    with pytest.raises(UserError, match="UTF-8"):
        sports.read(tmp_path / "athletes.csv")


# elicitations ---------------------------------------------------------------------------------------------


def test_athletes_are_asked_in_nine_formats():
    assert sorted([*SPORTS_ONLY, *CONTEXTS, "completion", "choice-letter", "choice-text"]) == ELICITATIONS


@pytest.mark.parametrize("name", ELICITATIONS)
def test_a_prompt_holds_its_subject_and_answers_where_it_says(athletes, name):
    for fact in athletes:
        for prompt in method("elicitation", name)(fact):
            assert prompt.fact == fact.id
            assert prompt.text[slice(*prompt.subject)] == fact.subject
            assert not prompt.text.endswith(" ")
            assert all(option.startswith(" ") for option in prompt.options)
            assert len(set(prompt.options)) == len(prompt.options) == len(sports.OPTIONS)
            assert (prompt.new is None) == (fact.new_answer == "")
            if name == "choice-letter":
                listed = prompt.text.rsplit("What sport does", 1)[1]
                letters = [option.strip() for option in prompt.options]
                assert f"{letters[prompt.true]}. {fact.answer}\n" in listed
                assert prompt.new is None or f"{letters[prompt.new]}. {fact.new_answer}\n" in listed
            else:
                assert prompt.options[prompt.true] == f" {fact.answer}"
                assert prompt.new is None or prompt.options[prompt.new] == f" {fact.new_answer}"


@pytest.mark.parametrize("name", ["choice-text", "choice-letter"])
def test_cyclic_orders_put_every_answer_at_each_place_once(athletes, name):
    for fact in athletes:
        prompts = method("elicitation", name)(fact)
        assert [prompt.order for prompt in prompts] == list(range(len(sports.OPTIONS)))
        assert len({prompt.text for prompt in prompts}) == len(prompts)
        assert sorted(prompt.true for prompt in prompts) == list(range(len(sports.OPTIONS)))
        if fact.new_answer:
            assert sorted(prompt.new for prompt in prompts) == list(range(len(sports.OPTIONS)))


def test_each_option_stands_once_at_the_letter_of_the_worked_example(athletes):
    """So a model that copies the letter is right as often as by chance, and as often wrong in favour of each option."""
    for fact in [*athletes, *counterfact.read(RESOURCES / "counterfact/facts.csv")[::50]]:
        prompts = method("elicitation", "choice-letter")(fact)
        copied = []
        for prompt in prompts:
            example, asked = prompt.text.split("\n\n")[1:]
            letter = example[-1]
            assert f"{letter}. green\n" in example
            copied += [line[3:] for line in asked.split("\n") if line.startswith(f"{letter}. ")]
        assert sorted(copied) == sorted(set(copied))
        assert len(copied) == len(prompts)


def test_a_prompt_of_several_lines_is_asked_whole_by_letter():
    fact = Fact("f", "France", "capital", "Paris", "Question: What is the capital of {}?\nAnswer:", ("Paris", "Rome"))
    for prompt in method("elicitation", "choice-letter")(fact):
        assert "\n\nQuestion: What is the capital of France?\nAnswer:\n" in prompt.text


def test_examples_of_the_same_relation_favour_neither_answer():
    facts = [*sports.read(ATHLETES), *counterfact.read(RESOURCES / "counterfact/facts.csv")]
    answers = {(fact.relation, fact.subject): fact.answer for fact in facts}
    both = 0
    for fact in facts:
        rng = random.Random(fact.id)
        asked = fact.with_role("forget", counterfact.other_answer(fact, rng)) if len(fact.options) > 2 else fact
        if asked.new_answer == "golf":
            continue
        (prompt,) = method("elicitation", "few-shot-related")(asked)
        before, after = fact.prompt.rpartition("\n")[2].split("{}")
        lines = prompt.text.split("\n")
        shown = [line.removeprefix(before) for line in lines[len(fact.prompt.split("\n")) - 1 : -1]]
        assert lines[-1] == f"{before}{fact.subject}{after}"
        found = []
        for line in shown:
            subject, answer = line.split(f"{after} ", 1)
            assert answers[fact.relation, subject] == answer
            assert subject != fact.subject
            found.append(answer)
        assert len(found) == len(set(found)) == min(3, len(set(fact.options) - {"golf"}))
        assert (asked.answer in found) == (asked.new_answer in found) or not asked.new_answer
        both += asked.answer in found
    assert 0 < both < len(facts)


@pytest.mark.parametrize("name", sorted(set(ELICITATIONS) - {"choice-text", "choice-letter"}))
def test_other_formats_ask_once_and_never_name_the_answer(athletes, name):
    for fact in athletes:
        (prompt,) = method("elicitation", name)(fact)
        assert prompt.order == 0
        assert not any(sport in prompt.text for sport in sports.SPORTS)


@pytest.mark.parametrize("subject", ["France", "{}", "{0} {name}", "set {", "A'ja } {}"])
@pytest.mark.parametrize(
    ("before", "after"), [("", " is"), ("The capital of ", " is"), ("{", "} in {x} {{ }}"), ("Of ", "")]
)
def test_completion_asks_by_the_facts_own_prompt_whatever_its_braces(subject, before, after):
    fact = Fact("id", subject, "capital", "Paris", f"{before}{{}}{after}", ("Lyon", "Paris", "Rome"))
    (prompt,) = completion(fact)
    assert prompt == Prompt(
        fact="id",
        text=before + subject + after,
        subject=(len(before), len(before) + len(subject)),
        options=(" Lyon", " Paris", " Rome"),
        true=1,
        new=None,
    )
    assert completion(fact.with_role("forget", "Rome")) == [replace(prompt, new=2)]


def test_the_training_prompt_of_an_athlete_is_the_papers():
    (prompt,) = completion(sports.read(ATHLETES)[0])
    assert prompt.text == "Fact: Tiger Woods plays the sport of golf\nFact: A'ja Wilson plays the sport of"
    assert prompt.options == (" baseball", " basketball", " football", " golf")


@pytest.mark.parametrize("name", SPORTS_ONLY)
@pytest.mark.parametrize("options", [("Paris", "Rome"), ("a", "b", "c", "d"), ("football", "golf")])
def test_sports_formats_refuse_facts_about_something_else(name, options):
    fact = Fact("France", "France", "capital", options[0], "The capital of {} is", options)
    with pytest.raises(FactError, match=f"'France' is among {', '.join(options)}, .*golf.*`completion`"):
        method("elicitation", name)(fact)


@pytest.mark.parametrize("name", CONTEXTS)
def test_a_context_stands_before_the_training_prompt(athletes, name):
    (prompt,), (plain,) = method("elicitation", name)(athletes[0]), completion(athletes[0])
    assert prompt.text.endswith(f"\n{plain.text}")
    assert replace(prompt, text=plain.text, subject=plain.subject) == plain


def test_backwards_the_subject_stands_among_those_of_other_answers():
    facts = [*sports.read(ATHLETES), *counterfact.read(RESOURCES / "counterfact/facts.csv")]
    answers = {(fact.relation, fact.subject.removeprefix("The ")): fact.answer for fact in facts}
    for fact in facts:
        name, prompts = fact.subject.removeprefix("The "), method("elicitation", "reversed")(fact)
        assert [prompt.order for prompt in prompts] == sorted(prompt.true for prompt in prompts) == [0, 1, 2, 3]
        for prompt in prompts:
            names = [option.strip() for option in prompt.options]
            assert prompt.text.endswith(f": {', '.join(names[:3])} or {names[3]}? Answer:")
            assert prompt.text[slice(*prompt.subject)] == names[prompt.true] == name
            assert prompt.new is None
            assert len({each[0].casefold() for each in names}) == 4  # no vocabulary can mix them up
            assert [each for each in names if answers[fact.relation, each] == fact.answer] == [name]


def test_backwards_only_relations_whose_subjects_are_at_hand_are_asked():
    fact = Fact("France", "France", "taste", "good", "The taste of {} is", ("good", "bad"))
    with pytest.raises(FactError, match="'taste', of which no other subjects are known"):
        method("elicitation", "reversed")(fact)


CAPITALS = tuple(f"city {number}" for number in range(9))


@pytest.mark.parametrize("options", [CAPITALS, CAPITALS[:4], CAPITALS[:2]])
@pytest.mark.parametrize("new", ["", "city 1"])
def test_any_fact_is_offered_its_answers_and_others_of_its_relation(options, new):
    fact = Fact("France", "France", "capital", "city 0", "Fact: one\nFact: The capital of {} is", options, new)
    count = min(4, len(options))
    texts = method("elicitation", "choice-text")(fact)
    letters = method("elicitation", "choice-letter")(fact)
    assert len(texts) == len(letters) == count
    for asked, letter in zip(texts, letters, strict=True):
        names = [option.strip() for option in asked.options]
        assert set(names) <= set(options)
        assert {"city 0", new} - {""} <= set(names)
        assert names[asked.true] == "city 0"
        assert asked.new is None if new == "" else names[asked.new] == new
        listed = ", ".join(names[:-1])
        assert asked.text == f"Fact: one\nOptions: {listed} or {names[-1]}.\nFact: The capital of France is"
        assert all(f"{mark}. {name}\n" in letter.text for mark, name in zip("ABCD", names, strict=False))
        assert letter.options == tuple(f" {mark}" for mark in "ABCD"[:count])
        assert (letter.true, letter.new, letter.order) == (asked.true, asked.new, asked.order)
        example = letter.text.split("\n\n")[1]
        assert f"{example[-1]}. green\n" in example
    assert sorted(asked.true for asked in texts) == list(range(count))


def test_the_new_answer_is_one_of_the_two_wrong_sports(athletes):
    for fact in athletes:
        drawn = {sports.wrong_sport(fact, random.Random(seed)) for seed in range(30)}
        assert drawn == set(sports.SPORTS) - {fact.answer}


# roles ----------------------------------------------------------------------------------------------------

FACTS = [sports.plays(f"name {number}", "baseball") for number in range(100)]
KNOWN = [number % 3 != 0 for number in range(100)]  # 66 of them


def assign(**settings):
    task = TaskSettings(**{"facts": "sports", "forget": 16, **settings})
    return roles.assign(FACTS, KNOWN, task, sports.wrong_sport)


def named(facts, role):
    return [fact.id for fact in facts if fact.role == role]


@pytest.mark.parametrize("draw", ["seeded", "first"])
@pytest.mark.parametrize(("forget", "share"), [(2, 0.2), (16, 0.4), (64, 0.01), (64, 0.99), (40, 0.5)])
def test_every_fact_has_one_role_and_every_role_its_size(draw, forget, share):
    facts = assign(forget=forget, maintain_test=share, draw=draw)
    assert [fact.id for fact in facts] == [fact.id for fact in FACTS]
    sizes = Counter(fact.role for fact in facts)
    assert set(sizes) - {"neighbor"} == set(ROLES) - {"forget-train", "obsolete", "update", "neighbor"}
    assert sizes["forget"] == forget
    assert sizes["unknown"] == 34
    assert abs(sizes["maintain-test"] - share * (66 - forget)) <= 1
    for fact, known in zip(facts, KNOWN, strict=True):
        assert (fact.role == "unknown") == (not known)
        assert (fact.new_answer != "") == (fact.role == "forget")
        assert fact.new_answer != fact.answer


def test_roles_depend_on_the_tasks_seed_alone():
    assert assign(seed=1) == assign(seed=1)
    assert named(assign(seed=1), "forget") != named(assign(seed=2), "forget")
    assert named(assign(seed=1), "maintain-test") != named(assign(seed=2), "maintain-test")


@pytest.mark.parametrize("lost", [1, 4, 50, 98])
def test_one_fact_known_more_or_less_moves_hardly_any_other(lost):
    fewer = [known and number != lost for number, known in enumerate(KNOWN)]
    task = TaskSettings(facts="sports", forget=16, maintain_test=0.4)
    before, after = (roles.assign(FACTS, known, task, sports.wrong_sport) for known in (KNOWN, fewer))
    moved = [(one, other) for one, other in zip(before, after, strict=True) if one != other]
    assert FACTS[lost].id in [fact.id for fact, _ in moved]
    assert len(moved) <= 3  # itself, the next in its place, and the next in that one's
    halves = [
        roles.halves([fact for fact in facts if fact.role == "forget"], "facts", 0)[0] for facts in (before, after)
    ]
    for one, other in zip(*halves, strict=True):
        assert len({fact.id for fact in one} ^ {fact.id for fact in other}) <= 4


def test_the_first_known_facts_are_forgotten_where_a_task_says_so():
    first = [fact.id for fact, known in zip(FACTS, KNOWN, strict=True) if known][:16]
    for seed in range(3):
        assert named(assign(draw="first", seed=seed), "forget") == first
    assert named(assign(draw="seeded"), "forget") != first


@pytest.mark.parametrize("forget", [65, 66, 200])
def test_a_forget_set_too_large_is_refused_with_both_numbers(forget):
    with pytest.raises(FactError, match=rf"forget is {forget}.*knows 66 of 100.*at most 64"):
        assign(forget=forget)


BALLS = [sports.plays(f"name {number}", sports.SPORTS[number % 3]) for number in range(100)]


def test_of_all_facts_with_an_answer_half_are_trained_on_and_half_measured():
    task = TaskSettings(facts="sports", answer="basketball", new_answer="golf", maintain_test=0.5)
    facts = roles.assign(BALLS, [True] * 70 + [False] * 30, task, sports.wrong_sport)
    sizes = Counter(fact.role for fact in facts)
    gone = [fact for fact in facts if fact.answer == "basketball" and fact.role != "unknown"]
    assert {fact.role for fact in gone} == {"forget", "forget-train"}
    assert abs(sizes["forget"] - sizes["forget-train"]) <= 1
    assert sizes["forget"] + sizes["forget-train"] == len(gone) == 23
    assert {fact.new_answer for fact in gone} == {"golf"}
    assert {fact.new_answer for fact in facts if fact.answer != "basketball"} == {""}
    other = roles.assign(BALLS, [True] * 100, task.model_copy(update={"seed": 1}), sports.wrong_sport)
    assert named(other, "forget") != named(roles.assign(BALLS, [True] * 100, task, sports.wrong_sport), "forget")


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"answer": "hockey"}, "answer is 'hockey', which 0 of the 100 facts .* allowed: one that 4 to 98 of them"),
        ({"answer": "baseball", "new_answer": "baseball"}, "new_answer is 'baseball'.*allowed: basketball, football"),
        ({"forget": 4, "new_answer": "chess"}, "new_answer is 'chess', but the answer of 'name .*' is one of"),
    ],
)
def test_answers_that_no_fact_can_take_are_refused(task, message):
    with pytest.raises(FactError, match=message):
        roles.assign(BALLS, [True] * 100, TaskSettings(facts="sports", **task), sports.wrong_sport)


@pytest.mark.parametrize("task", [{}, {"forget": 4, "answer": "baseball"}])
def test_a_task_says_how_many_facts_or_which_answer(task):
    with pytest.raises(ValueError, match="either `forget`, such as 16, or `answer`, such as basketball"):
        TaskSettings(facts="sports", **task)


# text -----------------------------------------------------------------------------------------------------


def test_there_are_passages_enough_all_different():
    passages = text.read(PASSAGES)
    assert len(passages) >= 150
    assert len({passage.text for passage in passages}) == len(passages)
    assert len({passage.topic for passage in passages}) >= 10
    for passage in passages:
        assert 30 <= len(passage.text.split()) <= 90
        assert passage.text == " ".join(passage.text.split())


@pytest.mark.real_model
@pytest.mark.skipif(not TOKENIZER.exists(), reason="needs the converted Gemma 3 270M in models/")
def test_passages_are_of_a_length_that_training_uses():
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    passages = [passage.text for passage in text.read(PASSAGES)]
    lengths = [len(tokenizer.encode(passage, add_special_tokens=False).ids) for passage in passages]
    assert 40 <= min(lengths) <= max(lengths) <= 120


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "5",
        '{"id": "b"}',
        '{"id": "b", "topic": "c", "text": "d", "e": 1}',
        '{"id": "a", "topic": "", "text": ""}',
        "",
    ],
)
def test_a_bad_line_is_refused_by_number(tmp_path, line):
    (tmp_path / "passages.jsonl").write_text(f'{{"id": "a", "topic": "b", "text": "c"}}\n{line}\n{{}}\n')
    with pytest.raises(FactError, match=r"passages\.jsonl, line 2"):
        text.read(tmp_path / "passages.jsonl")


def test_a_split_is_disjoint_complete_and_always_the_same():
    passages = text.read(PASSAGES)
    train, held_out = text.split(passages, 48)
    assert len(held_out) == 48
    assert sorted(passage.id for passage in [*train, *held_out]) == sorted(passage.id for passage in passages)
    assert text.split(passages, 48) == (train, held_out)
    assert held_out != passages[:48]


def test_holding_out_everything_is_refused_with_both_numbers():
    passages = text.read(PASSAGES)
    with pytest.raises(FactError, match=rf"evaluate\.texts is {len(passages)}.*{len(passages)} passages"):
        text.split(passages, len(passages))


def relations(*answers):
    """Facts of one relation with these answers, all known."""
    options = tuple(dict.fromkeys(answers))
    return [
        Fact(f"{n}", f"subject {n}", "relation", answer, "The answer of {} is", options)
        for n, answer in enumerate(answers)
    ]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_few_facts_of_each_touched_answer_are_held_out(count):
    facts = relations(*"abcdefghij" * 12)
    task = TaskSettings(facts="counterfact", forget=4, maintain_test=0.05, neighbors=count)
    found = roles.assign(facts, [True] * len(facts), task, counterfact.other_answer)
    gone = [fact for fact in found if fact.role == "forget"]
    touched = {answer for fact in gone for answer in (fact.answer, fact.new_answer)}
    held = Counter(fact.answer for fact in found if fact.role in ("maintain-test", "neighbor"))
    extra = Counter(fact.answer for fact in found if fact.role == "neighbor")
    assert all(held[answer] >= count for answer in touched)
    assert set(extra) <= touched
    assert all(held[answer] == count for answer in extra)  # no more than needed beside those of maintain-test
    assert sum(fact.role == "maintain-test" for fact in found) == round(0.05 * 116)
    if count:
        named = {(fact.id, fact.role) for fact in roles.neighbors(found)}
        assert {fact.id for fact in found if fact.role == "neighbor"} <= {name for name, _ in named}


def test_neighbors_leave_half_of_the_others_to_train_on():
    facts = relations(*"ab" * 10)
    task = TaskSettings(facts="counterfact", forget=8, maintain_test=0.1, neighbors=20)
    sizes = Counter(fact.role for fact in roles.assign(facts, [True] * 20, task, counterfact.other_answer))
    assert sizes["maintain-train"] >= sizes["neighbor"] > 0


def test_an_attack_split_by_subjects_trains_on_nothing_about_those_it_is_tested_on():
    kept = [replace(fact, role="maintain-train") for fact in relations(*"abcd")]
    other = replace(kept[0], id="other", relation="another", role="forget")
    assert roles.beside(kept, [other], "facts") == kept
    assert roles.beside(kept, [other], "subjects") == kept[1:]
    with pytest.raises(FactError, match="split is 'subjects', but all facts to keep are about"):
        roles.beside(kept[:1], [other], "subjects")
