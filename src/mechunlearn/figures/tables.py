"""The report's tables, as HTML, from metrics, selections and settings. Torch-free.

localizations what each localization trains
rates         learning rate and weights of each edit
planted       how each localizer ranks the layer in which facts were planted
results       per format and localization: new answer, true answer, what was kept
objectives    objectives side by side: forgotten, kept, at worst, at what cost
side_effects  what an edit does to neighbors and to plain text
benchmarks    what an edit does to general ability
robustness    the true answer of the forgotten facts after each attack, and the worst case, the best edit first
probes        what a probe reads off the hidden states, at its best layer, beside a control
"""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from mechunlearn import leaderboard as ranking
from mechunlearn.artifacts import BENCHMARK, Selection
from mechunlearn.config import PARAMETERS, EditSettings, Study
from mechunlearn.figures import data, html, words
from mechunlearn.figures import planted as figure
from mechunlearn.figures.latent_knowledge import probed
from mechunlearn.metrics import WORST
from mechunlearn.study import BASE


def localizations(chosen: dict[str, Selection]) -> str:
    """Parameters and components of each localization."""
    rows = [
        [
            html.safe(words.localization(name)),
            f"{words.parameters(selection.parameters)} ({selection.parameters / selection.total:.0%})",
            html.safe(words.components(selection)) + _groups(selection),
        ]
        for name, selection in chosen.items()
    ]
    return html.table(["Localization", "Parameters trained", "Layers"], [("", rows)], kind="plain")


def _groups(selection: Selection) -> str:
    count, most = len(selection.groups), max((group.parameters for group in selection.groups), default=0)
    return f'<span class="note">{count} groups of facts, each at most {words.parameters(most)}</span>' if count else ""


def rates(study: Study, model: str, task: str) -> str:
    """Learning rate and weights of each trained edit, as a sweep chose them or the configuration gives them."""
    objectives, groups = study.trained_objectives(), []
    names = [name for name in PARAMETERS if any(name in study.parameters(task, objective) for objective in objectives)]
    for objective in objectives:
        rows = []
        for name in study.localizations:
            own = EditSettings.model_validate_json(study.edit_settings(model, task, name, objective))
            cells = [
                f"{own.setting(objective, key):g}" if key in study.parameters(task, objective) else html.MISSING
                for key in names
            ]
            rows.append([html.safe(words.localization(name)), *cells])
        groups.append((html.safe(objective), rows))
    titles = (name.replace("_", " ").capitalize() for name in names)
    return html.table(["", *titles], groups) if groups else ""


def planted(table: pd.DataFrame) -> str:
    """Mean rank and shares of each localizer, the best first, and what it names where it is wrong."""
    rows = []
    for name, found in figure.summary(table).items():
        misses, layer, often = found.wrong
        rows.append(
            [
                html.safe(words.localization(name)),
                figure.rank(found),
                words.number(*found.first),
                words.number(*found.top),
                f"MLP {layer}: {often} of {misses}" if misses else html.MISSING,
            ]
        )
    expected = figure.chance(table)
    rows.append(["Chance", f"{expected['rank']:g}", words.number(expected["first"]), words.number(expected["top"]), ""])
    head = ["", "Mean rank", "Comes first", f"Among the first {figure.TOP}", "Named instead, mostly"]
    return html.table(head, [("", rows)], kind="plain")


def results(metrics: pd.DataFrame, objective: str) -> str:
    """Every format that counts, base model first; formats that do not are named with the reason."""
    head = ["", "New answer", "True answer", "Says new", "Says true", "Likeliest word is true"]
    head += ["Kept: true", "Kept: says true"]
    columns = [(name, "forget") for name in ("p_new", "p_true", "accuracy_new", "accuracy_true", "first_true")]
    columns += [(name, "maintain-test") for name in ("p_true", "accuracy_true")]
    groups: list[tuple[str, list[list[str]]]] = []
    for elicitation in data.elicitations(metrics):
        title = f"{html.safe(words.elicitation(elicitation))} "
        if elicitation not in data.counting(metrics):
            reason = f"n/a: the base model is right for {data.gate(metrics, elicitation):.2f} of the facts it knows"
            groups.append((f'{title}<span class="n">{reason}</span>', []))
            continue
        rows = []
        for name in ["base", *data.localizations(metrics)]:
            before = name == "base"
            where = {"localization": name, "objective": "" if before else objective, "elicitation": elicitation}
            where["stage"] = "base" if before else "edited"
            cells = [words.row(data.one(metrics, metric, role=role, **where)) for metric, role in columns]
            rows.append([html.safe(words.localization(name)), *cells])
        sizes = [data.base(metrics, "p_true", elicitation, role) for role in ("forget", "maintain-test")]
        counts = " and ".join(str(size.n) if size else "0" for size in sizes)
        groups.append((f'{title}<span class="n">n = {counts}</span>', rows))
    return html.table(head, groups)


