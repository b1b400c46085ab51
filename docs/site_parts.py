"""What the site (mkdocs.yml) makes of our pages and docstrings.

on_page_markdown   a link to a file outside docs/ becomes the file's name: the site does not hold it
AlignedLists       aligned lines of a docstring, like those here, become a list
"""

import re

import griffe

OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./[^)]+\)")
ROW = re.compile(r"^([\w@./-]+(?:, [\w@./-]+)*) {2,}(\S.*)$")


def on_page_markdown(markdown: str, **_: object) -> str:
    """Called by MkDocs for every page. That such files exist is tested (tests/unit/test_project.py)."""
    return OUTSIDE.sub(r"\1", markdown)


class AlignedLists(griffe.Extension):
    """Rewrites every docstring before it becomes HTML."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        if obj.docstring:
            obj.docstring.value = as_lists(obj.docstring.value)


def as_lists(text: str) -> str:
    """Markdown in which aligned lines are items of a list; further lines of an item are indented by two spaces."""
    lines: list[str] = []
    within = False
    for line in text.splitlines():
        if row := ROW.match(line):
            lines += ([] if within or not lines or not lines[-1] else [""]) + [f"- `{row[1]}`: {row[2]}"]
            within = True
        elif within and line.startswith("  "):
            lines.append(f"  {line.strip()}")
        else:
            lines += [""] if within and line else []
            lines.append(line)
            within = False
    return "\n".join(lines)
