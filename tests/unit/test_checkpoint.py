"""A killed training goes on from its last checkpoint, and ends with the bits of one that was never killed."""

from dataclasses import replace

import pytest
import torch

from mechunlearn.artifacts import Component, Group, Selection
from mechunlearn.config import BiographySettings, EditSettings
from mechunlearn.edit.continual import continue_on
from mechunlearn.edit.sequence import edit_in_turn
from mechunlearn.edit.train import STREAMS, Recipe
from mechunlearn.errors import DivergenceError
from mechunlearn.facts.biographies import Biography
from mechunlearn.facts.text import Passage
from mechunlearn.models import checkpoint, training
from mechunlearn.models.checkpoint import Training, keeping
from mechunlearn.registry import methods

PARTS = [Component(1, "mlp"), Component(2, "attention", head=1), Component(3, "mlp", 5)]
PASSAGES = [
    Passage("a", "sport", "Tiger Woods plays the sport of golf."),
    Passage("b", "sport", "José plays baseball."),
    Passage("c", "sport", "A team of nine players each."),
]
PEOPLE = [Biography(f"A{n}", stream, 0, f"A{n} is {stream}.") for n in range(3) for stream in STREAMS]
STEPS = 5


class Killed(BaseException):
    """As sudden as a signal: nothing of the package catches it."""


def recipe(athletes, objective="inject", **changes):
    settings = EditSettings(steps=STEPS, batch=2, texts=1, text_tokens=8, learning_rate=1e-3, **changes)
    people = PEOPLE if objective.startswith("surgery") else []
    return Recipe(athletes, PASSAGES, Selection("by hand", PARTS, 0, 0, 0), objective, settings, 0, people)


