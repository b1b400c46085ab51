"""Masks hold what the facts depend on, and only the smallest go; everything else stays."""

from pathlib import Path

import pytest
import torch

from mechunlearn import artifacts
from mechunlearn.artifacts import Component, Selection
from mechunlearn.config import MaskingSettings, validate_study
from mechunlearn.edit.masking import learn
from mechunlearn.errors import ConfigError, DivergenceError
from mechunlearn.facts import text
from mechunlearn.models.masks import counts, learned, masked, region, smallest
from mechunlearn.models.training import answer_losses, example

SETTINGS = MaskingSettings(steps=4, learning_rate=50.0, penalty=1e-6, batch=2, texts=1, text_tokens=8)


def selected(*components: Component) -> Selection:
    return Selection("some", list(components), 0, 0, 0)


@pytest.fixture
def passages():
    return text.read("src/mechunlearn/resources/text/passages.jsonl")[:6]


@pytest.fixture
def model(fresh):
    """One of this test's own."""
    return fresh("gemma3_text")


def state(model):
    return {name: value.clone() for name, value in model.network.state_dict().items()}


class Losses(torch.nn.Module):
    """The losses of facts, as a module whose weights can be exchanged for a call."""

    def __init__(self, model, facts):
        super().__init__()
        self.network = model.network
        self.losses = lambda: answer_losses(model, [example(model, fact, fact.answer) for fact in facts])

    def forward(self):
        return self.losses()


@pytest.mark.parametrize("family", ["gemma3_text", "gpt2"])
def test_the_first_step_follows_the_gradient_of_the_masks(fresh, family, athletes, passages):
    """Against autograd through weights that are the product of mask and value."""
    model = fresh(family)
    forget, retain = ([fact for fact in athletes if fact.role == role] for role in ("forget", "maintain-train"))
    settings = SETTINGS.model_copy(  # a batch holds every fact equally often
        update={"steps": 1, "text_weight": 0.0, "batch": len(forget) * len(retain)}
    )
    before = state(model)
    masks = learn(model, athletes, passages, selected(Component(1, "mlp")), settings, 0)
    assert all(torch.equal(before[name], value) for name, value in model.network.state_dict().items())
    asked = {name: torch.ones_like(mask, requires_grad=True) for name, mask in masks.items()}
    shares = {f"network.{name}": mask * before[name] for name, mask in asked.items()}
    gone = torch.func.functional_call(Losses(model, forget), shares, ())
    kept = torch.func.functional_call(Losses(model, retain), shares, ())
    (-torch.log(1 - torch.exp(-gone)).mean() + kept.mean()).backward()
    for name, mask in masks.items():
        step = settings.learning_rate * (asked[name].grad - settings.penalty)
        torch.testing.assert_close(mask, (1 - step).clamp(0, 1), atol=1e-5, rtol=0)
    assert min(float(mask.min()) for mask in masks.values()) < 1


def test_a_high_penalty_masks_nothing(model, athletes, passages):
    settings = SETTINGS.model_copy(update={"penalty": 1e3})
    masks = learn(model, athletes, passages, selected(Component(0, "mlp")), settings, 0)
    assert all(torch.equal(mask, torch.ones_like(mask)) for mask in masks.values())
    assert learned(masks) == 0


def test_of_a_head_only_its_own_weights_are_masked(model, athletes, passages):
    component = Component(1, "attention", head=0)
    settings = SETTINGS.model_copy(update={"penalty": 0.0})
    masks = learn(model, athletes, passages, selected(component), settings, 0)
    inside = region(model.layout, [component])
    assert sum(int(each.sum()) for each in inside.values()) == model.layout.parameters(component)
    assert all(torch.all(mask[~inside[name]] == 1) for name, mask in masks.items())
    assert any(torch.any(mask < 1) for mask in masks.values())


def test_a_loss_that_is_not_finite_stops_the_learning(model, athletes, passages):
    with torch.no_grad():
        next(iter(model.network.parameters())).fill_(float("nan"))
    with pytest.raises(DivergenceError, match=r"masking\.learning_rate"):
        learn(model, athletes, passages, selected(Component(0, "mlp")), SETTINGS, 0)


