"""Facts of your own: any subject, prompt and answers, from a CSV or JSONL file (docs/data.md has the format).

read            a file -> facts; every mistake in it is reported at once
Row             what a row may say
EXAMPLE         true facts of two relations
example         the text of a file to start from
"""

import csv
import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NoReturn

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from mechunlearn.errors import FactError
from mechunlearn.facts import Fact, read_text

LINE = "text on one line, without spaces around it"
SHOWN = 20  # how many mistakes are spelled out


def _one_place(prompt: str) -> str:
    if prompt.count("{}") != 1 or prompt != prompt.rstrip():
        raise ValueError
    return prompt


Line = Annotated[str, Field(pattern=r"^\S(.*\S)?$")]
Records = dict[int, dict[str, Any]]  # row number -> the fields that are not empty
Mistakes = list[tuple[int, str]]


class Row(BaseModel):
    """One fact as a user writes it; a field's description is what an error says is allowed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    subject: Line = Field(description=LINE)
    prompt: Annotated[str, AfterValidator(_one_place)] = Field(
        description="text with exactly one {} where the subject stands and no space at its end "
        "(the answer brings its own)"
    )
    answer: Line = Field(description=LINE)
    id: Line = Field(default="", description=LINE)
    relation: Line = Field(default="", description=LINE)
    alternatives: tuple[Line, ...] = Field(
        default=(), description="other answers, in CSV with ; between them, in JSONL as a list; each " + LINE
    )
    new_answer: Line = Field(default="", description=f"{LINE}, and not the answer itself")
    paraphrases: tuple[Annotated[str, AfterValidator(_one_place)], ...] = Field(
        default=(),
        description="other prompts, in CSV with ; between them, in JSONL as a list; each like the first",
    )

    @field_validator("new_answer")
    @classmethod
    def _is_new(cls, new_answer: str, others: ValidationInfo) -> str:
        if new_answer == others.data.get("answer"):
            raise ValueError
        return new_answer


FIELDS = tuple(Row.model_fields)
LISTS = {"alternatives", "paraphrases"}
REQUIRED = tuple(name for name, field in Row.model_fields.items() if field.is_required())
CAPITAL, LANGUAGE = "The capital of {} is the city of", "The official language of {} is"
EXAMPLE = (
    Row(subject="France", prompt=CAPITAL, answer="Paris", relation="capital", paraphrases=("{} is governed from",)),
    Row(subject="Egypt", prompt=CAPITAL, answer="Cairo", relation="capital", new_answer="Rome"),
    Row(subject="Canada", prompt=CAPITAL, answer="Ottawa", relation="capital", alternatives=("Toronto", "Montreal")),
    Row(subject="France", prompt=LANGUAGE, answer="French", relation="language"),
    Row(subject="Brazil", prompt=LANGUAGE, answer="Portuguese", relation="language", id="what Brazil speaks"),
    Row(subject="Austria", prompt=LANGUAGE, answer="German", relation="language"),
)


def read(path: str | Path) -> list[Fact]:
    """Facts in file order, without roles. Raises FactError with a line for every mistake of every row.

    A fact is scored among its answer, its new answer and its alternatives; one without alternatives among the
    other answers of its relation instead. Whether there are any is judged only where nothing else is wrong: until
    then, any mistaken row may be the one that brings them.
    """
    records, mistakes = (_csv if _ending(path) == ".csv" else _jsonl)(path)
    if not records and not mistakes:
        raise FactError(f"{path} holds no facts; `mechunlearn facts-template` writes an example.")
    ids, first, rows = _ids(records), dict[str, int](), dict[int, Row]()
    for number, record in records.items():
        name = ids[number]
        if name and first.setdefault(name, number) != number:
            mistakes.append((number, f"id is {_shown(name)}, as in row {first[name]}; allowed: one of its own"))
        try:
            rows[number] = Row.model_validate(record)
        except ValidationError as error:
            mistakes += [(number, line) for line in _wrong(record, error)]
    facts, answers, alone = [], _answers(rows.values()), not mistakes
    for number, row in rows.items():
        relation = row.relation or row.prompt
        new = [row.new_answer] if row.new_answer else []
        options = tuple(dict.fromkeys([row.answer, *new, *(row.alternatives or answers[relation])]))
        if len(options) < 2 and (row.alternatives or alone):
            text = f"answer is {_shown(row.answer)}, with nothing to choose it from; allowed: with alternatives, "
            mistakes.append((number, f"{text}a new_answer, or other answers in the relation {_shown(relation)}"))
        fact = Fact(ids[number], row.subject, relation, row.answer, row.prompt, options, row.new_answer)
        facts.append(replace(fact, paraphrases=row.paraphrases))
    if mistakes:
        _refuse(path, mistakes)
    return facts


def example(path: str | Path) -> str:
    """EXAMPLE as the text of a new file, CSV or JSONL by its ending. Raises FactError for another or an old file."""
    rows, ending = [row.model_dump(exclude_defaults=True) for row in EXAMPLE], _ending(path)
    if Path(path).exists():
        raise FactError(f"{path} exists; allowed: a new file, so that no facts are overwritten.")
    if ending == ".jsonl":
        return "".join(json.dumps(row) + "\n" for row in rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row | {name: ";".join(row[name]) for name in LISTS & set(row)} for row in rows)
    return text.getvalue()


# files ----------------------------------------------------------------------------------------------------------


def _ending(path: str | Path) -> str:
    ending = Path(path).suffix.lower()
    if ending not in (".csv", ".jsonl"):
        raise FactError(f"{path} ends in {ending!r}; allowed: .csv and .jsonl.")
    return ending


def _text(path: str | Path) -> str:
    return read_text(path).removeprefix("\ufeff")  # spreadsheets begin UTF-8 files with it


def _csv(path: str | Path) -> tuple[Records, Mistakes]:
    """Rows by their number in a spreadsheet, where the header is row 1."""
    records, mistakes, number = Records(), Mistakes(), 0
    header: list[str] = []
    try:
        for number, cells in enumerate(csv.reader(io.StringIO(_text(path), newline=""), strict=True), start=1):
            if number == 1:
                header = _header(path, cells)
            elif any(cells) and len(cells) != len(header):
                text = f"has {len(cells)} cells; allowed: {len(header)}, with commas only between double quotes"
                mistakes.append((number, text))
            elif any(cells):
                record: dict[str, Any] = {name: cell for name, cell in zip(header, cells, strict=True) if cell}
                record |= {name: [part.strip() for part in record[name].split(";")] for name in LISTS & set(record)}
                records[number] = record
    except csv.Error as error:
        mistakes.append((number + 1, f"is not CSV ({error}), so nothing from here on was read"))
    return records, mistakes


def _header(path: str | Path, names: Sequence[str]) -> list[str]:
    """The columns of a CSV file. Raises FactError where one is unknown, missing or there twice."""
    wrong = [f"{name!r} is unknown" for name in names if name not in FIELDS]
    wrong += [f"{name!r} is missing" for name in REQUIRED if name not in names]
    wrong += [f"{name!r} stands there twice" for name, count in Counter(names).items() if count > 1]
    if wrong:
        optional = ", ".join(name for name in FIELDS if name not in REQUIRED)
        raise FactError(
            f"{path}: column {', '.join(wrong)}; allowed: {', '.join(REQUIRED)}, and if you like {optional}."
        )
    return list(names)


def _jsonl(path: str | Path) -> tuple[Records, Mistakes]:
    """Rows by their line."""
    records, mistakes = Records(), Mistakes()
    for number, line in enumerate(_text(path).split("\n"), start=1):  # not splitlines: text may hold other breaks
        try:
            value = json.loads(line) if line.strip() else None
        except (ValueError, RecursionError) as error:
            mistakes.append((number, f"is not JSON ({error}); allowed: one object in braces"))
            continue
        if isinstance(value, dict):
            records[number] = {name: field for name, field in value.items() if field not in (None, "", [])}
        elif line.strip():
            mistakes.append((number, f"is {_shown(value)}; allowed: one object in braces"))
    return records, mistakes


# rows together --------------------------------------------------------------------------------------------------


def _ids(records: Records) -> dict[int, str]:
    """Each row's own id, else its subject, else, where another row has that, subject and relation.

    Mistaken rows have theirs too, so that every repetition is found at once.
    """
    short = {number: _string(record, "id", "subject") for number, record in records.items()}
    counts = Counter(short.values())

    def name(number: int, record: dict[str, Any]) -> str:
        if "id" in record or not short[number] or counts[short[number]] == 1:
            return short[number]
        return f"{short[number]} / {_string(record, 'relation', 'prompt')}"

    return {number: name(number, record) for number, record in records.items()}


def _string(record: dict[str, Any], *names: str) -> str:
    """The first of these fields that is there as text."""
    return next((record[name] for name in names if isinstance(record.get(name), str)), "")


def _answers(rows: Iterable[Row]) -> dict[str, list[str]]:
    """The answers of each relation, in file order."""
    found = defaultdict[str, list[str]](list)
    for row in rows:
        found[row.relation or row.prompt].append(row.answer)
    return found


# mistakes -------------------------------------------------------------------------------------------------------


def _wrong(record: dict[str, Any], error: ValidationError) -> Iterator[str]:
    """One line for each field that is wrong."""
    for name in dict.fromkeys(str(found["loc"][0]) for found in error.errors()):
        if name not in FIELDS:
            yield f"{_shown(name)} is unknown; allowed: {', '.join(FIELDS)}"
        else:
            value = f"is {_shown(record[name])}" if name in record else "is missing"
            yield f"{name} {value}; allowed: {Row.model_fields[name].description}"


def _shown(value: Any) -> str:
    """A value as an error shows it."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _refuse(path: str | Path, mistakes: Mistakes) -> NoReturn:
    """Raise FactError with the first mistakes in file order and the number of the others."""
    lines = [f"row {number}: {text}" for number, text in sorted(mistakes, key=lambda mistake: mistake[0])]
    rest = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    raise FactError("\n  ".join([f"{path} cannot be used:", *lines[:SHOWN], *rest]))
