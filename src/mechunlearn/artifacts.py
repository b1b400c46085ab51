"""Every file a study writes: typed reading, atomic writing, provenance. Knows facts and rows, nothing of torch.

facts          facts.parquet: facts with roles, and what the base model gave their answers
scores         scores/<localizer>.parquet: one effect per fact and component (or per layer and probe)
planted        planted.csv: the rank that each localizer gives the layer in which facts were planted
selection      selection/<localization>.json: the components a localization edits
masks          masks/<localization>-weights.parquet: how many weights of each component are masked at each size
measurements   one row per seed, stage, elicitation, order, role and fact
json           manifests, histories, claims

A reader that meets a damaged or foreign file raises ArtifactError naming it; a writer either leaves the whole
new file or what stood there before.
"""

import glob
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from mechunlearn.errors import ArtifactError
from mechunlearn.facts import Fact

FACT_COLUMNS = [
    "id", "subject", "relation", "answer", "prompt", "options", "new_answer", "role", "p_answer", "rank",
]  # fmt: skip
FURTHER = ("paraphrases", "neighborhood", "attribute")  # of facts, where some have them
SCORE_COLUMNS = ["seed", "fact", "layer", "kind", "head", "position", "effect"]
PLANTED_COLUMNS = ["model", "task", "layer", "localizer", "rank", "low", "high", "layers", "first", "n"]
MASK_COLUMNS = ["seed", "size", "layer", "kind", "head", "weights", "of"]
BENCHMARK = "benchmark"  # the role of a benchmark's items: `elicitation` is its name and `fact` an item
MEASUREMENT_COLUMNS = {
    "seed": "int64",
    "stage": "str",
    "elicitation": "str",
    "order": "int64",
    "role": "str",
    "fact": "str",
    "p_true": "float64",  # probability of the true answer, over the full vocabulary
    "p_new": "float64",  # of the new answer; missing where the fact has none
    "p_options": "float64",  # of all options together
    "rank": "int64",  # of the true answer in the full vocabulary; 1 is first
    "choice": "str",  # the likeliest option: true, new or other
    "argmax": "str",  # the likeliest token of the full vocabulary
    "nll": "float64",  # text only: mean cross-entropy a token, nats
    "kl": "float64",  # text only: mean KL(base || edited) a token, nats; missing for the base
}
OPTIONAL_COLUMNS = {  # only in tables that have such a value
    "similarity": "float64",  # of biographies: mean cosine of hidden states before and after an edit
    "accuracy": "float64",  # of text in a sweep's trial: the share of tokens that come first among all
}


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; renamed onto it only if the block ends well.

    Raises ArtifactError, naming the path, where the file system refuses (no permission, no space).
    """
    path = Path(path)
    temporary = path.parent / f".{path.name}.{owner()}.part"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent, f".{path.name}.", ".part")
        temporary.touch()
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def owner() -> str:
    """Names this process in a temporary file's name: machine and process id."""
    return f"{platform.node()}-{os.getpid()}"


def sweep(folder: Path, begin: str, end: str = "") -> None:
    """Remove what killed processes of this machine left unfinished: names `begin` + owner() + `end`."""
    for path in folder.glob(f"{glob.escape(begin)}{glob.escape(platform.node())}-*{end}"):
        process = path.name.removesuffix(end).rsplit("-", 1)[1]
        try:
            os.kill(int(process), 0)
        except ProcessLookupError:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        except PermissionError:
            continue


def sha256(path: str | Path) -> str:
    """Hex digest of a file. Raises ArtifactError where it is missing."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}.") from error


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text as it is."""
    with atomic(path) as temporary:
        temporary.write_bytes(text.encode())


def write_json(path: str | Path, value: Any) -> None:
    """Write indented JSON with sorted keys."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read JSON. Raises ArtifactError."""
    return _read(path, lambda file: json.loads(file.read_text(encoding="utf-8")))


def write_table(path: str | Path, table: pd.DataFrame) -> None:
    """Write CSV (for people, floats to 6 decimals) or parquet (for the next phase), by the file's ending."""
    with atomic(path) as temporary:
        if str(path).endswith(".csv"):
            table.to_csv(temporary, index=False, lineterminator="\n", float_format="%.6f")
        else:
            table.to_parquet(temporary, index=False)


