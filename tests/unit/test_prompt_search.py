"""Prompt search against a slow oracle; the choice never looks at the facts it is tested on."""

import json
import logging
from collections import Counter
from dataclasses import replace

import pytest

from mechunlearn import artifacts
from mechunlearn.artifacts import MEASUREMENT_COLUMNS, measurement_table
from mechunlearn.attack import prompt_search as module
from mechunlearn.attack.prompt_search import accuracy, best, prompt_search
from mechunlearn.cli.attack import attack
from mechunlearn.config import PromptSearchSettings
from mechunlearn.errors import ConfigError, FactError
from mechunlearn.evaluate.measure import measure
from mechunlearn.facts.roles import halves
from mechunlearn.models.scoring import score
from mechunlearn.registry import load
from tests.unit.test_relearn import assert_untouched, shape_of

NAMES = ["completion", "question", "choice-text"]
ROWS = ("order", "p_true", "p_new", "p_options")


def searched(model, athletes, names=NAMES, seed=0, **changes):
    return prompt_search(model, athletes, [], PromptSearchSettings(elicitations=names, **changes), seed)


def shares(model, fact, name):
    """P(true answer) among the options, in each of a format's orders, one prompt at a time."""
    rows = [score(model, [prompt])[0] for prompt in load("elicitation", name)(fact)]
    return [row["p_true"] / row["p_options"] for row in rows]


def accuracy_of(model, facts, name):
    """The same, averaged over orders, then over facts."""
    of_facts = [sum(values) / len(values) for values in (shares(model, fact, name) for fact in facts)]
    return sum(of_facts) / len(of_facts)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("family", ["gemma3_text", "llama", "gpt2"])
def test_each_half_is_asked_in_what_was_best_on_the_other(tiny, athletes, family, seed):
    model, expected = tiny(family), {}
    forget = [fact for fact in athletes if fact.role == "forget"]
    for number, (chosen_on, tested) in enumerate(halves(forget, "facts", seed)):
        means = [accuracy_of(model, chosen_on, name) for name in NAMES]
        name = NAMES[means.index(max(means))]
        kept = [fact for fact in athletes if fact.role == "maintain-test"] if number == 0 else []
        for fact in [*tested, *kept]:
            for prompt in load("elicitation", name)(fact):
                (row,) = score(model, [prompt])
                expected[fact.role, fact.id, prompt.order] = pytest.approx(
                    [row[key] for key in ROWS], rel=1e-4, nan_ok=True
                )
    rows = searched(model, athletes, seed=seed)
    assert len(rows) == len(expected)
    assert {(row["role"], row["fact"], row["order"]): [row[key] for key in ROWS] for row in rows} == expected
    assert {(row["seed"], row["stage"], row["elicitation"]) for row in rows} == {(seed, "prompt-search", "best-prompt")}
    assert set(measurement_table(rows).columns) == set(MEASUREMENT_COLUMNS) == set(rows[0])


def planted(monkeypatch, tables):
    """Accuracies by format and fact instead of a model's."""

    def asked(model, facts, name):
        table = tables[name]
        return [
            {"fact": fact.id, "role": fact.role, "order": 0, "p_true": 0.5 * table[fact.id], "p_options": 0.5}
            for fact in facts
        ]

    monkeypatch.setattr(module, "asked", asked)


@pytest.mark.parametrize("seed", range(6))
def test_the_choice_never_looks_at_the_tested_half(athletes, monkeypatch, seed):
    (first, second), _ = halves([fact for fact in athletes if fact.role == "forget"], "facts", seed)
    others = {fact.id: 0.3 for fact in athletes}

    def table(on_first, on_second):
        return {**others, **{fact.id: on_first for fact in first}, **{fact.id: on_second for fact in second}}

    # Each is the best of its half and useless on the other, and on all facts together `question` is better.
    planted(monkeypatch, {"completion": table(0.9, 0.1), "famous": table(0.1, 0.9), "question": table(0.8, 0.8)})
    rows = searched(None, athletes, ["question", "famous", "completion"], seed)
    assert Counter(row["fact"] for row in rows if row["role"] == "forget") == Counter(f.id for f in (*first, *second))
    assert {row["p_true"] / row["p_options"] for row in rows if row["role"] == "forget"} == {0.1}


