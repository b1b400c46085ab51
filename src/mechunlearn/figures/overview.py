"""The method in one drawing: where a fact is looked up, what is trained, what is tried against it. Torch-free.

draw   a study's selection and attacks -> SVG for the page, in the page's own colours
"""

from collections.abc import Sequence
from itertools import pairwise

from mechunlearn.artifacts import Selection
from mechunlearn.facts import Fact
from mechunlearn.facts.completion import completion
from mechunlearn.figures import words
from mechunlearn.figures.html import safe

WIDTH, HEIGHT = 900, 366
TOP, BOTTOM = 112, 302  # of the stacks of layers
CENTRES = (150, 425, 665)
BLOCK, GAP = 40, 4  # width of an attention block or MLP, and what lies between the two
TIP = 7  # length of an arrow's tip
LINE = 30  # characters of a prompt in one line
KINDS = ("attention", "mlp")
ATTACKS = {
    "relearn": "a little training",
    "finetune": "more training",
    "quantize": "rounded weights",
    "probe": "probes inside",
    "soft-prompt": "trained prompts",
    "prompt-search": "the best prompt",
}
STEPS = (
    ("1  Localize", "Which parts of the model", "bring the answer out?"),
    ("2  Edit", "Train only these parts", "{}."),
    ("3  Attack", "Does the old answer", "come back?"),
)


def draw(fact: Fact, selection: Selection, layers: int, attacks: Sequence[str], put_in: bool) -> str:
    """SVG of the three steps for a fact to forget; what `selection` holds of `layers` layers is lit.

    put_in   whether edits train the fact's new answer, and not only away from the true one
    """
    lit = {(component.layer, component.kind) for component in selection.components}
    asked = completion(fact)[0].text.splitlines()[-1]
    aim = "on a new answer" if put_in else "away from it"
    parts = [
        f'<svg class="overview" role="img" viewBox="0 0 {WIDTH} {HEIGHT}" xmlns="http://www.w3.org/2000/svg">',
        f"<title>{safe(_told(fact, asked, selection, layers, aim))}</title>",
    ]
    for centre, (title, *lines) in zip(CENTRES, STEPS, strict=True):
        parts += [
            _text(centre, 22, title, "title"),
            *(_text(centre, 42 + 17 * i, line.format(aim)) for i, line in enumerate(lines)),
        ]
        parts += _stack(centre, layers, lit)
        parts += [_arrow(centre, BOTTOM + 24, centre, BOTTOM + 6), _arrow(centre, TOP - 6, centre, TOP - 18)]
        parts += [_text(centre, BOTTOM + 42 + 17 * i, line, "soft") for i, line in enumerate(_wrapped(asked))]
    for start, end in pairwise(CENTRES):
        parts.append(_arrow(start + 75, (TOP + BOTTOM) / 2, end - 75, (TOP + BOTTOM) / 2))
    answers = (fact.answer, fact.new_answer if put_in else "something else", f"{fact.answer} again?")
    for centre, answer in zip(CENTRES, answers, strict=True):
        parts.append(_text(centre, TOP - 24, answer, "answer"))
    tried = ["other wordings", *(ATTACKS.get(name, name) for name in attacks)]
    for place, name in enumerate(tried):
        height = TOP + 14 + (BOTTOM - TOP - 20) * place / max(1, len(tried) - 1)
        parts += [_arrow(CENTRES[2] + 78, height, CENTRES[2] + 52, height)]
        parts.append(_text(CENTRES[2] + 84, height + 4.5, name, "", "start"))
    return "".join([*parts, "</svg>"])


def _told(fact: Fact, asked: str, selection: Selection, layers: int, aim: str) -> str:
    """What the drawing shows, for those who do not see it."""
    return (
        f"The method in three steps. 1: find the parts of the {layers} layers that bring out the answer "
        f"“{fact.answer}” to “{asked}”; here {words.quoted(selection.localization)}: {words.components(selection)}. "
        f"2: train only these parts {aim}. 3: attack the edited model and see whether "
        f"“{fact.answer}” comes back."
    )


def _stack(centre: float, layers: int, lit: set[tuple[int, str]]) -> list[str]:
    """The layers from the lowest up, each an attention block and an MLP."""
    step = (BOTTOM - TOP) / layers
    left = centre - BLOCK - GAP / 2
    return [
        f'<rect class="{"lit" if (layer, kind) in lit else "dim"}" x="{left + column * (BLOCK + GAP):g}" '
        f'y="{BOTTOM - (layer + 1) * step + step * 0.12:.1f}" width="{BLOCK}" height="{step * 0.76:.1f}" rx="1.5"/>'
        for layer in range(layers)
        for column, kind in enumerate(KINDS)
    ]


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "middle") -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{safe(text)}</text>'


def _arrow(x: float, y: float, to_x: float, to_y: float) -> str:
    """A line along one axis with a tip."""
    along, up = (TIP * ((to_x > x) - (to_x < x)), TIP * ((to_y > y) - (to_y < y)))
    back_x, back_y = to_x - along, to_y - up
    tip = f"M{back_x + up / 2:g} {back_y + along / 2:g} {to_x:g} {to_y:g} {back_x - up / 2:g} {back_y - along / 2:g}"
    return f'<path class="arrow" d="M{x:g} {y:g} {to_x:g} {to_y:g}{tip}"/>'


def _wrapped(text: str) -> list[str]:
    """One line, or two broken between the words nearest to the middle."""
    spaces = [place for place, letter in enumerate(text) if letter == " "]
    if len(text) <= LINE or not spaces:
        return [f"{text} …"]
    cut = min(spaces, key=lambda place: abs(2 * place - len(text)))
    return [text[:cut], f"{text[cut + 1 :]} …"]
