"""Measuring: every fact, format and order once, and every text."""

from dataclasses import replace

import pytest
import torch

from mechunlearn.artifacts import MEASUREMENT_COLUMNS, measurement_table
from mechunlearn.evaluate.measure import measure, screen
from mechunlearn.facts import Fact, Prompt, with_options
from mechunlearn.facts.completion import completion
from mechunlearn.facts.roles import neighbors
from mechunlearn.facts.text import Passage
from mechunlearn.models.packing import last_hidden
from mechunlearn.models.scoring import score, text_hidden, text_scores

PASSAGES = [
    Passage("a", "sport", "Tiger Woods plays golf."),
    Passage("b", "sport", "José Altuve plays baseball."),
]
FORMATS = ["completion", "choice-text", "choice-letter"]


def test_rows_are_the_scores_of_every_format_and_text(model, athletes):
    table = measurement_table(measure(model, athletes, PASSAGES, FORMATS, "edited", 3))
    assert set(zip(table.seed, table.stage, strict=True)) == {(3, "edited")}
    assert len(table) == len(athletes) * (1 + 4 + 4) + len(neighbors(athletes)) + 2
    assert not table.duplicated(["elicitation", "order", "role", "fact"]).any()
    texts = table[table.elicitation == "text"]
    assert dict(zip(texts.fact, texts.nll, strict=True)) == pytest.approx(
        dict(zip("ab", text_scores(model, PASSAGES, text_hidden(model, PASSAGES))[0], strict=True))
    )
    roles = {fact.id: fact.role for fact in athletes}
    for fact in athletes:
        expected = score(model, with_options.choice_text(fact))
        rows = table[(table.fact == fact.id) & (table.elicitation == "choice-text")]
        assert rows.p_true.tolist() == pytest.approx([row["p_true"] for row in expected], rel=1e-4)
        assert set(rows.role) == {roles[fact.id]}
    assert list(table.columns) == list(MEASUREMENT_COLUMNS)


def test_formats_can_be_measured_without_texts(tiny, athletes):
    rows = measure(tiny("llama"), athletes[:2], [], ["completion"], "base", 0)
    assert [row["fact"] for row in rows] == [fact.id for fact in athletes[:2]]


def test_known_is_first_and_above_the_threshold(fresh, athletes):
    """A model that answers basketball, and nothing else, to everybody."""
    model = fresh("llama")
    ids = [model.encode(completion(fact)[0].text) for fact in athletes]
    with torch.no_grad():
        model.network.lm_head.weight.zero_()
        model.network.lm_head.weight[model.option(" basketball")] = last_hidden(model, ids).mean(0)
    known, p_answer, rank = screen(model, athletes, 0.0)
    assert known == [fact.answer == "basketball" for fact in athletes]
    assert rank == [1 if fact.answer == "basketball" else 2 for fact in athletes]
    expected = [score(model, completion(fact))[0]["p_true"] for fact in athletes]
    assert p_answer == pytest.approx(expected, rel=1e-3)
    for threshold in [p for p, knows in zip(p_answer, known, strict=True) if knows]:
        above = [knows and p > threshold for p, knows in zip(p_answer, known, strict=True)]
        assert screen(model, athletes, threshold)[0] == above


def test_neighbors_are_asked_in_the_training_prompt(tiny, athletes):
    rows = measure(tiny("llama"), athletes, [], ["completion", "question"], "edited", 0)
    table = measurement_table(rows)
    for role in ("neighbor-same", "neighbor-new"):
        expected = {fact.id: fact for fact in neighbors(athletes) if fact.role == role}
        found = table[table.role == role]
        assert set(found.fact) == set(expected) != set()
        assert set(found.elicitation) == {"completion"}
    assert set(table[table.elicitation == "question"].role) == {"forget", "maintain-test", "maintain-train"}


