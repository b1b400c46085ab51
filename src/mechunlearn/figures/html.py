"""Pieces of the report's page. Torch-free. Whatever is not named `..._html` is text and gets escaped.

safe      text for HTML
table     a table that scrolls sideways where the window is narrow
picture   a figure file with caption, inside the page
verdict   a claim's verdict: colour, sign and word
details   a part that opens on a click
"""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from itertools import compress
from pathlib import Path

from mechunlearn.errors import ArtifactError

MISSING = "–"  # a cell with nothing to tell
SIGNS = {"reproduced": ("yes", "✓"), "not reproduced": ("no", "✗"), "not measurable here": ("none", "–")}


def safe(text: object) -> str:
    """Text with HTML's own characters escaped."""
    return escape(str(text))


def table(head: Sequence[str], groups: Iterable[tuple[str, Iterable[Sequence[str]]]], kind: str = "numbers") -> str:
    """Groups of rows, each under a title (none where it is empty); the first cell of a row names it.

    Cells and titles are HTML. A column in which every row has a dash is left out.
    """
    groups = [(title, [list(row) for row in rows]) for title, rows in groups]
    if every := [row for _, rows in groups for row in rows]:
        told = [not number or any(row[number] != MISSING for row in every) for number in range(len(head))]
        head = list(compress(head, told))
        groups = [(title, [list(compress(row, told)) for row in rows]) for title, rows in groups]
    parts = [f'<div class="scroll"><table class="{kind}"><thead><tr>']
    parts += [f'<th scope="col">{cell}</th>' for cell in head]
    parts.append("</tr></thead>")
    for title, rows in groups:
        parts.append("<tbody>")
        if title:
            parts.append(f'<tr class="group"><th colspan="{len(head)}" scope="rowgroup"><span>{title}</span></th></tr>')
        for first, *others in rows:
            cells = "".join(f"<td>{cell}</td>" for cell in others)
            parts.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
        parts.append("</tbody>")
    return "".join([*parts, "</table></div>"])


def picture(path: Path, title: str, found: str, seen: str) -> str:
    """An SVG file as part of the page, with what is found and how to read it. Raises ArtifactError."""
    try:
        data = base64.b64encode(path.read_bytes()).decode("ascii")
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}.") from error
    image = f'<img alt="{safe(title)} {safe(found)}" src="data:image/svg+xml;base64,{data}">'
    lines = "<br>".join(safe(line) for line in found.splitlines())
    text = f'<strong>{safe(title)}</strong> {lines} <span class="note">{safe(seen)}</span>'
    return f'<figure><div class="scroll">{image}</div><figcaption>{text}</figcaption></figure>'


def verdict(name: str) -> str:
    """A verdict that needs no colour to be read."""
    kind, sign = SIGNS.get(name, ("none", "–"))
    return f'<span class="verdict {kind}"><span aria-hidden="true">{sign}</span> {safe(name)}</span>'


def details(summary: str, body_html: str) -> str:
    """A part that opens on a click."""
    return f"<details><summary>{safe(summary)}</summary>{body_html}</details>"
