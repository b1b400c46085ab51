"""Two runs of a study side by side: what changed from the first to the second, with intervals. Torch-free.

read      a results folder, or one of a git revision -> Results
compare   two Results -> one row per number that both have: first, second, difference, interval
show      print what changed

Where measurement rows of both are at hand, a difference is paired by fact: the mean, over facts that both measured, of
second minus first, with the bootstrap interval of metrics.csv. Where only metrics.csv is, or no fact is in both, the
two intervals are joined as if the runs were independent (Zou and Donner 2008, Statistics in Medicine 27, 1693-1702):
wider than a paired interval where the same facts lie behind both. `paired` says which it is.
"""

import logging
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from mechunlearn.artifacts import read_measurements, read_table
from mechunlearn.config import ReportSettings
from mechunlearn.errors import ArtifactError
from mechunlearn.facts.biographies import unit
from mechunlearn.metrics import COLUMNS, GROUP, NAMES, WAY, WORST, per_fact, ways, worst
from mechunlearn.stats import interval
from mechunlearn.study import BASE, MASKS, Cell, cell_of

PLACE = ["model", "task", "localization", "objective"]
KEY = [*PLACE, *GROUP, "metric"]
VALUES = ["first", "second", "difference", "low", "high", "n", "paired"]
COMPARED = [*KEY, *VALUES, "gate", "counts"]
PATTERNS = ("measurements", "attacks", MASKS)
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Results:
    """What a study measured.

    metrics   metrics.csv without its differences
    facts     every cell's values by fact, its attacks among them; empty where no measurement rows are at hand
    """

    name: str
    metrics: pd.DataFrame
    facts: dict[Cell, pd.DataFrame]


def read(name: str) -> Results:
    """Results of a folder, results/STUDY, or of that folder in a git revision, REVISION:results/STUDY.

    Of a revision git has metrics.csv, and DVC, in its cache or its remote, the measurement rows. Raises ArtifactError.
    """
    if Path(name).is_dir():
        return _folder(name, Path(name))
    revision, colon, inside = name.partition(":")
    if not (colon and revision and inside):
        raise ArtifactError(
            f"{name!r} is no folder; allowed: a folder of results such as results/default, or that of a git revision "
            "such as HEAD~1:results/default."
        )
    with tempfile.TemporaryDirectory() as scratch:
        _fetch(revision, inside.strip("/"), Path(scratch))
        return _folder(name, Path(scratch))


def _folder(name: str, folder: Path) -> Results:
    if not (folder / "metrics.csv").is_file():
        raise ArtifactError(
            f"{name!r} has no metrics.csv; allowed: the results of a study that has run to its metrics."
        )
    table = read_table(folder / "metrics.csv", COLUMNS)
    text = [*KEY, "against"]
    table[text] = table[text].fillna("").astype(str)
    parts: dict[Cell, list[pd.DataFrame]] = {}
    for path in sorted(path for kind in PATTERNS for path in folder.glob(f"*/*/{kind}/**/*.parquet")):
        if not path.stem.endswith("-weights"):
            parts.setdefault(replace(cell_of(path), attack=""), []).append(per_fact(read_measurements(path)))
    facts = {cell: pd.concat(tables, ignore_index=True) for cell, tables in parts.items()}
    return Results(name, table[table.against == ""], facts)


