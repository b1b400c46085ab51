"""From files or a mapping to a checked Study, or to one sentence for each wrong key."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from mechunlearn.config.files import read_yaml
from mechunlearn.config.settings import Settings
from mechunlearn.config.study import Study
from mechunlearn.errors import ConfigError

Model = TypeVar("Model", bound=Settings)


def validate_study(values: Mapping[Any, Any], origin: str = "the configuration") -> Study:
    """Check a mapping and return the Study. Raises ConfigError: one sentence for each wrong key."""
    return check(Study, values, origin)


def check(model: type[Model], values: Any, origin: str) -> Model:
    """Settings from what was given for them. Raises ConfigError: one sentence for each wrong key."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{origin}: " + " ".join(_sentences(error, model, values))) from None


def load_study(*paths: str | Path) -> Study:
    """Read a study from a YAML file, or from several of which later ones go before. Raises ConfigError."""
    values: dict[Any, Any] = {}
    for path in paths:
        values = _merged(values, read_mapping(path))
    return validate_study(values, ", ".join(map(str, paths)))


def read_mapping(path: str | Path) -> dict[Any, Any]:
    """The keys and values of a YAML file. Raises ConfigError."""
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: must hold keys and values, such as `study: my-study`.")
    return values


def _merged(first: Mapping[Any, Any], second: Mapping[Any, Any]) -> dict[Any, Any]:
    """Both, the second's values in the first's place, key by key on every level, as Snakemake merges files."""
    merged = dict(first)
    for key, value in second.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _sentences(error: ValidationError, model: type[Settings], values: Any) -> list[str]:
    """One sentence for each distinct wrong key: the key, what was given, what is allowed."""
    sentences: dict[str, str] = {}
    for item in error.errors():
        where = _key(item["loc"], values)
        if item["type"] == "extra_forbidden":
            names = _siblings(model, item["loc"][:-1])
            near = difflib.get_close_matches(str(item["loc"][-1]), names, n=1)
            text = f"unknown key `{where}`" + (f"; did you mean `{near[0]}`?" if near else ".")
        elif item["type"] == "missing":
            text = f"`{where}` is required."
        elif item["type"] == "value_error" and not where:
            text = str(item["ctx"]["error"])
        elif not where:
            text = f"{item['msg']}."
        else:
            problem = str(item["ctx"]["error"]) if item["type"] == "value_error" else item["msg"]
            text = f"`{where}` is {item['input']!r}: {problem[0].lower()}{problem[1:]}."
            if where in sentences:  # the branches of a union: one sentence, all that is allowed
                text = f"{sentences[where].rstrip('.')}, or {problem[0].lower()}{problem[1:]}."
        sentences[where] = text
    return list(sentences.values())


def _key(location: tuple[int | str, ...], values: Any) -> str:
    """`('localize', 'budget', 'constrained-int')` -> `localize.budget`: a union's branch names are left out.

    values   what was given: a name that stands there is a key, whatever it looks like
    """
    parts: list[str] = []
    for part in location:
        given = isinstance(values, Mapping) and part in values
        if isinstance(part, int) and not given and parts:
            parts[-1] += f"[{part}]"
            values = values[part] if isinstance(values, list | tuple) and part < len(values) else None
        elif given or isinstance(part, int) or not _branch(part):
            parts.append(str(part))
            values = values[part] if given else None
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in ".".join(parts))


def _branch(part: str) -> bool:
    """Does pydantic call a branch of a union so?"""
    return "[" in part or part.startswith(("constrained", "literal")) or part in ("float", "int")


def _siblings(model: Any, location: tuple[int | str, ...]) -> list[str]:
    """The keys that are allowed beside an unknown one."""
    for part in location:
        if isinstance(model, type) and issubclass(model, Settings):
            model = model.model_fields[str(part)].annotation
        else:
            model = model.__args__[-1]
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, Settings) else []
