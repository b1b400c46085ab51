"""Training an edit: only what was selected moves, and everything else stays bit for bit."""

import random
import signal
from collections import Counter

import pytest
import torch
from torch.nn.functional import cross_entropy

from mechunlearn.artifacts import Component, Selection
from mechunlearn.config import EditSettings
from mechunlearn.edit.inject import inject
from mechunlearn.edit.objectives import Batch
from mechunlearn.edit.sequence import edit_in_turn
from mechunlearn.edit.train import Recipe, trainable
from mechunlearn.errors import DivergenceError
from mechunlearn.facts.completion import completion
from mechunlearn.facts.text import Passage
from mechunlearn.models.loading import load
from mechunlearn.models.training import draw, example, passages_ids

PASSAGES = [
    Passage("a", "sport", "Tiger Woods plays the sport of golf."),
    Passage("b", "sport", "José plays baseball."),
]
SETTINGS = EditSettings(steps=3, batch=2, texts=1, text_tokens=8, learning_rate=1e-3)
PARTS = [Component(1, "mlp"), Component(2, "attention"), Component(3, "mlp", 5)]


def select(*components):
    return Selection("by hand", list(components), 0, 0, 0)


def state(model):
    return {name: parameter.detach().clone() for name, parameter in model.network.named_parameters()}


def run(model, athletes, selection, seed=0, **changes):
    recipe = Recipe(athletes, PASSAGES, selection, "inject", SETTINGS.model_copy(update=changes), seed)
    return edit_in_turn(model, recipe)[:2]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_only_the_selected_components_move(fresh, family, athletes, dtype):
    model = fresh(family, dtype)
    before = state(model)
    names, history = run(model, athletes, select(*PARTS), learning_rate=1e-2)
    assert sorted(names) == sorted(name for part in PARTS for name in model.layout.tensors(part))
    assert [row["step"] for row in history] == [0, 1, 2, 3]
    for name, after in state(model).items():
        assert after.dtype == before[name].dtype
        assert torch.equal(after, before[name]) == (name not in names), name


def by_neuron(name, matrix):
    """A matrix of an MLP with a row for each neuron."""
    if "gate_up_proj" in name:  # Phi-3: all gates, then all ups
        return torch.cat(matrix.chunk(2), 1)
    return matrix.T if any(part in name for part in ("down_proj", "4h_to_h.", "c_fc")) else matrix


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_only_the_selected_neurons_move(fresh, family, athletes, dtype):
    model, neurons = fresh(family, dtype), 5
    before = state(model)
    names, _ = run(model, athletes, select(Component(2, "mlp", neurons)), learning_rate=1e-2)
    after = state(model)
    for name in names:
        old, new = (by_neuron(name, tensors[name]) for tensors in (before, after))
        assert torch.equal(old[neurons:], new[neurons:])
        assert (old[:neurons] != new[:neurons]).any(1).all()
    assert all(torch.equal(after[name], before[name]) for name in after if name not in names)


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_left_behind(fresh, family, fails):
    model = fresh(family, "bfloat16")
    names = {name for part in PARTS for name in model.layout.tensors(part)}
    try:
        with trainable(model, select(*PARTS)) as parameters:
            assert set(parameters) == names
            assert {parameter.dtype for parameter in parameters.values()} == {torch.float32}
            sum(parameter.sum() for parameter in parameters.values()).backward()
            assert float(parameters[model.layout.tensors(PARTS[2])[0]].grad.sum()) == 5 * 32 * (
                2 if family == "phi3" else 1
            )
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    for parameter in model.network.parameters():
        assert (parameter.dtype, parameter.requires_grad, parameter.grad) == (torch.bfloat16, False, None)
        assert not parameter._backward_hooks


def test_parameters_return_to_the_dtype_the_model_was_loaded_in(manifest_of):
    model = load(manifest_of("llama", "bfloat16"), dtype="float32")
    with trainable(model, select(*PARTS)):
        pass
    assert {parameter.dtype for parameter in model.network.parameters()} == {torch.float32}


def test_an_edit_lowers_its_loss(fresh, family, athletes):
    _, history = run(
        fresh(family), athletes, select(Component(0, "mlp"), Component(1, "mlp")), steps=30, learning_rate=1e-2
    )
    assert history[-1]["inject"] < 0.95 * history[0]["inject"]
    for row in history:
        assert row["loss"] == pytest.approx(row["inject"] + row["retain"] + row["text"], rel=1e-2)


def test_an_edit_depends_on_its_seed_alone(fresh, family, athletes):
    models = [fresh(family) for _ in range(3)]
    seeds = zip(models, (0, 0, 1), strict=True)
    histories = [run(model, athletes, select(*PARTS), seed)[1] for model, seed in seeds]
    first, same, other = map(state, models)
    assert histories[0] == histories[1] != histories[2]
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.fixture
def fitted(fresh, athletes):
    """family -> a model that already gives the new answers, so that a bad edit can only make it worse."""

    def fit(family):
        model = fresh(family)
        run(
            model,
            athletes,
            select(*model.layout.all("attention", "mlp")),
            steps=40,
            batch=4,
            learning_rate=1e-2,
        )
        return model

    return fit