def _read(path: str | Path, reader: Callable[[Path], Any]) -> Any:
    try:
        return reader(Path(path))
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing; the phase that writes it has not run.") from None
    except IsADirectoryError:
        raise ArtifactError(f"{path} is a folder; allowed: a file that a phase wrote.") from None
    except Exception as error:
        raise ArtifactError(f"{path} is damaged ({type(error).__name__}: {error}); delete it and run again.") from error


def read_table(path: str | Path, columns: Iterable[str] = ()) -> pd.DataFrame:
    """Read CSV or parquet and check that it has the columns. Raises ArtifactError."""
    table: pd.DataFrame = _read(path, pd.read_csv if str(path).endswith(".csv") else pd.read_parquet)
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise ArtifactError(f"{path} has no column {', '.join(missing)}; it was not written by this version.")
    return table


# facts ----------------------------------------------------------------------------------------------------------


def write_facts(path: str | Path, facts: Sequence[Fact], p_answer: Sequence[float], rank: Sequence[int]) -> None:
    """Write facts with their roles beside the base model's P(answer) and the answer's rank."""
    table = pd.DataFrame([asdict(fact) for fact in facts])
    further = [name for name in ("block", *FURTHER) if any(getattr(fact, name) for fact in facts)]
    write_table(path, table.assign(p_answer=list(p_answer), rank=list(rank))[[*FACT_COLUMNS, *further]])


def read_facts(path: str | Path, *roles: str) -> list[Fact]:
    """Facts in file order, all or those of the roles given."""
    table = read_table(path, FACT_COLUMNS)
    for name in {"options", *FURTHER} & set(table):
        table[name] = table[name].map(tuple)
    rows = table.drop(columns=["p_answer", "rank"]).to_dict("records")
    facts = [Fact(**{str(key): value for key, value in row.items()}) for row in rows]
    return [fact for fact in facts if not roles or fact.role in roles]


# scores and selections ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Component:
    """What an edit may train: a layer's attention block, one head of it, its MLP, or the MLP's first `neurons`."""

    layer: int
    kind: str
    neurons: int | None = None
    head: int | None = None


@dataclass(frozen=True)
class Group:
    """Facts, by id, that are edited together, and what that may train; `block` as in Fact."""

    facts: list[str]
    components: list[Component]
    parameters: int
    block: int = 0


@dataclass(frozen=True)
class Selection:
    """The components a localization edits, in the order of their rank, and how it came to them.

    groups   where facts have selections of their own: the groups in which they are edited, one after another;
             `components` is then all that any of them trains
    """

    localization: str
    components: list[Component]
    parameters: int
    budget: int
    total: int
    details: dict[str, Any] = field(default_factory=dict)
    groups: list[Group] = field(default_factory=list)


def write_selection(path: str | Path, selection: Selection) -> None:
    """Write a selection as JSON; groups only where there are some."""
    write_json(path, {key: value for key, value in asdict(selection).items() if key != "groups" or value})


def read_selection(path: str | Path) -> Selection:
    """Read a selection. Raises ArtifactError."""
    values = read_json(path)
    try:
        components = _components(values)
        groups = [Group(components=_components(group), **group) for group in values.pop("groups", [])]
        return Selection(components=components, groups=groups, **values)
    except (TypeError, KeyError, AttributeError) as error:
        raise ArtifactError(f"{path} is not a selection ({error}); delete it and run again.") from error


def _components(values: dict[str, Any]) -> list[Component]:
    return [Component(**component) for component in values.pop("components")]


# measurements ---------------------------------------------------------------------------------------------------


def measurement_table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows -> a table with every measurement column that is not optional, sorted: equal rows give equal bytes."""
    more = {name: kind for name, kind in OPTIONAL_COLUMNS.items() if any(pd.notna(row.get(name)) for row in rows)}
    columns = MEASUREMENT_COLUMNS | more
    table = pd.DataFrame(rows, columns=list(columns)).astype(columns)
    return table.sort_values(["seed", "stage", "elicitation", "order", "role", "fact"], ignore_index=True)


def read_measurements(path: str | Path) -> pd.DataFrame:
    """Read measurement rows. Raises ArtifactError."""
    return read_table(path, MEASUREMENT_COLUMNS)
