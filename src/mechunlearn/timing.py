"""How long each phase took and what it needed, from Snakemake's benchmark files. Torch-free.

phases         one row per phase: jobs, seconds, peak memory
edits          seconds that each edit of a model and task took
closing_lines  what the workflow prints when it is done
"""

from itertools import product
from pathlib import Path

import pandas as pd

from mechunlearn.config import Study
from mechunlearn.study import RESULTS

ORDER = ["fetch", "localize", "edit", "evaluate", "attack", "mask", "figures", "report", "sweep"]


def phases(study: Study) -> pd.DataFrame:
    """Phase, jobs, seconds of all its jobs together, and the peak memory of its largest job in MB."""
    files = sorted((RESULTS / study.study / "timing").glob("*/*.tsv"))
    files += [Path("models") / model / "timing.tsv" for model in study.models]
    rows = []
    for file in files:
        if file.is_file():
            table = pd.read_csv(file, sep="\t", na_values="-")
            phase = file.parent.name if file.parent.name in ORDER else "fetch"
            rows.append({"phase": phase, "seconds": table["s"].sum(), "memory": table["max_rss"].max()})
    table = pd.DataFrame(rows, columns=["phase", "seconds", "memory"])
    grouped = table.groupby("phase").agg(jobs=("seconds", "size"), seconds=("seconds", "sum"), memory=("memory", "max"))
    return grouped.reindex([phase for phase in ORDER if phase in grouped.index]).reset_index()


def edits(study: Study, model: str, task: str) -> dict[tuple[str, str], float]:
    """(localization, objective) -> seconds of its edits, all seeds together and the start of the job included."""
    folder, found = RESULTS / study.study / "timing" / "edit", {}
    for cell in product(study.localizations, study.objectives):
        file = folder / f"{model}-{task}-{'-'.join(cell)}.tsv"
        if file.is_file():
            found[cell] = float(pd.read_csv(file, sep="\t", na_values="-")["s"].sum())
    return found


def closing_lines(study: Study) -> str:
    """Where the report is, and how long each phase took."""
    table = phases(study)
    width = max([len(phase) for phase in table.phase], default=0)
    lines = [
        f"  {row['phase']:<{width}}  {row['jobs']:>3} jobs  {row['seconds']:>6.0f} s of computing  "
        f"at most {row['memory'] / 1024:.1f} GB a job"
        for row in table.to_dict("records")
    ]
    report, metrics = (RESULTS / study.study / name for name in ("report.html", "metrics.csv"))
    ready = report.exists() and metrics.exists() and report.stat().st_mtime >= metrics.stat().st_mtime
    return "\n".join(
        [*lines, f"Report: {report}" if ready else "The report is not up to date; target `report` makes it."]
    )
