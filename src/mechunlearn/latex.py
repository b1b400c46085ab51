"""Tables for a paper, with booktabs. Torch-free.

tabular   head and rows -> a table environment
escaped   text with LaTeX's own characters made harmless
"""

import re
from collections.abc import Sequence

SPECIAL = re.compile(r"[&%$#_{}]")


def escaped(text: object) -> str:
    """A name as LaTeX prints it."""
    return SPECIAL.sub(lambda found: "\\" + found[0], str(text))


def tabular(head: Sequence[str], body: Sequence[Sequence[str]], caption: str, names: int) -> str:
    """A table of rows of LaTeX; the first `names` columns are set on the left, the others, numbers, on the right."""
    lines = [" & ".join(row) + r" \\" for row in [head, *body]]
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{caption}}}",
            rf"\begin{{tabular}}{{{'l' * names}{'r' * (len(head) - names)}}}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *lines[1:],
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )
