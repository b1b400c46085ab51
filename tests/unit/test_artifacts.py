"""Files on disk: whole or not at all, and read with a name in every error."""

import json
import os
import platform
import subprocess
import sys

import pandas as pd
import pytest

from mechunlearn import artifacts
from mechunlearn.artifacts import Component, Selection, atomic
from mechunlearn.errors import ArtifactError
from mechunlearn.facts import Fact

ROW = {
    "seed": 0, "stage": "base", "elicitation": "completion", "order": 0, "role": "forget",
    "fact": "José Altuve", "p_true": 0.5, "p_new": float("nan"), "p_options": 0.9, "rank": 1,
    "choice": "true", "argmax": " baseball", "nll": float("nan"), "kl": float("nan"),
}  # fmt: skip


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(ArtifactError if error is OSError else error), atomic(path) as temporary:  # noqa: PT012
        temporary.write_text("half of the n")
        raise error
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["table.csv"]


def test_a_write_makes_its_folder_replaces_the_old_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "a" / "b" / "table.csv"
    for text in ("old", "new"):
        with atomic(path) as temporary:
            assert temporary.parent == path.parent
            temporary.write_text(text)
        assert path.read_text() == text
        assert os.listdir(path.parent) == ["table.csv"]


def test_what_a_killed_process_left_is_swept_and_what_a_living_one_writes_is_not(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead, alive = (tmp_path / f".table.csv.{platform.node()}-{process}.part" for process in (ended.pid, os.getppid()))
    elsewhere = tmp_path / f".table.csv.another-machine-{ended.pid}.part"
    for path in (dead, alive, elsewhere):
        path.touch()
    artifacts.write_json(tmp_path / "table.csv", [])
    assert sorted(os.listdir(tmp_path)) == sorted([alive.name, elsewhere.name, "table.csv"])


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    path = tmp_path / "file" / "below" / "selection.json"
    with pytest.raises(ArtifactError, match=r"file/below/selection\.json cannot be written"):
        artifacts.write_json(path, {})


def test_a_folder_in_the_place_of_the_file_is_named(tmp_path):
    (tmp_path / "selection.json").mkdir()
    with pytest.raises(ArtifactError, match=r"selection\.json cannot be written"):
        artifacts.write_json(tmp_path / "selection.json", {})
    assert os.listdir(tmp_path) == ["selection.json"]


@pytest.mark.parametrize("name", ["rows.parquet", "rows.csv"])
def test_tables_round_trip(tmp_path, name):
    table = pd.DataFrame({"fact": ["José", 'A\'ja, "x"'], "effect": [0.25, -1.5], "layer": [0, 3]})
    artifacts.write_table(tmp_path / name, table)
    pd.testing.assert_frame_equal(artifacts.read_table(tmp_path / name, table.columns), table)


def test_a_table_without_a_column_is_refused(tmp_path):
    artifacts.write_table(tmp_path / "rows.parquet", pd.DataFrame({"fact": ["a"]}))
    with pytest.raises(ArtifactError, match=r"rows\.parquet has no column layer, effect"):
        artifacts.read_table(tmp_path / "rows.parquet", ["fact", "layer", "effect"])


@pytest.mark.parametrize("content", [b"", b"garbage", b"PAR1" + b"\0" * 50])
def test_damaged_parquet_is_named(tmp_path, content):
    path = tmp_path / "rows.parquet"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"rows\.parquet is damaged"):
        artifacts.read_table(path)


@pytest.mark.parametrize("keep", [10, 100, -8])
def test_truncated_parquet_is_named(tmp_path, keep):
    path = tmp_path / "rows.parquet"
    artifacts.write_table(path, pd.DataFrame({"fact": ["a"] * 100}))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ArtifactError, match=r"rows\.parquet is damaged"):
        artifacts.read_table(path)


@pytest.mark.parametrize(
    "read",
    [
        artifacts.read_json,
        artifacts.read_table,
        artifacts.read_facts,
        artifacts.sha256,
        artifacts.read_selection,
    ],
)
def test_a_missing_file_is_named(tmp_path, read):
    with pytest.raises(ArtifactError, match=r"nothing\.here"):
        read(tmp_path / "nothing.here")


