"""A made-up study on disk, written by the package's own writers: any size, no model.

study   the configuration
build   every file that figures and report read, below the current folder
"""

import random
from pathlib import Path

import pandas as pd

from mechunlearn import artifacts, claims, registry
from mechunlearn import study as layout
from mechunlearn.artifacts import Component, Selection
from mechunlearn.config import Study, validate_study
from mechunlearn.facts import sports
from mechunlearn.localize.ranks import write_planted
from mechunlearn.metrics import metrics
from mechunlearn.published import kind, means

ROOT = Path(__file__).parents[2]
MLP, ATTENTION, LAYERS, HEADS = 3000, 1000, 18, 4
FORGET, KEPT = 16, 40
STRENGTH = {"fact-lookup": 0.9, "causal-tracing": 0.6, "nonlocalized": 0.7, "base": 0.02}


def study(name: str = "made-up", localizations: tuple[str, ...] = (), **more: object) -> Study:
    """A study of two models' worth of nothing: one model, one task, unless `more` says otherwise."""
    return validate_study(
        {
            "study": name,
            "models": {"tiny": {"source": "path:nowhere"}},
            "tasks": {"sports-athlete-16": {"facts": "sports", "forget": FORGET}},
            "localizations": list(localizations) or ["fact-lookup", "causal-tracing", "nonlocalized"],
            "report": {"bootstrap": 100},
            "relearn": {"steps": [0, 5, 10]},
            **more,
        }
    )


def build(made: Study) -> Path:
    """Write the study's files; returns the folder of the first model and task."""
    hidden = []
    for model, settings in made.models.items():
        artifacts.write_json(Path("models") / model / "model.json", {"source": settings.source, "sha256": "0" * 64})
    for model, task in layout.pairs(made):
        planted = made.models[model].planted
        scores = _cell(made, layout.home(made.study, model, task), planted[1] if planted else 3)
        if planted:
            hidden.append((model, task, planted[1], scores))
    if hidden:
        write_planted(layout.RESULTS / made.study / "planted.csv", hidden)
    tables = {layout.cell_of(path): artifacts.read_measurements(path) for path in layout.measurement_files(made)}
    table = metrics(tables, made.evaluate, made.report)
    artifacts.write_table(layout.RESULTS / made.study / "metrics.csv", table)
    tasks = {name: kind(task) for name, task in made.tasks.items()}
    artifacts.write_json(
        layout.RESULTS / made.study / "claims.json", claims.check(table, tasks, means(ROOT / "report/published"))
    )
    return layout.home(made.study, *layout.pairs(made)[0])


def _cell(made: Study, home: Path, place: int) -> dict[str, pd.DataFrame]:
    """The files of a model and task whose facts lie in the MLP of one layer; returns the scores."""
    roles = ["forget"] * FORGET + ["maintain-test"] * KEPT + ["maintain-train"] * KEPT + ["unknown"] * 20
    facts = [sports.plays(f"fact {i}", "baseball").with_role(role) for i, role in enumerate(roles)]
    artifacts.write_facts(home / "facts.parquet", facts, [0.9] * len(facts), [1] * len(facts))
    scores = _scores(place)
    for name, table in {**scores, **({"path-patching": _direct()} if made.masking.localizations else {})}.items():
        artifacts.write_table(home / f"scores/{name}.parquet", table)
    formats = made.asked(home.name)
    for name in made.localizations:
        artifacts.write_selection(home / "selection" / f"{name}.json", selection(name))
        for objective in made.objectives:
            edited = pd.concat([_measure(made, name, "edited", formats), _blocks(made, name, home.name)])
            artifacts.write_table(home / "measurements" / name / f"{objective}.parquet", edited)
            relearned = [_measure(made, name, f"relearned@{step}", ["completion"]) for step in made.relearn.steps]
            for attack in made.attacks:
                rows = _probed(made, name) if attack == "probe" else pd.concat(relearned)
                artifacts.write_table(home / "attacks" / attack / name / f"{objective}.parquet", rows)
    for name in made.masking.localizations:
        rows = [_measure(made, name, f"masked@{size}", ["completion", "choice-text"]) for size in made.masking.sizes]
        artifacts.write_table(home / "masks" / f"{name}.parquet", pd.concat(rows))
        artifacts.write_table(home / "masks" / f"{name}-weights.parquet", _weights(made))
    artifacts.write_table(home / "measurements/base.parquet", _measure(made, "base", "base", formats))
    for attack in made.attacks if made.objectives else []:
        rows = _probed(made, "base") if attack == "probe" else _measure(made, "base", "relearned@0", ["completion"])
        artifacts.write_table(home / "attacks" / attack / "base.parquet", rows)
    return scores


