"""Localizations against attacks: whose edits bring back least of what was forgotten. Torch-free.

leaderboard   metrics -> a row an edit, the most robust first
bounds        a column's value and interval, from the rows of its stage
latex         the same for a paper

An edit is as robust as its worst case (see mechunlearn.metrics); any localization of a study is ranked, one of a user's
own too. Columns `edited` and `worst`, and one by the stage of each attack at its full strength, hold the probability of
the true answer of forgotten facts, after the edit and under attacks in the training prompt or the attack's own format;
`kept` that of facts that should stay. Each has `..._low` and `..._high`, its interval.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from mechunlearn.latex import escaped, tabular
from mechunlearn.metrics import WAY, WORST
from mechunlearn.study import BASE

PLACE = ["model", "task", "objective"]
NAMES = [*PLACE, "rank", "localization", "n", "way"]
BOUNDS = ("", "_low", "_high")
PROMPT = "completion"  # read where a stage was measured in several formats


def leaderboard(metrics: pd.DataFrame) -> pd.DataFrame:
    """One row an edit: NAMES (`n` facts; `way` brought the worst case), then the columns above; missing ones nan."""
    asked = metrics[(metrics.metric == "p_true") & (metrics.against == "") & (metrics.objective != "")]
    kept = asked[(asked.role == "maintain-test") & (asked.stage == "edited") & (asked.elicitation == PROMPT)]
    rows, columns = [], [*NAMES]
    for place, edits in asked[asked.stage.isin([WORST, WAY])].groupby(PLACE, sort=False):
        worst = edits[edits.stage == WORST].sort_values(["value", "localization"])
        names = ["edited", *attacks(edits)]
        columns += [name for name in names if name not in columns]
        for rank, found in enumerate(worst.itertuples(index=False), 1):
            own = edits[edits.localization == found.localization]
            beside = kept[(kept[PLACE] == place).all(axis=1) & (kept.localization == found.localization)]
            row: dict[str, object] = dict(zip(PLACE, place, strict=True))
            row |= {"rank": rank, "localization": found.localization, "n": found.n, "way": found.elicitation}
            for name in (*names, WORST):
                row |= bounds(name, own)
            rows.append({**row, **_bounds("kept", beside)})
    shown = [*columns[len(NAMES) :], WORST, "kept"]
    return pd.DataFrame(rows, columns=[*NAMES, *(name + bound for name in shown for bound in BOUNDS)])


def attacks(rows: pd.DataFrame) -> list[str]:
    """The stages of the attacks among ways of getting at facts, sorted."""
    found = set(rows.elicitation[rows.stage == WAY].str.partition(" ")[0])
    return sorted(found - {"edited", BASE})


def stages(table: pd.DataFrame) -> list[str]:
    """The columns that hold a probability, in their order."""
    return [str(name).removesuffix("_low") for name in table if str(name).endswith("_low")]


def latex(table: pd.DataFrame) -> str:
    """A table a model, task and objective; empty where nothing was edited."""
    parts = []
    for place, edits in table.groupby(PLACE, sort=False) if len(table) else ():
        shown = [name for name in stages(edits) if edits[name].notna().any()]
        body = [
            [escaped(row["localization"]), *(_cell(row, name) for name in shown)] for row in edits.to_dict("records")
        ]
        model, task, objective = map(escaped, place)
        caption = f"True answer of forgotten facts, most robust edit first: {model}, {task}, {objective}."
        parts.append(tabular(["Localization", *map(escaped, shown)], body, caption, 1))
    return "\n".join(parts)


def bounds(name: str, rows: pd.DataFrame) -> dict[str, object]:
    """Value and interval of a column, from an edit's rows of its worst case and of the ways that lead there."""
    if name == WORST:
        return _bounds(name, rows[rows.stage == WORST])
    ways = rows[rows.stage == WAY]
    parts = ways.elicitation.str.partition(" ")
    return _bounds(name, ways.assign(elicitation=parts[2])[parts[0] == name])


def _bounds(name: str, rows: pd.DataFrame) -> dict[str, object]:
    """Of the training prompt's row, or of the only other one."""
    if rows.empty:
        return {}
    row = rows.sort_values("elicitation", key=lambda names: names != PROMPT, kind="stable").iloc[0]
    return dict(zip((name + bound for bound in BOUNDS), row[["value", "low", "high"]], strict=True))


def _cell(row: Mapping[Any, Any], name: str) -> str:
    if pd.isna(row[name]):
        return "--"
    return f"{row[name]:.2f} [{row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f}]"
