"""Objectives: their equations against slow ones, their limits, what they read of the base model, and what they move."""

import math

import pytest
import torch

from mechunlearn import registry
from mechunlearn.artifacts import Component, Selection
from mechunlearn.config import ConfigError, EditSettings
from mechunlearn.edit.objectives import Batch, Text, every
from mechunlearn.edit.rmu import residuals
from mechunlearn.edit.sequence import edit_in_turn
from mechunlearn.edit.train import Recipe, trainable
from mechunlearn.facts.biographies import Biography
from mechunlearn.facts.text import Passage
from mechunlearn.models.interventions import capture
from mechunlearn.models.masks import region
from mechunlearn.models.scoring import unembed
from mechunlearn.models.training import example, forgetting_losses, log_rest

OBJECTIVES = sorted(registry.methods("objective"))
TEXTS = ["Tiger Woods plays the sport of golf.", "José plays baseball, and so does LeBron James."]
PASSAGES = [Passage(str(number), "sport", text) for number, text in enumerate(TEXTS)]
WEIGHTS = {"forget_weight": 2.0, "retain_weight": 0.5, "text_weight": 3.0}
STREAMS = ("problematic", "obsolete", "update", "retain")
PEOPLE = [Biography(f"person {place}", name, 0, TEXTS[place % 2]) for place, name in enumerate(STREAMS)]
FEW = [Component(1, "mlp"), Component(2, "mlp"), Component(2, "attention", head=1)]


def batch_of(model, athletes) -> Batch:
    forget = [fact for fact in athletes if fact.role == "forget"]
    retain = [fact for fact in athletes if fact.role == "maintain-train"]
    return Batch(
        [example(model, fact, fact.answer) for fact in forget],
        [example(model, fact, fact.new_answer) for fact in forget],
        [example(model, fact, fact.answer) for fact in retain],
        [tuple(model.encode(text)) for text in TEXTS],
        [Text(person.stream, tuple(model.encode(person.text))) for person in PEOPLE],
    )


def selection(model, *components):
    return Selection("by hand", list(components) or model.layout.all("attention", "mlp"), 0, 0, 0)


