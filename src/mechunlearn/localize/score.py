"""Running a localizer.

score   the scores of every run of a localizer, as they are kept
"""

from collections.abc import Sequence

import pandas as pd

from mechunlearn import registry
from mechunlearn.artifacts import SCORE_COLUMNS
from mechunlearn.config import LocalizeSettings
from mechunlearn.facts import Fact
from mechunlearn.models.model import Model


def score(model: Model, facts: Sequence[Fact], localizer: str, settings: LocalizeSettings) -> pd.DataFrame:
    """A localizer's scores with the columns SCORE_COLUMNS, once for each of the settings' runs."""
    function = registry.load("localizer", localizer)
    runs = [function(model, facts, run).assign(seed=run.seed) for run in settings.runs()]
    return pd.concat(runs, ignore_index=True)[SCORE_COLUMNS]
