"""Hidden states at single tokens, and the probe that reads them: for localization and attack alike.

states       what parts of a model put out or take in, at chosen positions of many sequences
classifier   a regularised multinomial logistic regression of standardised states
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mechunlearn.models.interventions import Part, capture
from mechunlearn.models.model import Model
from mechunlearn.models.scoring import common_prefix, pad, repeat, run_prefix


@torch.no_grad()
def states(
    model: Model,
    parts: Sequence[Part],
    sequences: Sequence[Sequence[int]],
    positions: Sequence[Sequence[int]],
    rows: int = 64,
) -> np.ndarray:
    """Parts at each sequence's positions, as many for every sequence.

    Returns (parts, positions, sequences, width), float32. Sequences run `rows` at a time by length; what all of them
    share before the first position is run once.
    """
    found = np.zeros((len(parts), len(positions[0]), len(sequences), model.width), dtype=np.float32)
    order = sorted(range(len(sequences)), key=lambda index: (len(sequences[index]), index))
    for start in range(0, len(order), rows):
        batch = order[start : start + rows]
        at = torch.tensor([list(positions[index]) for index in batch]).T
        shared = min(common_prefix([sequences[index] for index in batch]), int(at.min()))
        with capture(model, parts) as seen:
            prefix = run_prefix(model, sequences[batch[0]][:shared])
            inputs, _ = pad([sequences[index][shared:] for index in batch], model.device)
            model.network.base_model(input_ids=inputs, past_key_values=repeat(prefix, len(batch)))
        for number, part in enumerate(parts):
            found[number][:, batch] = seen[part][torch.arange(len(batch)), at - shared].float().cpu().numpy()
    return found


def classifier(iterations: int) -> Any:
    """An untrained probe: fit((facts, width), answers), then predict or predict_proba."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=iterations))
