"""Patched runs, many in one forward, against one whole forward a patch and row."""

import random

import pytest
import torch

from mechunlearn.models import patching
from mechunlearn.models.patching import Patch, Write, layer_alone, record, resume
from mechunlearn.models.scoring import run_prefix, unembed
from tests.unit.oracle import FEW, close, forward, put, stirred

TEXT = "Fact: Tiger Woods plays the sport of golf\nFact: LeBron James plays the sport of"
ROWS = 2
pytestmark = pytest.mark.usefixtures("no_gradients")


@pytest.fixture
def model(tiny, family):
    return stirred(tiny(family))


class Situation:
    """A prompt recorded from `start` on, in two rows of different embeddings, and its naive counterpart."""

    def __init__(self, model, start=5, parts=()):
        self.model, self.start, self.ids = model, start, model.encode(TEXT)
        generator = torch.Generator().manual_seed(1)
        self.noise = 0.3 * torch.randn(ROWS, len(self.ids) - start, model.width, generator=generator)
        prefix = run_prefix(model, self.ids[:start])
        self.run = record(model, self.ids[start:], prefix, parts, ROWS, lambda embedded: embedded + self.noise)

    def naive(self, row, writes=(), keep=()):
        """Logits of one row with these writes, by a forward of the whole prompt."""
        changes = [((self.model.embeddings, "output"), self.blur(row))]
        for write in writes:
            own = write.value[row if len(write.value) > 1 else 0]
            value = own[list(write.places), slice(*write.columns) if write.columns else slice(None)]
            places = [self.start + place for place in write.places]
            changes.append(((write.module, write.side), put(value, places, write.columns)))
        return forward(self.model, self.ids, changes, keep)

    def blur(self, row):
        def change(embedded):
            embedded[:, self.start :] += self.noise[row]
            return embedded

        return change

    def assert_same(self, hidden, patches):
        """The logits of every patch and row are those of the naive runs."""
        for logits, each in zip(unembed(self.model, hidden), patches, strict=True):
            for row in range(ROWS):
                close(logits[row], self.naive(row, each.writes)[0])


def sites(layout):
    """(layer, part, columns) of everything that can be written into."""
    found = [(layer, (layout.module(layer), "input"), None) for layer in range(layout.layers + 1)]
    for layer in range(layout.layers):
        for kind in ("attention", "mlp"):
            found.append((layer, (layout.module(layer, kind), "output"), None))
            found.append((layer, (layout.written(layer, kind), "output"), None))
        found.append((layer, (layout.module(layer, "mlp"), "input"), None))
        for kind in ("q", "k", "v", "head"):
            part = (layout.module(layer, "o"), "input") if kind == "head" else (layout.module(layer, kind), "output")
            found += [(layer, part, columns) for columns in layout.columns(kind)]
    return found


