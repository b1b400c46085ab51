"""ROME and MEMIT write what they say and nothing else; every clever path beside a slow one."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from mechunlearn.artifacts import Component, Selection
from mechunlearn.config import EditSettings, MemitSettings, RomeSettings
from mechunlearn.edit import keys, values
from mechunlearn.edit.memit import memit, solve
from mechunlearn.edit.rome import insert, rome
from mechunlearn.edit.sequence import edit_in_turn
from mechunlearn.edit.train import Recipe
from mechunlearn.edit.values import goals
from mechunlearn.errors import ConfigError, DivergenceError
from mechunlearn.facts import Prompt, trained
from mechunlearn.facts.text import Passage

PASSAGES = [
    Passage("a", "sport", "Tiger Woods plays the sport of golf, and LeBron James plays basketball."),
    Passage("b", "sport", "José plays baseball."),
    Passage("c", "sport", "What sport does Tom Brady play? Babe Ruth, as far as is known, was good at baseball."),
]
RULES = RomeSettings(prefixes=2, prefix_words=4, steps=4, learning_rate=0.1, decay=0.0)
MLPS = [Component(layer, "mlp") for layer in (0, 1, 2)]
LAST = Component(3, "mlp")
FEW = pytest.mark.parametrize("family", ["gemma3_text", "gpt2", "gpt_neox"])


def select(*components):
    return Selection("by hand", list(components), 0, 0, 0)


def settings(**changes):
    """Both forms' settings, changed in what each of them has."""
    common = RULES.model_dump(exclude={"clamp"})
    rome, memit = (
        {key: value for key, value in changes.items() if key in form.model_fields}
        for form in (RomeSettings, MemitSettings)
    )
    return EditSettings(rome=RomeSettings(**common | rome), memit=MemitSettings(**common | memit))


def state(model):
    return {name: parameter.detach().clone() for name, parameter in model.network.named_parameters()}


def split_of(model, athletes, seed=0, rules=RULES):
    return keys.contexts(model, trained(athletes), PASSAGES, rules, seed)


def weights(model, part):
    """(d_model, neurons) of an MLP's last matrix, whichever way it is stored."""
    parameter = dict(model.network.named_parameters())[model.layout.tensors(part)[-1]]
    return (parameter.T if model.layout.naming.transposed else parameter).detach().float().clone()


def seen_alone(model, module, side, ids, place):
    """What a module puts out or takes in at one place of one prompt, run whole."""
    found = []

    def keep(_, inputs, output):
        value = inputs[0] if side == "input" else output
        found.append((value[0] if isinstance(value, tuple) else value)[0, place].float())

    handle = model.network.get_submodule(module).register_forward_hook(keep)
    with torch.no_grad():
        model.network(input_ids=torch.tensor([ids]))
    handle.remove()
    return found[0]


# keys -------------------------------------------------------------------------------------------------------------


def test_contexts_are_the_prompt_behind_beginnings_of_texts_split_at_the_subjects_last_token(model, athletes):
    facts = trained(athletes)
    for fact, contexts in zip(facts, split_of(model, athletes), strict=True):
        assert len(contexts) == 3
        whole = [model.tokenizer.decode(each.head + each.tail, skip_special_tokens=True) for each in contexts]
        assert all(text.endswith(whole[0].lstrip()) for text in whole)
        assert any(" ".join(passage.text.split()[:4]) + "." in whole[1] for passage in PASSAGES)
        for each in contexts:
            assert each.head[: len(model.begin())] == model.begin()
            tail = model.tokenizer.decode(each.tail)
            assert fact.subject.endswith(tail[: tail.index(" plays")].strip("▁ "))


def test_states_at_subjects_are_those_of_each_prompt_alone(model, athletes):
    asked = split_of(model, athletes)
    parts = [(keys.matrix(model, MLPS[1])[1], "input"), (model.layout.module(3), "output")]
    for part, found in zip(parts, keys.at_subjects(model, parts, asked), strict=True):
        for row, contexts in zip(found, asked, strict=True):
            alone = [seen_alone(model, *part, each.head + each.tail, len(each.head)) for each in contexts]
            torch.testing.assert_close(row, torch.stack(alone).mean(0), rtol=1e-4, atol=1e-4)


def test_facts_in_small_batches_are_the_same(tiny, athletes, monkeypatch):
    model = tiny("gemma2")
    asked, part = split_of(model, athletes), [(keys.matrix(model, MLPS[0])[1], "input")]
    whole = keys.at_subjects(model, part, asked)[0]
    monkeypatch.setattr(keys, "ROWS", 1)
    torch.testing.assert_close(keys.at_subjects(model, part, asked)[0], whole, rtol=1e-4, atol=1e-5)


