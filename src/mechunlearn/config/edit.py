"""Training of edits: what all objectives share, what each may set for itself, and a block for each with more settings.

Such a block has its objective's name with `_` for `-`; variants (`surgery-npo`) share one.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import Field, field_validator

from mechunlearn import registry
from mechunlearn.config.settings import Name, Settings

Steps = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Beta = Annotated[float, Field(gt=0)]
Optimizer = Literal["adamw", "adamw-8bit"]
PUT_IN = ("inject", "dpo", "rome", "memit")  # objectives that need new answers

SHARED = ("forget_weight", "retain_weight", "text_weight")  # of all objectives but surgery
WITHOUT = {  # the weights that are 0 in an ablation of surgery (edit/surgery.py)
    "surgery-no-ascent": ("unlearn_weight", "obsolete_weight"),
    "surgery-no-update": ("update_weight",),
    "surgery-no-retain": ("retain_weight",),
}


def of_surgery(objective: str) -> bool:
    """Is it `surgery` or one of its ablations? They have weights of their own."""
    return objective.partition("-")[0] == "surgery"


def weights(objective: str, people: bool) -> tuple[str, ...]:
    """The settings that weigh an objective's terms, of people's biographies or of other facts."""
    if objective == "gradient-ascent":
        return ("forget_weight",)
    if not of_surgery(objective):
        return SHARED
    left_out = (*WITHOUT.get(objective, ()), *(() if people else ("unlearn_weight",)))
    every = ("unlearn_weight", "obsolete_weight", "update_weight", "retain_weight")
    return tuple(name for name in every if name not in left_out)


def puts_in(objective: str) -> bool:
    """Does it put something in the place of what is forgotten? Of people surgery puts in the update."""
    return objective in PUT_IN or (of_surgery(objective) and objective != "surgery-no-update")


class ForgetSettings(Settings):
    """Objective `forget`: lower the true answer's probability by -log(1 - p) (appendix A.1)."""

    cutoff: float = Field(default=-5.0, lt=0, description="A fact with log p below this is left alone.")


class NpoSettings(Settings):
    """Objective `npo`: negative preference optimization (Zhang et al. 2024)."""

    beta: Beta = Field(default=0.1, description="Inverse temperature; towards 0 it becomes gradient ascent.")


class SimnpoSettings(Settings):
    """Objective `simnpo`: the same without a reference (Fan et al. 2024)."""

    beta: Beta = Field(default=2.5, description="Inverse temperature (published: 2.5 and 4.5 on TOFU).")
    gamma: float = Field(default=0.0, ge=0, description="Margin of the reward.")


class DpoSettings(Settings):
    """Objective `dpo`: prefer the new answer over the true one (Rafailov et al. 2023)."""

    beta: Beta = Field(default=0.1, description="Inverse temperature.")


class IdkSettings(Settings):
    """Objectives `idk`, to answer that one does not know (Maini et al. 2024), and `idk-dpo`, to prefer that answer."""

    answers: list[Annotated[str, Field(min_length=1)]] = Field(
        default=["an unknown kind", "something I do not know", "I am not sure which", "no kind that I know of"],
        min_length=1,
        description="Refusals that go on with the training prompt; the facts take turns at them.",
    )
    beta: Beta = Field(default=0.1, description="Inverse temperature of `idk-dpo`.")


class RmuSettings(Settings):
    """Objective `rmu`: representation misdirection (Li et al. 2024)."""

    layer: Annotated[int, Field(ge=0)] | None = Field(
        default=None,
        description="The layer behind which hidden states are steered; null: the last layer trained (published: 7, "
        "training 5 to 7 of 32).",
    )
    steering: float = Field(
        default=5.0,
        gt=0,
        description="How long the steered hidden states shall be, in units of the base model's own (published for "
        "Zephyr-7B: 6.5, in no units).",
    )
    alpha: Weight = Field(default=1200.0, description="Weight of leaving kept hidden states alone (published).")


