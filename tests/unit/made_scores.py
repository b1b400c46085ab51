"""Made-up scores and layouts, from numbers one can check by hand.

table      scores from plain rows
nested     what probes of a given accuracy get right
paths      scores of path patching with given means
layout_of  a model's layout of given sizes
"""

import numpy as np
import pandas as pd

from mechunlearn.artifacts import SCORE_COLUMNS, Component, Selection
from mechunlearn.models.components import NAMINGS, Inventory

CHANCE = 0.374  # the commonest sport of the paper's athletes
NOTHING = {(layer, draw): (draw - 4.5) / 1000 for layer in range(4) for draw in range(10)}  # -.0045 to .0045
LOOKUP = Selection("fact-lookup", [Component(layer, "mlp") for layer in (2, 3, 4)], 180, 180, 1000)


def nested(curve, layers, facts=500):
    """(layers, facts): fact i is right where i < accuracy x facts; the curve's end goes on."""
    padded = np.array([*curve, *[curve[-1]] * (layers - len(curve))])
    return np.arange(facts)[None] < np.round(padded * facts)[:, None]


def table(rows, seed=0):
    """Scores from (fact, layer, kind, head, effect)."""
    rows = [(seed, fact, layer, kind, head, "", effect) for fact, layer, kind, head, effect in rows]
    return pd.DataFrame(rows, columns=SCORE_COLUMNS)


def layout_of(layers, neurons=10, heads=2, kv_heads=2, size=1, width=1):
    """A layout with MLPs of `neurons` neurons of 3 x width parameters, and heads of `size` rows."""
    rows = {"q": heads * size, "k": kv_heads * size, "v": kv_heads * size}
    shapes = {}
    for layer in range(layers):
        for name in rows:
            shapes[f"model.layers.{layer}.self_attn.{name}_proj.weight"] = (rows[name], width)
        shapes[f"model.layers.{layer}.self_attn.o_proj.weight"] = (width, heads * size)
        for name in ("gate", "up"):
            shapes[f"model.layers.{layer}.mlp.{name}_proj.weight"] = (neurons, width)
        shapes[f"model.layers.{layer}.mlp.down_proj.weight"] = (width, neurons)
    return Inventory(NAMINGS[0], layers, heads, shapes, False)


def paths(means, random_means, facts=8, seed=0, noise=0.0):
    """Scores of path patching: lookup effects by layer, random effects by (layer, draw)."""
    rng = np.random.default_rng(seed)
    rows = []
    for fact in range(facts):
        rows += [(f"f{fact}", layer, "lookup", -1, mean + noise * rng.normal()) for layer, mean in enumerate(means)]
        rows += [
            (f"f{fact}", layer, "random", draw, mean + noise * rng.normal())
            for (layer, draw), mean in random_means.items()
        ]
        rows.append((f"f{fact}", 0, "direct-head", 3, 9.0))  # not what the rule reads
    return table(rows, seed)