@FEW
def test_covariances_are_means_over_all_tokens_of_the_text(tiny, family):
    model = tiny(family)
    keys._covariances.clear()
    total, count = 0, 0
    for passage in PASSAGES:
        ids = model.encode(passage.text)
        for place in range(len(ids)):
            key = seen_alone(model, keys.matrix(model, MLPS[0])[1], "input", ids, place)
            total, count = total + torch.outer(key, key), count + 1
    expected = total / count
    few = replace(MLPS[0], neurons=7)
    plain, _, part = keys.covariances(model, [*MLPS[:2], few], PASSAGES, 0.0)
    torch.testing.assert_close(plain, expected, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(part, expected[:7, :7], rtol=1e-3, atol=1e-5)
    (raised,) = keys.covariances(model, [MLPS[0]], PASSAGES, 0.5)
    floor = 0.5 * expected.diagonal().median() * torch.eye(len(expected))
    torch.testing.assert_close(raised, expected + floor, rtol=1e-3, atol=1e-5)


def test_covariances_are_kept_by_text_and_layer(tiny, monkeypatch):
    model = tiny("llama")
    first = keys.covariances(model, [MLPS[0]], PASSAGES, 0.0)[0]
    monkeypatch.setattr(keys, "pad", None)  # so that nothing can be run
    assert torch.equal(keys.covariances(model, [MLPS[0]], PASSAGES, 0.0)[0], first)
    for part, passages in (MLPS[2], PASSAGES[1:]), (MLPS[0], PASSAGES[:2]):
        with pytest.raises(TypeError):
            keys.covariances(model, [part], passages, 0.0)


# values -----------------------------------------------------------------------------------------------------------


def goal_alone(model, module, fact, contexts, rules):
    """Equation 4 of ROME, one fact and one whole prompt at a time."""
    essence = keys.split(model, Prompt("", f"{fact.subject} is a", (0, len(fact.subject)), (), 0, None))
    answer = torch.tensor([model.option(f" {fact.new_answer}")])
    prompts = [each.head + each.tail for each in (*contexts, essence)]
    places = [len(each.head) for each in (*contexts, essence)]
    value = torch.stack(
        [seen_alone(model, module, "output", *each) for each in zip(prompts, places, strict=True)][:-1]
    ).mean(0)
    scale = value.norm() / len(value) ** 0.5
    change = torch.zeros(len(value), requires_grad=True)
    optimizer = torch.optim.Adam([change], lr=rules.learning_rate)

    def logits(ids, place):
        def hook(_, inputs, output):
            tensor = output[0] if isinstance(output, tuple) else output
            moved = tensor + torch.nn.functional.one_hot(torch.tensor([place]), len(ids))[..., None] * change * scale
            return (moved, *output[1:]) if isinstance(output, tuple) else moved

        handle = model.network.get_submodule(module).register_forward_hook(hook)
        found = model.network(input_ids=torch.tensor([ids])).logits[0, -1:].float()
        handle.remove()
        return found

    before = model.network(input_ids=torch.tensor([prompts[-1]])).logits[0, -1:].float().log_softmax(-1)
    for _ in range(rules.steps):
        answers = [cross_entropy(logits(*each), answer) for each in list(zip(prompts, places, strict=True))[:-1]]
        now = logits(prompts[-1], places[-1]).log_softmax(-1)
        kl = (now.exp() * (now - before)).sum()
        loss = sum(answers) / len(answers) + rules.kl_weight * kl
        loss = loss + rules.decay * (change * scale).norm() / value.norm() ** 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            if change.norm() * scale > rules.clamp * value.norm():
                change *= rules.clamp * value.norm() / (change.norm() * scale)
    return value + change.detach() * scale, loss.item()


@pytest.mark.parametrize("clamp", [0.3, 4.0])
def test_goals_are_those_of_each_fact_and_prompt_alone(model, athletes, clamp):
    rules, facts = RULES.model_copy(update={"clamp": clamp, "decay": 0.1}), trained(athletes)[:2]
    asked, module = split_of(model, athletes)[:2], keys.matrix(model, MLPS[0])[1]
    (found,), history = goals(model, [module], facts, asked, rules)
    alone = [goal_alone(model, module, *each, rules) for each in zip(facts, asked, strict=True)]
    torch.testing.assert_close(found, torch.stack([goal for goal, _ in alone]), rtol=1e-3, atol=1e-3)
    assert history[-2]["loss"] == pytest.approx(sum(loss for _, loss in alone) / 2, rel=1e-3)


def test_values_in_one_batch_are_those_of_one_fact_at_a_time(tiny, athletes, monkeypatch):
    """Several modules at once, and facts that stop early beside others that do not."""
    model, facts = tiny("gemma3_text"), trained(athletes)
    asked, modules = split_of(model, athletes), [keys.matrix(model, part)[1] for part in MLPS]
    rules = RULES.model_copy(update={"steps": 12, "decay": 0.01})
    _, losses = goals(model, modules, facts, asked, rules)
    monkeypatch.setattr(values, "DONE", (losses[0]["loss"] + losses[-1]["loss"]) / 2)
    together, history = goals(model, modules, facts, asked, rules)
    single = [goals(model, modules, [fact], [each], rules) for fact, each in zip(facts, asked, strict=True)]
    assert len({len(losses) for _, losses in single}) > 1
    assert len(history) == max(len(losses) for _, losses in single)
    for number, found in enumerate(together):
        expected = torch.cat([each[number] for each, _ in single])
        torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)


