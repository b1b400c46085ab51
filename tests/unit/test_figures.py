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
from mechunlearn import study as layout
from mechunlearn.figures import (
    beside_paper,
    data,
    html,
    latent_knowledge,
    path_patching,
    scaling,
    sentences,
    style,
    words,
)
from tests import checkout

FIGURES = sorted(set(registry.methods("figure")) - {"similarity"})  # that one is for biographies alone
SEVEN = (
    "fact-lookup", "attribution-patching", "causal-tracing", "causal-tracing-mlps", "random-mlps", "all-mlps",
    "nonlocalized",
)  # fmt: skip
MASKING = {"localizations": ["fact-lookup", "nonlocalized"], "sizes": [0, 10, 100]}
BY_HAND = {"mine": {"mlps": [2, 3], "heads": [[5, 0]]}}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder and metrics of a made-up study of seven localizations and a task in four blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("study"))
        tasks = {"sports-athlete-16": {"facts": "sports", "forget": 16, "blocks": 4}}
        attacks = ["relearn", "probe"]
        home = build(study("made-up", SEVEN, tasks=tasks, masking=MASKING, attacks=attacks)).absolute()
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


CONTEXTS = ("few-shot", "few-shot-related", "system-expert", "system-original")


def test_robustness_has_a_bar_for_every_localization_and_counting_format(drawn):
    panels = drawn("robustness").axes
    formats = ["completion", "question", "profession", "famous", *CONTEXTS, "choice-text"]
    bars = [len(axes.patches) - 1 for axes in panels]  # one patch greys the gated slot
    assert bars == [len(SEVEN) * len(formats)] * 2
    assert all([text.get_text() for text in axes.texts] == ["n/a\n(base 0.23)"] for axes in panels)


def test_every_objective_gets_its_own_panels(made):
    home, metrics = made
    other = metrics[metrics.objective == "inject"].assign(objective="other")
    both = pd.concat([metrics, other], ignore_index=True)
    assert len(registry.load("figure", "sequential")(home, both).axes) == 2 * 2 * 4
    for name, named in {"robustness": 2, "relearning": 1, "trade-off": 1}.items():  # a row of panels is named once
        module = import_module(registry.methods("figure")[name])
        figure = module.draw(home, both)
        assert len(figure.axes) == 4
        assert sum("(other)" in axes.get_title(loc="left") for axes in figure.axes) == named
        lines = module.caption(home, both)[0].splitlines()
        assert [line.partition(":")[0] for line in lines] == ["inject", "other"]


def test_where_objectives_are_more_a_localization_has_a_panel(made):
    home, metrics = made
    few = metrics[metrics.localization.isin(["base", "fact-lookup", "nonlocalized"])]
    more = [few[few.objective == "inject"].assign(objective=name) for name in ("memit", "npo")]
    metrics = pd.concat([few, *more], ignore_index=True)
    for name, rows in {"worst-case": 1, "robustness": 2, "relearning": 2, "trade-off": 2}.items():
        module = import_module(registry.methods("figure")[name])
        figure = module.draw(home, metrics)
        assert len(figure.axes) == 2 * rows, name
        titles = [axes.get_title(loc="left") for axes in figure.axes]
        assert any("Fact lookup" in title for title in titles)
        found, _ = module.caption(home, metrics)
        lines = found.splitlines()
        assert [line.partition(":")[0] for line in lines] == ["Fact lookup", "Everything"]
        assert "Against fact lookup" not in found
    labels = [text.get_text() for text in module.draw(home, metrics).axes[1].get_yticklabels()]
    assert labels == ["inject", "memit", "npo"]


def test_relearning_has_a_line_for_every_localization_through_every_step(drawn):
    unseen, trained = drawn("relearning").axes
    for axes in (unseen, trained):
        lines = [line for line in axes.lines if not str(line.get_label()).startswith("_")]
        assert [line.get_label() for line in lines] == [words.localization(name) for name in SEVEN]
        assert all(len(line.get_xdata()) == 3 for line in lines)
    names = {text.get_text() for text in unseen.texts}
    assert names >= {words.short(name) for name in (*SEVEN, "base")}


