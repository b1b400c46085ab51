"""Path patching against Goldowsky-Dill et al.'s loop: whole forwards in which everything off the path is frozen."""

import pandas as pd
import pytest
import torch

from mechunlearn.config import AttributionSettings, LocalizeSettings, PathSettings
from mechunlearn.localize import path_patching as module
from mechunlearn.localize.corruption import pairs
from mechunlearn.localize.path_patching import (
    Extraction,
    contributions,
    direct,
    extracting,
    path_patching,
    recorded,
    through,
)
from mechunlearn.models.components import KINDS
from tests.unit.oracle import FEW, close, cost, costly, difference, forward, put, stirred

pytestmark = pytest.mark.usefixtures("no_gradients")


@pytest.fixture
def model(tiny, family):
    return stirred(tiny(family))


@pytest.fixture
def pair(model, athletes):
    return pairs(model, athletes[3:], "tokens", 0)[0]


def settings(protocol="corrected", seed=0, extraction=4, draws=2, corruption="tokens"):
    rules = PathSettings(facts=2, extraction=extraction, draws=draws)
    attribution = AttributionSettings(corruption=corruption)
    return LocalizeSettings(paths=rules, attribution=attribution, protocol=protocol, seed=seed)


def runs(model, pair):
    return recorded(model, pair)


def low(model, pair):
    return difference(forward(model, pair.corrupt)[0], pair.tokens)


class Frozen:
    """The corrupted prompt with everything that is written into the stream at its value there, one sender excepted."""

    def __init__(self, model, pair):
        self.model, self.pair, layout = model, pair, model.layout
        self.written = {
            (layer, kind): (layout.written(layer, kind), "output") for layer in range(layout.layers) for kind in KINDS
        }
        taken = [(layout.module(layer, "o"), "input") for layer in range(layout.layers)]
        self.clean = forward(model, pair.clean, keep=[*self.written.values(), *taken])[1]
        self.corrupt = forward(model, pair.corrupt, keep=self.written.values())[1]

    def run(self, changes, free=(), keep=()):
        """(logits, parts kept) where components in `free` react and these changes come on top."""
        held = [(part, put(self.corrupt[part])) for key, part in self.written.items() if key not in free]
        return forward(self.model, self.pair.corrupt, [*held, *changes], keep)

    def send_head(self, layer, head):
        """One head's clean value, which its attention block hands on."""
        taken, columns = (self.model.layout.module(layer, "o"), "input"), self.model.layout.columns("head")[head]
        return {
            "changes": [(taken, put(self.clean[taken][..., slice(*columns)], columns=columns))],
            "free": [(layer, "attention")],
        }

    def send_mlp(self, layer, change=None):
        """An MLP's clean value; or a change of its corrupted one, from the subject on."""
        part = self.written[layer, "mlp"]
        if change is None:
            return {"changes": [(part, put(self.clean[part]))]}
        value = self.corrupt[part].clone()
        value[:, self.pair.subject[0] :] += change
        return {"changes": [(part, put(value))]}


# direct paths to the answer ---------------------------------------------------------------------------------------


def test_contributions_are_what_reaches_the_final_stream_when_all_else_is_frozen(model, pair):
    frozen, final, start = Frozen(model, pair), (model.layout.module(model.layout.layers), "input"), pair.subject[0]
    _, before = frozen.run([], keep=[final])
    heads, mlps = contributions(model, *runs(model, pair))
    layers = range(model.layout.layers)

    def gain(sender):
        return (frozen.run(**sender, keep=[final])[1][final] - before[final])[0]

    expected = [[gain(frozen.send_head(layer, head))[-1] for head in range(model.layout.heads)] for layer in layers]
    close(heads, torch.stack([torch.stack(each) for each in expected]))
    close(mlps, torch.stack([gain(frozen.send_mlp(layer))[start:] for layer in layers]))


def test_a_direct_effect_is_the_senders_when_all_else_is_frozen(model, pair):
    frozen, (clean, corrupt) = Frozen(model, pair), runs(model, pair)
    heads, mlps = contributions(model, clean, corrupt)
    layers = range(model.layout.layers)
    senders = [[frozen.send_head(layer, head) for head in range(model.layout.heads)] for layer in layers]
    expected = torch.stack([torch.stack([metric(frozen, each) for each in row]) for row in senders])
    close(direct(model, corrupt, heads, pair.tokens) - low(model, pair), expected - low(model, pair))
    expected = torch.stack([metric(frozen, frozen.send_mlp(layer)) for layer in layers])
    close(direct(model, corrupt, mlps[:, -1], pair.tokens) - low(model, pair), expected - low(model, pair))