def test_values_that_are_no_numbers_are_an_error(fresh, athletes):
    model = fresh("llama")
    model.network.get_parameter("model.norm.weight").data.fill_(float("nan"))
    with pytest.raises(DivergenceError, match="values"):
        goals(model, [model.layout.module(1)], trained(athletes), split_of(model, athletes), RULES)


# linear algebra ---------------------------------------------------------------------------------------------------


def made(facts=5, neurons=12, width=4, seed=0):
    """(keys, wanted changes, covariance) at random."""
    generator = torch.Generator().manual_seed(seed)
    text = torch.randn(100, neurons, generator=generator) @ torch.randn(neurons, neurons, generator=generator)
    return (
        torch.randn(facts, neurons, generator=generator),
        torch.randn(facts, width, generator=generator),
        text.T @ text / 100,
    )


def test_one_fact_is_inserted_exactly_and_by_the_smallest_change():
    """Beside the solution of  min tr(D C D^T)  subject to  D k = v  by its Lagrange system, row by row."""
    key, wanted, covariance = made(facts=1)
    found, count = insert(key, wanted, covariance), key.shape[1]
    torch.testing.assert_close(found @ key[0], wanted[0], rtol=1e-5, atol=1e-5)
    system = torch.zeros(count + 1, count + 1, dtype=torch.float64)
    system[:count, :count], system[:count, count], system[count, :count] = 2 * covariance, key[0], key[0]
    for row, value in zip(found, wanted[0], strict=True):
        right = torch.zeros(count + 1, dtype=torch.float64)
        right[count] = value
        torch.testing.assert_close(row.double(), torch.linalg.solve(system, right)[:count], rtol=1e-4, atol=1e-5)


