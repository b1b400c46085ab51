"""From a file or a mapping to a checked Study, or to one sentence for each wrong key."""

import difflib
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mechunlearn.config.settings import Settings
from mechunlearn.config.study import Study
from mechunlearn.errors import ConfigError


def validate_study(values: dict[str, Any], origin: str = "the configuration") -> Study:
    """Check a mapping and return the Study. Raises ConfigError: one sentence for each wrong key."""
    try:
        return Study.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{origin}: " + " ".join(_sentences(error))) from None


def load_study(path: str | Path) -> Study:
    """Read a study's YAML file. Raises ConfigError."""
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a readable configuration file ({error}).") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: must hold keys and values, such as `study: my-study`.")
    return validate_study(values, str(path))


def _sentences(error: ValidationError) -> list[str]:
    """One sentence for each distinct wrong key: the key, what was given, what is allowed."""
    sentences: dict[str, str] = {}
    for item in error.errors():
        where = _key(item["loc"])
        if item["type"] == "extra_forbidden":
            names = _siblings(item["loc"][:-1])
            near = difflib.get_close_matches(str(item["loc"][-1]), names, n=1)
            text = f"unknown key `{where}`" + (f"; did you mean `{near[0]}`?" if near else ".")
        elif item["type"] == "missing":
            text = f"`{where}` is required."
        elif item["type"] == "value_error" and not where:
            text = str(item["ctx"]["error"])
        else:
            problem = str(item["ctx"]["error"]) if item["type"] == "value_error" else item["msg"]
            text = f"`{where}` is {item['input']!r}: {problem[0].lower()}{problem[1:]}."
            if where in sentences:  # the branches of a union: one sentence, all that is allowed
                text = f"{sentences[where].rstrip('.')}, or {problem[0].lower()}{problem[1:]}."
        sentences[where] = text
    return list(sentences.values())


def _key(location: tuple[int | str, ...]) -> str:
    """`('localize', 'budget', 'constrained-int')` -> `localize.budget`: a union's branch names are left out."""
    parts: list[str] = []
    for part in location:
        if isinstance(part, int):
            parts[-1] += f"[{part}]"
        elif "[" not in part and not part.startswith(("constrained", "literal")) and part not in ("float", "int"):
            parts.append(part)
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in ".".join(parts))


def _siblings(location: tuple[int | str, ...]) -> list[str]:
    """The keys that are allowed beside an unknown one."""
    model: Any = Study
    for part in location:
        if isinstance(model, type) and issubclass(model, Settings):
            model = model.model_fields[str(part)].annotation
        else:
            model = model.__args__[-1]
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, Settings) else []