def test_the_divergence_from_the_base_is_the_mean_over_tokens(fresh):
    """Against a loop over passages and tokens, after a change of one matrix; zero where nothing changed."""
    model = fresh("llama")
    before = text_hidden(model, PASSAGES)
    ids = [torch.tensor([model.encode(passage.text)]) for passage in PASSAGES]
    with torch.no_grad():
        base = [model.network(input_ids=each).logits[0, :-1].log_softmax(-1) for each in ids]
        assert text_scores(model, PASSAGES, before, before)[1] == pytest.approx([0, 0], abs=1e-6)
        model.network.model.layers[1].mlp.down_proj.weight.mul_(1.5)
        now = [model.network(input_ids=each).logits[0, :-1].log_softmax(-1) for each in ids]
    expected = []
    for first, second in zip(base, now, strict=True):
        tokens = [float((p.exp() * (p - q)).sum()) for p, q in zip(first, second, strict=True)]
        expected.append(sum(tokens) / len(tokens))
    assert min(expected) > 1e-4
    assert text_scores(model, PASSAGES, text_hidden(model, PASSAGES), before)[1] == pytest.approx(expected, rel=1e-3)
    rows = measure(model, [], PASSAGES, [], "edited", 0, base=before)
    assert [row["kl"] for row in rows] == pytest.approx(expected, rel=1e-3)


def test_neighbors_are_asked_whatever_they_borrow(tiny):
    """Facts of one's own each have options of their own."""
    model = tiny("llama")

    def fact(name, answer, options, new="", role="maintain-test"):
        return Fact(name, name, "speaks", answer, "The language of {} is", options, new).with_role(role, new)

    facts = [
        fact("France", "French", ("French", "Latin"), "Latin", "forget"),
        fact("Senegal", "French", ("French", "Wolof")),
        fact("Vatican", "Latin", ("Latin", "Italian"), role="neighbor"),
    ]
    rows = measure(model, facts, [], ["completion"], "base", 0)
    asked = {(row["fact"], row["role"]) for row in rows}
    assert {("Senegal", "neighbor-same"), ("Vatican", "neighbor-new")} <= asked
    assert not any(name == "Vatican" and role == "neighbor" for name, role in asked)
    assert all(0 <= row["p_new"] <= row["p_options"] for row in rows if row["role"].startswith("neighbor"))


def test_counterfacts_own_prompts_are_its_facts_neighbors(tiny):
    """Asked whole, several of a fact as its orders, so that intervals are over forgotten facts and not over prompts."""
    model, options = tiny("llama"), ("Oslo", "Lima", "Rome")
    gone = Fact("Ona (7)", "Ona", "lives", "Oslo", "The city of {} is", options, "Lima").with_role("forget", "Lima")
    gone = replace(gone, neighborhood=("The city of Ulo is", "Ebba lives in"), attribute=("The city of Paz is",))
    other = Fact("Ida", "Ida", "lives", "Oslo", "The city of {} is", options).with_role("maintain-test")
    rows = measure(model, [gone, other], [], ["completion", "choice-text"], "base", 0)
    found = {(row["role"], row["order"]): row for row in rows if row["role"].startswith("neighbor")}
    assert set(found) == {("neighbor-same", 0), ("neighbor-same", 1), ("neighbor-new", 0)}
    assert {row["fact"] for row in found.values()} == {"Ona (7)"}
    for place, text, true in (
        (("neighbor-same", 0), "The city of Ulo is", 0),
        (("neighbor-same", 1), "Ebba lives in", 0),
        (("neighbor-new", 0), "The city of Paz is", 1),
    ):
        prompt = Prompt("Ona (7)", text, (0, len(text)), (" Oslo", " Lima", " Rome"), true, 1 - true)
        (expected,) = score(model, [prompt])
        assert found[place]["choice"] == expected["choice"]
        for name in ("p_true", "p_new"):
            assert found[place][name] == pytest.approx(expected[name], rel=1e-4)