def _fetch(revision: str, inside: str, folder: Path) -> None:
    """Copy metrics.csv and the measurement rows of a revision, as far as they are at hand. Raises ArtifactError."""
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException
    from scmrepo.exceptions import SCMError

    try:
        files = DVCFileSystem(rev=revision)
        known = files.isdir(inside)
    except (DvcException, SCMError) as error:
        raise ArtifactError(
            f"{revision}:{inside} cannot be read: {str(error).rstrip('.')}; allowed: a commit, branch or tag of the "
            "git repository that one stands in."
        ) from None
    if not known:
        raise ArtifactError(f"{revision}:{inside}: the revision {revision} has no such folder.")
    if files.isfile(f"{inside}/metrics.csv"):
        files.get_file(f"{inside}/metrics.csv", str(folder / "metrics.csv"))
    try:
        for path in files.find(inside):
            below = Path(path).relative_to(Path("/") / inside if path.startswith("/") else inside)
            if below.suffix == ".parquet" and set(below.parts[2:3]) & set(PATTERNS):
                (folder / below).parent.mkdir(parents=True, exist_ok=True)
                files.get_file(path, str(folder / below))
    except Exception as error:  # a remote's own errors are of many kinds
        for path in folder.rglob("*.parquet"):
            path.unlink()
        log.warning(
            "%s: measurement rows are not at hand (%s); `dvc fetch --all-commits` may bring them. Differences are not "
            "paired.",
            revision,
            error,
        )


def compare(first: Results, second: Results, report: ReportSettings) -> pd.DataFrame:
    """Every number that both have, with the difference second minus first. Raises ArtifactError where there is none.

    A format counts where it counts in both. A worst case is over what both measured.
    """
    both = first.metrics.merge(second.metrics, on=KEY, suffixes=("_first", "_second"))
    both = both[~both.stage.isin([WORST, WAY])]
    if both.empty:
        raise ArtifactError(
            f"{first.name} and {second.name} have no number in common: the first has {_held(first)}, the second "
            f"{_held(second)}."
        )
    counts = both.counts_first.astype(bool) & both.counts_second.astype(bool)
    table = both[KEY].assign(
        gate=both[["gate_first", "gate_second"]].min(axis=1),
        counts=counts,
        **dict(zip(VALUES, _joined(both), strict=True)),
    )
    rows = [row for cell in first.facts if cell in second.facts for row in _paired(cell, first, second, report)]
    paired = pd.DataFrame(rows, columns=[*KEY, *VALUES])
    table = table.merge(paired, on=KEY, how="left", suffixes=("", " paired"))
    found = table["n paired"].notna()
    for column in VALUES:
        table[column] = table[f"{column} paired"].where(found, table[column])
    rows = _worst(first, second, both[~counts], report)
    cases = pd.DataFrame(rows, columns=[*KEY, *VALUES]).assign(gate=np.nan, counts=True)
    whole = pd.concat([table[[*KEY, *VALUES, "gate", "counts"]], cases]) if len(cases) else table
    whole = whole.astype({"n": int, "paired": bool, "counts": bool})
    return whole[COMPARED].sort_values(KEY, ignore_index=True)


def _joined(both: pd.DataFrame) -> Sequence[pd.Series]:
    """VALUES of rows with two values and their intervals, as of independent samples."""
    first, second = both.value_first, both.value_second
    difference = second - first
    down = np.hypot(second - both.low_second, both.high_first - first)
    up = np.hypot(both.high_second - second, first - both.low_first)
    n = both[["n_first", "n_second"]].min(axis=1)
    return first, second, difference, difference - down, difference + up, n, pd.Series(False, both.index)


def _paired(cell: Cell, first: Results, second: Results, report: ReportSettings) -> list[dict[str, object]]:
    """Differences of a cell over the facts that both measured, by stage, elicitation, role and metric."""
    facts = first.facts[cell].merge(second.facts[cell], on=[*GROUP, "fact"], suffixes=("", " second"))
    place, rows = {name: getattr(cell, name) for name in PLACE}, []
    for key, group in facts.groupby(GROUP):
        for name in NAMES:
            measured = group.dropna(subset=[name, f"{name} second"])
            pairs = measured[[name, f"{name} second"]].to_numpy(dtype=float)
            if len(pairs):
                units = measured.fact.map(unit).to_numpy(dtype=str)
                # No span: of equal results it should say that they are equal, not what other facts might have shown.
                values = interval(pairs[:, 1] - pairs[:, 0], report.bootstrap, report.confidence, None, units)
                found = (*pairs.mean(0), *values, len(np.unique(units)), True)
                rows.append(place | dict(zip(GROUP, key, strict=True)) | {"metric": name} | _named(found))
    return rows


