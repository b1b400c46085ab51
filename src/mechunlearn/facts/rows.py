"""Rows of published datasets, from a file or from a Hugging Face repository at a pinned commit.

rows       a source -> where each row stands, and the row
local      where a source's rows lie in a study: its file, or the one that `download` writes
download   a hub's rows -> one Parquet file
"""

import csv
import io
import json
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mechunlearn.config import HUB_ROWS, ROWS
from mechunlearn.errors import FactError, SourceError
from mechunlearn.facts import read_text

Rows = Iterator[tuple[str, dict[str, Any]]]


def rows(source: str | Path, stream: bool = False) -> Rows:
    """Each row of a source, after the words that an error names it by.

    A source is a file, CSV, Parquet, a JSON list or JSONL (with .zst: compressed), or
    `hub:OWNER/NAME@REVISION:SPLIT`, which `stream` reads only as far as the caller does. Raises FactError for a
    file that cannot be read as what its ending says, SourceError for a hub that cannot be reached.
    """
    if str(source).startswith("hub:"):
        return _from_hub(str(source), stream)
    ending = next((ending for ending in ROWS if str(source).endswith(ending)), None)
    if ending is None:
        raise FactError(f"{source}: the ending is {Path(source).suffix!r}; allowed: {', '.join(ROWS)}.")
    if not Path(source).is_file():
        raise FactError(f"{source} cannot be read: there is no such file.")
    return {".csv": _csv, ".parquet": _parquet, ".json": _json}.get(ending, _jsonl)(Path(source))


def local(source: str) -> str:
    """The path of a source's rows, relative to the folder of the study."""
    match = HUB_ROWS.fullmatch(source)
    return f"data/hub/{'/'.join(match.groups())}.parquet" if match else source


def download(source: str, out: Path) -> int:
    """Write a hub's rows to a Parquet file; returns how many. Raises SourceError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = [row for _, row in _from_hub(source, stream=False)]
    pq.write_table(pa.Table.from_pylist(found), out)
    return len(found)


def _from_hub(source: str, stream: bool) -> Rows:
    match = HUB_ROWS.fullmatch(source)
    if match is None:
        raise SourceError(f"{source!r} is no source; allowed: `hub:OWNER/NAME@REVISION:SPLIT`, 40 digits a revision.")
    import datasets  # only here: it is slow to import

    repository, revision, split = match.groups()
    try:
        found = datasets.load_dataset(repository, revision=revision, split=split, streaming=stream)
        yield from _numbered(source, found, 1)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise SourceError(
            f"{source} cannot be read here ({type(error).__name__}: {str(error).partition(chr(10))[0]}): on a machine "
            f"with a network run `hf download {repository} --repo-type dataset --revision {revision} --local-dir "
            "FOLDER`, bring FOLDER here and give its file instead (in a study, as the `path` of its task or text)."
        ) from error


def _csv(path: Path) -> Rows:
    with io.StringIO(read_text(path), newline="") as file:
        table = csv.DictReader(file)
        try:
            for where, row in _numbered(path, table, 2):
                if None in row or None in row.values():
                    raise FactError(f"{where}: needs {len(table.fieldnames or [])} cells, as many as the header has.")
                yield where, row
        except csv.Error as error:
            raise FactError(f"{path} is not CSV after line {table.line_num} ({error}).") from None


def _parquet(path: Path) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        found = pq.read_table(path).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise FactError(f"{path} is not a Parquet file ({str(error).partition(chr(10))[0]}).") from None
    yield from _numbered(path, found, 1)


def _json(path: Path) -> Rows:
    try:
        found = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise FactError(f"{path} is not JSON ({error}).") from None
    if not isinstance(found, list):
        raise FactError(f"{path} holds one {type(found).__name__}; allowed: a list of objects.")
    yield from _numbered(path, found, 1)


def _jsonl(path: Path) -> Rows:
    """Line by line, so that of a large file only the beginning need be read."""
    import pyarrow as pa

    try:
        with pa.input_stream(str(path), compression="detect") as raw, io.TextIOWrapper(raw, encoding="utf-8") as lines:
            yield from _numbered(path, (json.loads(line) for line in lines if line.strip()), 1)
    except (OSError, ValueError, RecursionError) as error:  # ValueError: not JSON, not UTF-8
        raise FactError(f"{path} is not JSONL ({error}).") from None


def _numbered(source: str | Path, found: Iterable[Any], start: int) -> Rows:
    for number, row in enumerate(found, start=start):
        where = f"{source}, row {number}"
        if not isinstance(row, Mapping):
            raise FactError(f"{where}: is {reprlib.repr(row)}; allowed: an object with named fields.")
        yield where, dict(row)
