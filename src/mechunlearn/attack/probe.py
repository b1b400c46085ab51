"""Latent knowledge: can the forgotten answers still be read off an edited model's hidden states? (paper 3.3, A.7.4)

probe        measurement rows of a probe at every layer, at the end of the prompt and of the subject
groups       which facts probes are trained on and measured by, by relation
read_off     what a probe of one relation says of its measured facts
permuted     answers dealt out anew: the control, which knows the classes but not whose they are
"""

import logging
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mechunlearn.config import ProbeAttackSettings
from mechunlearn.facts import MEASURED, Fact
from mechunlearn.facts.text import Passage
from mechunlearn.models.interventions import Part
from mechunlearn.models.model import Model
from mechunlearn.models.states import classifier, states
from mechunlearn.progress import track
from mechunlearn.registry import attack
from mechunlearn.registry import load as method

log = logging.getLogger(__name__)
PLACES = ("last", "subject")
ITERATIONS = 1000  # paper; it takes tens


@dataclass(frozen=True)
class Group:
    """One relation's facts: those its probes are trained on, whose answers are the classes, and those measured."""

    trained: list[Fact]
    measured: list[Fact]


@attack("probe")
def probe(
    model: Model, facts: Sequence[Fact], passages: Sequence[Passage], settings: ProbeAttackSettings, seed: int
) -> list[dict[str, Any]]:
    """Measurement rows of forget and maintain-test facts; stages `probed@LAYER`.

    Layer l is what goes into block l, as `hidden_states[l]` of Hugging Face; the last one is the final norm's output.
    At each, one regression a relation learns the answers of maintain-train facts, from the edited model's states at
    the last token of the training prompt (elicitation `probe-last`) and of the subject (`probe-subject`). Those
    ending in `-permuted` learned the same answers dealt out anew for every layer: what a probe says without any
    knowledge. p_true and p_new are the probe's probabilities, `rank` is among the classes and `argmax` names one.

    No rows where no relation can be probed (see `groups`), with a line in the log.
    """
    relations = groups(facts, settings.examples)
    if not relations:
        return []
    chosen = [fact for group in relations.values() for fact in [*group.trained, *group.measured]]
    stream = hidden_states(model, chosen)
    rows: list[dict[str, Any]] = []
    for layer in track(range(len(stream)), f"probing, seed {seed}"):
        for place, found in zip(PLACES, stream[layer], strict=True):
            start = 0
            for relation, group in relations.items():
                middle, end = start + len(group.trained), start + len(group.trained) + len(group.measured)
                answers = [fact.answer for fact in group.trained]
                dealt = permuted(answers, f"{seed}-{relation}-{layer}-{place}")
                for name, labels in ((f"probe-{place}", answers), (f"probe-{place}-permuted", dealt)):
                    where = {"seed": seed, "stage": f"probed@{layer}", "elicitation": name}
                    read = read_off(found[start:middle], labels, found[middle:end], group.measured)
                    rows += [{**row, **where} for row in read]
                start = end
    return rows


def groups(facts: Sequence[Fact], examples: int) -> dict[str, Group]:
    """By relation, the facts to train on and to measure; none, and a line in the log, where nothing can be probed.

    A relation's classes are the answers that at least `examples` maintain-train facts have, two or more. Trained on
    are those facts; measured are forget and maintain-test facts whose true answer and new answer, if they have one,
    are among the classes.
    """
    found, probed = dict[str, Group](), 0
    for relation in dict.fromkeys(fact.relation for fact in facts):
        of_relation = [fact for fact in facts if fact.relation == relation]
        counts = Counter(fact.answer for fact in of_relation if fact.role == "maintain-train")
        classes = {answer for answer, count in counts.items() if count >= examples}
        if len(classes) < 2:
            continue
        probed += 1
        trained = [fact for fact in of_relation if fact.role == "maintain-train" and fact.answer in classes]
        measured = [
            fact
            for fact in of_relation
            if fact.role in MEASURED and {fact.answer, fact.new_answer or fact.answer} <= classes
        ]
        if measured:
            found[relation] = Group(trained, measured)
    if not probed:
        log.warning("nothing is probed: no relation has two answers with %s maintain-train facts each", examples)
    elif not found:
        log.warning(
            "nothing is probed: no fact's answers are among those that %s maintain-train facts of its relation have",
            examples,
        )
    else:
        measured_ids = {fact.id for group in found.values() for fact in group.measured}
        left = sum(fact.role in MEASURED and fact.id not in measured_ids for fact in facts)
        log.info("probing %s facts of %s relations; %s are left out", len(measured_ids), len(found), left)
    return found


def hidden_states(model: Model, facts: Sequence[Fact]) -> np.ndarray:
    """(layers + 1, places, facts, d_model), float32, at PLACES of the training prompt."""
    ask, layers = method("elicitation", "completion"), model.layout.layers
    parts: list[Part] = [(model.layout.module(layer), "input") for layer in range(layers)]
    located = [model.locate(ask(fact)[0]) for fact in facts]
    positions = [[len(ids) - 1, subject[-1]] for ids, subject in located]
    return states(model, [*parts, (model.layout.module(layers), "output")], [ids for ids, _ in located], positions)


def read_off(
    trained: np.ndarray, answers: Sequence[str], stream: np.ndarray, facts: Sequence[Fact]
) -> list[dict[str, Any]]:
    """What a probe of (facts, width) states and their answers says of other facts' states: one row a fact.

    Raises ValueError where a fact's answer is not among those learned.
    """
    fitted = classifier(ITERATIONS).fit(trained, np.array(answers))
    classes = fitted.classes_.tolist()
    rows = []
    for fact, shares in zip(facts, fitted.predict_proba(stream), strict=True):
        said, true = classes[int(shares.argmax())], shares[classes.index(fact.answer)]
        rows.append(
            {
                "fact": fact.id,
                "order": 0,
                "role": fact.role,
                "p_true": float(true),
                "p_new": float(shares[classes.index(fact.new_answer)]) if fact.new_answer else float("nan"),
                "p_options": 1.0,
                "rank": int((shares > true).sum()) + 1,
                "choice": {fact.answer: "true", fact.new_answer: "new"}.get(said, "other"),
                "argmax": said,
                "nll": float("nan"),
                "kl": float("nan"),
            }
        )
    return rows


def permuted(answers: Sequence[str], seed: str) -> list[str]:
    """The same answers in another order."""
    return random.Random(f"permuted-{seed}").sample(answers, len(answers))