def test_kept_facts_are_asked_as_the_first_half_chose(athletes, monkeypatch):
    (first, second), _ = halves([fact for fact in athletes if fact.role == "forget"], "facts", 0)
    ones, tens = ({fact.id: share for fact in athletes} for share in (0.2, 0.4))
    planted(monkeypatch, {
        "completion": {**ones, **{fact.id: 0.9 for fact in first}},
        "question": {**tens, **{fact.id: 0.8 for fact in second}},
    })  # fmt: skip
    kept = [row for row in searched(None, athletes, NAMES[:2]) if row["role"] == "maintain-test"]
    assert Counter(row["fact"] for row in kept) == Counter(f.id for f in athletes if f.role == "maintain-test")
    assert {row["p_true"] / row["p_options"] for row in kept} == {0.2}


def test_facts_count_alike_however_many_orders_they_have():
    rows = [{"fact": "a", "p_true": 0.0, "p_options": 1.0}] * 4
    rows += [{"fact": "b", "p_true": 0.5, "p_options": 0.5}, {"fact": "c", "p_true": 1.0, "p_options": 1.0}]
    assert accuracy(rows, {"a", "b"}) == 0.5
    assert accuracy([{"fact": "a", "p_true": 0.0, "p_options": 0.0}], {"a"}) == 0.0


def test_of_equals_the_first_is_best():
    assert best({"famous": 0.2, "question": 0.4, "completion": 0.4}) == "question"
    assert best({"completion": 0.4, "question": 0.4}) == "completion"


def test_the_log_says_what_was_chosen(tiny, athletes, caplog):
    caplog.set_level(logging.INFO)
    searched(tiny("llama"), athletes)
    lines = [message for message in caplog.messages if "chose" in message]
    assert len(lines) == 2
    assert all(name in line for name in NAMES for line in lines)


def test_subjects_stay_together(tiny, athletes, monkeypatch):
    twice = [*athletes, *(replace(fact, id=f"{fact.id} again") for fact in athletes if fact.role == "forget")]
    asked_for = []
    monkeypatch.setattr(module, "accuracy", lambda rows, facts: asked_for.append(facts) or 0.0)
    rows = searched(tiny("llama"), twice, split="subjects")
    for facts in asked_for:
        assert {f"{fact} again" for fact in facts if not fact.endswith(" again")} == {
            fact for fact in facts if fact.endswith(" again")
        }
    assert len({row["fact"] for row in rows if row["role"] == "forget"}) == 8


def test_no_format_is_no_search(tiny, athletes):
    with pytest.raises(ConfigError, match=r"prompt_search.elicitations is \[\].*allowed: .*question"):
        searched(tiny("llama"), athletes, [])


def test_only_formats_that_the_base_model_can_use_are_searched(tiny, athletes, tmp_path, monkeypatch):
    """Through the command: `question` fails the gate, though it would be the best."""
    model, text = tiny("llama"), tmp_path / "text.jsonl"
    passages = [{"id": str(n), "topic": "", "text": "Tiger Woods plays golf."} for n in range(2)]
    text.write_text("".join(json.dumps(passage) + "\n" for passage in passages))
    facts, base, out = tmp_path / "facts.parquet", tmp_path / "base.parquet", tmp_path / "out.parquet"
    artifacts.write_facts(facts, athletes, [0.9] * len(athletes), [1] * len(athletes))
    table = measurement_table(measure(model, athletes, [], NAMES, "base", 0))
    artifacts.write_table(base, table.assign(rank=table.elicitation.map({"question": 2}).fillna(1).astype(int)))
    monkeypatch.setattr("mechunlearn.cli.attack.load", lambda *_: model)
    seen = []
    monkeypatch.setattr(module, "best", lambda shares: seen.append(sorted(shares)) or max(shares))
    settings = PromptSearchSettings(elicitations=NAMES, gate=0.6).model_dump_json()
    where = {"model": tmp_path, "facts": facts, "text": text, "edits": tmp_path, "out": out}
    attack(method="prompt-search", settings=settings, seed=[0], held_out=1, base=base, **where)
    assert seen == [["choice-text", "completion"]] * 2
    assert set(artifacts.read_measurements(out).stage) == {"prompt-search"}


def test_an_unknown_format_is_named(tiny, athletes):
    with pytest.raises(ConfigError, match=r"prompt_search.elicitations: unknown name 'questoin'.*'question'"):
        searched(tiny("llama"), athletes, ["completion", "questoin"])


def test_a_format_that_does_not_fit_is_refused(tiny, athletes):
    with pytest.raises(FactError, match="no other wordings"):
        searched(tiny("llama"), athletes, ["completion", "paraphrase-1"])


def test_the_attack_leaves_no_trace(fresh, athletes):
    model = fresh("gemma3_text", "bfloat16")
    before = shape_of(model)
    searched(model, athletes)
    assert_untouched(model, before)