def metric(frozen, sender):
    return difference(frozen.run(**sender)[0], frozen.pair.tokens)


# paths through the extraction components --------------------------------------------------------------------------


def through_by_hand(frozen, extraction, layer, change=None):
    """Record what each receiver makes of the sender with all else frozen; patch that into the corrupted run."""
    model, layout = frozen.model, frozen.model.layout
    heads = [
        ((layout.module(at, "o"), "input"), layout.columns("head")[head]) for at, head in extraction.heads if at > layer
    ]
    mlps = [((layout.module(at, "mlp"), "output"), None) for at in extraction.mlps if at > layer]
    _, seen = frozen.run(**frozen.send_mlp(layer, change), keep=[part for part, _ in heads + mlps])
    changes = [
        (part, put(seen[part][..., slice(*columns) if columns else slice(None)], columns=columns))
        for part, columns in heads + mlps
    ]
    return difference(forward(model, frozen.pair.corrupt, changes)[0], frozen.pair.tokens)


def whole_by_hand(frozen, extraction, layer, change=None):
    """Everything from the first extraction layer on reacts."""
    layers = range(extraction.layers[0], frozen.model.layout.layers)
    if layer in layers:
        return low(frozen.model, frozen.pair)
    free = [(later, kind) for later in layers for kind in KINDS]
    return difference(frozen.run(**frozen.send_mlp(layer, change), free=free)[0], frozen.pair.tokens)


def assert_goldowsky_dills(model, pair, extraction, whole):
    frozen, (clean, corrupt) = Frozen(model, pair), runs(model, pair)
    _, mlps = contributions(model, clean, corrupt)
    noise = torch.randn(2, *mlps.shape, generator=torch.Generator().manual_seed(3))
    found = through(model, corrupt, torch.cat([mlps[None], noise]), extraction, pair.tokens, whole=whole)
    by_hand, layers = whole_by_hand if whole else through_by_hand, range(model.layout.layers)
    expected = [
        torch.stack([by_hand(frozen, extraction, layer, None if draw is None else draw[layer]) for layer in layers])
        for draw in (None, *noise)
    ]
    close(found - low(model, pair), torch.stack(expected) - low(model, pair))


@pytest.mark.parametrize("whole", [False, True])
def test_effects_through_the_extraction_components_are_goldowsky_dills(model, pair, whole):
    assert_goldowsky_dills(model, pair, Extraction(heads=((1, 0), (1, 3), (3, 2)), mlps=(1, 2)), whole)


@pytest.mark.parametrize("family", FEW)
@pytest.mark.parametrize("extraction", [Extraction(((3, 1),), ()), Extraction((), (1, 3))], ids=["one head", "MLPs"])
def test_heads_or_mlps_alone_can_extract(model, pair, extraction):
    assert_goldowsky_dills(model, pair, extraction, whole=False)


@pytest.mark.parametrize("whole", [False, True])
def test_without_receivers_above_it_a_sender_has_no_effect(model, pair, whole):
    clean, corrupt = runs(model, pair)
    changes = contributions(model, clean, corrupt)[1][None]
    logits = forward(model, pair.corrupt)[0].abs().max()  # rounding grows with them
    for extraction, senders in (
        (Extraction(heads=((2, 1),), mlps=(1,)), 1 if whole else 2),
        (Extraction(heads=((0, 1),), mlps=()), 0),
    ):
        (metric,) = through(model, corrupt, changes, extraction, pair.tokens, whole=whole)
        effects = (metric - low(model, pair)).abs()
        assert (effects[:senders] > 1e-5 * logits).all()
        assert (effects[senders:] < 1e-6 * logits).all()


# extraction components --------------------------------------------------------------------------------------------