def objectives(metrics: pd.DataFrame, seconds: Mapping[tuple[str, str], float]) -> str:
    """A row an objective in each localization, base model first; empty for a single objective.

    seconds   of each edit, by localization and objective
    """
    columns = [
        ("True answer", "p_true", "edited", "completion", "forget"),
        ("Likeliest word is true", "first_true", "edited", "completion", "forget"),
        ("New answer", "p_new", "edited", "completion", "forget"),
        ("True answer at worst", "p_true", WORST, "", "forget"),
        ("Kept: true", "p_true", "edited", "completion", "maintain-test"),
        ("Text: KL", "kl", "edited", "text", "text"),
    ]
    names = data.objectives(metrics)
    if len(names) < 2:
        return ""
    groups = []
    for localization in data.localizations(metrics):
        body = []
        for name in ["", *names]:
            cells = [html.safe(name or words.localization(BASE))]
            for _, metric, stage, elicitation, role in columns:
                where = {"localization": localization if name else BASE, "objective": name, "role": role}
                where["stage"] = stage if name or stage == WORST else BASE
                where |= {"elicitation": elicitation} if elicitation else {}
                cells.append(words.row(data.one(metrics, metric, **where)))
            spent = seconds.get((localization, name))
            body.append([*cells, html.MISSING if spent is None else f"{spent:.0f}"])
        groups.append((html.safe(words.localization(localization)), body))
    return html.table(["", *(title for title, *_ in columns), "Seconds to edit"], groups)


def side_effects(metrics: pd.DataFrame, objective: str) -> str:
    """Neighbors in the training prompt, and plain text: base model first."""
    columns = [
        ("Same answer: true", "p_true", "completion", "neighbor-same"),
        ("Same answer: new", "p_new", "completion", "neighbor-same"),
        ("New answer: true", "p_true", "completion", "neighbor-new"),
        ("Text: nats", "nll", "text", "text"),
        ("Text: KL", "kl", "text", "text"),
    ]
    rows, sizes = [], dict[str, int]()
    for name in ["base", *data.localizations(metrics)]:
        where = {"localization": name, "objective": "" if name == "base" else objective}
        where["stage"] = "base" if name == "base" else "edited"
        cells = []
        for _, metric, elicitation, role in columns:
            found = data.one(metrics, metric, elicitation=elicitation, role=role, **where)
            cells.append(words.row(found))
            sizes[role] = found.n if found is not None else sizes.get(role, 0)
        rows.append([html.safe(words.localization(name)), *cells])
    title = (
        "Side effects: kept facts whose answer was forgotten elsewhere (same answer) or put in elsewhere (new answer), "
        "and text, in nats a token"
    )
    counts = " and ".join(str(size) for size in sizes.values() if size)
    return html.table(["", *(title for title, *_ in columns)], [(f'{title} <span class="n">n = {counts}</span>', rows)])


