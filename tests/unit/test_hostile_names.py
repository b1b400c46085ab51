"""Whatever a configuration says, its files stay below results/, and no shell reads any of it as more than text."""

import json
import os
import re
import shlex
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from snakemake.utils import QuotedFormatter

from mechunlearn import study as layout
from mechunlearn.config import HUB_ROWS, ConfigError, validate_study
from mechunlearn.facts.rows import local

ROOT = Path(__file__).parents[2]
COMMIT = "0123456789abcdef" * 2 + "01234567"
NASTY = [
    "../up", "..", ".", "/etc/passwd", "~", "~root", "a/../..", "a b", "$(touch x)", "`touch x`", "a;touch x", "a|b",
    "a&b", "a\nb", "a\n", "\n", "", "'", '"', "a'b", "{model}", "{{", "a\\b", "-rf", "--help", "*", "?", "a\0b",
    "\u202e", "ａ", "é", "con", "a" * 300, "!x", "#", "%s", "\ud800",
]  # fmt: skip
ALPHABET = st.sampled_from(list("ab0-._/\\ $`'\"{};&|*?~\n\t\0(<>!#%\u202eé"))
HOSTILE = st.one_of(st.sampled_from(NASTY), st.text(ALPHABET, max_size=20), st.text(max_size=20))
FEW = settings(max_examples=200, deadline=None)


def named(study="small", model="tiny", task="athletes", hand="mine"):
    """A study that has a name of the user's own in every place where there may be one."""
    return {
        "study": study,
        "models": {model: {"source": "path:somewhere"}},
        "tasks": {task: {"facts": "sports", "forget": 4}},
        "localizations": ["fact-lookup", hand],
        "localize": {"layers": {hand: {"mlps": [1]}}},
        "masking": {"localizations": [hand]},
    }


def accepted(values):
    """The study, or None where it is refused, which is always said in one printable line."""
    try:
        return validate_study(values)
    except ConfigError as error:
        sentence = str(error)
    assert sentence.isprintable()
    return None


@FEW
@given(st.sampled_from(["study", "model", "task", "hand"]), HOSTILE)
def test_a_name_that_is_accepted_is_one_plain_part_of_a_path(key, name):
    study = accepted(named(**{key: name}))
    if study is None:
        return
    assert re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,59}", name)
    assert shlex.quote(name) == name
    files = [*layout.measurement_files(study), *layout.figure_files(study), *layout.mask_files(study, "-weights")]
    files += layout.targets(study, "edits/{localization}/{objective}/seed{seed}/delta.safetensors", "scores/x.parquet")
    for path in files:
        inside = Path(os.path.normpath(path)).relative_to(layout.RESULTS / study.study)
        assert len(inside.parts) >= 2
        assert os.path.normpath(path) == path
        assert max(map(len, Path(path).parts)) < 200
    assert len(set(files)) == len(files)


@pytest.mark.parametrize("name", NASTY)
@pytest.mark.parametrize("key", ["study", "model", "task", "hand"])
def test_every_nasty_name_is_refused_but_the_one_that_is_only_odd(key, name):
    assert (accepted(named(**{key: name})) is None) == (name != "con")


@FEW
@given(st.lists(st.sampled_from(["a", "b", "a-b", "b-a", "a-b-a"]), min_size=6, max_size=6))
def test_no_two_cells_share_a_log(names):
    models, tasks, hands = (dict.fromkeys(names[place : place + 2]) for place in (0, 2, 4))
    values = named()
    values["models"] = {name: {"source": "path:x"} for name in models}
    values["tasks"] = {name: {"facts": "sports", "forget": 4} for name in tasks}
    values |= {"localizations": list(hands), "masking": {}}
    values["localize"] = {"layers": {name: {"mlps": [1]} for name in hands}}
    if (study := accepted(values)) is not None:
        for names in ((models, tasks), (models, tasks, hands, ["inject"]), (models, tasks, study.attacks, hands)):
            logs = ["-".join(cell) for cell in product(*names)]
            assert len(set(logs)) == len(logs)


@FEW
@given(HOSTILE)
def test_a_hubs_address_stays_below_its_folder(part):
    for address in (f"{part}/name", f"owner/{part}"):
        values = named()
        values["models"]["tiny"]["source"] = f"hub:{address}@{COMMIT}"
        if accepted(values) is not None:
            assert re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", address, re.ASCII)
    for source in (f"hub:{part}/name@{COMMIT}:train", f"hub:o/{part}@{COMMIT}:train", f"hub:o/n@{COMMIT}:{part}"):
        if HUB_ROWS.fullmatch(source):
            path = local(source)
            assert os.path.normpath(path) == path
            assert Path(path).is_relative_to("data/hub")
            assert shlex.quote(path) == path


@FEW
@given(HOSTILE)
def test_a_package_is_a_name_and_nothing_else(name):
    values = named()
    values["models"]["tiny"]["source"] = f"package:{name}"
    if accepted(values) is not None:
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name)


@FEW
@given(HOSTILE)
def test_free_text_reaches_a_job_as_one_word(text):
    """Answers, paths and folders may be any text: they stand in JSON that a rule hands on quoted."""
    values = named()
    values["models"]["tiny"]["source"] = f"path:{text}"
    values["tasks"]["athletes"] |= {"new_answer": text}
    study = accepted(values)
    if study is None:
        return
    for given_text in (study.models["tiny"].model_dump_json(), study.tasks["athletes"].model_dump_json()):
        line = QuotedFormatter().format(
            "mechunlearn fetch --settings {params:q} >{log:q}", params=given_text, log="a log"
        )
        words = shlex.split(line)
        assert words == ["mechunlearn", "fetch", "--settings", given_text, ">a log"]
        json.loads(words[3])


NUMBERS = {"params.held_out", "params.gate", "params.start"}  # of the configuration, which checks that they are


def test_every_value_in_a_rules_command_is_quoted_or_a_number():
    commands = 0
    for file in sorted((ROOT / "rules").glob("*.smk")):
        for block in re.findall(r'shell:\n +"""(.*?)"""', file.read_text(), re.DOTALL):
            commands += 1
            for name, quoted in re.findall(r"\{([\w.\[\]]+)(:q)?\}", block):
                assert quoted or name in NUMBERS, (file.name, name)
            assert block.count("{") == len(re.findall(r"\{[\w.\[\]]+(?::q)?\}", block)), file.name
        assert "run:" not in file.read_text()
    assert commands >= 15
    study = validate_study(named())
    assert (type(study.evaluate.texts), type(study.evaluate.gate)) == (int, float)
    starts = layout.sweep_start(study, layout.Cell("tiny", "athletes", "mine", "inject"))
    assert {type(value) for value in starts.values()} == {float}
