"""The components that bring out the answer, from path patching's scores. Torch-free.

extracting   the heads and MLPs with the largest direct effects
"""

from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Extraction:
    """The components that bring out the answer: heads by (layer, head), MLPs by layer."""

    heads: tuple[tuple[int, int], ...]
    mlps: tuple[int, ...]

    @property
    def layers(self) -> list[int]:
        """Their layers, ascending."""
        return sorted({*(layer for layer, _ in self.heads), *self.mlps})


def extracting(scores: pd.DataFrame, count: int, heads_only: bool) -> Extraction:
    """The components with the largest mean direct effects on the answer, in size."""
    kinds = ["direct-head"] if heads_only else ["direct-head", "direct-mlp"]
    means = scores[scores.kind.isin(kinds)].groupby(["kind", "layer", "head"]).effect.mean().abs()
    top = means.sort_values(ascending=False, kind="stable").index[:count]
    return Extraction(
        tuple(sorted((layer, head) for kind, layer, head in top if kind == "direct-head")),
        tuple(sorted(layer for kind, layer, _ in top if kind == "direct-mlp")),
    )
