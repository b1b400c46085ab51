"""What was done, in sentences: the text of a report that depends on its study. Torch-free.

methods     what each localizer does
trained     what each objective trains
training    how long an edit is trained
in_turn     which facts are edited one after another
attacked    what each attack does
facts_seen  how many facts each localizer saw
"""

from collections.abc import Sequence
from pathlib import Path

from mechunlearn.config import EditSettings, Study
from mechunlearn.figures import data, words

METHODS = {
    "fact-lookup": "fact lookup takes the MLPs that look facts up, read off a probe or off the paths to the answer",
    "causal-tracing": "causal tracing takes the parts whose activity brings a blurred answer back",
    "activation-patching": "activation patching takes the parts whose exchange for another question's loses the answer",
    "attribution-patching": "attribution patching estimates the same from gradients",
    "integrated-gradients": "integrated gradients estimate it from gradients along the way",
    "path-patching": "path patching takes the MLPs that work through the parts which bring the answer out",
}
OBJECTIVES = {
    "inject": "towards the new answers",
    "forget": "until the true answer is unlikely",
    "gradient-ascent": "up the loss of the true answers, with nothing to keep the rest",
    "gradient-difference": "up the loss of the true answers",
    "gradient-difference-kl": "up the loss of the true answers, while other answers and text stay as they were before",
    "npo": "to find the true answer less likely than before",
    "simnpo": "to find the true answer unlikely",
    "dpo": "to prefer the new answer over the true one",
    "idk": "to say that it does not know",
    "idk-dpo": "to prefer saying that it does not know over the true answer",
    "rmu": "to turn its hidden states of these facts into one random direction",
    "surgery": "up the loss of the true answers and down that of the new ones, while the rest stays as it was before",
    "rome": "not by training, but by writing one MLP in closed form so that the subject brings the new answer",
    "memit": "the same for several MLPs and all facts at once",
}
ATTACKS = {
    "relearn": "it is trained on the true answers of half of the forgotten facts and asked for the other half",
    "finetune": "the same with all its weights, for a few steps",
    "quantize": "its weights are rounded to few bits",
    "probe": "probes of its hidden states are taught other facts and read the forgotten ones",
    "soft-prompt": "vectors before the prompt are trained on half of the forgotten facts and tested on the other half",
    "prompt-search": "the way of asking that works best for one half is tried on the other",
}


def methods(localizers: Sequence[str]) -> str:
    """`Fact lookup takes ...; causal tracing takes ...`, in the order of METHODS."""
    text = "; ".join(METHODS[name] for name in METHODS if name in localizers)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def trained(names: Sequence[str]) -> str:
    """`towards the new answers`, or each objective by name with what it does."""
    if len(names) == 1:
        return OBJECTIVES.get(names[0], f"by {names[0]}")
    return "; ".join(f"{name}: {OBJECTIVES[name]}" if name in OBJECTIVES else name for name in names)


def attacked(names: Sequence[str]) -> str:
    """`Then the edited model is attacked: ...; ...`; empty for no attack."""
    parts = [ATTACKS.get(name, name) for name in names]
    return f"Then the edited model is attacked: {'; '.join(parts)}." if parts else ""


def training(settings: EditSettings) -> str:
    """`30 steps`, or `10 passes over the facts`."""
    return f"{settings.steps} steps" if settings.epochs is None else f"{settings.epochs} passes over the facts"


def in_turn(study: Study, task: str) -> str:
    """How a task's blocks are edited, and how facts that have selections of their own; empty for neither."""
    text, settings = [], study.tasks[task]
    if settings.blocks and settings.forget:
        text.append(
            f"The facts come in {settings.blocks} blocks of {settings.forget // settings.blocks}. Each block is "
            "localized by itself and trained so long with a fresh optimizer, one block after another; earlier blocks "
            "are not trained again."
        )
    if own := [name for name in study.localizations if study.localize.per_fact(name)]:
        text.append(
            f"{words.quoted(own[0])} gives every fact the MLPs that stand out for it alone; facts with the same MLPs "
            "are trained together, one such group after another."
        )
    return " ".join(text)


def facts_seen(results: Path, localizers: Sequence[str]) -> str:
    """`fact lookup 600, causal tracing 16 (4 of them token by token)`: how many facts each localizer saw, and runs."""
    parts = []
    for name in localizers:
        table = data.scores(results, name)
        if table is None:
            continue
        seen, mapped = table[table.fact != ""], table[table.position != ""]
        text, runs = f"{words.short(name).lower()} {seen.fact.nunique()}", table.seed.nunique()
        notes = [f"{mapped.fact.nunique()} of them token by token"] if len(mapped) else []
        notes += [f"{runs} runs"] if runs > 1 else []
        parts.append(text + (f" ({', '.join(notes)})" if notes else ""))
    return words.listing(parts) if parts else ""
