"""Fact lookup by probes: the layers in which a subject's token comes to know the answer (paper 2.2, A.2.1).

probes            probe accuracy per layer, at the end of the name alone and at the end of the whole prompt
residual_stream   hidden states after every layer
probe             out-of-fold predictions from them

The rule that reads layers off the curve is `lookup_rules.rise`.
"""

import logging
import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from mechunlearn.config import LocalizeSettings
from mechunlearn.errors import FactError
from mechunlearn.facts import Fact
from mechunlearn.models.model import Model
from mechunlearn.models.states import classifier, states
from mechunlearn.progress import track
from mechunlearn.registry import load as method

log = logging.getLogger(__name__)


def probes(model: Model, facts: Sequence[Fact], settings: LocalizeSettings) -> pd.DataFrame:
    """Cross-validated probe accuracy of the answer, from the residual stream after each layer.

    A multinomial logistic regression reads the last token of two inputs: the subject's name alone (kind
    `probe-subject`) and the training prompt (kind `probe-prompt`). Facts whose subject the probe has seen are
    never scored: every prediction is out of fold.

    Returns one row per fact, layer and probe; `effect` is 1 where the probe is right, else 0. One more row, kind
    `chance`, holds the share of the commonest answer.
    """
    chosen = facts[: settings.probes.facts]
    ask = method("elicitation", "completion")
    texts = {
        "probe-subject": [model.encode(fact.subject) for fact in chosen],
        "probe-prompt": [model.encode(ask(fact)[0].text) for fact in chosen],
    }
    answers = np.array([fact.answer for fact in chosen])
    if len(set(answers)) < 2:
        raise FactError(
            f"all {len(chosen)} known facts have the answer {answers[0]!r}, so a probe has nothing to tell apart; "
            "`localize.lookup: path-patching` uses none."
        )
    rarest = pd.Series(answers).value_counts().min()
    if rarest < settings.probes.folds:
        raise FactError(
            f"localize.probes.folds is {settings.probes.folds}, but the rarest answer among the {len(chosen)} known "
            f"facts stands there {rarest} times; allowed: 2 to {rarest}."
        )
    chance = float(pd.Series(answers).value_counts(normalize=True).iloc[0])
    tables = [pd.DataFrame({"fact": [""], "layer": -1, "kind": "chance", "head": -1, "position": "", "effect": chance})]
    for kind, sequences in texts.items():
        stream = residual_stream(model, sequences)
        for layer in track(range(model.layout.layers), f"probing {kind}"):
            right = probe(stream[layer], answers, settings.probes.folds, settings.seed) == answers
            tables.append(
                pd.DataFrame(
                    {
                        "fact": [fact.id for fact in chosen],
                        "layer": layer,
                        "kind": kind,
                        "head": -1,
                        "position": "",
                        "effect": 1.0 * right,
                    }
                )
            )
    return pd.concat(tables, ignore_index=True)


def residual_stream(model: Model, sequences: Sequence[Sequence[int]], rows: int = 64) -> np.ndarray:
    """The residual stream after every layer at the last token: (layers, sequences, d_model), float32."""
    parts = [(model.layout.module(layer), "output") for layer in range(model.layout.layers)]
    return states(model, parts, sequences, [[len(sequence) - 1] for sequence in sequences], rows)[:, 0]


def probe(stream: np.ndarray, answers: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Out-of-fold predictions of the answer from (facts, d_model) states."""
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        predictions: np.ndarray = cross_val_predict(classifier(300), stream, answers, cv=splits)
    return predictions