def test_components_with_the_largest_mean_effects_of_either_sign_extract():
    effects = {("direct-head", 2, 1): (3, 1), ("direct-head", 1, 0): (-9, 1), ("direct-mlp", 3, -1): (-3, -2)}
    effects |= {("direct-mlp", 0, -1): (5, -5), ("direct-head", 0, 3): (0.5, 0.5), ("lookup", 0, -1): (50, 50)}
    rows = [
        (fact, layer, kind, head, "", effect)
        for (kind, layer, head), values in effects.items()
        for fact, effect in zip("ab", values, strict=True)
    ]
    scores = pd.DataFrame(rows, columns=module.COLUMNS)
    assert extracting(scores, 1, False) == Extraction(heads=((1, 0),), mlps=())
    assert extracting(scores, 3, False) == Extraction(heads=((1, 0), (2, 1)), mlps=(3,))
    assert extracting(scores, 4, False) == Extraction(heads=((0, 3), (1, 0), (2, 1)), mlps=(3,))
    assert extracting(scores, 3, True) == extracting(scores, 99, True) == Extraction(((0, 3), (1, 0), (2, 1)), ())
    assert extracting(scores, 99, False) == Extraction(heads=((0, 3), (1, 0), (2, 1)), mlps=(0, 3))


# tables -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def spied(monkeypatch):
    """What `through` was given: (changes, extraction) of every fact."""
    given = []

    def spy(model, run, changes, extraction, tokens, whole=False):
        given.append((changes, extraction))
        return through(model, run, changes, extraction, tokens, whole)

    monkeypatch.setattr(module, "through", spy)
    return given


@pytest.mark.parametrize("family", FEW)
@pytest.mark.parametrize("protocol", ["corrected", "published"])
def test_the_table_holds_shares_of_what_the_corruption_costs(model, athletes, protocol, spied):
    facts, layers = costly(model, athletes[3:]), range(model.layout.layers)
    count = 1 if protocol == "published" else 4  # of more heads one lies in layer 0, which no MLP can feed
    scores = path_patching(model, facts, settings(protocol, extraction=count))
    assert scores.columns.tolist() == ["fact", "layer", "kind", "head", "position", "effect"]
    table = scores.set_index(["fact", "kind", "layer", "head"]).effect
    assert table.index.is_unique
    found = pairs(model, facts[:2], "tokens", 0)
    mean = sum(cost(model, pair) for pair in found) / len(found)
    every = {pair.fact: Frozen(model, pair) for pair in found}

    def share(frozen, value):
        return (value - low(model, frozen.pair)) / mean

    expected = {}
    for fact, frozen in every.items():
        for layer in layers:
            expected[fact, "direct-mlp", layer, -1] = share(frozen, metric(frozen, frozen.send_mlp(layer)))
            for head in range(model.layout.heads):
                sender = frozen.send_head(layer, head)
                expected[fact, "direct-head", layer, head] = share(frozen, metric(frozen, sender))
    kinds = ["direct-head"] if protocol == "published" else ["direct-head", "direct-mlp"]
    means = pd.Series(expected).astype(float).unstack(0).mean(axis=1).abs().loc[kinds].sort_values(ascending=False)
    top = means.index[:count]
    extraction = Extraction(
        tuple(sorted((layer, head) for kind, layer, head in top if kind == "direct-head")),
        tuple(sorted(layer for kind, layer, _ in top if kind == "direct-mlp")),
    )
    assert extraction == spied[0][1] == spied[1][1]
    by_hand = whole_by_hand if protocol == "published" else through_by_hand
    for fact, frozen in every.items():
        for layer in layers:
            expected[fact, "lookup", layer, -1] = share(frozen, by_hand(frozen, extraction, layer))
    for (changes, _), (fact, frozen) in zip(spied, every.items(), strict=True):
        for layer in range(extraction.layers[0 if protocol == "published" else -1]):
            for draw in range(2):
                value = by_hand(frozen, extraction, layer, changes[1 + draw, layer])
                expected[fact, "random", layer, draw] = share(frozen, value)
    assert {*table.index} == {*expected}
    close(torch.tensor(table.loc[list(expected)].to_numpy()), torch.tensor([*expected.values()]))


@pytest.mark.parametrize("family", FEW)
def test_random_directions_are_as_large_as_what_the_mlps_send_and_drawn_by_the_seed(model, athletes, spied):
    for seed in (0, 0, 1):
        path_patching(model, costly(model, athletes, seed), settings(draws=3, seed=seed))
    drawn = []
    for changes, _ in spied:
        sent, noise = changes[0], changes[1:]
        close(noise.norm(dim=-1), sent.norm(dim=-1).expand(3, -1, -1))
        drawn.append(torch.nn.functional.normalize(noise[:, :, :2], dim=-1).flatten(0, 2))
    for number, one in enumerate(drawn):
        for other, two in enumerate(drawn):
            equal = (one @ two.T > 0.99).nonzero()  # each direction is drawn once: anew for another fact and seed
            again = number == other or {number, other} in ({0, 2}, {1, 3})
            assert len(equal) == (len(one) if again else 0)
