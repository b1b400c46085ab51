"""Which mechanism do masked weights belong to: looking a fact up, or bringing it out? Torch-free.

PARTS       the parts that are told apart
largest     with how many weights masked that is told
mechanisms  by localization: how many weights of each part it holds, and how many of them are masked
table       the same for people
"""

from pathlib import Path

import pandas as pd

from mechunlearn.artifacts import MASK_COLUMNS, read_selection, read_table
from mechunlearn.figures import data, html, words
from mechunlearn.localize.extraction import extracting

PARTS = {
    "lookup": "MLPs of fact lookup",
    "extraction-mlps": "MLPs that bring the answer out",
    "extraction-heads": "heads that bring the answer out",
    "other": "neither",
}


def mechanisms(results: Path, metrics: pd.DataFrame, extraction: int) -> pd.DataFrame:
    """Rows of localization, part, masked and held: weights at the largest size that all reached, averaged over seeds.

    `extraction` components extract the answer, those with the largest direct effects; of a head its queries and
    outputs count. An MLP that looks facts up and extracts counts as both, as in the paper's Tables 2 and 3. Raises
    ArtifactError.
    """
    lookup, scores = results / "selection/fact-lookup.json", data.scores(results, "path-patching")
    looking = {component.layer for component in read_selection(lookup).components} if lookup.is_file() else set()
    found = extracting(scores, extraction, heads_only=False) if scores is not None else None
    rows, size = [], largest(results, metrics)
    for name in data.localizations(metrics):
        path = results / "masks" / f"{name}-weights.parquet"
        if not path.is_file():
            continue
        table = read_table(path, MASK_COLUMNS)
        table = table[table["size"] == size].groupby(["layer", "kind", "head"], as_index=False).mean()
        heads = pd.Series(list(zip(table.layer, table["head"], strict=True)), index=table.index, dtype=object)
        mlp = table.kind == "mlp"
        member = {
            "lookup": mlp & table.layer.isin(looking),
            "extraction-mlps": mlp & table.layer.isin(found.mlps if found else ()),
            "extraction-heads": ~mlp & heads.isin(found.heads if found else ()),
        }
        member["other"] = ~(member["lookup"] | member["extraction-mlps"] | member["extraction-heads"])
        for part, inside in member.items():
            rows.append((name, part, table.weights[inside].sum(), table.of[inside].sum()))
    return pd.DataFrame(rows, columns=["localization", "part", "masked", "held"])


def largest(results: Path, metrics: pd.DataFrame) -> int:
    """How many weights every localization could mask; 0 where nothing is masked. Raises ArtifactError."""
    paths = [results / "masks" / f"{name}-weights.parquet" for name in data.localizations(metrics)]
    tables = [read_table(path, MASK_COLUMNS) for path in paths if path.is_file()]
    return min((int(table["size"].max()) for table in tables if len(table)), default=0)


def table(results: Path, metrics: pd.DataFrame, extraction: int) -> str:
    """Masked of held weights, a row a localization; empty where nothing is masked."""
    found = mechanisms(results, metrics, extraction)
    if found.empty:
        return ""
    rows = []
    for name, parts in found.groupby("localization", sort=False):
        cells = [html.safe(words.localization(str(name)))]
        for masked, held in zip(parts.masked.astype(int), parts.held.astype(int), strict=True):
            share = f" ({masked / held:.2%})" if held else ""
            cells.append(f"{words.parameters(masked)} of {words.parameters(held)}{share}")
        rows.append(cells)
    return html.table(["Masked weights", *PARTS.values()], [("", rows)])
