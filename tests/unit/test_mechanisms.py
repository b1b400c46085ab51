"""Masked weights are counted in the mechanism that their component belongs to."""

import pytest
from synthetic_study import ATTENTION, MLP, build, study

from mechunlearn.figures import data, mechanisms, weight_masking

MASKS = {"localizations": ["fact-lookup", "nonlocalized"], "sizes": [0, 30, 300]}


@pytest.fixture
def masks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    home = build(study("masks", ("fact-lookup", "nonlocalized"), objectives=[], attacks=[], masking=MASKS))
    return home, data.read_metrics("results/masks/metrics.csv")


def test_parts_hold_what_their_components_hold(masks):
    found = mechanisms.mechanisms(*masks, extraction=2).set_index(["localization", "part"])
    assert set(found.index.get_level_values("localization")) == {"fact-lookup", "nonlocalized"}
    of = found.loc["nonlocalized"]
    assert of.masked.to_dict() == {"lookup": 100, "extraction-mlps": 0, "extraction-heads": 100, "other": 100}
    assert of.held.to_dict() == {"lookup": MLP, "extraction-mlps": 0, "extraction-heads": ATTENTION, "other": ATTENTION}


def test_an_mlp_can_be_part_of_both_mechanisms(masks):
    """The six strongest direct effects are of one head and of all that layer 2 has, whose MLP looks facts up too."""
    found = mechanisms.mechanisms(*masks, extraction=6).set_index(["localization", "part"]).loc["fact-lookup"]
    assert found.masked.to_dict() == {"lookup": 100, "extraction-mlps": 100, "extraction-heads": 100, "other": 100}


def test_the_table_says_masked_of_held(masks):
    shown = mechanisms.table(*masks, extraction=2)
    assert f"100 of {MLP / 1000:.1f} k (3.33%)" in shown
    assert "0 of 0" in shown


def test_sizes_are_panels_of_a_figure(masks):
    home, metrics = masks
    assert data.sizes(metrics) == MASKS["sizes"]
    figure = weight_masking.draw(home, metrics)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [title for title, *_ in weight_masking.PANELS]
    for axes in figure.axes:
        assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "30", "300"]
    found, seen = weight_masking.caption(home, metrics)
    assert "With 300 weights at zero" in found
    assert "n = 16" in seen


def test_masks_are_no_edit(masks):
    _, metrics = masks
    assert not (metrics.stage == "worst").where(metrics.localization != "base", False).any()
    assert data.objectives(metrics) == []
