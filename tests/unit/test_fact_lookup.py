"""Fact lookup: probes where one relation has few answers, path patching elsewhere."""

from dataclasses import replace

import pytest

from mechunlearn.config import LocalizeSettings, ProbeSettings
from mechunlearn.localize import fact_lookup as module
from mechunlearn.localize.fact_lookup import fact_lookup


@pytest.fixture
def used(monkeypatch):
    """(facts, settings) -> the methods that were asked, with what they were given."""

    def using(facts, settings):
        asked = []
        for name in ("probes", "path_patching"):
            monkeypatch.setattr(module, name, lambda *given, name=name: asked.append((name, *given)) or name)
        answer = fact_lookup("model", facts, settings)
        assert asked == [(answer, "model", facts, settings)]
        return answer

    return using


def settings(lookup="auto", folds=2, facts=12):
    return LocalizeSettings(lookup=lookup, probes=ProbeSettings(folds=folds, facts=facts))


def test_few_answers_of_one_relation_are_probed(used, athletes):
    counts = [[fact.answer for fact in athletes].count(answer) for answer in {fact.answer for fact in athletes}]
    assert used(athletes, settings(folds=min(counts))) == "probes"
    assert used(athletes, settings(folds=min(counts) + 1)) == "path_patching"


def test_only_facts_that_probes_would_see_are_counted(used, athletes):
    rare = replace(athletes[0], answer="golf")
    assert used([*athletes, rare], settings(facts=12)) == "probes"
    assert used([rare, *athletes], settings(facts=12)) == "path_patching"


def test_several_relations_or_a_single_answer_are_path_patched(used, athletes):
    assert used([*athletes, replace(athletes[0], relation="birthplace")], settings()) == "path_patching"
    assert used([replace(fact, answer="golf") for fact in athletes], settings()) == "path_patching"


@pytest.mark.parametrize(("lookup", "method"), [("probes", "probes"), ("path-patching", "path_patching")])
def test_the_setting_decides_where_it_is_not_auto(used, athletes, lookup, method):
    for facts in (athletes, athletes[:3], [replace(fact, relation=fact.id) for fact in athletes]):
        assert used(facts, settings(lookup)) == method