def benchmarks(metrics: pd.DataFrame, objective: str) -> str:
    """Each benchmark's accuracy and, on the same items, its change by the edit; empty where none was measured."""
    names = data.benchmarks(metrics)
    if not names:
        return ""
    rows, head = [], [""]
    for name in names:
        size = data.base(metrics, "accuracy_true", name, BENCHMARK)
        count = f' <span class="n">n = {size.n}</span>' if size else ""
        head += [f"{html.safe(name)}: accuracy{count}", f"{html.safe(name)}: change by the edit"]
    for each in [BASE, *data.localizations(metrics)]:
        where = {"localization": each, "objective": "" if each == BASE else objective, "role": BENCHMARK}
        where["stage"] = "base" if each == BASE else "edited"
        cells = [html.safe(words.localization(each))]
        for name in names:
            cells.append(words.row(data.one(metrics, "accuracy_true", elicitation=name, **where)))
            cells.append(words.row(data.one(metrics, "accuracy_true", against=BASE, elicitation=name, **where), True))
        rows.append(cells)
    return html.table(head, [("General ability: benchmarks", rows)])


def robustness(metrics: pd.DataFrame, objective: str) -> str:
    """The leaderboard: the worst case and what brought it, then a column an attack at its full strength.

    The first row is the model before any edit under the same attacks.
    """
    board = ranking.leaderboard(metrics[metrics.objective == objective])
    stages = ranking.attacks(metrics[metrics.objective == objective])
    if board.empty or not stages:
        return ""
    names, unedited = [WORST, "edited", *stages], metrics[(metrics.localization == BASE) & (metrics.against == "")]
    before = dict[str, object]()
    for name in names:
        found = ranking.bounds(BASE if name == "edited" else name, unedited)
        before |= dict(zip((f"{name}{bound}" for bound in ranking.BOUNDS), found.values(), strict=False))
    body = [[html.safe(words.localization(BASE)), *(_bounded(before, name) for name in names)]]
    for row in board.to_dict("records"):
        cells = [_bounded(row, name) for name in names]
        cells[0] += _note(words.way(row["way"]))
        body.append([html.safe(words.localization(row["localization"])), *cells])
    head = ["", "Worst case, by", *(html.safe(words.stage(name).capitalize()) for name in ["edited", *stages])]
    title = "Leaderboard: the true answer of the forgotten facts, the most robust edit first"
    title += f' <span class="n">n = {board.n.min()}</span>'
    return html.table(head, [(title, body)])


def _bounded(row: Mapping[Any, Any], name: str) -> str:
    """A value with its interval below it: beside it, so many columns would not fit a page."""
    value, *bounds = (row.get(f"{name}{bound}", math.nan) for bound in ("", "_low", "_high"))
    if pd.isna(value):
        return html.MISSING
    low, high = map(words.number, bounds)
    return words.number(value) + _note(f"[{low}, {high}]")


def _note(text: str) -> str:
    return f'<span class="note">{html.safe(text)}</span>'


def probes(metrics: pd.DataFrame, objective: str) -> str:
    """How often the best layer's probe says the true and the new answer of forgotten facts, the control beside it.

    The layer is the one whose probe is best on maintain-test facts. Base model first.
    """
    groups = []
    for place, title in (("probe-last", "end of the prompt"), ("probe-subject", "end of the subject")):
        body, counts = [], [0, 0]
        for name in [BASE, *data.localizations(metrics)]:
            where = {"localization": name, "objective": "" if name == BASE else objective}
            layer = probed(metrics, place, **where)
            if layer is None:
                continue
            own = {**where, "elicitation": place, "stage": f"probed@{layer}"}
            control = {**own, "elicitation": f"{place}-permuted"}
            cells = [
                words.row(data.one(metrics, metric, role=role, **asked))
                for metric, role, asked in (
                    ("accuracy_true", "forget", own),
                    ("accuracy_new", "forget", own),
                    ("accuracy_true", "forget", control),
                    ("accuracy_new", "forget", control),
                    ("accuracy_true", "maintain-test", own),
                )
            ]
            sizes = [data.one(metrics, "accuracy_true", role=role, **own) for role in ("forget", "maintain-test")]
            counts = [max(most, size.n if size else 0) for most, size in zip(counts, sizes, strict=True)]
            body.append([html.safe(words.localization(name)), str(layer), *cells])
        if body:
            n = " and ".join(map(str, counts))
            groups.append((f'Probes of the hidden states at the {title} <span class="n">n = {n}</span>', body))
    head = ["", "Layer", "Says true", "Says new", "Control: says true", "Control: says new", "Kept: says true"]
    return html.table(head, groups) if groups else ""
