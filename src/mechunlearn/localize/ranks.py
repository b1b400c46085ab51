"""Where facts were planted in one layer's MLP: the rank that each localizer gives this layer. Torch-free.

ranks           scores by localizer -> the planted layer's rank among all MLPs, with an interval over facts
write_planted   planted.csv: the ranks of every planted model
reading         what a localizer ranks MLPs by
rank_of         a layer's rank; 1 is first, ties share the mean of their ranks
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from mechunlearn.artifacts import PLANTED_COLUMNS, write_table
from mechunlearn.localize.lookup_rules import effects_of, mean_over_runs
from mechunlearn.stats import central, resampled_means

COLUMNS = ["localizer", "layer", "rank", "low", "high", "layers", "first", "effect", "effects", "n"]
KINDS = ("probe-subject", "lookup", "mlp")  # the first that the scores have
SAMPLES, CONFIDENCE = 2000, 0.95
DIGITS = 12  # what differs by less is a tie


def ranks(scores: Mapping[str, pd.DataFrame], layer: int) -> pd.DataFrame:
    """One row a localizer: the rank of a layer's MLP among all MLPs.

    low, high   central 95% of the rank over bootstrap draws of the facts
    first       the layer that comes first, the lowest of several
    effect      what the localizer measures of the layer; `effects` of every layer, in order
    n           how many facts
    """
    rows = []
    for localizer, effects_by_fact in scores.items():
        found, sizes = reading(effects_by_fact)
        effects = sizes(found.mean(0))
        draws = rank_of(sizes(resampled_means(found, SAMPLES)), layer)
        place = float(rank_of(effects, layer)), *central(draws, CONFIDENCE, len(found))
        first, every = int(np.round(effects, DIGITS).argmax()), tuple(effects.tolist())
        rows.append((localizer, layer, *place, len(every), first, every[layer], every, len(found)))
    return pd.DataFrame(rows, columns=COLUMNS)


def write_planted(path: Path, found: Iterable[tuple[str, str, int, Mapping[str, pd.DataFrame]]]) -> pd.DataFrame:
    """Write and return the ranks of every (model, task, planted layer, scores by localizer)."""
    tables = [ranks(scores, layer).assign(model=model, task=task) for model, task, layer, scores in found]
    table = pd.concat(tables, ignore_index=True)[PLANTED_COLUMNS]
    write_table(path, table)
    return table


def reading(scores: pd.DataFrame) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Effects averaged over runs, (facts, layers), and how their means over facts, (..., layers), rank the MLPs.

    Probes rank by the rise of the name's accuracy over the layer before, in the first layer over chance; path patching
    by the effect through the extraction components, with its sign; all others by the size of an MLP's effect.
    """
    kind = next(kind for kind in KINDS if kind in set(scores.kind))
    found = mean_over_runs(effects_of(scores, kind))
    if kind == "mlp":
        return found, lambda means: abs(means)
    if kind == "lookup":
        return found, lambda means: means
    chance = float(scores[scores.kind == "chance"].effect.iloc[0])
    return found, lambda means: np.diff(means, axis=-1, prepend=np.full_like(means[..., :1], chance))


def rank_of(sizes: np.ndarray, layer: int) -> np.ndarray:
    """(..., layers) -> (...), 1 for the largest; layers of equal size share the mean of their ranks."""
    sizes = np.round(sizes, DIGITS)
    own = sizes[..., layer, None]
    return 1 + (sizes > own).sum(-1) + ((sizes == own).sum(-1) - 1) / 2