class ClosedFormSettings(Settings):
    """What the closed forms share: keys over several contexts, and the optimisation of values."""

    prefixes: int = Field(
        default=5, ge=0, description="Texts before the prompt, over which keys are averaged (ROME: 20, MEMIT: 5)."
    )
    prefix_words: int = Field(default=10, ge=1, description="Their length in words (papers: 5 to 10 tokens).")
    steps: int = Field(default=25, ge=0, description="Steps of Adam for the values.")
    learning_rate: float = Field(
        default=0.1,
        gt=0,
        description="Rate of Adam for the values, in units of their root mean square (papers: 0.5, in no units).",
    )
    kl_weight: float = Field(
        default=0.0625, ge=0, description="Weight of the KL divergence on what else is said of a subject."
    )
    decay: float = Field(default=0.5, ge=0, description="Weight of the change's norm over the value's squared norm.")
    clamp: float = Field(default=4.0, gt=0, description="Largest norm of a change, in units of the value's norm.")
    ridge: float = Field(
        default=0.1, ge=0, description="Added to the diagonal of the keys' covariance, in units of its median."
    )


class RomeSettings(ClosedFormSettings):
    """ROME (Meng et al. 2022): the selection's middle MLP, one fact after another."""

    steps: int = Field(default=20, ge=0, description="Steps of Adam for the values.")


class MemitSettings(ClosedFormSettings):
    """MEMIT (Meng et al. 2023): all of the selection's MLPs, all facts at once."""

    clamp: float = Field(default=0.75, gt=0, description="Largest norm of a change, in units of the value's norm.")
    covariance_weight: float = Field(
        default=0.92, ge=0, description="Weight of the covariance a neuron of the MLP (paper: 15000 for 16384 neurons)."
    )


class SurgerySettings(Settings):
    """Objective `surgery` and its variants (Veldanda et al. 2024); defaults are their code's."""

    unlearn_weight: Weight = Field(default=0.1, description="Weight of the ascent on what is only to be forgotten.")
    obsolete_weight: Weight = Field(default=0.1, description="Weight of the ascent on what is to be replaced.")
    update_weight: Weight = Field(default=2.0, description="Weight of the descent on what replaces it.")
    retain_weight: Weight = Field(default=0.5, description="Weight of the divergence on what is to be kept.")
    divergence: Literal["forward", "reverse"] = Field(
        default="forward",
        description="`forward`: KL(before || after), as in their code; `reverse`: KL(after || before), as printed.",
    )
    unlearn: Literal["ascent", "npo"] = Field(
        default="ascent", description="`ascent` on cross-entropy, or the bounded `npo`."
    )
    beta: float = Field(default=1.0, gt=0, description="Inverse temperature of `npo`, by nats a token.")
    batch: int = Field(
        default=1,
        ge=1,
        description="Texts of each stream of biographies a step (published: 8); of other facts `edit.batch`.",
    )


class OwnSettings(Settings):
    """What one objective trains with instead of what `edit` says; null: the same."""

    steps: Steps | None = Field(default=None, description="Optimizer steps.")
    learning_rate: Rate | None = Field(default=None, description="Its learning rate, for every localization.")
    learning_rates: dict[str, Rate] = Field(default={}, description="Its learning rates of single localizations.")
    forget_weight: Weight | None = Field(default=None, description="Its weight of the facts to forget.")
    retain_weight: Weight | None = Field(default=None, description="Its weight of the facts to keep.")
    text_weight: Weight | None = Field(default=None, description="Its weight of general text.")
    surgery: SurgerySettings | None = Field(
        default=None,
        description="Of a variant of `surgery`, such as `surgery-npo`: the whole block in place of `edit.surgery`.",
    )


