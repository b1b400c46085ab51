"""The whole study."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PrivateAttr, model_validator

from mechunlearn import registry
from mechunlearn.config import attack
from mechunlearn.config.edit import PUT_IN, EditSettings, OwnSettings, of_surgery
from mechunlearn.config.evaluate import EvaluateSettings, ReportSettings
from mechunlearn.config.localize import LocalizeSettings
from mechunlearn.config.masking import MaskingSettings
from mechunlearn.config.models import BiographySettings, ModelSettings, PlantSettings
from mechunlearn.config.names import unknown, unknown_benchmark
from mechunlearn.config.settings import Name, Settings
from mechunlearn.config.sweep import SweepSettings, Swept, SweptSettings, parameters, read_swept
from mechunlearn.config.tasks import ScreenSettings, TaskSettings
from mechunlearn.config.text import TextSettings
from mechunlearn.errors import ConfigError

PASSAGES = 192  # of the package's own general text


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
    text: TextSettings = TextSettings()
    screen: ScreenSettings = ScreenSettings()
    planting: PlantSettings = PlantSettings()
    biographies: BiographySettings = BiographySettings()
    localize: LocalizeSettings = LocalizeSettings()
    edit: EditSettings = EditSettings()
    swept: str | None = Field(
        default=None,
        min_length=1,
        description="A file of learning rates and weights that `snakemake sweep` chose, by model, task, localization "
        "and objective; they come before those of `edit`.",
    )
    sweep: SweepSettings = SweepSettings()
    masking: MaskingSettings = MaskingSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    relearn: attack.RelearnSettings = attack.RelearnSettings()
    finetune: attack.FinetuneSettings = attack.FinetuneSettings()
    probe: attack.ProbeAttackSettings = attack.ProbeAttackSettings()
    soft_prompt: attack.SoftPromptSettings = attack.SoftPromptSettings()
    quantize: attack.QuantizeSettings = attack.QuantizeSettings()
    prompt_search: attack.PromptSearchSettings = attack.PromptSearchSettings()
    report: ReportSettings = ReportSettings()
    _swept: Swept = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _every_model_has_facts(self) -> "Study":
        for name, model in self.models.items():
            if model.base is not None:
                base = self.models.get(model.base)
                if base is None or base.base is not None:
                    whole = [other for other, each in self.models.items() if each.base is None]
                    raise ValueError(
                        f"models.{name}.source is {model.source!r}: it must name one of the study's own models: "
                        f"{', '.join(whole) or 'there is none'}"
                    )
        for name, task in self.tasks.items():
            made = {"planted": "planted:MODEL@LAYER", "biographies": "trained:MODEL@pre"}.get(task.facts)
            if made and not any(self.goes_with(model, task.facts) for model in self.models):
                raise ValueError(f"tasks.{name}.facts is {task.facts!r}, but no model has the source `{made}`")
            if not any(self.goes_with(model, task.facts) for model in self.models):
                raise ValueError(f"tasks.{name}.facts is {task.facts!r}, but every model is planted or trained")
        return self

    def goes_with(self, model: str, facts: str) -> bool:
        """Is a model edited on facts of this set? Those made for a model are known to no other.

        A model that is the base of trained ones knows no biographies, and the baseline is there to compare with.
        """
        settings = self.models[model]
        if settings.trained:
            return facts == "biographies" and settings.trained[1] == "pre"
        return bool(settings.planted) == (facts == "planted") and facts != "biographies"

    @model_validator(mode="after")
    def _objectives_fit(self) -> "Study":
        for name, task in self.tasks.items():
            for objective in self.objectives:
                if task.facts == "biographies" and objective in PUT_IN:
                    raise ValueError(
                        f"objectives: {objective!r} puts new answers in, but the forgotten facts of tasks.{name} have "
                        "none; allowed with other facts only"
                    )
                if not of_surgery(objective):
                    continue
                block = self.edit.objectives.get(objective, OwnSettings()).surgery or self.edit.surgery
                moving = [each for each in self.parameters(name, objective)[1:] if each != "retain_weight"]
                if not any(getattr(block, each) for each in moving):
                    raise ValueError(
                        f"edit.surgery: {', '.join(moving)} of {objective!r} are 0, so that there is nothing to forget "
                        f"or to learn in tasks.{name}; allowed: one of them above 0"
                    )
        for name, own in self.edit.objectives.items():
            given = [key for key, value in own if value not in (None, {})]
            if name in registry.methods("closed_form") and given:
                raise ValueError(
                    f"edit.objectives.{name}.{given[0]}: {name} is a closed form, which has no such setting; its own "
                    f"are those of `edit.{name}`"
                )
            if own.surgery and not of_surgery(name):
                raise ValueError(f"edit.objectives.{name}.surgery: only `surgery` and its variants read it")
        return self

    @model_validator(mode="after")
    def _names_stay_apart(self) -> "Study":
        """Logs and timings are named by model, task, attack, localization and objective with `-` between them."""
        for attacks in ([""], self.attacks):
            joined: dict[tuple[int, str], tuple[str, ...]] = {}
            for names in product(self.models, self.tasks, attacks, self.localizations, self.objectives or [""]):
                for cell in (names, names[:2]):
                    other = joined.setdefault((len(cell), "-".join(filter(None, cell))), cell)
                    if other != cell:
                        raise ValueError(
                            f"models, tasks, localizations: {' with '.join(filter(None, other))} and "
                            f"{' with '.join(filter(None, cell))} give the same name, {'-'.join(filter(None, cell))}; "
                            "one of them needs another"
                        )
        return self

    @model_validator(mode="after")
    def _enough_text(self) -> "Study":
        count, whose = (self.text.passages, "text.passages") if self.text.path else (PASSAGES, "the package's passages")
        for key, texts in (("evaluate.texts", self.evaluate.texts), ("sweep.texts", self.sweep.texts)):
            if texts >= count:
                raise ValueError(
                    f"{key} is {texts}: it must be less than {whose}, {count}, so that some are left to train on"
                )
        if any(model.trained for model in self.models.values()) and self.evaluate.texts >= PASSAGES:
            raise ValueError(
                f"evaluate.texts is {self.evaluate.texts}: it must be less than {PASSAGES}, the package's passages, "
                "beside which biographies are read whatever `text` says"
            )
        return self

    def asked(self, task: str) -> list[str]:
        """The formats that fit a task's facts: those of its fact set's module, and those that fit all.

        `reversed` and `few-shot-related` need other subjects of the relation, which are at hand for the package's
        relations only.
        """
        modules, facts = registry.methods("elicitation"), self.tasks[task].facts
        own = (
            "completion",
            "context",
            "with_options",
            {"planted": "sports", "sports-upstream": "sports"}.get(facts, facts),
            *(["reverse", "related"] if facts in ("sports", "sports-upstream", "counterfact") else []),
            *(["reworded"] if facts in ("own", "counterfact-upstream") else []),
        )
        return [name for name in self.evaluate.elicitations if modules[name].rpartition(".")[2] in own]

    def trained_objectives(self) -> list[str]:
        """The objectives that descend a loss, with a learning rate and weights; closed forms have neither."""
        return [name for name in self.objectives if name in registry.methods("objective")]

    def parameters(self, task: str, objective: str) -> tuple[str, ...]:
        """The learning rate and weights that an objective trains with on a task's facts."""
        return parameters(objective, self.tasks[task].facts == "biographies")

    def edit_settings(self, model: str, task: str, localization: str, objective: str) -> str:
        """JSON of the settings of one cell's edit: what a sweep chose for it comes before what `edit` says."""
        swept = self._swept.get(model, {}).get(task, {}).get(localization, {}).get(objective, SweptSettings())
        return self.edit.for_model(model).for_cell(objective, localization, swept.model_dump(exclude_none=True))

    @model_validator(mode="after")
    def _layers_fit(self) -> "Study":
        levels = (list(self.models), list(self.tasks), list(dict.fromkeys(["fact-lookup", *self.localizations])))
        self._levels_known(self.localize.layers_of, levels, ["localize.layers_of"] * len(levels))
        for model, (task, settings), name in product(self.models, self.tasks.items(), levels[-1]):
            given = self.localize.of_cell(model, task, name).layers.get(name)
            if given and given.blocks and len(given.blocks) != settings.blocks:
                raise ValueError(
                    f"the layers of {name} are given for {len(given.blocks)} blocks, but tasks.{task} has "
                    f"{settings.blocks or 'none'}"
                )
        return self

    @model_validator(mode="after")
    def _swept_fits(self) -> "Study":
        if self.swept is None:
            return self
        self._swept = read_swept(self.swept)
        draws = [name for name in self._named(self._swept, 2) if registry.baseline(name)]
        places = [*registry.localizations(self.localize.plugins), *draws, *self.localize.layers]
        levels = (list(self.models), list(self.tasks), places, sorted(registry.methods("objective")))
        kinds = ("model", "task", "localization", "objective")
        self._levels_known(self._swept, levels, [f"{self.swept}, {kind}" for kind in kinds])
        unread = [
            (key, objective, task)
            for tasks in self._swept.values()
            for task, cells in tasks.items()
            for objectives in cells.values()
            for objective, chosen in objectives.items()
            for key in chosen.model_dump(exclude_none=True)
            if key not in self.parameters(task, objective)
        ]
        for key, objective, task in unread:
            raise ValueError(
                f"{self.swept}: {key} of {objective} in {task}, which does not train with it; allowed: "
                f"{', '.join(self.parameters(task, objective))}"
            )
        return self

    @model_validator(mode="after")
    def _sweep_fits(self) -> "Study":
        sweep = self.sweep
        if sweep.elicitations and "completion" not in sweep.elicitations:
            raise ValueError("sweep.elicitations: `completion`, the training prompt, must be among them")
        for name, task in self.tasks.items():
            if sweep.forget and task.blocks and sweep.forget % task.blocks:
                raise ValueError(
                    f"sweep.forget is {sweep.forget}, but a trial of tasks.{name} has {task.blocks} equal blocks too, "
                    "which must divide it"
                )
        if len(set(sweep.seeds)) != len(sweep.seeds):
            raise ValueError(f"sweep.seeds is {sweep.seeds}: every number may stand there once.")
        return self

    @classmethod
    def _levels_known(cls, nested: dict[str, Any], levels: Sequence[list[str]], keys: Sequence[str]) -> None:
        """Raise ValueError, with its level's key, for a name of a nested mapping that is not known on its level."""
        for depth, (known, key) in enumerate(zip(levels, keys, strict=True)):
            for name in cls._named(nested, depth):
                if name not in known:
                    raise ValueError(f"{key}: {unknown(name, known)}")

    @staticmethod
    def _named(nested: dict[str, Any], depth: int) -> list[str]:
        """The names that stand so deep in a nested mapping."""
        levels = [nested]
        for _ in range(depth):
            levels = [inner for level in levels for inner in level.values()]
        return list(dict.fromkeys(name for level in levels for name in level))

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
    def _single_facts_are_localized(self) -> "Study":
        if not any(map(self.localize.per_fact, self.localizations)):
            return self
        if self.localize.lookup == "probes":
            raise ValueError(
                f"localize.lookup is 'probes', which say nothing of a single fact; {registry.PER_FACT} needs "
                "'path-patching' or 'auto'"
            )
        for name, task in self.tasks.items():
            if task.facts == "biographies":
                raise ValueError(
                    f"localizations: {registry.PER_FACT} edits facts in groups, but the texts of tasks.{name} tell "
                    "all facts of a person at once; allowed with other facts only"
                )
            if self.localize.facts != "forget" and not task.blocks:
                raise ValueError(
                    f"localize.facts is {self.localize.facts!r}, but {registry.PER_FACT} localizes every fact that is "
                    "edited; allowed: 'forget'"
                )
            together = (task.forget or 0) // (task.blocks or 1)
            if self.localize.paths.facts < together:
                raise ValueError(
                    f"localize.paths.facts is {self.localize.paths.facts}, but {registry.PER_FACT} localizes every "
                    f"fact that is edited; allowed for tasks.{name}: at least {together}"
                )
        return self

    @model_validator(mode="after")
    def _known_names(self) -> "Study":
        objectives, rates = sorted(registry.edits()), {"edit.learning_rates": self.edit.learning_rates}
        rates |= {
            f"edit.objectives.{name}.learning_rates": own.learning_rates for name, own in self.edit.objectives.items()
        }
        trained = [name for each in rates.values() for name in each]
        draws = [name for name in [*self.localizations, *trained] if registry.baseline(name)]
        own = list(dict.fromkeys([*registry.localizations(self.localize.plugins), *draws, *self.localize.layers]))
        given = self.masking.localizations and self.masking.elicitations != MaskingSettings().elicitations
        masked = self.masking.elicitations if given else []
        for key, values, known in [
            ("localizations", self.localizations, own),
            ("objectives", self.objectives, objectives),
            ("edit.objectives", list(self.edit.objectives), objectives),
            ("edit.optimizers", list(self.edit.optimizers), list(self.models)),
            ("attacks", self.attacks, sorted(registry.methods("attack"))),
            ("evaluate.elicitations", self.evaluate.elicitations, sorted(registry.methods("elicitation"))),
            ("prompt_search.elicitations", self.prompt_search.elicitations, self.evaluate.elicitations),
            ("masking.localizations", self.masking.localizations, self.localizations),
            ("masking.elicitations", masked, self.evaluate.elicitations),
            *((key, list(each), own) for key, each in rates.items()),
            ("localize.layers", list(self.localize.layers), ["fact-lookup", *self.localizations]),
            ("sweep.localizations", self.sweep.localizations, self.localizations),
            ("sweep.objectives", self.sweep.objectives, self.trained_objectives()),
            ("sweep.elicitations", self.sweep.elicitations, self.evaluate.elicitations),
        ]:
            for value in values:
                if value not in known:
                    raise ValueError(f"{key}: {unknown(value, known)}")
            if len(set(values)) != len(values):
                raise ValueError(f"{key}: every name may stand there once, got {', '.join(values)}")
        if why := next(filter(None, map(registry.reserved, self.localizations)), ""):
            raise ValueError(f"localizations: {why}")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds is {self.seeds}: every number may stand there once.")
        if "completion" not in self.evaluate.elicitations:
            raise ValueError("evaluate.elicitations: `completion`, the training prompt, must be among them")
        idle = set(self.evaluate.elicitations).difference(*map(self.asked, self.tasks))
        if idle and self.evaluate.elicitations != EvaluateSettings().elicitations:
            named = ", ".join(map(repr, sorted(idle)))
            raise ValueError(f"evaluate.elicitations: no task's facts fit {named}; allowed with other tasks only")
        for task in self.tasks if self.masking.localizations else ():
            if not set(self.masking.elicitations) & set(self.asked(task)):
                formats = ", ".join(self.masking.elicitations)
                raise ValueError(
                    f"masking.elicitations: {formats}; allowed for the task {task!r}: one or more of "
                    f"{', '.join(self.asked(task))}, which evaluate.elicitations asks"
                )
        for task in self.tasks if self.prompt_search.elicitations else ():
            if not set(self.prompt_search.elicitations) & set(self.asked(task)):
                formats = ", ".join(self.prompt_search.elicitations)
                raise ValueError(f"prompt_search.elicitations: {formats} fit no fact of the task {task!r}")
        return self


def attack_settings(name: str) -> type[Settings]:
    """The model of an attack's block, which has the attack's name with `_` for `-`. Raises ConfigError."""
    field = Study.model_fields.get(name.replace("-", "_"))
    if field is None or not isinstance(field.annotation, type) or not issubclass(field.annotation, Settings):
        raise ConfigError(f"the attack {name!r} has no block of settings of its name.")
    return field.annotation
