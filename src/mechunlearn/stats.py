"""Intervals over facts. Torch-free.

interval   a mean and its bootstrap interval
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
    means = values[_draws(len(values), samples)].mean(1)
    low, high = np.quantile(means, [tail, 1 - tail])
    return mean, float(low), float(high)


@lru_cache(maxsize=32)
def _draws(count: int, samples: int) -> np.ndarray:
    """The same resamples for every metric over as many facts, so that intervals are reproducible."""
    return np.random.default_rng(SEED).integers(0, count, (samples, count))