@pytest.mark.parametrize("size", [0, 1, 3, 4, 7])
def test_the_smallest_masks_go_exactly_as_many_as_asked(size):
    masks = {"b": torch.tensor([[0.5, 0.0], [1.0, 0.5]]), "a": torch.tensor([0.5, 0.2, 1.0])}
    gone = smallest(masks, size)
    ranked = sorted((float(value), name, at) for name, mask in masks.items() for at, value in enumerate(mask.flatten()))
    expected = {(name, at) for _, name, at in ranked[:size]}
    found = {(name, int(at)) for name, each in gone.items() for at in each.flatten().nonzero()[:, 0]}
    assert found == expected


def test_masked_weights_are_zero_inside_the_block_only(model):
    name = model.layout.tensors(Component(0, "mlp"))[0]
    before = state(model)
    gone = torch.zeros_like(before[name], dtype=torch.bool)
    gone[0, 1] = True
    with masked(model, {name: gone}):
        now = model.network.get_parameter(name)
        assert now[0, 1] == 0
        assert torch.equal(now[~gone], before[name][~gone])
    assert all(torch.equal(before[key], value) for key, value in model.network.state_dict().items())


def test_counts_add_up_and_know_the_heads(model):
    layout = model.layout
    head = Component(1, "attention", head=layout.heads - 1)
    query = layout.slices(head)[0]
    gone = {
        name: torch.zeros(layout.shapes[name], dtype=torch.bool)
        for component in (Component(0, "mlp"), Component(1, "attention"))
        for name in layout.tensors(component)
    }
    gone[query.tensor].narrow(query.axis, query.start, 1).fill_(True)
    gone[layout.tensors(Component(0, "mlp"))[0]][:2, :3] = True
    table = counts(layout, gone)
    assert table.weights.sum() == sum(int(each.sum()) for each in gone.values())
    found = table[table.weights > 0].set_index(["layer", "kind", "head"]).weights.to_dict()
    across = layout.shapes[query.tensor][1 - query.axis]
    assert found == {(0, "mlp", -1): 6, (1, "attention", layout.heads - 1): across}


def test_masking_needs_localizations_of_the_study():
    given = {
        "study": "some",
        "models": {"tiny": {"source": "path:nowhere"}},
        "tasks": {"athletes": {"facts": "sports", "forget": 4}},
        "localizations": ["fact-lookup"],
    }
    with pytest.raises(ConfigError, match=r"masking\.localizations: unknown name 'random'"):
        validate_study({**given, "masking": {"localizations": ["random"]}})
    with pytest.raises(ConfigError, match=r"masking\.sizes.*start at 0 and ascend"):
        validate_study({**given, "masking": {"sizes": [5, 1]}})


@pytest.fixture
def mask(manifest_of, athletes, tmp_path):
    """The command on some of the first MLP's weights, of which the selection says how many they are."""
    from mechunlearn.cli.mask import mask as command

    def run(parameters, settings, seeds):
        artifacts.write_facts(tmp_path / "facts.parquet", athletes, [1.0] * len(athletes), [1] * len(athletes))
        selection = Selection("some", [Component(0, "mlp")], parameters, parameters, 2 * parameters)
        artifacts.write_selection(tmp_path / "some.json", selection)
        passages = Path("src/mechunlearn/resources/text/passages.jsonl")
        out = tmp_path / "rows.parquet", tmp_path / "weights.parquet"
        command(
            manifest_of("gemma3_text"), tmp_path / "facts.parquet", passages, tmp_path / "some.json", settings,
            seeds, 8, out=out[0], weights=out[1], evaluate="{}",
        )  # fmt: skip
        return artifacts.read_measurements(out[0]), artifacts.read_table(out[1], artifacts.MASK_COLUMNS)

    return run


def test_a_curve_ends_where_the_first_seed_has_no_more_masks(mask, monkeypatch):
    """Beyond it the mean would be of other seeds than before."""
    found = iter((5, 2))
    monkeypatch.setattr("mechunlearn.models.masks.learned", lambda _: next(found))
    rows, weights = mask(1000, '{"sizes": [0, 2, 4], "steps": 1, "elicitations": ["completion"]}', [0, 1])
    assert set(zip(rows.stage, rows.seed, strict=True)) == {(f"masked@{n}", seed) for n in (0, 2) for seed in (0, 1)}
    assert set(zip(weights["size"], weights.seed, strict=True)) == {(n, seed) for n in (0, 2) for seed in (0, 1)}


def test_more_weights_than_there_are_is_an_error(mask, tmp_path):
    with pytest.raises(ConfigError, match=r"masking\.sizes: 11 is more than the 10 weights of some"):
        mask(10, '{"sizes": [0, 11]}', [0])
    assert {path.name for path in tmp_path.iterdir()} == {"facts.parquet", "some.json"}