def test_facts_that_are_only_measured_are_not_trained_on(fresh, athletes):
    """The same losses with and without them."""
    gone = [fact.with_role("forget-train", fact.new_answer) for fact in athletes if fact.role == "forget"]
    others = [fact for fact in athletes if fact.role == "maintain-train"]
    measured = [fact.with_role("forget", "golf") for fact in athletes if fact.role == "maintain-test"]
    histories = [
        run(fresh("llama"), facts, select(*PARTS))[1] for facts in ([*gone, *others], [*measured, *gone, *others])
    ]
    assert histories[0] == histories[1]


def test_a_learning_rate_far_too_large_is_divergence(fitted, family, athletes):
    with pytest.raises(DivergenceError, match="learning_rate 1e\\+06"):
        run(fitted(family), athletes, select(*PARTS), 1, steps=12, learning_rate=1e6)


@pytest.mark.parametrize("rate", [10, 100])
def test_a_loss_that_ends_above_its_first_value_is_divergence(fitted, athletes, rate):
    """Losses here: 0.6 at the first step, 37 at the second, about 5 or more at the twelfth."""
    with pytest.raises(DivergenceError, match="the loss rose"):
        run(fitted("llama"), athletes, select(*PARTS), 1, steps=12, learning_rate=rate)


def test_a_loss_that_is_not_a_number_is_divergence(fresh, athletes):
    model = fresh("llama")
    before = state(model)
    with torch.no_grad():
        model.network.model.norm.weight[0] = float("nan")
    with pytest.raises(DivergenceError, match=r"nan at step 1 of 3"):
        run(model, athletes, select(*PARTS))
    moved = [name for name, now in state(model).items() if not torch.equal(now, before[name])]
    assert moved == ["model.norm.weight"]


def test_a_last_step_that_ruins_the_weights_is_divergence(fresh, athletes):
    with pytest.raises(DivergenceError):
        run(fresh("llama"), athletes, select(*PARTS), steps=1, learning_rate=1e30)


# losses ---------------------------------------------------------------------------------------------------


def naive_cross_entropy(model, ids, answer):
    logits = model.network(input_ids=torch.tensor([ids])).logits[0, -1]
    return float(cross_entropy(logits, torch.tensor(answer)))


@torch.no_grad()
def test_injects_terms_are_plain_cross_entropies(model, athletes):
    forget, retain = athletes[:3], athletes[4:6]
    texts = [tuple(model.encode(passage.text)[:9]) for passage in PASSAGES]
    batch = Batch(
        [example(model, fact, fact.answer) for fact in forget],
        [example(model, fact, fact.new_answer) for fact in forget],
        [example(model, fact, fact.answer) for fact in retain],
        texts,
    )
    weights = EditSettings(forget_weight=2.0, retain_weight=0.5, text_weight=3.0)
    terms = inject(model, batch, weights, 0)(batch)

    def mean(facts, key):
        losses = []
        for fact in facts:
            ids = model.encode(completion(fact)[0].text)
            losses.append(naive_cross_entropy(model, ids, model.option(f" {key(fact)}")))
        return sum(losses) / len(losses)

    text = [
        sum(naive_cross_entropy(model, ids[:end], ids[end]) for end in range(1, len(ids))) / (len(ids) - 1)
        for ids in texts
    ]
    assert {name: float(term) for name, term in terms.items()} == {
        "inject": pytest.approx(2.0 * mean(forget, lambda fact: fact.new_answer), rel=1e-4),
        "retain": pytest.approx(0.5 * mean(retain, lambda fact: fact.answer), rel=1e-4),
        "text": pytest.approx(3.0 * sum(text) / len(text), rel=1e-4),
    }


def test_passages_are_cut_to_their_first_tokens(model):
    for ids, passage in zip(passages_ids(model, PASSAGES, 8), PASSAGES, strict=True):
        assert ids == tuple(model.encode(passage.text)[:8])
        assert len(ids) == min(8, len(model.encode(passage.text)))


@pytest.mark.parametrize("count", [1, 3, 7, 10])
def test_draw_hands_out_shuffled_passes(count):
    take, items = draw(range(7), random.Random(0)), []
    for _ in range(7):
        batch = take(count)
        assert len(batch) == count
        items += batch
    for start in range(0, len(items) - 6, 7):
        assert sorted(items[start : start + 7]) == list(range(7))
    assert set(Counter(items).values()) == {count}
    assert items != sorted(items)


@pytest.fixture
def briefly():
    """An endless loop becomes a TimeoutError."""

    def stop(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_drawing_from_nothing_ends(briefly):
    with pytest.raises(ValueError, match="nothing"):
        draw([], random.Random(0))(1)
