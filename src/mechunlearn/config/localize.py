"""Where to edit: the settings of localizers and of their selections."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from mechunlearn import registry
from mechunlearn.config.settings import Layer, Name, Settings


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


class PlaceSettings(Settings):
    """What is edited, by hand: layers of MLPs and attention blocks, and heads as [layer, head]."""

    mlps: list[Layer] = Field(default=[], description="Layers whose MLPs are edited.")
    attention: list[Layer] = Field(default=[], description="Layers whose attention blocks are edited.")
    heads: list[tuple[Layer, Layer]] = Field(default=[], description="Single heads that are edited: [layer, head].")

    @model_validator(mode="after")
    def _once(self) -> "PlaceSettings":
        for name, values in (("mlps", self.mlps), ("attention", self.attention), ("heads", self.heads)):
            if len(set(values)) != len(values):
                raise ValueError(f"{name}: every entry may stand there once")
        if within := [[layer, head] for layer, head in self.heads if layer in self.attention]:
            raise ValueError(f"heads: {within} belong to attention blocks that are given whole")
        given = bool(self.mlps or self.attention or self.heads)
        if not given and not self.in_turn:
            raise ValueError("it needs `mlps`, `attention` or `heads`, such as `mlps: [2, 3]`")
        if given and self.in_turn:
            raise ValueError("`blocks` say what is edited in each block, so that nothing may be given beside them")
        return self

    @property
    def in_turn(self) -> "list[PlaceSettings]":
        """What each block of a sequential task edits, where they differ."""
        return []


class HandSettings(PlaceSettings):
    """One localization given by hand: layers of MLPs and attention blocks, and heads as [layer, head]."""

    blocks: list[PlaceSettings] = Field(
        default=[], description="Instead of these, in a task with `blocks`: the same for each block in turn."
    )

    @property
    def in_turn(self) -> list[PlaceSettings]:
        return self.blocks


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
    facts: Literal["known", "forget"] = Field(
        default="known",
        description="Which facts the localizers see: all that the model knows, or only those that are edited. In a "
        "task with `blocks` they see those of one block at a time.",
    )
    layers: dict[Name, HandSettings] = Field(
        default={},
        description="Localizations given by hand, by name: new ones, or one of ours such as fact-lookup instead of "
        "its rule.",
    )
    layers_of: dict[str, dict[str, dict[str, HandSettings]]] = Field(
        default={},
        description="The same for single models and tasks, MODEL: {TASK: {LOCALIZATION: ...}}; before `layers`.",
    )
    plugins: list[str] = Field(
        default=[],
        description="Python files with localizers of your own, such as `mine.py` (docs/adding-a-localization.md).",
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

    @field_validator("plugins")
    @classmethod
    def _localizers(cls, plugins: list[str]) -> list[str]:
        registry.localizers(plugins)
        return plugins

    @field_validator("layers")
    @classmethod
    def _free_names(cls, layers: dict[str, HandSettings]) -> dict[str, HandSettings]:
        if why := next(filter(None, map(registry.reserved, layers)), ""):
            raise ValueError(why)
        return layers

    def scorer(self, localization: str) -> str | None:
        """The localizer whose scores a localization selects by; None for a baseline and what is given by hand."""
        return None if localization in self.layers else registry.scorer(localization)

    def per_fact(self, localization: str) -> bool:
        """Does every fact have a selection of its own?"""
        return localization == registry.PER_FACT and localization not in self.layers

    def budgeted(self, localization: str) -> bool:
        """Does it train as many parameters as the budget says?"""
        return localization not in self.layers and registry.budgeted(localization)

    def follows_lookup(self, localization: str) -> bool:
        """Does fact lookup's selection set its budget?"""
        return self.budget == "fact-lookup" and self.budgeted(localization)

    def of_cell(self, model: str, task: str, localization: str) -> "LocalizeSettings":
        """The settings by which a localization of a model and task is selected: its own `layers_of` among `layers`."""
        own = self.layers_of.get(model, {}).get(task, {}).get(localization)
        return self.model_copy(update={"layers": {**self.layers, localization: own}}) if own else self

    def of_block(self, block: int) -> "LocalizeSettings":
        """The settings by which one block of a sequential task is selected, 1 the first; 0 stands for no blocks."""
        layers = {
            name: HandSettings(**places.blocks[block - 1].model_dump()) if block and places.blocks else places
            for name, places in self.layers.items()
        }
        return self.model_copy(update={"seed": self.seed + max(block - 1, 0), "layers": layers})

    def runs(self) -> "list[LocalizeSettings]":
        """The settings of each run of a localizer: the same but for the seed."""
        return [self.model_copy(update={"seed": self.seed + number}) for number in range(self.repeats)]

    def for_localizer(self, name: str) -> str:
        """JSON of what one localizer reads, so that another's settings never rerun it."""
        blocks = ("lookup", "probes", "tracing", "attribution", "paths", "protocol", "plugins")
        everything = dict.fromkeys(blocks, True)
        shared = {"facts": True, "seed": True, "repeats": True}
        return self.model_dump_json(include={**READS.get(name, everything), **shared})

    def for_selection(self, localization: str) -> str:
        """JSON of what one localization's selection reads."""
        if localization in self.layers:
            return self.model_dump_json(include={"layers": {localization}})
        if localization == "fact-lookup":
            return self.model_dump_json(include={"protocol": True, "paths": {"rule", "threshold"}, "seed": True})
        return self.model_dump_json(include={"budget", "protocol", "granularity", "seed"})