def some_writes(situation, rng):
    """A few writes at random sites, places and columns, of values of their own or shared by the rows."""
    layout, length = situation.model.layout, situation.run.tokens.shape[1]
    writes, start = [], rng.choice([0, 1, length // 2, length - 1])
    for layer, part, columns in rng.sample(sites(layout), rng.randint(1, 3)):
        _, seen = situation.naive(0, keep=[part])
        shape = (rng.choice([1, ROWS]), length, seen[part].shape[-1])
        value = torch.randn(shape, generator=torch.Generator().manual_seed(rng.randint(0, 9999)))
        places = tuple(sorted(rng.sample(range(start, length), rng.randint(1, length - start))))
        writes.append(Write(layer, *part, places, value, columns))
    return tuple(writes)


# recorded runs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [0, 5])
def test_a_recorded_run_is_a_whole_forward(model, start):
    layout = model.layout
    stream = [(layout.module(layer), "input") for layer in range(layout.layers + 1)]
    parts = [(layout.module(2, "o"), "input"), (layout.module(1, "mlp"), "output"), (layout.module(3, "k"), "output")]
    situation = Situation(model, start, parts)
    run = situation.run
    assert (run.rows, run.tokens.tolist()) == (ROWS, [situation.ids[start:]])
    assert set(run.parts) == set(parts)
    for row in range(ROWS):
        _, seen = situation.naive(row, keep=[*stream, *parts])
        for part, recorded in [*zip(stream, run.stream, strict=True), *run.parts.items()]:
            close(recorded[row], seen[part][0, start:])
    situation.assert_same(run.hidden[None], [Patch(())])
    for keys, values in run.cache:
        assert keys.shape[0] == values.shape[0] == ROWS
        assert keys.shape[2] == values.shape[2] == len(situation.ids)


# patched runs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
def test_patches_of_any_mixture_are_whole_forwards(model, seed):
    rng, situation = random.Random(seed), Situation(model)
    patches = [Patch(some_writes(situation, rng)) for _ in range(12)]
    assert len({(each.layer, each.start) for each in patches}) > 6
    situation.assert_same(resume(model, situation.run, patches), patches)


@pytest.mark.parametrize("family", FEW)
def test_every_site_can_be_written_into(model):
    situation, generator = Situation(model), torch.Generator().manual_seed(3)
    length, patches = situation.run.tokens.shape[1], []
    for number, (layer, part, columns) in enumerate(sites(model.layout)):
        _, seen = situation.naive(0, keep=[part])
        value = torch.randn(ROWS, length, seen[part].shape[-1], generator=generator)
        patches.append(Patch((Write(layer, *part, tuple(range(number % 3, length)), value, columns),)))
    situation.assert_same(resume(model, situation.run, patches), patches)


@pytest.mark.parametrize("start", [0, 5])
def test_the_final_norms_input_can_be_written_into(model, start):
    situation, layers = Situation(model, start), model.layout.layers
    value = torch.randn(1, situation.run.tokens.shape[1], model.width, generator=torch.Generator().manual_seed(3))
    last = situation.run.tokens.shape[1] - 1
    patches = [Patch((Write(layers, model.layout.module(layers), "input", (last,), value),))]
    situation.assert_same(resume(model, situation.run, patches), patches)
    before = [Patch((Write(layers, model.layout.module(layers), "input", (last - 1,), value),))]
    close(resume(model, situation.run, before)[0], situation.run.hidden)


def test_later_writes_to_one_place_win(model):
    situation = Situation(model)
    name, length = model.layout.module(1, "mlp"), situation.run.tokens.shape[1]
    values = [number * torch.ones(1, length, model.width) for number in (1, 2)]
    first, second = (Write(1, name, "output", (2, 3), value) for value in values)
    patches = [Patch(order) for order in ((first, second), (second, first), (first,), (second,))]
    hidden = resume(model, situation.run, patches)
    close(hidden[:2], hidden[2:].flip(0))
    situation.assert_same(hidden, patches)


@pytest.mark.parametrize("family", FEW)
@pytest.mark.parametrize("tokens", [1, 60, 100])
def test_splitting_into_forwards_of_bounded_size_changes_nothing(model, monkeypatch, tokens):
    rng, situation = random.Random(5), Situation(model)
    patches = 3 * [Patch(some_writes(situation, rng)) for _ in range(10)]
    together, sizes = resume(model, situation.run, patches), []
    monkeypatch.setattr(patching, "BATCH_TOKENS", tokens)
    norm = model.network.get_submodule(model.layout.module(model.layout.layers))
    hook = norm.register_forward_pre_hook(lambda _, given: sizes.append(given[0].shape[:2].numel()))
    close(resume(model, situation.run, patches), together)
    hook.remove()
    assert max(sizes) <= max(tokens, ROWS * situation.run.tokens.shape[1])
    starts = len({each.start for each in patches})
    assert len(sizes) == len(patches) if tokens == 1 else starts < len(sizes) < len(patches)


def test_nothing_is_run_before_a_patch_begins(model):
    """A layer sees the rows of the patches that begin there or below, from their first position on."""
    situation, layout = Situation(model), model.layout
    length, start = situation.run.tokens.shape[1], 3
    value = torch.zeros(1, length, model.width)
    patches = [Patch((Write(layer, layout.module(layer), "input", (start,), value),)) for layer in (1, 1, 3)]
    shapes = {}

    def count(layer):
        return lambda module, given: shapes.__setitem__(layer, tuple(given[0].shape[:2]))

    mlps = [model.network.get_submodule(layout.module(layer, "mlp")) for layer in range(layout.layers)]
    hooks = [mlp.register_forward_pre_hook(count(layer)) for layer, mlp in enumerate(mlps)]
    resume(model, situation.run, patches)
    for hook in hooks:
        hook.remove()
    assert shapes == {1: (2 * ROWS, length - start), 2: (2 * ROWS, length - start), 3: (3 * ROWS, length - start)}


# the network is left as it was ------------------------------------------------------------------------------------


def state_of(model):
    return [
        (name, module.__dict__.get("forward"), len(module._forward_hooks), len(module._forward_pre_hooks))
        for name, module in model.network.named_modules()
    ]


def wrap(model, layer):
    """Give a layer a forward of its own, as accelerate does."""
    module = model.network.get_submodule(model.layout.module(layer))
    own = module.forward
    module.forward = lambda *given, **named: own(*given, **named)


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_forwards_and_hooks_are_restored(fresh, family, wrapped, fails):
    model = fresh(family)
    if wrapped:
        wrap(model, 0)
        wrap(model, 2)
    before, situation = state_of(model), Situation(model)
    expected = forward(model, situation.ids)[0]
    value = torch.zeros(1, len(situation.ids), model.width - fails)
    write = Write(2, model.layout.module(2), "input", (1, 2), value)
    run = record(model, situation.ids, [])
    for attempt in (
        lambda: resume(model, run, [Patch((write,))]),
        lambda: layer_alone(model, run, 2, value, [], {}),
    ):
        if fails:
            with pytest.raises(RuntimeError):
                attempt()
        else:
            attempt()
        assert state_of(model) == before
    torch.testing.assert_close(forward(model, situation.ids)[0], expected, rtol=0, atol=0)


# one layer alone --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [0, 5])
def test_a_layer_alone_does_what_it_does_in_a_whole_forward(model, start):
    layout, ids = model.layout, model.encode(TEXT)
    streams = torch.randn(3, len(ids) - start, model.width, generator=torch.Generator().manual_seed(4))
    run = record(model, ids[start:], run_prefix(model, ids[:start]))
    for layer in (0, 2, 3):
        taken, attention = (layout.module(layer, "o"), "input"), (layout.module(layer, "attention"), "output")
        mlp, later = (layout.module(layer, "mlp"), "output"), slice(start, None)
        parts, value = [taken, mlp], torch.randn(1, len(ids) - start, model.width)
        for outputs in ({}, {attention[0]: value}):
            seen = layer_alone(model, run, layer, streams, parts, outputs)
            for row, stream in enumerate(streams):
                changes = [((layout.module(layer), "input"), put(stream, later))]
                changes += [((name, "output"), put(fixed, later)) for name, fixed in outputs.items()]
                _, expected = forward(model, ids, changes, parts)
                for part in parts:
                    close(seen[part][row], expected[part][0, start:])