def grouped(athletes):
    """Two blocks of two groups each."""
    forget = [fact.id for fact in athletes if fact.role == "forget"]
    groups = [Group([fact], [PARTS[place % 2]], 0, place // 2 + 1) for place, fact in enumerate(forget)]
    facts = [replace(fact, block=forget.index(fact.id) // 2 + 1 if fact.id in forget else 0) for fact in athletes]
    one = recipe(facts)
    return replace(one, selection=replace(one.selection, groups=groups))


def told(history):
    """All that a history says but for the time that it took."""
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


def outcome(model, names, history, rows=()):
    """Everything that an edit leaves behind, comparable to the last bit."""
    weights = {name: parameter.detach().clone() for name, parameter in model.network.named_parameters()}
    return weights, sorted(names), told(history), repr([sorted(row.items()) for row in rows])


def assert_same(one, other):
    assert one[1:] == other[1:]
    assert all(torch.equal(one[0][name], other[0][name]) for name in one[0])


@pytest.fixture(autouse=True)
def often(monkeypatch):
    """A checkpoint after every step."""
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE", 1e9)


@pytest.fixture
def kill(monkeypatch):
    """Kill the next run at the given step of all that it takes; count the steps of runs."""
    taken, at, step = [], [0], training.torch.nn.utils.clip_grad_norm_

    def counted(*arguments, **options):
        taken.append(1)
        if at[0] and len(taken) == at[0]:
            raise Killed
        return step(*arguments, **options)

    monkeypatch.setattr(training.torch.nn.utils, "clip_grad_norm_", counted)

    def set_to(number):
        taken.clear()
        at[0] = number
        return taken

    return set_to


def killed(fresh, folder, *recipes, dtype="float32"):
    def job():
        with keeping(folder) as checkpoints:
            for made in recipes:
                edit_in_turn(fresh("gemma3_text", dtype), made, checkpoints)
            raise Killed

    with pytest.raises(Killed):
        job()


def finished(fresh, folder, made, dtype="float32"):
    model = fresh("gemma3_text", dtype)
    with keeping(folder) as checkpoints:
        return outcome(model, *edit_in_turn(model, made, checkpoints))


def goes_on(fresh, folder, kill, made):
    """Killed at its fourth step and taken up there, an edit is the same, and leaves nothing behind."""
    expected = outcome(model := fresh("gemma3_text"), *edit_in_turn(model, made))
    kill(4)
    killed(fresh, folder, made)
    taken = kill(0)
    assert_same(finished(fresh, folder, made), expected)
    assert len(taken) == STEPS - 3
    assert not folder.exists()


@pytest.mark.parametrize("objective", sorted(methods("objective")))
def test_killed_and_taken_up_an_edit_is_the_same(fresh, athletes, objective, tmp_path, kill):
    goes_on(fresh, tmp_path / "kept", kill, recipe(athletes, objective, rmu={"layer": 3}))


def test_moments_of_8_bits_go_on_too(fresh, athletes, tmp_path, kill, eight_bits):
    goes_on(fresh, tmp_path / "kept", kill, recipe(athletes, optimizer="adamw-8bit"))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("at", range(1, STEPS + 1))
def test_at_whichever_step(fresh, athletes, dtype, at, tmp_path, kill):
    made = recipe(athletes)
    expected = outcome(model := fresh("gemma3_text", dtype), *edit_in_turn(model, made))
    kill(at)
    killed(fresh, tmp_path / "kept", made, dtype=dtype)
    taken = kill(0)
    assert_same(finished(fresh, tmp_path / "kept", made, dtype), expected)
    assert len(taken) == STEPS - at + 1


def test_killed_again_and_again(fresh, athletes, tmp_path, kill):
    made = recipe(athletes)
    expected = outcome(model := fresh("gemma3_text"), *edit_in_turn(model, made))
    for _ in range(STEPS):
        kill(2)
        killed(fresh, tmp_path, made)
    assert_same(finished(fresh, tmp_path, made), expected)


@pytest.mark.parametrize("at", [2, 6, 13, 20])
def test_groups_that_are_finished_are_not_edited_again(fresh, athletes, at, tmp_path, kill):
    made = grouped(athletes)
    expected = outcome(model := fresh("gemma3_text"), *edit_in_turn(model, made))
    assert expected[3] != "[]"
    kill(at)
    killed(fresh, tmp_path, made)
    assert len(list(tmp_path.glob("*.safetensors"))) <= 2
    taken = kill(0)
    assert_same(finished(fresh, tmp_path, made), expected)
    assert len(taken) == 4 * STEPS - at + 1


def test_a_seed_that_is_finished_is_not_edited_again(fresh, athletes, tmp_path, kill):
    one, other = recipe(athletes), replace(recipe(athletes), seed=1)
    expected = outcome(model := fresh("gemma3_text"), *edit_in_turn(model, one))
    kill(STEPS + 2)
    killed(fresh, tmp_path, one, other)
    taken, model = kill(0), fresh("gemma3_text")
    with keeping(tmp_path) as checkpoints:
        assert_same(outcome(model, *edit_in_turn(model, one, checkpoints)), expected)
        assert not taken
        edit_in_turn(fresh("gemma3_text"), other, checkpoints)
        assert len(taken) == STEPS - 1


@pytest.mark.parametrize(
    "change",
    [
        {"objective": "forget"},
        {"seed": 1},
        {"settings": EditSettings(steps=STEPS, batch=2, texts=1, text_tokens=8, learning_rate=2e-3)},
        {"passages": PASSAGES[:2]},
        {"selection": Selection("by hand", PARTS[:2], 0, 0, 0)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_was_kept_of_another_edit_is_not_used(fresh, athletes, change, tmp_path, kill):
    made = replace(recipe(athletes), **change)
    expected = outcome(model := fresh("gemma3_text"), *edit_in_turn(model, made))
    kill(4)
    killed(fresh, tmp_path, recipe(athletes))
    taken = kill(0)
    assert_same(finished(fresh, tmp_path, made), expected)
    assert len(taken) == STEPS


@pytest.mark.parametrize("what", ["base", "source", "version", "damage"])
def test_nor_that_of_another_model_or_version_or_a_damaged_file(fresh, athletes, what, tmp_path, kill, monkeypatch):
    made, model = recipe(athletes), fresh("gemma3_text")
    kill(4)
    killed(fresh, tmp_path, made)
    if what == "base":
        model.manifest = replace(model.manifest, sha256="0" * 64)
    elif what == "source":
        monkeypatch.setattr(checkpoint, "_sources", lambda: "other")
    elif what == "version":
        monkeypatch.setattr(checkpoint, "version", lambda name: "0.0")
    else:
        (path,) = tmp_path.glob("*.safetensors")
        path.write_bytes(path.read_bytes()[:-100])
    taken = kill(0)
    with keeping(tmp_path) as checkpoints:
        edit_in_turn(model, made, checkpoints)
    assert len(taken) == STEPS


def test_an_edit_that_fails_by_itself_keeps_nothing(fresh, athletes, tmp_path):
    made = recipe(athletes)
    made = replace(made, settings=made.settings.model_copy(update={"learning_rate": 1e9}))
    with pytest.raises(DivergenceError), keeping(tmp_path / "kept") as checkpoints:
        edit_in_turn(fresh("gemma3_text"), made, checkpoints)
    assert not (tmp_path / "kept").exists()


def test_a_short_edit_writes_nothing(fresh, athletes, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "EVERY", 60.0)
    monkeypatch.setattr(checkpoint.tensors, "write", lambda *_: pytest.fail("a checkpoint"))
    with keeping(tmp_path / "kept") as checkpoints:
        edit_in_turn(fresh("gemma3_text"), recipe(athletes), checkpoints)
    assert not (tmp_path / "kept").exists()


def test_writing_takes_its_share_of_the_time_and_no_more(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(checkpoint, "EVERY", 60.0)
    monkeypatch.setattr(checkpoint, "SHARE", 0.05)
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    with keeping(tmp_path) as checkpoints:
        now[0] += 59
        assert not checkpoints.due()
        now[0] += 1
        assert checkpoints.due()
        checkpoints.written(now[0] - 10)
        now[0] += 199
        assert not checkpoints.due()
        now[0] += 1
        assert checkpoints.due()


def test_an_edit_goes_on_where_nothing_can_be_written(fresh, athletes, tmp_path, caplog):
    (tmp_path / "file").touch()
    made = recipe(athletes)
    expected = outcome(model := fresh("gemma3_text"), *edit_in_turn(model, made))
    assert_same(finished(fresh, tmp_path / "file" / "kept", made), expected)
    assert "nothing is kept" in caplog.text


def test_random_numbers_of_the_network_go_on_too(fresh, tmp_path, kill):
    """As a training with dropout would draw them."""

    def run(folder):
        model = fresh("llama")
        torch.manual_seed(5)
        weight = torch.nn.Parameter(torch.zeros(8))
        with keeping(folder) as checkpoints:
            reached = Training(checkpoints.of(model, "random"))
            steps = {"steps": STEPS, "learning_rate": 0.1, "clip": 1.0, "model": model, "what": ""}
            terms = lambda: {"a": (weight * torch.randn(8)).sum()}  # noqa: E731
            rows = list(training.descend([weight], terms, **steps, training=reached))
        return weight.detach(), rows

    expected = run(tmp_path / "whole")
    kill(3)
    with pytest.raises(Killed):
        run(tmp_path / "kept")
    kill(0)
    found = run(tmp_path / "kept")
    assert torch.equal(found[0], expected[0])
    assert found[1] == expected[1]


@pytest.mark.parametrize("kind", ["pre", "baseline"])
def test_training_on_biographies_goes_on_too(fresh, kind, tmp_path, kill):
    settings = BiographySettings(epochs=2, batch=2, texts=1, text_tokens=8, learning_rate=1e-3)

    def run(folder):
        model = fresh("gemma3_text")
        with keeping(folder) as checkpoints:
            names, spent = continue_on(model, PEOPLE, PASSAGES, kind, settings, checkpoints)
        return outcome(model, names, [spent])

    expected = run(tmp_path / "whole")
    kill(4)
    with pytest.raises(Killed):
        run(tmp_path / "kept")
    taken = kill(0)
    assert_same(run(tmp_path / "kept"), expected)
    assert len(taken) == expected[2][0]["steps"] - 3