def test_every_block_has_a_line_for_every_localization_from_before_the_first_to_after_the_last(drawn, made):
    panels = drawn("sequential").axes
    assert [axes.get_title(loc="left") for axes in panels[:4]] == [f"Block {block}" for block in (1, 2, 3, 4)]
    for number, axes in enumerate(panels):
        lines = [line for line in axes.lines if not str(line.get_label()).startswith("_")]
        assert [line.get_label() for line in lines] == [words.localization(name) for name in SEVEN]
        metric, block = ("p_new", "p_true")[number // 4], 1 + number % 4
        for line, name in zip(lines, SEVEN, strict=True):
            where = {"localization": name, "role": f"block-{block}"}
            rows = [data.one(made[1], metric, stage=f"edited@{after}", **where) for after in range(5)]
            assert list(line.get_ydata()) == [row.value for row in rows]


def test_a_study_without_blocks_or_masks_has_no_figure_of_them():
    drawn = layout.figures(study(), "sports-athlete-16")
    assert sorted([*drawn, "sequential", "weight-masking"]) == FIGURES
    masked = layout.figures(study(masking={"localizations": ["fact-lookup"]}), "sports-athlete-16")
    assert sorted([*masked, "sequential"]) == FIGURES


def test_scaling_has_a_line_for_every_localization_over_the_sizes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tasks = {f"sports-{size}": {"facts": "sports", "forget": size} for size in (100, 16, 32)}
    many = study("many", SEVEN, tasks=tasks)
    build(many)
    metrics, sizes = data.read_metrics("results/many/metrics.csv"), layout.sizes(many)
    assert sizes == {"sports-100": 100, "sports-16": 16, "sports-32": 32}
    figure = scaling.draw(metrics, sizes)
    for axes, panel in zip(figure.axes, scaling.PANELS, strict=True):
        lines = [line for line in axes.lines if not str(line.get_label()).startswith("_")]
        assert [line.get_label() for line in lines] == [words.localization(name) for name in SEVEN]
        asked = panel.elicitation != "paraphrase-1"  # which fits no athlete
        assert [text.get_text() for text in axes.texts] == ([] if asked else ["n/a"])
        where = {"elicitation": panel.elicitation, "role": panel.role, "stage": "edited"}
        for line, name in zip(lines, SEVEN, strict=True):
            rows = [
                data.one(metrics, panel.metric, task=f"sports-{n}", localization=name, **where) for n in (16, 32, 100)
            ]
            assert list(line.get_ydata()) == ([row.value for row in rows] if asked else [])
    found, seen = scaling.caption(metrics, sizes)
    assert "From 16 facts to 100" in found
    assert "n = 16, 32 and 100" in seen
    with style.look():
        figure.draw_without_rendering()
        assert figure.get_tightbbox().x1 <= style.WIDTH + 0.05


def test_sizes_are_those_of_tasks_that_differ_in_them_alone():
    def sizes(*tasks, **more):
        return layout.sizes(
            study(tasks={f"task-{n}": {"facts": "sports", **task} for n, task in enumerate(tasks)}, **more)
        )

    three = [{"forget": 4}, {"forget": 8}, {"forget": 16}]
    assert sizes(*three) == {"task-0": 4, "task-1": 8, "task-2": 16}
    assert sizes(*three[:2]) == sizes(*three[:2], {"forget": 8, "seed": 1}) == {}
    assert sizes(*three, {"forget": 32, "blocks": 2}) == sizes(*three, {"forget": 32, "facts": "counterfact"}) == {}
    assert sizes(*three, objectives=[], attacks=[]) == {}


def test_trade_off_has_a_point_for_every_localization(drawn):
    plane, rows = drawn("trade-off").axes
    assert [line.get_label() for line in plane.lines if not str(line.get_label()).startswith("_")] == [
        words.localization(name) for name in SEVEN
    ]
    assert [label.get_text() for label in rows.get_yticklabels()] == [words.localization(name) for name in SEVEN]


def test_the_map_marks_every_selected_component(drawn):
    figure = drawn("localization-map")
    axes = next(axes for axes in figure.axes if axes.get_xlabel() == "Layer")
    outlines = [patch for patch in axes.patches if isinstance(patch, Rectangle) and not patch.get_fill()]
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    chosen = [component for name in SEVEN for component in selection(name).components]
    assert len(outlines) == sum(component.kind == "mlp" for component in chosen)
    assert len(dots) == sum(component.kind == "attention" for component in chosen)
    heads = [float(dot.get_xdata()[0]) for dot in dots if dot.get_markersize() < 5]
    assert [round(place) for place in heads] == [5, 5, 5]  # three heads of one layer, side by side
    assert len(set(heads)) == 3
    widths = {round(patch.get_width(), 2) for patch in axes.patches if patch.get_fill()}
    assert widths == {0.76, 0.38}  # whole MLPs, and the half one


def test_probe_curves_have_two_curves_and_shade_the_lookup_layers(drawn):
    (axes,) = drawn("probe-curves").axes
    assert sum(len(line.get_xdata()) == LAYERS for line in axes.lines) == 2
    assert axes.texts[0].get_text() == "lookup layers 2–4"


def test_latent_knowledge_has_a_row_an_edit_and_a_curve_for_all_that_a_probe_says(drawn, made):
    home, metrics = made
    axes = drawn("latent-knowledge").axes
    assert len(axes) == 2 * len(SEVEN)
    for number, each in enumerate(axes):
        name, place = SEVEN[number // 2], ("probe-subject", "probe-last")[number % 2]
        where = {"role": "forget", "elicitation": place}
        for line in each.lines:
            before, control = "before" in str(line.get_label()), "control" in str(line.get_label())
            own = {**where, "localization": "base" if before else name}
            own["elicitation"] += "-permuted" if control else ""
            metric = "p_new" if "new" in str(line.get_label()) else "p_true"
            expected = [data.one(metrics, metric, stage=f"probed@{layer}", **own).value for layer in range(LAYERS)]
            assert list(line.get_ydata()) == expected
        assert len(each.lines) == 6
    found, seen = latent_knowledge.caption(home, metrics)
    assert "End of the prompt: the probe of the best layer gives the true answer" in found
    assert "before the edit" in found
    assert f"n = {FORGET}" in seen


def test_latent_knowledge_of_few_facts_is_not_drawn_as_a_curve(made):
    home, metrics = made
    few = metrics.assign(n=3)
    assert not latent_knowledge.draw(home, few).axes
    assert latent_knowledge.caption(home, few) == (
        "Only 3 of the forgotten facts could be probed, too few for a curve.",
        "",
    )


def test_the_layer_of_a_probe_is_chosen_by_kept_facts(made):
    _, metrics = made
    layer = latent_knowledge.probed(metrics, "probe-last", "fact-lookup", "inject")
    kept = data.pick(metrics, "accuracy_true", role="maintain-test", localization="fact-lookup", objective="inject",
                     elicitation="probe-last")  # fmt: skip
    best = kept[kept.stage == f"probed@{layer}"].value.item()
    assert best == kept.value.max()
    assert latent_knowledge.probed(metrics, "probe-nowhere", "fact-lookup", "inject") is None


def test_path_patching_shows_direct_effects_and_which_mlps_feed_them(drawn, made):
    heat, lines = drawn("path-patching").axes[:2]
    table = heat.images[0].get_array()
    assert table.shape == (1 + 4, LAYERS)
    assert table[1, 12] == table.max() == 0.5
    assert [label.get_text() for label in heat.get_yticklabels()] == [*(f"head {n}" for n in range(4)), "MLP"]
    (points,) = [line for line in lines.lines if line.get_marker() == "o"]
    assert points.get_ydata()[3] == points.get_ydata().max() == pytest.approx(0.3)
    found, _ = path_patching.caption(*made)
    assert "The answer is brought out most by head 1 of layer 12" in found
    assert "Of the MLPs, that of layer 3 feeds these components most (0.30 [0.30, 0.30])." in found


def test_a_task_in_blocks_stands_beside_the_paper_by_its_finished_edit(made):
    """Its stages `edited@1` ... are measured on the way, with roles of their own."""
    _, metrics = made
    assert "edited@1" in set(metrics.stage)
    table = beside_paper.table(metrics, "inject", checkout.ROOT / "report/published", "sports-athlete")
    assert all(
        each.title in table for each in beside_paper.PUBLISHED if each.name in ("forget_error", "maintain_accuracy")
    )


@pytest.mark.parametrize("name", ["probe-curves", "relearning"])
def test_what_a_study_lacks_is_said_not_drawn(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    home = build(study(attacks=[]))
    (home / "scores/fact-lookup.parquet").unlink()
    metrics = data.read_metrics("results/made-up/metrics.csv")
    figure = registry.load("figure", name)(home, metrics)
    assert not figure.axes
    assert figure.texts[0].get_text().startswith("This study has no")


def test_a_study_without_edits_shows_where_each_method_points(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = study("only", ("fact-lookup", "random-2", "mine"), objectives=[], attacks=[], localize={"layers": BY_HAND})
    home = build(made)
    metrics = data.read_metrics("results/only/metrics.csv", "tiny", home.name)
    figure = registry.load("figure", "localization-map")(home, metrics)
    axes = next(axes for axes in figure.axes if axes.get_xlabel() == "Layer")
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["Fact lookup", "Random components, draw 2", "mine"]
    for name in FIGURES:
        module = import_module(registry.methods("figure")[name])
        registry.load("figure", name)(home, metrics)
        assert module.caption(home, metrics, "95%")[0]


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
    assert re.search("lower for .*“Causal tracing”", sentence)
    wide = metrics.assign(low=-1.0, high=1.0)
    assert "lower" not in words.contrast(wide, "p_new", **where)


def test_labels_keep_their_distance_and_their_order():
    places = style.spread([0.5, 0.51, 0.5, 0.95, 0.99], 0.1, 0.0, 1.0)
    ordered = sorted(places)
    assert all(right - left >= 0.1 - 1e-9 for left, right in pairwise(ordered))
    assert ordered[0] >= 0
    assert ordered[-1] <= 1
    assert places[0] < places[2] < places[1]


def test_every_localization_of_up_to_seventeen_has_a_look_of_its_own():
    known = registry.localizations()
    for names in (known, [*known, "random-2", "gemma-7b-ct"], ["fact-lookup", *(f"mine-{i}" for i in range(16))]):
        looks = style.looks(names).values()
        for trait in ("color", "marker", "line", "hatch"):
            assert len({str(getattr(look, trait)) for look in looks}) == len(names) <= 17, trait
    assert len(style.looks([f"mine-{i}" for i in range(30)])) == 30
    assert style.looks(known)["fact-lookup"] == style.looks(["mine", "fact-lookup"])["fact-lookup"]


def test_names_by_hand_and_draws_are_readable():
    assert words.localization("random-mlps-3") == "Random MLPs, draw 3"
    assert words.localization("gemma-7b-ct") == "gemma-7b-ct"
    assert all(words.localization(name) != name for name in registry.localizations())
    names = ["mine", "random-mlps-12", "random-mlps-2", "nonlocalized", "random-mlps", "fact-lookup"]
    ordered = ["fact-lookup", "random-mlps", "random-mlps-2", "random-mlps-12", "nonlocalized", "mine"]
    assert registry.ordered(names) == ordered


def test_the_report_says_what_is_edited_in_turn():
    blocks = {"athletes": {"facts": "sports", "forget": 16, "blocks": 4}}
    assert "4 blocks of 4" in sentences.in_turn(study(tasks=blocks), "athletes")
    facts = study("one", ("fact-lookup-per-fact",), localize={"facts": "forget"})
    assert sentences.in_turn(facts, "sports-athlete-16").startswith("“Fact lookup, fact by fact” gives every fact")
    assert sentences.in_turn(study(), "sports-athlete-16") == ""
    assert [sentences.training(study(edit=edit).edit) for edit in ({"steps": 7}, {"epochs": 3})] == [
        "7 steps",
        "3 passes over the facts",
    ]


def test_words():
    assert words.number(-0.001, -0.25, 0.5, sign=True) == "0.00 [−0.25, +0.50]"
    assert words.ranges([8, 2, 3, 4]) == "2–4, 8"
    assert words.listing(["a", "b", "c"]) == "a, b and c"
    assert words.parameters(11_796_480) == "11.8 M"
    assert words.components(selection("causal-tracing")) == "MLPs 3, 6 (6 in part); attention 12"
    assert html.safe("<b>") == "&lt;b&gt;"
    assert FORGET == 16
