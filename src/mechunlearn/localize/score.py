"""Running a localizer.

score   the scores of every run of a localizer, as they are kept
"""

from collections.abc import Sequence

import pandas as pd

from mechunlearn import registry
from mechunlearn.artifacts import SCORE_COLUMNS
from mechunlearn.config import LocalizeSettings
from mechunlearn.errors import FactError
from mechunlearn.facts import Fact, trained
from mechunlearn.facts.roles import shuffled
from mechunlearn.models.model import Model


def score(model: Model, facts: Sequence[Fact], localizer: str, settings: LocalizeSettings) -> pd.DataFrame:
    """A localizer's scores with the columns SCORE_COLUMNS, once for each of the settings' runs.

    The facts come in an order that has nothing to do with that of their file, which may be sorted: localizers that see
    a few see the first of them. Where the facts have blocks, each block is scored by itself and the scores have a
    further column `block`. Raises FactError where only facts to edit are to be seen and there are none.
    """
    facts = shuffled(facts, lambda fact: fact.id, "localize")
    function, own = registry.load("localizer", localizer, settings.plugins), trained(facts)
    blocks = sorted({fact.block for fact in own if fact.block})
    if settings.facts == "forget" and not own:
        raise FactError("localize.facts is forget, but none of these facts is to be forgotten; allowed here: known.")
    seen = {block: [fact for fact in own if fact.block == block] for block in blocks}
    seen = seen or {0: own if settings.facts == "forget" else facts}
    runs = [
        function(model, part, run).assign(seed=run.seed, block=block)
        for run in settings.runs()
        for block, part in seen.items()
    ]
    return pd.concat(runs, ignore_index=True)[[*SCORE_COLUMNS, *(["block"] if blocks else [])]]