class EditSettings(Settings):
    """Training of an edit: L = forget_weight * forget + retain_weight * retain + text_weight * text (section 2.3)."""

    steps: Steps = Field(default=40, description="Optimizer steps (paper: 50; 25 in each of a task's `blocks`).")
    epochs: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="Instead of `steps`: passes over the facts that are edited together, `batch` a step, so that many "
        "facts get more steps than few.",
    )
    batch: int = Field(default=16, ge=1, description="Facts a step for each of the two fact losses (paper: 64).")
    texts: int = Field(default=4, ge=1, description="Text passages a step.")
    text_tokens: int = Field(default=64, ge=8, description="Text passages are cut to this many tokens (paper: 100).")
    learning_rate: Rate = Field(default=1e-4, description="Peak learning rate of AdamW, cosine to zero.")
    learning_rates: dict[str, Rate] = Field(
        default={}, description="Learning rates of single localizations, where they differ."
    )
    forget_weight: Weight = Field(
        default=1.0, description="Weight of the loss on the facts to forget, or on their new answers (lambda 1)."
    )
    retain_weight: Weight = Field(default=1.0, description="Weight of the loss on the facts to keep (lambda 2).")
    text_weight: Weight = Field(default=1.0, description="Weight of the loss on general text (lambda 3).")
    clip: float = Field(default=1.0, gt=0, description="Largest gradient norm.")
    optimizer: Optimizer = Field(
        default="adamw", description="`adamw`, or `adamw-8bit`, whose moments take 2 bytes a weight instead of 8."
    )
    optimizers: dict[str, Optimizer] = Field(
        default={}, description="Optimizers of single models, where they differ (paper: 8 bits for Gemma 2)."
    )
    objectives: dict[Name, OwnSettings] = Field(
        default={}, description="What single objectives train with instead, by name."
    )
    forget: ForgetSettings = ForgetSettings()
    npo: NpoSettings = NpoSettings()
    simnpo: SimnpoSettings = SimnpoSettings()
    dpo: DpoSettings = DpoSettings()
    idk: IdkSettings = IdkSettings()
    rmu: RmuSettings = RmuSettings()
    rome: RomeSettings = RomeSettings()
    memit: MemitSettings = MemitSettings()
    surgery: SurgerySettings = SurgerySettings()

    @field_validator("objectives")
    @classmethod
    def _weights_are_read(cls, objectives: dict[str, OwnSettings]) -> dict[str, OwnSettings]:
        for objective, own in objectives.items():
            read = () if of_surgery(objective) else weights(objective, people=False)
            for name in SHARED:
                if name not in read and (value := getattr(own, name)) is not None:
                    allowed = ", ".join(read) or f"`edit.surgery` or `edit.objectives.{objective}.surgery`"
                    raise ValueError(
                        f"{objective}.{name} is {value:g}, which {objective} does not read; its weights: {allowed}"
                    )
        return objectives

    def others(self, objective: str) -> set[str]:
        """The blocks of other objectives, which a cell neither needs nor shall be run again for."""
        own = objective.replace("-", "_"), objective.partition("-")[0]
        return {name for name, value in self if isinstance(value, Settings) and name not in own}

    def for_model(self, name: str) -> "EditSettings":
        """The settings with which a model is edited: `optimizers` as `optimizer`."""
        return self.model_copy(update={"optimizer": self.optimizers.get(name, self.optimizer), "optimizers": {}})

    def for_facts(self, count: int) -> "EditSettings":
        """The settings with which so many facts are edited together: `epochs` as `steps`."""
        if self.epochs is None:
            return self
        return self.model_copy(update={"steps": self.epochs * -(-count // self.batch), "epochs": None})

    def having(self, objective: str, values: Mapping[str, float]) -> "EditSettings":
        """These settings with some that a sweep tries; of surgery all weights are those of its own block."""
        own = {name: value for name, value in values.items() if of_surgery(objective) and name != "learning_rate"}
        others = {name: value for name, value in values.items() if name not in own}
        return self.model_copy(update={**others, "surgery": self.surgery.model_copy(update=own)})

    def setting(self, objective: str, name: str) -> float:
        """One of the settings that a sweep tries."""
        block = self.surgery if of_surgery(objective) and name != "learning_rate" else self
        return float(getattr(block, name))

    def for_cell(self, objective: str, localization: str, swept: Mapping[str, float] = MappingProxyType({})) -> str:
        """JSON of the settings of one cell: its own learning rate and its objective's block, and no other cell's.

        The nearest rate counts: of the objective at the localization, of the objective, of the localization, of all.
        What a sweep chose for the cell, `swept`, is nearer than all of them. Closed forms read nothing but their block.
        """
        block = objective.replace("-", "_")
        if objective in registry.methods("closed_form"):
            return self.model_dump_json(include={block})
        own = self.objectives.get(objective, OwnSettings())
        rate = own.learning_rates.get(localization) or own.learning_rate
        rate = rate or self.learning_rates.get(localization, self.learning_rate)
        given = {name: value for name, value in own if value is not None and name != "learning_rates"}
        given |= {"epochs": None} if own.steps else {}
        cell = self.model_copy(update={**given, "learning_rate": rate}).having(objective, swept)
        unread = {"learning_rates", "optimizers", "objectives", *self.others(objective)}
        return cell.model_dump_json(exclude={*unread, *SHARED} if of_surgery(objective) else unread)