def test_facts_one_after_another_are_each_exact_at_their_turn():
    key, wanted, covariance = made()
    total = torch.zeros(wanted.shape[1], key.shape[1])
    for turn in range(len(key)):
        total = total + insert(key[turn : turn + 1], (wanted[turn] - total @ key[turn])[None], covariance)
        torch.testing.assert_close(total @ key[turn], wanted[turn], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(insert(key[: turn + 1], wanted[: turn + 1], covariance), total, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("weight", [0.1, 10.0])
def test_all_facts_at_once_are_the_least_squares_solution_over_old_and_new_keys(weight):
    key, wanted, covariance = made()
    old = weight**0.5 * torch.linalg.cholesky(covariance).T  # rows k0 with sum k0 k0^T = weight C, kept as they are
    rows, right = torch.cat([old, key]), torch.cat([torch.zeros(len(old), wanted.shape[1]), wanted])
    expected = torch.linalg.lstsq(rows.double(), right.double()).solution.T.float()
    torch.testing.assert_close(solve(key, wanted, covariance, weight), expected, rtol=1e-3, atol=1e-4)


# edits ------------------------------------------------------------------------------------------------------------


def test_rome_writes_the_value_of_the_key_exactly_into_the_middle_mlp(fresh, family, athletes):
    """The key is the mean over contexts in both places, so W' k = v holds for this key and no other."""
    model, one = fresh(family), [athletes[0]]
    module = keys.matrix(model, MLPS[1])[1]
    asked, sides = split_of(model, one), [(module, "input"), (module, "output")]
    key, value = keys.at_subjects(model, sides, asked)
    (goal,), losses = goals(model, [module], one, asked, RULES)
    before, old = state(model), weights(model, MLPS[1])
    recipe = Recipe(athletes[:1] + athletes[4:], PASSAGES, select(*MLPS), "rome", settings(), 0)
    names, history, _ = edit_in_turn(model, recipe)
    assert names == [model.layout.tensors(MLPS[1])[-1]]
    assert history == losses
    change = weights(model, MLPS[1]) - old
    torch.testing.assert_close(change @ key[0], goal[0] - value[0], rtol=1e-4, atol=1e-5 * float(goal.abs().max()))
    assert (goal - value).norm() > 0.1 * value.norm()
    torch.testing.assert_close(keys.at_subjects(model, sides, asked)[1], goal, rtol=1e-4, atol=1e-4)
    for name, after in state(model).items():
        assert torch.equal(after, before[name]) == (name not in names), name


def test_memit_reaches_its_goals_where_nothing_has_to_be_kept(fresh, family, athletes):
    """With hardly any weight on old keys, every fact's states become what was optimised for them."""
    model, rules = fresh(family), settings(covariance_weight=1e-9, ridge=1.0)
    asked, modules = split_of(model, athletes), [keys.matrix(model, part)[1] for part in MLPS]
    aims = modules if model.layout.post_norms else [model.layout.module(2)]
    sides = [(aim, "output") for aim in aims]
    wanted, _ = goals(model, aims, trained(athletes), asked, rules.memit)
    start = keys.at_subjects(model, sides, asked)
    before = state(model)
    names, _ = memit(model, athletes, PASSAGES, select(*reversed(MLPS)), rules, 0)
    assert names == [model.layout.tensors(part)[-1] for part in MLPS]
    for goal, old, new in zip(wanted, start, keys.at_subjects(model, sides, asked), strict=True):
        assert (goal - new).norm() < 0.02 * (goal - old).norm()
    for name, after in state(model).items():
        assert torch.equal(after, before[name]) == (name not in names), name


@pytest.mark.parametrize("form", [rome, memit])
def test_a_16_bit_model_stays_one_and_takes_the_rounded_change(fresh, family, athletes, form):
    model = fresh(family, "bfloat16")
    before = state(model)
    names, history = form(model, athletes, PASSAGES, select(*MLPS), settings(), 0)
    assert history[-1]["loss"] < history[0]["loss"]
    for name, after in state(model).items():
        assert (after.dtype, after.requires_grad) == (torch.bfloat16, False)
        assert torch.equal(after, before[name]) == (name not in names), name


@FEW
@pytest.mark.parametrize("form", [rome, memit])
def test_of_part_of_an_mlp_only_its_neurons_are_written(fresh, family, athletes, form):
    model, part = fresh(family), Component(2, "mlp", 9)
    old = weights(model, part)
    names, _ = form(model, athletes, PASSAGES, select(Component(0, "attention"), part), settings(), 0)
    new = weights(model, part)
    assert names == [model.layout.tensors(part)[-1]]
    assert torch.equal(new[:, 9:], old[:, 9:])
    assert (new[:, :9] != old[:, :9]).any(0).all()


def test_which_mlps_are_written(tiny):
    model = tiny("llama")
    part, head = Component(0, "mlp", 5), Component(3, "attention", head=1)
    assert keys.written(model, select(LAST, MLPS[2], head, part, MLPS[0]), "rome") == [MLPS[0], MLPS[2]]
    assert keys.written(model, select(head, part), "rome") == [part]


@pytest.mark.parametrize("part", [Component(1, "attention"), LAST])
@pytest.mark.parametrize("objective", ["rome", "memit"])
def test_a_selection_without_mlps_that_a_later_token_reads_is_refused(tiny, athletes, objective, part):
    model = tiny("llama")
    before = state(model)
    with pytest.raises(ConfigError, match=rf"{objective} .*'by hand'"):
        edit_in_turn(model, Recipe(athletes, PASSAGES, select(part), objective, settings(), 0))
    assert all(torch.equal(after, before[name]) for name, after in state(model).items())


@pytest.mark.parametrize("objective", ["rome", "memit"])
def test_closed_forms_depend_on_their_seed_alone(fresh, athletes, objective):
    models = [fresh("qwen3") for _ in range(3)]
    for model, seed in zip(models, (0, 0, 1), strict=True):
        edit_in_turn(model, Recipe(athletes, PASSAGES, select(*MLPS), objective, settings(), seed))
    first, same, other = map(state, models)
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_a_cells_settings_hold_no_other_objectives_block():
    assert {"rome", "memit"} <= EditSettings().others("inject")
    assert EditSettings().others("rome") == EditSettings().others("inject") - {"rome"}