def disturb(model, size=0.05):
    """Move every component a little, so that the model is no longer the base model."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name in model.layout.shapes:
            weight = model.network.get_parameter(name)
            weight.add_(size * torch.randn(weight.shape, generator=generator))


def prepared(model, athletes, objective, **settings):
    """(its loss on the base model, its loss on the disturbed one, the batch), where the model ends disturbed."""
    batch = batch_of(model, athletes)
    loss = registry.load("objective", objective)(model, batch, EditSettings(**settings), 0)
    with torch.no_grad():
        first = {name: float(term) for name, term in loss(batch).items()}
        disturb(model)
        second = {name: float(term) for name, term in loss(batch).items()}
    return first, second, batch


@torch.no_grad()
def logs(model, ids):
    """Log-probabilities of the next token at every position, by a whole forward of one sequence."""
    return model.network(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)


def answers(model, examples):
    return [float(logs(model, ids)[-1, answer]) for ids, answer in examples]


def mean(values):
    return sum(values) / len(values)


def log_sigmoid(value):
    return -math.log1p(math.exp(-value))


def kept(model, batch):
    """The two cross-entropies that keep the rest, weighted."""
    texts = [
        mean([-float(logs(model, ids)[place, ids[place + 1]]) for place in range(len(ids) - 1)]) for ids in batch.texts
    ]
    return {"retain": -0.5 * mean(answers(model, batch.retain)), "text": 3.0 * mean(texts)}


def same(found, expected):
    assert found == {name: pytest.approx(value, rel=1e-3, abs=1e-5) for name, value in expected.items()}


# equations ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["gemma3_text", "llama"])
def test_the_plain_ones(fresh, athletes, architecture):
    for objective, answer, sign in (("inject", "new", -1), ("gradient-difference", "forget", 1)):
        model = fresh(architecture)
        _, found, batch = prepared(model, athletes, objective, **WEIGHTS)
        term = sign * 2.0 * mean(answers(model, getattr(batch, answer)))
        same(found, {"inject" if objective == "inject" else "forget": term, **kept(model, batch)})
    model = fresh(architecture)
    _, found, batch = prepared(model, athletes, "gradient-ascent", **WEIGHTS)
    same(found, {"forget": 2.0 * mean(answers(model, batch.forget))})


@pytest.mark.parametrize("beta", [0.1, 2.0])
def test_npo(fresh, athletes, beta):
    base, model = fresh("llama"), fresh("llama")
    first, found, batch = prepared(model, athletes, "npo", npo={"beta": beta}, **WEIGHTS)
    ratios = [
        now - before for now, before in zip(answers(model, batch.forget), answers(base, batch.forget), strict=True)
    ]
    assert first["forget"] == pytest.approx(2.0 * 2 / beta * math.log(2), rel=1e-4)
    same(found, {"forget": 2.0 * mean([-2 / beta * log_sigmoid(-beta * r) for r in ratios]), **kept(model, batch)})


@pytest.mark.parametrize(("beta", "gamma"), [(2.5, 0.0), (0.7, 1.5)])
def test_simnpo(fresh, athletes, beta, gamma):
    model = fresh("llama")
    _, found, batch = prepared(model, athletes, "simnpo", simnpo={"beta": beta, "gamma": gamma}, **WEIGHTS)
    terms = [-2 / beta * log_sigmoid(-beta * log_p - gamma) for log_p in answers(model, batch.forget)]
    same(found, {"forget": 2.0 * mean(terms), **kept(model, batch)})


def test_dpo_is_log_2_at_the_base_model(fresh, athletes):
    base, model = fresh("llama"), fresh("llama")
    first, found, batch = prepared(model, athletes, "dpo", dpo={"beta": 0.5})
    assert first["forget"] == pytest.approx(math.log(2), rel=1e-5)
    new, true = (
        [now - before for now, before in zip(answers(model, each), answers(base, each), strict=True)]
        for each in (batch.new, batch.forget)
    )
    expected = mean([-log_sigmoid(0.5 * (gained - lost)) for gained, lost in zip(new, true, strict=True)])
    assert found["forget"] == pytest.approx(expected, rel=1e-4)
    assert found["forget"] != pytest.approx(math.log(2), rel=1e-2)


def test_idk_trains_every_token_of_a_refusal(fresh, athletes):
    model, refusals = fresh("llama"), ["golf", "golf football"]
    _, found, batch = prepared(model, athletes, "idk", idk={"answers": refusals}, **WEIGHTS)
    losses = []
    for number, (ids, _) in enumerate(batch.forget):
        refusal = model.tokenizer(f" {refusals[number % 2]}", add_special_tokens=False).input_ids
        assert len(refusal) == number % 2 + 1
        whole = logs(model, [*ids, *refusal])
        losses += [-float(whole[len(ids) - 1 + place, token]) for place, token in enumerate(refusal)]
    same(found, {"forget": 2.0 * mean(losses), **kept(model, batch)})


def test_idk_dpo_prefers_whole_refusals(fresh, athletes):
    base, model, texts = fresh("llama"), fresh("llama"), ["golf", "golf football"]
    first, found, batch = prepared(model, athletes, "idk-dpo", idk={"answers": texts, "beta": 0.5}, **WEIGHTS)
    assert first["forget"] == pytest.approx(2.0 * math.log(2), rel=1e-5)
    margins = []
    for number, ((ids, _), now, before) in enumerate(
        zip(batch.forget, answers(model, batch.forget), answers(base, batch.forget), strict=True)
    ):
        refusal = model.tokenizer(f" {texts[number % 2]}", add_special_tokens=False).input_ids
        gained = [
            sum(float(logs(each, [*ids, *refusal])[len(ids) - 1 + place, token]) for place, token in enumerate(refusal))
            for each in (model, base)
        ]
        margins.append(gained[0] - gained[1] - (now - before))
    same(found, {"forget": 2.0 * mean([-log_sigmoid(0.5 * margin) for margin in margins]), **kept(model, batch)})


def test_kl_is_nothing_at_the_base_model(fresh, athletes):
    base, model = fresh("llama"), fresh("llama")
    first, found, batch = prepared(model, athletes, "gradient-difference-kl", **WEIGHTS)
    assert first["retain"] == pytest.approx(0, abs=1e-6)
    assert first["text"] == pytest.approx(0, abs=1e-6)

    def divergence(ids):
        before, after = logs(base, ids), logs(model, ids)
        return (before.exp() * (before - after)).sum(-1)

    texts = torch.cat([divergence(ids)[:-1] for ids in batch.texts])
    expected = {
        "forget": 2.0 * mean(answers(model, batch.forget)),
        "retain": 0.5 * mean([float(divergence(ids)[-1]) for ids, _ in batch.retain]),
        "text": 3.0 * float(texts.mean()),
    }
    same(found, expected)
    assert found["retain"] > 0.01


@pytest.mark.parametrize("architecture", ["gemma3_text", "gpt2", "llama"])
def test_rmu_against_hooks(fresh, athletes, architecture):
    base, model = fresh(architecture), fresh(architecture)
    with trainable(model, selection(model, *FEW)):
        rules = {"layer": 2, "steering": 3.0, "alpha": 7.0}
        first, found, batch = prepared(model, athletes, "rmu", rmu=rules, **WEIGHTS)
    part = (model.layout.module(2), "output")

    @torch.no_grad()
    def states(which, ids):
        with capture(which, [part]) as seen:
            which.network(input_ids=torch.tensor([ids]))
        return seen[part][0]

    facts = [ids for ids, _ in [*batch.forget, *batch.retain]]
    shared = next(place for place in range(99) if len({ids[place] for ids in facts}) > 1)
    untouched = torch.cat([states(base, ids)[shared:] for ids, _ in batch.forget])
    unit = float(untouched.square().mean())
    target = torch.rand(model.width, generator=torch.Generator().manual_seed(0))
    target = 3.0 * math.sqrt(float(untouched.square().sum(1).mean())) * target / target.norm()
    steered = torch.cat([states(model, ids)[shared:] for ids, _ in batch.forget])
    moved = [(states(model, ids) - states(base, ids))[shared:] for ids, _ in batch.retain]
    begin = len(model.begin())
    moved_text = [(states(model, ids) - states(base, ids))[begin:] for ids in batch.texts]
    expected = {
        "forget": 2.0 * float((steered - target).square().mean()) / unit,
        "retain": 0.5 * 7.0 * float(torch.cat(moved).square().mean()) / unit,
        "text": 3.0 * 7.0 * float(torch.cat(moved_text).square().mean()) / unit,
    }
    same(found, expected)
    assert first["retain"] == pytest.approx(0, abs=1e-6)
    assert found["retain"] > 1e-3


def test_rmu_runs_no_layer_above_the_one_it_steers(tiny):
    model, seen = tiny("llama"), []
    handles = [
        model.network.get_submodule(model.layout.module(part.layer, part.kind)).register_forward_hook(
            lambda *_, part=part: seen.append(part.layer)
        )
        for part in model.layout.all("attention", "mlp")
    ]
    try:
        residuals(model, 1, [[2, 3, 4]], 1)
    finally:
        for handle in handles:
            handle.remove()
    assert max(seen) == 1


@pytest.mark.parametrize("layer", [0, 4, 99])
def test_rmu_wants_a_layer_that_what_is_trained_can_reach(fresh, athletes, layer):
    with pytest.raises(ConfigError, match=rf"edit\.rmu\.layer is {layer}: .* layers 1 to 2 of .* layers 0 to 3;"):
        run(fresh("llama"), athletes, "rmu", FEW, rmu={"layer": layer})


# limits ---------------------------------------------------------------------------------------------------


def gradients(model, athletes, objective, **settings):
    """The gradient of its forget term on a disturbed model, as one vector."""
    batch, rules = batch_of(model, athletes), EditSettings(**settings)
    with trainable(model, selection(model)) as parameters:
        loss = registry.load("objective", objective)(model, batch, rules, 0)
        disturb(model)
        loss(batch)["forget"].backward()
        return torch.cat([parameter.grad.flatten().clone() for parameter in parameters.values()])


def test_npo_becomes_gradient_ascent_as_beta_goes_to_0(fresh, athletes):
    expected = gradients(fresh("llama"), athletes, "gradient-ascent")
    errors = [
        float((gradients(fresh("llama"), athletes, "npo", npo={"beta": beta}) - expected).norm() / expected.norm())
        for beta in (2.0, 0.1, 1e-3)
    ]
    assert errors[0] > 0.1
    assert errors[2] < 2e-3
    assert errors[2] < errors[1] < errors[0]


def test_the_cutoff_leaves_a_forgotten_fact_alone(fresh, athletes):
    log_p = sorted(answers(fresh("llama"), batch_of(fresh("llama"), athletes).forget))
    between = (log_p[-1] + log_p[-2]) / 2

    def gradient(cutoff):
        model, rules = fresh("llama"), EditSettings(forget={"cutoff": cutoff})
        batch = batch_of(model, athletes)
        with trainable(model, selection(model)) as parameters:
            loss = registry.load("objective", "forget")(model, batch, rules, 0)(batch)["forget"]
            loss.backward()
            whole = torch.cat([parameter.grad.flatten().clone() for parameter in parameters.values()])
        return loss.item(), float(whole.norm())

    assert gradient(log_p[-1] / 2) == (0, 0)
    loss, size = gradient(between)
    assert loss == pytest.approx(-math.log1p(-math.exp(log_p[-1])) / 4, rel=1e-3)  # the other three count as 0
    assert size > 0
    every_one = [-math.log1p(-math.exp(each)) for each in log_p]
    assert gradient(-99.0)[0] == pytest.approx(mean(every_one), rel=1e-3)


def test_log_rest_is_exact_where_an_answer_is_nearly_certain():
    logits = torch.tensor([[40.0, 0.0, 1.0], [1.0, 2.0, 2.0]], requires_grad=True)
    found = log_rest(logits, torch.tensor([[0], [0]]))
    exact = logits.detach().double().softmax(1)[:, 1:].sum(1).log()
    assert found.tolist() == pytest.approx(exact.tolist(), rel=1e-5)
    found.sum().backward()
    assert logits.grad[:, 0].tolist() == pytest.approx([-1.0, -float(logits.detach()[1].softmax(0)[0])], rel=1e-4)


def test_an_answer_that_the_model_is_certain_of_can_be_forgotten(fresh, athletes):
    model = fresh("gemma3_text")
    parameter = model.network.get_parameter("model.norm.weight")
    parameter.data.mul_(40).add_(40)  # logits so far apart that the first word's probability is 1 in floating point
    ids, _ = example(model, athletes[0], athletes[0].answer)
    hidden = model.network.base_model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1].detach()
    logits = unembed(model, hidden[None])[0].double()
    best = int(logits.argmax())
    assert float(logits.float().softmax(0)[best]) == 1
    gone, certainty, kept, read = forgetting_losses(model, [(ids, best)], [], [])
    assert (certainty.tolist(), len(kept), len(read)) == ([0.0], 0, 0)
    others = torch.cat([logits[:best], logits[best + 1 :]])
    assert gone.item() == pytest.approx(float(logits.logsumexp(0) - others.logsumexp(0)), rel=1e-5)
    parameter.requires_grad_(True)
    forgetting_losses(model, [(ids, best)], [], [])[0].sum().backward()
    assert float(parameter.grad.norm()) > 0


# training -------------------------------------------------------------------------------------------------


def run(model, athletes, objective, components=(), people=PEOPLE, **changes):
    small = {"steps": 2, "batch": 3, "texts": 1, "text_tokens": 12, "learning_rate": 1e-3}
    settings = EditSettings(**{**small, **changes})
    people = people if objective.startswith("surgery") else []
    recipe = Recipe(athletes, PASSAGES, selection(model, *components), objective, settings, 0, people)
    return edit_in_turn(model, recipe)[:2]


@pytest.mark.parametrize("components", [FEW, []], ids=["fact-lookup", "nonlocalized"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_only_what_is_selected_moves(fresh, athletes, objective, components):
    model = fresh("gemma3_text", "bfloat16")
    before = {name: parameter.clone() for name, parameter in model.network.named_parameters()}
    names, history = run(model, athletes, objective, components, learning_rate=3e-3, rmu={"alpha": 1.0})
    assert [row["step"] for row in history] == [0, 1, 2]
    chosen = components or model.layout.all("attention", "mlp")
    assert set(names) == {name for each in chosen for name in model.layout.tensors(each)}
    for name, parameter in model.network.named_parameters():
        assert torch.equal(parameter, before[name]) == (name not in names), name


def test_moments_of_8_bits_train_nearly_alike_and_move_nothing_else(fresh, athletes, eight_bits):
    """In 8 bits a second moment is a few percent off, and what is masked must stay exactly zero."""
    moved, states = {}, []
    for optimizer in ("adamw", "adamw-8bit"):
        model = fresh("gemma3_text")
        before = {name: parameter.clone() for name, parameter in model.network.named_parameters()}
        run(model, athletes, "inject", FEW, steps=8, learning_rate=3e-3, optimizer=optimizer)
        own = region(model.layout, FEW)
        for name, parameter in model.network.named_parameters():
            if name in own:
                assert torch.equal(parameter[~own[name]], before[name][~own[name]]), name
            else:
                assert torch.equal(parameter, before[name]), name
        states.append({name: model.network.get_parameter(name) - before[name] for name in own})
    for name, change in states[0].items():
        moved[name] = float((states[1][name] - change).detach().norm() / change.detach().norm())
    assert max(moved.values()) < 0.2
    assert any(moved.values())  # it is another optimizer, not the same


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_what_was_known_is_forgotten(fresh, athletes, objective):
    model = fresh("llama")
    taught = [fact.with_role(fact.role, fact.answer) if fact.role == "forget" else fact for fact in athletes]
    run(model, taught, "inject", steps=30, batch=4, learning_rate=1e-2)
    batch = batch_of(model, athletes)
    assert min(answers(model, batch.forget)) > math.log(0.8)
    rules = {"rmu": {"alpha": 0.1}, "idk": {"answers": ["golf"], "beta": 0.3}}
    run(model, athletes, objective, FEW, people=(), steps=20, batch=4, learning_rate=1e-2, **rules)
    assert mean(answers(model, batch.forget)) < math.log(0.5)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_what_it_prepares_changes_nothing(tiny, athletes, objective):
    """Neither the model's weights nor torch's own random numbers; and the loss is the same when asked again."""
    model, state = tiny("llama"), torch.get_rng_state()
    before = {name: parameter.clone() for name, parameter in model.network.named_parameters()}
    batch = batch_of(model, athletes)
    rules = EditSettings(rmu={"layer": 1})
    with trainable(model, selection(model)):
        losses = [registry.load("objective", objective)(model, batch, rules, seed) for seed in (0, 0, 1)]
        found = [{name: term.item() for name, term in loss(batch).items()} for loss in losses]
    assert found[0] == found[1]
    assert (found[0] != found[2]) == (objective == "rmu")
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.network.named_parameters())


def test_every_item_of_several_batches_comes_once():
    one, two, three = (((1,), 7), ((2,), 7), ((3,), 7))
    found = every([Batch([one, two], [two], [one, one], [(1, 2)]), Batch([two, three], [two], [three], [(1,)])])
    assert found == Batch([one, two, three], [two], [one, three], [(1, 2), (1,)])
