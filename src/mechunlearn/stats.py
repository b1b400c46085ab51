"""Intervals over facts. Torch-free.

interval          a mean and its bootstrap interval
resampled_means   means of many columns over facts drawn again
central           the interval that holds the central part of what resampling gave
"""

from functools import lru_cache

import numpy as np

SEED = 20250101


def interval(values: np.ndarray, samples: int, confidence: float, bounded: bool) -> tuple[float, float, float]:
    """(mean, low, high): percentile bootstrap over facts.

    values    one number a fact, seeds and option orders already averaged
    bounded   whether the values are shares between 0 and 1

    Where every fact agrees on a share of 0 or 1, resampling can only agree too; the interval is then Clopper and
    Pearson's exact one, so that 16 successes of 16 read as [0.79, 1] and not as certainty.
    """
    mean, tail = float(values.mean()), (1 - confidence) / 2
    if bounded and np.all(values == values[0]) and values[0] in (0.0, 1.0):
        width = 1 - tail ** (1 / len(values))
        return (mean, 0.0, width) if mean == 0 else (mean, 1 - width, 1.0)
    return mean, *central(values[_draws(len(values), samples)].mean(1), confidence)


def resampled_means(values: np.ndarray, samples: int) -> np.ndarray:
    """Means over facts drawn again and again: (facts, columns) -> (samples, columns).

    Tables over as many facts get the same draws, so what is computed from two of them is paired by fact.
    """
    draws = _draws(len(values), samples)
    often = np.zeros((samples, len(values)))
    np.add.at(often, (np.arange(samples)[:, None], draws), 1)
    return often @ values / len(values)


def central(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """The quantiles between which the central part of the values lies."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


@lru_cache(maxsize=32)
def _draws(count: int, samples: int) -> np.ndarray:
    """The same resamples for every metric over as many facts, so that intervals are reproducible."""
    return np.random.default_rng(SEED).integers(0, count, (samples, count))
