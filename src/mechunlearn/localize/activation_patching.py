"""Activation patching: the exact effect of every node, one patched run each; what attribution estimates.

activation_patching   per-fact loss of the answer when one node has its corrupted value
"""

from collections.abc import Sequence

import pandas as pd

from mechunlearn.config import LocalizeSettings
from mechunlearn.facts import Fact
from mechunlearn.localize.corruption import COLUMNS, logit_difference, nodes, normalised, pairs
from mechunlearn.models.model import Model
from mechunlearn.models.patching import Patch, Write, record, resume
from mechunlearn.models.scoring import run_prefix
from mechunlearn.progress import track
from mechunlearn.registry import localizer


@localizer("activation-patching")
def activation_patching(model: Model, facts: Sequence[Fact], settings: LocalizeSettings) -> pd.DataFrame:
    """How much of the answer is lost when one node of the clean run takes its value from the corrupted one.

    Pairs, nodes, metric and its normalisation are those of attribution patching, whose first-order estimate this is
    without the estimate; the patch covers every position from the subject on.
    """
    rules, every = settings.attribution, nodes(model.layout)
    parts = list(dict.fromkeys(node.part for node in every))
    rows, lost = [], []
    for pair in track(pairs(model, facts[: rules.facts], rules.corruption, settings.seed), "patching"):
        start = pair.subject[0]
        prefix = run_prefix(model, pair.clean[:start])
        clean = record(model, pair.clean[start:], prefix)
        corrupt = record(model, pair.corrupt[start:], prefix, parts)
        places = tuple(range(len(pair.clean) - start))
        patches = [
            Patch((Write(node.layer, *node.part, places, corrupt.parts[node.part], node.columns),)) for node in every
        ]
        high = logit_difference(model, clean.hidden, pair.tokens)
        patched = logit_difference(model, resume(model, clean, patches), pair.tokens)[:, 0]
        lost.append(float(high - logit_difference(model, corrupt.hidden, pair.tokens)))
        rows += [
            (pair.fact, node.layer, node.kind, node.head, "", effect)
            for node, effect in zip(every, (high - patched).tolist(), strict=True)
        ]
    return normalised(pd.DataFrame(rows, columns=COLUMNS), lost)
