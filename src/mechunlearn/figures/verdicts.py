"""The answer of a report: the papers' claims and what held here. Torch-free.

claims   a table: verdict, sentence, the paper's value, ours
summary  how many claims were reproduced, in a sentence
answer   which localization holds best and worst, in sentences
"""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import Any

import pandas as pd

from mechunlearn import operations
from mechunlearn.claims import CLAIMS
from mechunlearn.config.edit import puts_in
from mechunlearn.figures import data, html, words
from mechunlearn.metrics import last

STATED = [*CLAIMS, *chain(*operations.CLAIMS.values())]
BOUNDS = {claim.id: claim.bound for claim in STATED}
DIFFERENCE = {claim.id: bool(claim.where["against"]) for claim in STATED}


def claims(found: Sequence[dict[str, Any]]) -> str:
    """One row a claim. A verdict that only a wide interval forbids is marked as open."""
    rows = []
    for claim in found:
        bounds = (claim["low"], claim["high"]) if claim["n"] else ()  # one timing has no interval
        ours = words.number(claim["value"], *bounds) if claim["value"] is not None else html.MISSING
        ours = f'<span class="value">{ours}</span>'
        facts = f'<span class="n">n = {claim["n"]}</span>' if claim["n"] else ""
        note = " ".join(part for part in (_readable(claim["note"]), _undecided(claim), _power(claim)) if part)
        rows.append(
            [
                html.verdict(claim["verdict"]),
                f"<strong>{html.safe(claim['sentence'])}</strong>"
                f'<span class="note">Measured: {html.safe(claim["statistic"])}. {html.safe(note)}</span>'
                f'<span class="note">{html.safe(claim["paper"])}, section {html.safe(claim["section"])}</span>',
                html.safe(_readable(claim["published"])),
                f"{ours} {facts}",
            ]
        )
    return html.table(["Verdict", "Claim", "In the paper", "Here"], [("", rows)], kind="claims")


def summary(found: Sequence[dict[str, Any]]) -> str:
    """`Of 7 claims of the paper, 2 held here, 3 did not, and 2 cannot be measured with this model or study.`"""
    count = Counter(claim["verdict"] for claim in found)
    unclear = sum(bool(_undecided(claim)) for claim in found)
    parts = [
        f"{count['reproduced']} held here",
        f"{count['not reproduced']} did not"
        + (f" ({unclear} of them because the interval is too wide to tell)" if unclear else ""),
    ]
    if missing := count["not measurable here"]:
        parts.append(f"{missing} cannot be measured with this model or study")
    return f"Of {len(found)} claims of the paper, {words.listing(parts)}."


def answer(metrics: pd.DataFrame, objective: str) -> str:
    """Where edits hold best in the format in which they hold least, and where relearning brings back least and most.

    Of objectives without new answers that is where the true one is least likely.
    """
    where = {"objective": objective, "stage": "edited", "role": "forget"}
    put_in = puts_in(objective) and not data.pick(metrics, "p_new", **where).empty  # people have no new answers
    metric = "p_new" if put_in else "p_true"
    edited = data.pick(metrics, metric, **where)
    formats = [name for name in data.counting(metrics) if name in set(edited.elicitation)]
    if not formats:
        return ""
    means = {name: edited[edited.elicitation == name].value.mean() for name in formats}
    hardest = min(formats, key=lambda name: means[name] if put_in else -means[name])
    text = [
        f"In the format in which edits hold least ({words.elicitation(hardest).lower()}), "
        f"the {'new answer is likeliest' if put_in else 'true answer is least likely'} "
        "for " + _winner(metrics, metric, put_in, **{**where, "elicitation": hardest})
    ]
    if data.steps(metrics):
        where |= {"stage": last(metrics.stage.unique(), "relearned"), "elicitation": "completion"}
        text.append(
            "After relearning, least of the true answer comes back for " + _winner(metrics, "p_true", False, **where)
        )
        worst = data.pick(metrics, "p_true", **where).sort_values("value").iloc[-1]
        text.append(f"Most comes back for {words.quoted(worst.localization)} ({words.row(worst)}).")
    return " ".join(text)


def _winner(metrics: pd.DataFrame, metric: str, largest: bool, **where: str) -> str:
    """The best, and how fact lookup compares with it; where fact lookup is the best, how the next one does."""
    rows = data.pick(metrics, metric, **where).sort_values("value", ascending=not largest)
    best, names = rows.iloc[0], list(rows.localization)
    text = f"{words.quoted(names[0])} ({words.row(best)})"
    if "fact-lookup" not in names or len(names) == 1:
        return f"{text}."
    other = names[1] if names[0] == "fact-lookup" else "fact-lookup"
    gap = data.one(
        metrics, metric, against="fact-lookup", localization=({names[0], other} - {"fact-lookup"}).pop(), **where
    )
    clear = gap is not None and not gap.low <= 0 <= gap.high
    value = words.row(data.one(metrics, metric, localization=other, **where))
    how = "clearly worse" if clear else "not clearly different"
    return f"{text}; {words.quoted(other)} has {value}, {how} on the same facts."


def _undecided(claim: dict[str, Any]) -> str:
    bound = BOUNDS.get(claim["id"])
    if claim["verdict"] != "not reproduced" or bound is None or not claim["low"] <= bound <= claim["high"]:
        return ""
    return f"The interval takes in {bound:g}, so these data do not decide it."


def _power(claim: dict[str, Any]) -> str:
    """What would mostly have stayed open: a value nearer to the bound than half the interval."""
    if claim["value"] is None or not claim["n"] or claim["id"] not in BOUNDS:
        return ""
    half, bound = words.number((claim["high"] - claim["low"]) / 2), BOUNDS[claim["id"]]
    if DIFFERENCE[claim["id"]] and bound == 0:
        return f"With so many facts, a difference smaller than {half} (half the interval) would hardly have shown."
    return f"With so many facts, a value within {half} of {bound:g} (half the interval) would have stayed open."


def _readable(note: str) -> str:
    """A note with names as people say them, longest names first."""
    names = sorted(set(words.LOCALIZATIONS) - {"base"}, key=len, reverse=True)
    note = re.sub("|".join(names), lambda found: words.quoted(found[0]), note)
    return note[:1].upper() + note[1:]