def _probed(made: Study, localization: str) -> pd.DataFrame:
    """Probes of every layer at both places, with their control."""
    formats = [f"probe-{place}{ending}" for place in ("last", "subject") for ending in ("", "-permuted")]
    return pd.concat(_measure(made, localization, f"probed@{layer}", formats) for layer in range(LAYERS))


def selection(name: str) -> Selection:
    """What each localization trains here; causal tracing takes half of layer 6's neurons, attribution three heads."""
    every = [Component(layer, kind) for layer in range(LAYERS) for kind in ("attention", "mlp")]
    chosen = {
        "fact-lookup": [Component(layer, "mlp") for layer in (2, 3, 4)],
        "causal-tracing": [Component(3, "mlp"), Component(12, "attention"), Component(6, "mlp", 50)],
        "attribution-patching": [Component(8, "mlp"), *(Component(5, "attention", head=head) for head in (0, 1, 3))],
        "all-mlps": [component for component in every if component.kind == "mlp"],
        "nonlocalized": every,
    }.get(name, [Component(layer, "mlp") for layer in (0, 7, 13)])
    sizes = {("mlp", None): MLP, ("mlp", 50): MLP // 2, ("attention", None): ATTENTION}
    count = sum(sizes[part.kind, part.neurons] if part.head is None else ATTENTION // HEADS for part in chosen)
    agreement = {"value": 0.6, "low": 0.4, "high": 0.9, "chance": 0.1}
    rows = (
        []
        if registry.baseline(name)
        else [{"what": "facts", "n": 8, **agreement}, {"what": "seeds", "n": 2, **agreement}]
    )
    details = {
        "stability": rows,
        "rule": "rise",
        "part": 0.5,
        "frequency": [0.0, 0.2, 0.9, 1.0, 0.6] + [0.0] * (LAYERS - 5),
    }
    return Selection(name, chosen, count, 3 * MLP, LAYERS * (MLP + ATTENTION), details)


def _weights(made: Study) -> pd.DataFrame:
    """Masked weights: as many of layer 2's MLP as of head 1 of layer 12 and of what that layer's heads share."""
    rows = [
        (0, size, layer, kind, head, size // 3, MLP if kind == "mlp" else ATTENTION)
        for size in made.masking.sizes
        for layer, kind, head in [(2, "mlp", -1), (12, "attention", 1), (12, "attention", -1)]
    ]
    return pd.DataFrame(rows, columns=artifacts.MASK_COLUMNS)


def _direct() -> pd.DataFrame:
    """Direct effects: head 1 of layer 12 stands out, then everything in layer 2. MLP 3 feeds what does."""
    rows = [
        (0, f"fact {fact}", layer, kind, head, "", 0.5 if (layer, head) == (12, 1) else 0.1 if layer == 2 else 0.01)
        for fact in range(8)
        for layer in range(LAYERS)
        for kind, head in [("direct-mlp", -1), *(("direct-head", head) for head in range(HEADS))]
    ]
    for fact in range(8):
        rows += [(0, f"fact {fact}", layer, "lookup", -1, "", 0.3 * (layer == 3)) for layer in range(LAYERS)]
        rows += [(0, f"fact {fact}", layer, "random", n, "", 0.01 * n) for layer in range(LAYERS) for n in range(4)]
    return pd.DataFrame(rows, columns=artifacts.SCORE_COLUMNS)


def _blocks(made: Study, localization: str, task: str) -> pd.DataFrame:
    """Rows of a sequential task: a block's edit fades a little with every block that follows."""
    rng, count, rows = random.Random(f"blocks-{localization}"), made.tasks[task].blocks or 0, []
    for after in range(count + 1 if count else 0):
        for fact in range(FORGET):
            block = 1 + fact * count // FORGET
            new = 0.05 if after < block else max(0.0, STRENGTH.get(localization, 0.5) - 0.1 * (after - block))
            new *= rng.uniform(0.9, 1.1)
            rows.append(
                {"seed": 0, "stage": f"edited@{after}", "elicitation": "completion", "order": 0, "rank": 2}
                | {"role": f"block-{block}", "fact": f"fact {fact}", "p_true": 1 - new, "p_new": new, "p_options": 1.0}
                | {"choice": "new" if new > 0.5 else "true", "argmax": " x", "nll": None}
            )
    return artifacts.measurement_table(rows)


def _scores(place: int) -> dict[str, pd.DataFrame]:
    """Scores by localizer: the MLP of layer `place` stands out, but for attribution patching, which misses it."""
    rng = random.Random("scores")
    parts = [("mlp", -1), ("mlp-in", -1), *((kind, head) for kind in ("head", "q") for head in range(HEADS))]
    exact = [
        (0, f"fact {fact}", layer, kind, head, "", rng.gauss(0.05 if (kind, layer) == ("mlp", place) else 0, 0.005))
        for fact in range(8)
        for layer in range(LAYERS)
        for kind, head in parts
    ]
    mapped = [  # which no ranking may take up
        (0, f"fact {fact}", layer, kind, -1, position, rng.gauss(0.1, 0.05))
        for fact in range(4)
        for layer in range(LAYERS)
        for kind in ("state", "mlp-window", "attention-window")
        for position in ("first subject token", "last subject token", "last token")
    ]
    probes = [(0, "", -1, "chance", -1, "", 0.4)] + [
        (0, f"fact {fact}", layer, kind, -1, "", float(rng.random() < (0.85 if layer > rise else 0.42)))
        for kind, rise in (("probe-subject", 3), ("probe-prompt", 9))
        for layer in range(LAYERS)
        for fact in range(60)
    ]
    rows = {
        "fact-lookup": probes,
        "causal-tracing": [row for row in exact if row[3] in ("mlp", "head")] + mapped,
        "activation-patching": exact,
        "attribution-patching": [(*row[:6], 0.0 if row[2:4] == (place, "mlp") else 0.8 * row[6]) for row in exact],
        "integrated-gradients": [(*row[:6], 0.9 * row[6]) for row in exact],
    }
    return {name: pd.DataFrame(each, columns=artifacts.SCORE_COLUMNS) for name, each in rows.items()}


def _measure(made: Study, localization: str, stage: str, elicitations: list[str]) -> pd.DataFrame:
    """Rows in which an edit's strength depends on the localization, fades with relearning and by format."""
    rows = []
    rng = random.Random(f"{localization}-{stage}")
    strength = STRENGTH.get(localization, 0.3 + rng.random() / 2)
    relearned = int(stage.partition("@")[2] or 0) / 15
    for elicitation in elicitations:
        rng = random.Random(f"{localization}-{stage}-{elicitation}")
        fade = 0.5 if elicitation.startswith("choice") else 1.0
        known = 0.25 if elicitation == "choice-letter" else 0.8
        roles = [("forget", 0, FORGET), ("maintain-test", FORGET, KEPT)]
        if "@" in stage:
            roles = [("forget", 0, FORGET), ("relearn-train", 0, FORGET), ("maintain-test", FORGET, KEPT)]
        for role, first, count in roles:
            for fact in range(first, first + count):
                back = relearned * (1.4 if role == "relearn-train" else 0.6)
                new = max(0.0, strength * fade * rng.uniform(0.8, 1.1) * (1 - back)) if first == 0 else 0.0
                true = (1 - new) * known * rng.uniform(0.8, 1.1)
                right = rng.random() < true
                rows.append(
                    {"seed": 0, "stage": stage, "elicitation": elicitation, "order": 0, "role": role}
                    | {"fact": f"fact {fact}", "p_true": true, "p_new": None if first else new, "p_options": 1.0}
                    | {"rank": 1 if right else 2, "choice": "true" if right else "new", "argmax": " x", "nll": None}
                )
    if stage in ("base", "edited") or stage.startswith("masked@"):
        place = {"seed": 0, "stage": stage, "elicitation": "text", "order": 0, "role": "text", "rank": 0}
        for number in range(8):
            nll = 3.5 + rng.gauss(0, 0.1)
            rows.append({**place, "fact": f"text {number}", "choice": "", "argmax": "", "nll": nll})
    return artifacts.measurement_table(rows)
