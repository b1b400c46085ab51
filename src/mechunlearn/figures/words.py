"""Names and numbers as people read them. Torch-free.

localization   "causal-tracing-mlps" -> "Causal tracing, MLPs only"
short          "nonlocalized" -> "Everything": within brackets
quoted         the same in quotation marks: within a sentence
elicitation    "choice-text" -> "Multiple choice, in words"
stage          "relearned@20" -> "relearning, 20 steps"
way            "edited choice-text" -> "multiple choice, in words": how an edit was got at
number         0.861, 0.79, 0.92 -> "0.86 [0.79, 0.92]"
parameters     11796480 -> "11.8 M"
listing        names -> "a, b and c"
span           4, 1, 9 -> "1 to 9"
ranges         2, 3, 4, 8 -> "2–4, 8"
components     a selection in words
contrast       paired differences from a reference in a sentence
each           what was found for each objective, a line each
"""

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from mechunlearn import registry
from mechunlearn.artifacts import Selection
from mechunlearn.figures.data import localizations, one
from mechunlearn.figures.html import MISSING

LOCALIZATIONS = {
    "base": "Before the edit",
    "fact-lookup": "Fact lookup",
    "fact-lookup-per-fact": "Fact lookup, fact by fact",
    "activation-patching": "Activation patching",
    "activation-patching-mlps": "Activation patching, MLPs only",
    "causal-tracing": "Causal tracing",
    "causal-tracing-mlps": "Causal tracing, MLPs only",
    "attribution-patching": "Attribution patching",
    "attribution-patching-mlps": "Attribution patching, MLPs only",
    "integrated-gradients": "Integrated gradients",
    "integrated-gradients-mlps": "Integrated gradients, MLPs only",
    "path-patching": "Path patching",
    "random": "Random components",
    "random-mlps": "Random MLPs",
    "all-mlps": "All MLPs",
    "nonlocalized": "Everything (nonlocalized)",
}
ELICITATIONS = {
    "completion": "Training prompt",
    "question": "Chatbot question",
    "profession": "Rephrased: profession",
    "famous": "Rephrased: fame",
    "paraphrase": "Rephrased",
    **{f"paraphrase-{number}": f"Rephrased, {number}" for number in (1, 2, 3)},
    "few-shot": "After other facts",
    "few-shot-related": "After facts like it",
    "system-expert": "System line: expert",
    "system-original": "System line: original",
    "choice-text": "Multiple choice, in words",
    "choice-letter": "Multiple choice, by letter",
    "reversed": "Asked backwards",
    "generation": "Free text",
    "quiz-validation": "Questions for validation",
    "quiz-test": "Questions for testing",
    "best-prompt": "Best prompt found",
    "biography": "Biographies",
    "similarity": "Similarity",
    "text": "Plain text",
    "probe-last": "Probe, end of prompt",
    "probe-last-permuted": "Probe, end of prompt, answers permuted",
    "probe-subject": "Probe, end of subject",
    "probe-subject-permuted": "Probe, end of subject, answers permuted",
}


STAGES = {
    "edited": "after the edit",
    "relearned": "relearning",
    "finetuned": "full fine-tuning",
    "soft-prompt": "soft prompt",
    "prompt-search": "prompt search",
    "int8": "weights in 8 bits",
    "int4": "weights in 4 bits",
}


def _spelled(name: str) -> str:
    return name.replace("-", " ").capitalize()


def localization(name: str) -> str:
    """A localization as people say it; one given by hand keeps its name."""
    family = registry.baseline(name)
    if family and family != name:
        return f"{LOCALIZATIONS[family]}, draw {name.rpartition('-')[2]}"
    return LOCALIZATIONS.get(name, name)


def short(name: str) -> str:
    """The same without what stands in brackets."""
    return localization(name).partition(" (")[0]


def quoted(name: str) -> str:
    """The same as the subject or object of a sentence."""
    return f"“{short(name)}”"


def elicitation(name: str) -> str:
    """A format of asking as people say it."""
    return ELICITATIONS.get(name, _spelled(name))


