"""Figures draw what the files say: every localization once, every selected component, nothing gated."""

import re
from importlib import import_module
from itertools import pairwise

import matplotlib.image
import pandas as pd
import pytest
from matplotlib.patches import Rectangle
from synthetic_study import FORGET, LAYERS, build, selection, study

from mechunlearn import registry
from mechunlearn.figures import data, html, style, words

FIGURES = sorted(registry.methods("figure"))
SIX = ("fact-lookup", "causal-tracing", "causal-tracing-mlps", "random-mlps", "all-mlps", "nonlocalized")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder and metrics of a made-up study of six localizations."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("study"))
        home = build(study("made-up", SIX)).absolute()
        return home, data.read_metrics("results/made-up/metrics.csv", "tiny", home.name)


@pytest.fixture
def drawn(made):
    """Draw a figure of it."""
    return lambda name: registry.load("figure", name)(*made)


@pytest.mark.parametrize("name", FIGURES)
def test_two_draws_give_the_same_bytes(drawn, tmp_path, name):
    files = [style.save(drawn(name), tmp_path / folder / name) for folder in ("a", "b")]
    for first, second in zip(*files, strict=True):
        assert first.read_bytes() == second.read_bytes()
    assert "<dc:date>" not in files[0][0].read_text()
    assert matplotlib.image.imread(files[0][1]).shape[1] == round(style.WIDTH * 160)


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_fits_its_page(drawn, name):
    figure = drawn(name)
    with style.look():
        figure.draw_without_rendering()
        drawn_box = figure.get_tightbbox()
    assert drawn_box.x0 >= -0.05, "something sticks out on the left"
    assert drawn_box.x1 <= style.WIDTH + 0.05, "something sticks out on the right"


def test_robustness_has_a_bar_for_every_localization_and_counting_format(drawn):
    panels = drawn("robustness").axes
    formats = ["completion", "question", "profession", "famous", "choice-text"]
    assert [len(axes.patches) - 1 for axes in panels] == [len(SIX) * len(formats)] * 2  # one patch greys the gated slot
    assert all([text.get_text() for text in axes.texts] == ["n/a\n(base 0.27)"] for axes in panels)


def test_every_objective_gets_its_own_panels(made):
    home, metrics = made
    other = metrics[metrics.objective == "inject"].assign(objective="other")
    for name in ("robustness", "relearning", "trade-off"):
        figure = registry.load("figure", name)(home, pd.concat([metrics, other], ignore_index=True))
        assert len(figure.axes) == 4
        assert sum("(other)" in axes.get_title(loc="left") for axes in figure.axes) == 2


def test_relearning_has_a_line_for_every_localization_through_every_step(drawn):
    unseen, trained = drawn("relearning").axes
    for axes in (unseen, trained):
        lines = [line for line in axes.lines if not str(line.get_label()).startswith("_")]
        assert [line.get_label() for line in lines] == [words.localization(name) for name in SIX]
        assert all(len(line.get_xdata()) == 3 for line in lines)
    names = {text.get_text() for text in unseen.texts}
    assert names >= {words.short(name) for name in (*SIX, "base")}


def test_trade_off_has_a_point_for_every_localization(drawn):
    plane, rows = drawn("trade-off").axes
    assert [line.get_label() for line in plane.lines if not str(line.get_label()).startswith("_")] == [
        words.localization(name) for name in SIX
    ]
    assert [label.get_text() for label in rows.get_yticklabels()] == [words.localization(name) for name in SIX]


def test_the_map_marks_every_selected_component(drawn):
    figure = drawn("localization-map")
    axes = next(axes for axes in figure.axes if axes.get_xlabel() == "Layer")
    outlines = [patch for patch in axes.patches if isinstance(patch, Rectangle) and not patch.get_fill()]
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    chosen = [component for name in SIX for component in selection(name).components]
    assert len(outlines) == sum(component.kind == "mlp" for component in chosen)
    assert len(dots) == sum(component.kind == "attention" for component in chosen)
    widths = {round(patch.get_width(), 2) for patch in axes.patches if patch.get_fill()}
    assert widths == {0.76, 0.38}  # whole MLPs, and the half one


def test_probe_curves_have_two_curves_and_shade_the_lookup_layers(drawn):
    (axes,) = drawn("probe-curves").axes
    assert sum(len(line.get_xdata()) == LAYERS for line in axes.lines) == 2
    assert axes.texts[0].get_text() == "lookup layers 2–4"


@pytest.mark.parametrize("name", ["probe-curves", "relearning"])
def test_what_a_study_lacks_is_said_not_drawn(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    home = build(study(attacks=[]))
    (home / "scores/fact-lookup.parquet").unlink()
    metrics = data.read_metrics("results/made-up/metrics.csv")
    figure = registry.load("figure", name)(home, metrics)
    assert not figure.axes
    assert figure.texts[0].get_text().startswith("This study has no")


@pytest.mark.parametrize("name", FIGURES)
def test_captions_state_n_and_the_interval(made, name):
    found, seen = import_module(registry.methods("figure")[name]).caption(*made, "95%")
    assert re.search(r"n = \d+", seen)
    assert "interval" in seen
    assert re.search(r"\d", found)


def test_captions_speak_of_a_difference_only_where_its_interval_leaves_zero(made):
    _, metrics = made
    where = {"stage": "edited", "elicitation": "completion", "role": "forget"}
    sentence = words.contrast(metrics, "p_new", **where)
    assert "lower for “Causal tracing”" in sentence
    wide = metrics.assign(low=-1.0, high=1.0)
    assert "lower" not in words.contrast(wide, "p_new", **where)


def test_labels_keep_their_distance_and_their_order():
    places = style.spread([0.5, 0.51, 0.5, 0.95, 0.99], 0.1, 0.0, 1.0)
    ordered = sorted(places)
    assert all(right - left >= 0.1 - 1e-9 for left, right in pairwise(ordered))
    assert ordered[0] >= 0
    assert ordered[-1] <= 1
    assert places[0] < places[2] < places[1]


def test_every_localization_has_a_look_of_its_own():
    looks = [style.look_of(name) for name in registry.localizations()]
    assert len({look.color for look in looks}) == len({look.marker for look in looks}) == len(looks)


def test_words():
    assert words.number(-0.001, -0.25, 0.5, sign=True) == "0.00 [−0.25, +0.50]"
    assert words.ranges([8, 2, 3, 4]) == "2–4, 8"
    assert words.listing(["a", "b", "c"]) == "a, b and c"
    assert words.parameters(11_796_480) == "11.8 M"
    assert words.components(selection("causal-tracing")) == "MLPs 3, 6 (6 in part); attention 12"
    assert html.safe("<b>") == "&lt;b&gt;"
    assert FORGET == 16
