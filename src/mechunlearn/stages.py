"""dvc.yaml, written from a study: one stage a phase, each with its files of every model and task. Torch-free.

A stage calls its phase of the workflow, and Snakemake decides what inside the phase has to run; so every stage depends
on all sources and the whole configuration, and a run with nothing to do takes seconds. `persist` keeps DVC from
deleting results that Snakemake would then compute again; `cache: false` leaves small ones to git.
"""

from typing import Any

import yaml

from mechunlearn.config import Study
from mechunlearn.errors import ConfigError
from mechunlearn.study import MASKS, RESULTS, figure_files, home, pairs, sizes

SOURCES = ["Snakefile", "rules", "src/mechunlearn", "config/config.yaml"]
HEAD = """\
# DVC's view of the default study, written from config/config.yaml by `mechunlearn schema`: change it there.
# Why its stages are as they are is told in src/mechunlearn/stages.py.
"""


def text(study: Study) -> str:
    """The whole of dvc.yaml for config/config.yaml. Raises ConfigError for what a study of its kind never holds."""
    return HEAD + yaml.dump(_pipeline(study), Dumper=_Dumper, sort_keys=False, width=200)


class _Options(dict[str, bool]):
    """How DVC treats one file; written on one line."""


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(
    _Options, lambda dumper, options: dumper.represent_mapping(dumper.DEFAULT_MAPPING_TAG, options, True)
)


def _pipeline(study: Study) -> dict[str, Any]:
    for name, model in study.models.items():
        if model.base:
            raise ConfigError(
                f"models.{name}.source is {model.source!r}: the default study is versioned by DVC, and its models must "
                "be of their own, from package:, hub: or path:."
            )
    folder, swept = RESULTS / study.study, [study.swept] if study.swept else []
    homes = [home(study.study, *pair) for pair in pairs(study)]

    def each(*names: str) -> list[str]:
        return [str(place / name) for name in names for place in homes]

    def stage(phase: str, cmd: str, deps: list[str], outs: list[str], small: list[str] | None = None) -> dict[str, Any]:
        """A phase by its target, with its own files and its timing; small files are kept in git."""
        kept = [{path: _Options(persist=True)} for path in [*outs, str(folder / "timing" / phase)]]
        kept += [{path: _Options(persist=True, cache=False)} for path in small or []]
        return {"cmd": f"mechunlearn run {cmd}", "deps": [*deps, *SOURCES, *swept], "outs": kept}

    facts, selection, edits = each("facts.parquet"), each("selection"), each("edits")
    models = [f"models/{name}/model.json" for name in study.models]
    rows, drawn = ["measurements", "attacks"], [str(folder / "figures")] if sizes(study) else []
    passages = [str(folder / "passages.jsonl")] if study.text.path else []
    stages = {
        "fetch": stage(
            "fetch",
            "fetch_all",
            ["data"],
            [*models, *(f"models/{name}/timing.tsv" for name in study.models), *passages, *facts],
        ),
        "localize": stage("localize", "localize_all", [*models, *facts], [*each("scores"), *selection]),
        "edit": stage("edit", "edit_all", ["data", *facts, *selection], edits),
        "evaluate": stage("evaluate", "evaluate_all", ["data", *facts, *edits], each("measurements")),
        "attack": stage("attack", "attack_all", ["data", *facts, *edits], each("attacks")),
    }
    if study.masking.localizations:
        rows.append(MASKS)
        stages["mask"] = stage("mask", "mask_all", ["data", *facts, *selection], each(MASKS))
    metrics, pictures = str(folder / "metrics.csv"), [*each("figures"), *drawn]
    stages["figures"] = stage(
        "figures", "figures", [*each(*rows), *each("scores"), *selection], [], [metrics, *pictures]
    ) | {"metrics": [{str(folder / "metrics.json"): _Options(persist=True, cache=False)}]}
    stages["report"] = stage(
        "report",
        "report",
        [metrics, *pictures, "report"],
        [str(folder / "report.html"), str(folder / "report.ipynb"), ".snakemake/metadata"],
        [str(folder / name) for name in ("claims.json", "leaderboard.csv", "leaderboard.tex")],
    )
    shown = [name.removesuffix(".svg") + ".png" for name in figure_files(study)]
    return {"stages": stages, "params": ["config/config.yaml"], "plots": shown}