def stage(name: str) -> str:
    """A stage of measurement as people say it."""
    known, _, steps = name.partition("@")
    return STAGES.get(known, _spelled(known).lower()) + (f", {steps} steps" if steps else "")


def way(name: str) -> str:
    """A stage and a format: what brought the worst case."""
    reached, _, asked = name.partition(" ")
    return elicitation(asked).lower() if reached in ("edited", "base") else stage(reached)


def number(value: float, low: float | None = None, high: float | None = None, sign: bool = False) -> str:
    """A value to two decimals, with its interval where it has one."""
    form = "{:+.2f}" if sign else "{:.2f}"
    text = _tidy(form.format(value))
    if low is None or high is None:
        return text
    return f"{text} [{_tidy(form.format(low))}, {_tidy(form.format(high))}]"


def _tidy(text: str) -> str:
    """No negative zero, and a real minus sign."""
    return text.replace("-0.00", "0.00").replace("+0.00", "0.00").replace("-", "−")


def row(found: object, sign: bool = False) -> str:
    """A metrics row as value and interval; a dash where there is none."""
    if found is None:
        return MISSING
    return number(found.value, found.low, found.high, sign)  # type: ignore[attr-defined]


def parameters(count: int) -> str:
    """A number of parameters, short."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return str(count)


def listing(names: Iterable[str]) -> str:
    """`a, b and c`."""
    names = list(names)
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else "none"


def span(values: Iterable[float]) -> str:
    """`1 to 9`, or the one value there is."""
    values = sorted(set(values))
    return f"{values[0]:g} to {values[-1]:g}" if len(values) > 1 else f"{values[0]:g}"


def ranges(values: Iterable[int]) -> str:
    """Ascending whole numbers with runs joined: `2–4, 8`."""
    runs: list[list[int]] = []
    for value in sorted(values):
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)


def components(selection: Selection) -> str:
    """`MLPs 3, 6 (6 in part); attention 12; heads 3.0, 3.1`: the first two heads of layer 3."""
    parts = []
    blocks = [component for component in selection.components if component.head is None]
    for kind, name in (("mlp", "MLP"), ("attention", "attention")):
        layers = [component.layer for component in blocks if component.kind == kind]
        if layers:
            partial = [c.layer for c in blocks if c.kind == kind and c.neurons is not None]
            plural = "s" if kind == "mlp" and len(layers) > 1 else ""
            parts.append(f"{name}{plural} {ranges(layers)}" + (f" ({ranges(partial)} in part)" if partial else ""))
    heads = sorted((c.layer, c.head) for c in selection.components if c.head is not None)
    if heads:
        parts.append("heads " + ", ".join(f"{layer}.{head}" for layer, head in heads))
    return "; ".join(parts)


def contrast(metrics: pd.DataFrame, metric: str, reference: str = "fact-lookup", **where: str) -> str:
    """How each localization differs from a reference, on the same facts, as a sentence; empty where none does.

    A difference is called higher or lower only where its whole interval lies on one side of zero.
    """
    sides: dict[str, list[str]] = {"higher": [], "lower": [], "level": []}
    for name in localizations(metrics):
        found = one(metrics, metric, against=reference, localization=name, **where)
        if found is not None:
            side = "higher" if found.low > 0 else "lower" if found.high < 0 else "level"
            sides[side].append(f"{quoted(name)} ({row(found, sign=True)})")
    parts = [f"{side} for {listing(sides[side])}" for side in ("higher", "lower") if sides[side]]
    if sides["level"]:
        parts.append(f"not clearly different for {listing(sides['level'])}")
    if not parts:
        return ""
    return f"Against {short(reference).lower()}, fact by fact, it is {'; '.join(parts)}."


def each(found: Mapping[str, Sequence[str]]) -> str:
    """Sentences by objective: a line each that has any, named where there are several."""
    told = {objective: " ".join(filter(None, sentences)) for objective, sentences in found.items()}
    return "\n".join(f"{name}: {text}" if len(found) > 1 else text for name, text in told.items() if text)
