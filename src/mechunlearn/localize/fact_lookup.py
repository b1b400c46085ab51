"""Fact lookup: the MLPs that look a fact up (Guo et al. 2025, section 2.2), by whichever method suits the facts.

fact_lookup   probes where one relation has few answers, path patching where it has many
"""

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from mechunlearn.config import LocalizeSettings
from mechunlearn.facts import Fact
from mechunlearn.localize.path_patching import path_patching
from mechunlearn.localize.probes import probes
from mechunlearn.models.model import Model
from mechunlearn.registry import localizer


@localizer("fact-lookup")
def fact_lookup(model: Model, facts: Sequence[Fact], settings: LocalizeSettings) -> pd.DataFrame:
    """Accuracies of probes, or effects of MLPs through the extraction components; see probes and path_patching.

    `lookup: auto` takes probes where the facts share one relation and each of their answers stands there often enough
    for the probes' cross-validation, as for sports, and path patching for general relations, as for CounterFact.
    """
    counts = Counter(fact.answer for fact in facts[: settings.probes.facts])
    few = len({fact.relation for fact in facts}) == 1 < len(counts) and min(counts.values()) >= settings.probes.folds
    by_probes = few if settings.lookup == "auto" else settings.lookup == "probes"
    return (probes if by_probes else path_patching)(model, facts, settings)
