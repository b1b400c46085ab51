"""`snakemake --report`: every figure has a chapter of the paper, and a caption of its own."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from jinja2 import StrictUndefined, Template

from mechunlearn import registry

ROOT = Path(__file__).parents[2]
COMMON = (ROOT / "rules/common.smk").read_text()
ONCE = ["planted", "scaling", "sweep"]  # figures of a whole study, drawn by the rules of these names


def test_every_figure_has_a_chapter():
    block = re.search(r"^SECTIONS = \{(.*?)^\}", COMMON, re.MULTILINE | re.DOTALL)[1]
    assert sorted(re.findall(r'^    "([\w-]+)":', block, re.MULTILINE)) == sorted([*registry.methods("figure"), *ONCE])


@pytest.mark.parametrize("name", [*registry.methods("figure"), *ONCE])
def test_every_figure_has_a_caption(name):
    wildcards = {} if name in ONCE else {"figure": name, "model": "tiny", "task": "athletes"}
    job = SimpleNamespace(wildcards=Wildcards(wildcards), rule=name if name in ONCE else "figure")
    template = Template((ROOT / "report/captions/figure.rst").read_text(), undefined=StrictUndefined)
    text = template.render(snakemake=job).strip()
    assert len(text) > 80
    assert text.endswith("Model tiny, task athletes." if wildcards else ".")


class Wildcards(dict):
    """As Snakemake hands them to a caption: also by attribute."""

    __getattr__ = dict.__getitem__
