"""Fictitious athletes: invented, balanced, repeatable, and asked like the real ones."""

import unicodedata
from collections import Counter
from pathlib import Path

import pytest

from mechunlearn.facts import sports
from mechunlearn.facts.completion import completion
from mechunlearn.facts.planted import FIRST, LAST, NAMES, planted

SHIPPED = sports.read(Path(__file__).parents[2] / "src/mechunlearn/resources/sports/athletes.csv")


def words(name):
    """The words of a name, without accents and case."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return set(plain.casefold().replace("-", " ").split())


def test_there_are_names_enough_all_different():
    assert len(FIRST.split()) >= 40
    assert len(LAST.split()) >= 60
    assert len({name.casefold() for name in NAMES}) == len(NAMES) == len(FIRST.split()) * len(LAST.split())
    for name in NAMES:
        assert name.isascii()
        assert name == name.title()


def test_no_invented_name_shares_a_word_with_an_athlete_or_a_sport():
    real = set().union(*(words(fact.subject) for fact in SHIPPED), words("Tiger Woods"), sports.OPTIONS)
    invented = set().union(*map(words, NAMES))
    assert real
    assert not real & invented
    assert not {fact.subject for fact in SHIPPED} & set(NAMES)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 32, 100, 1000, len(NAMES)])
def test_athletes_are_different_and_their_sports_balanced(count):
    facts = planted(count, 7)
    assert len(facts) == len({fact.id for fact in facts}) == count
    assert {fact.subject for fact in facts} <= set(NAMES)
    sizes = Counter(dict.fromkeys(sports.SPORTS, 0))
    sizes.update(fact.answer for fact in facts)
    assert set(sizes) == set(sports.SPORTS)
    assert max(sizes.values()) - min(sizes.values()) <= 1


def test_they_are_asked_like_real_athletes():
    for fact in planted(30, 0):
        real = next(other for other in SHIPPED if other.answer == fact.answer)
        assert fact == sports.plays(fact.subject, fact.answer)
        assert (fact.prompt, fact.options, fact.relation) == (real.prompt, real.options, real.relation)
        (mine,), (theirs,) = completion(fact), completion(real)
        assert mine.text.replace(fact.subject, "X") == theirs.text.replace(real.subject, "X")
        assert (mine.options, mine.true) == (theirs.options, theirs.true)


def test_a_seed_gives_the_same_athletes_and_another_seed_others():
    assert planted(60, 1) == planted(60, 1)
    one, other = planted(60, 1), planted(60, 2)
    assert {fact.id for fact in one} != {fact.id for fact in other}
    assert [fact.answer for fact in one] != [fact.answer for fact in other]


def test_a_sport_follows_neither_from_the_place_nor_from_the_name():
    """Over many seeds a name gets every sport, each place does, and each sport is the one there is more of."""
    draws = [planted(len(NAMES), seed) for seed in range(12)]
    by_name = [{fact.subject: fact.answer for fact in draw} for draw in draws]
    for name in NAMES[:5]:
        assert len({answers[name] for answers in by_name}) > 1
    for place in range(5):
        assert len({draw[place].answer for draw in draws}) > 1
    cycle = [fact.answer for fact in draws[0]]
    assert any(len(set(cycle[start : start + 3])) < 3 for start in range(30))
    assert {planted(1, seed)[0].answer for seed in range(30)} == set(sports.SPORTS)


@pytest.mark.parametrize("count", [-1, len(NAMES) + 1, 10**9])
def test_more_athletes_than_names_are_refused_with_both_numbers(count):
    with pytest.raises(ValueError, match=rf"count is {count}; allowed: 0 to {len(NAMES)}"):
        planted(count, 0)