def test_json_is_sorted_and_keeps_accents(tmp_path):
    artifacts.write_json(tmp_path / "a.json", {"b": 1, "a": "José"})
    artifacts.write_json(tmp_path / "b.json", {"a": "José", "b": 1})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert artifacts.read_json(tmp_path / "a.json") == {"a": "José", "b": 1}
    assert "José" in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_facts_round_trip_in_order_and_by_role(tmp_path, athletes):
    count = len(athletes)
    artifacts.write_facts(tmp_path / "facts.parquet", athletes, [0.5] * count, list(range(count)))
    assert artifacts.read_facts(tmp_path / "facts.parquet") == athletes
    for roles in (("forget",), ("forget", "maintain-test"), ("unknown",)):
        expected = [fact for fact in athletes if fact.role in roles]
        assert artifacts.read_facts(tmp_path / "facts.parquet", *roles) == expected


def test_facts_of_any_prompt_and_options_round_trip(tmp_path):
    facts = [
        Fact("é", "Côte d'Ivoire", "capital", "A", 'Fact: "x"\n{"y"} of {}:', ("A", "B, C", "Dé")),
        Fact("b", "{}", "", "", "{}", (), "new", "forget"),
        Fact("c", "x", "r", "one", "{} is", ("one",)),
    ]
    artifacts.write_facts(tmp_path / "facts.parquet", facts, [0.5] * 3, [1, 2, 3])
    read = artifacts.read_facts(tmp_path / "facts.parquet")
    assert read == facts
    assert [type(fact.options) for fact in read] == [tuple] * 3
    assert hash(read[0]) == hash(facts[0])
    assert list(artifacts.read_table(tmp_path / "facts.parquet")) == artifacts.FACT_COLUMNS


def test_facts_of_an_earlier_version_are_refused(tmp_path, athletes):
    artifacts.write_facts(tmp_path / "facts.parquet", athletes, [0.5] * len(athletes), [1] * len(athletes))
    old = artifacts.read_table(tmp_path / "facts.parquet").drop(columns=["prompt", "options"])
    artifacts.write_table(tmp_path / "facts.parquet", old)
    with pytest.raises(ArtifactError, match=r"facts\.parquet has no column prompt, options"):
        artifacts.read_facts(tmp_path / "facts.parquet")


def test_selections_round_trip(tmp_path):
    selection = Selection("x", [Component(1, "mlp"), Component(0, "mlp", 5)], 10, 11, 100, {"rule": "rise"})
    artifacts.write_selection(tmp_path / "selection.json", selection)
    assert artifacts.read_selection(tmp_path / "selection.json") == selection


@pytest.mark.parametrize(
    "value", [[], {}, {"components": [{"layer": 1}]}, {"components": 3}, {"components": [], "x": 1}]
)
def test_json_that_is_no_selection_is_refused(tmp_path, value):
    (tmp_path / "selection.json").write_text(json.dumps(value))
    with pytest.raises(ArtifactError, match=r"selection\.json is not a selection"):
        artifacts.read_selection(tmp_path / "selection.json")


def test_equal_measurements_have_equal_bytes_in_whatever_order(tmp_path):
    rows = [{**ROW, "fact": fact, "order": order} for fact in ("b", "a", "c") for order in (1, 0)]
    for name, given in (("one", rows), ("other", rows[::-1])):
        artifacts.write_table(tmp_path / f"{name}.parquet", artifacts.measurement_table(given))
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "other.parquet").read_bytes()


def test_measurements_round_trip(tmp_path):
    table = artifacts.measurement_table([ROW])
    artifacts.write_table(tmp_path / "rows.parquet", table)
    pd.testing.assert_frame_equal(artifacts.read_measurements(tmp_path / "rows.parquet"), table)
    for key, value in table.iloc[0].to_dict().items():
        assert value == (pytest.approx(ROW[key], nan_ok=True) if isinstance(value, float) else ROW[key])
