"""What is generated: the JSON schema and the table in config/README.md from the configuration's models, and dvc.yaml
from the default study.

write   regenerate all
stale   which of them no longer agree with what they are made from
"""

import json
import re
from pathlib import Path
from typing import Any

from mechunlearn import registry, stages
from mechunlearn.artifacts import atomic
from mechunlearn.config import NAME, Study, load_study

SCHEMA, README = Path("config/schema.json"), Path("config/README.md")
DEFAULT, DVC = Path("config/config.yaml"), Path("dvc.yaml")
BEGIN, END = "<!-- generated: mechunlearn schema -->", "<!-- end of generated -->"


def write() -> None:
    """Regenerate the schema, the README's table and DVC's stages."""
    for path, text in _generated().items():
        with atomic(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def stale() -> list[str]:
    """The generated files that differ from what the models and the default study say now."""
    return [str(path) for path, text in _generated().items() if not path.exists() or path.read_text("utf-8") != text]


def _generated() -> dict[Path, str]:
    readme = README.read_text(encoding="utf-8") if README.exists() else f"{BEGIN}\n{END}\n"
    table = f"{BEGIN}\n{_table()}\n{END}"
    return {
        SCHEMA: json.dumps(_schema(), indent=2, ensure_ascii=False) + "\n",
        README: re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: table, readme, flags=re.DOTALL),
        DVC: stages.text(load_study(DEFAULT)),
    }


def _schema() -> dict[str, Any]:
    """The study's JSON schema, with the known method names as enumerations so that editors complete them."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Study.model_json_schema()}
    schema["properties"]["objectives"]["items"]["enum"] = sorted(registry.edits())
    schema["properties"]["attacks"]["items"]["enum"] = sorted(registry.methods("attack"))
    own = {"type": "string", "pattern": NAME}  # further draws, and what `localize.layers` names
    schema["properties"]["localizations"]["items"] = {"anyOf": [{"enum": registry.localizations()}, own]}
    elicitations = schema["$defs"]["EvaluateSettings"]["properties"]["elicitations"]
    elicitations["items"]["enum"] = sorted(registry.methods("elicitation"))
    return schema


def _table() -> str:
    schema = _schema()
    lines = ["| key | default | meaning |", "| --- | --- | --- |"]
    for key, default, meaning in _rows(schema, schema, ""):
        readable = meaning.replace("\n", " ").replace("|", "\\|")
        lines.append(f"| `{key}` | {default} | {readable} |")
    return "\n".join(lines)


def _rows(schema: dict[str, Any], block: dict[str, Any], prefix: str) -> list[tuple[str, str, str]]:
    rows: list[tuple[str, str, str]] = []
    for name, entry in block["properties"].items():
        key = f"{prefix}{name}"
        named: dict[str, Any] = next(iter(entry.get("patternProperties", {}).values()), {})
        inner = entry.get("$ref") or named.get("$ref")
        nested = schema["$defs"][inner.rsplit("/", 1)[1]] if inner else None
        default = f"`{json.dumps(entry['default'])}`" if "default" in entry else "required"
        default = "" if nested else default
        rows.append((key, default, entry.get("description") or (nested or {}).get("description", "")))
        if nested:
            rows += _rows(schema, nested, f"{key}.{'NAME.' if named else ''}")
    return rows