def _named(values: Sequence[object]) -> dict[str, object]:
    return dict(zip(VALUES, values, strict=True))


def _worst(first: Results, second: Results, unusable: pd.DataFrame, report: ReportSettings) -> list[dict[str, object]]:
    """Worst cases over the formats and attacks of both; none where their facts differ or are not at hand."""
    rows = []
    for cell in first.facts:
        if cell not in second.facts or (cell.localization != BASE and not cell.objective):
            continue
        here = (unusable.model == cell.model) & (unusable.task == cell.task)
        skip = list(unusable[here].elicitation.unique())
        one, other = (ways(results.facts[cell], skip) for results in (first, second))
        shared = [way for way in one.columns if way in other.columns]
        one, other = one[shared].dropna(), other[shared].dropna()
        found = worst(other, one, report) if shared else {}
        if found:
            common = one.index.intersection(other.index)
            means = [float(table.loc[common].mean().max()) for table in (one, other)]
            values = (*means, found["value"], found["low"], found["high"], found["n"], True)
            place = {name: getattr(cell, name) for name in PLACE}
            where = {name: found[name] for name in (*GROUP, "metric")}
            rows.append(place | where | _named(values))
    return rows


def _held(results: Results) -> str:
    """What a study is of, to say why it cannot be compared."""
    places = results.metrics[["model", "task"]].drop_duplicates()
    cells = ", ".join(f"{model}/{task}" for model, task in places.itertuples(index=False))
    return (
        f"{cells or 'no cell'} with the localizations {', '.join(sorted(set(results.metrics.localization) - {BASE}))}"
    )


def show(table: pd.DataFrame, first: Results, second: Results, names: Sequence[str], every: bool) -> None:
    """Print a table a model and task: differences of the metrics given, all or those whose interval leaves out zero.

    Raises ArtifactError where there is no such metric.
    """
    console, known = Console(), list(table.metric.unique())
    if wrong := [name for name in names if name not in known]:
        raise ArtifactError(f"--metric is {wrong[0]!r}; allowed: {', '.join(known)}.")
    counted = table[table.counts & table.metric.isin(names)]
    differs = counted[(counted.low > 0) | (counted.high < 0)]
    for (model, task), rows in (counted if every else differs).groupby(["model", "task"]):
        shown = Table(
            *("edit", "stage", "format", "role", "metric", "first", "second", "second - first", "n", "paired"),
            title=f"{model}, {task}: {first.name} (first) and {second.name} (second)",
        )
        for row in rows.to_dict("records"):
            change = f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
            numbers = (f"{row['first']:.3f}", f"{row['second']:.3f}", change, str(row["n"]))
            edit = f"{row['localization']} {row['objective']}".strip()
            shown.add_row(
                edit,
                row["stage"],
                row["elicitation"],
                row["role"],
                row["metric"],
                *numbers,
                "yes" if row["paired"] else "no",
            )
        console.print(shown)
    alone = [
        f"{missing} only in {name}"
        for name, missing in zip((first.name, second.name), _alone(first, second), strict=True)
        if missing
    ]
    console.print(
        f"{len(differs)} of {len(counted)} differences have an interval without zero; about "
        f"{math.ceil(0.05 * len(counted))} would by chance alone, at 95%. "
        f"{int(counted.paired.sum())} are paired by fact." + (f" Not compared: {', '.join(alone)}." if alone else "")
    )


def _alone(first: Results, second: Results) -> tuple[int, int]:
    """How many numbers only the first has, and only the second."""
    keys = [
        set(map(tuple, results.metrics[KEY][~results.metrics.stage.isin([WORST, WAY])].to_numpy()))
        for results in (first, second)
    ]
    return len(keys[0] - keys[1]), len(keys[1] - keys[0])
