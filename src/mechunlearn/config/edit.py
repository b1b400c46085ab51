"""Training of edits."""

from typing import Annotated

from pydantic import Field

from mechunlearn.config.settings import Settings


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


class EditSettings(Settings):
    """Training of an edit: L = inject_weight * inject + retain_weight * retain + text_weight * text (section 2.3)."""

    steps: int = Field(default=40, ge=1, description="Optimizer steps (paper: 50; 25 in each of a task's `blocks`).")
    epochs: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="Instead of `steps`: passes over the facts that are edited together, `batch` a step, so that many "
        "facts get more steps than few.",
    )
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

    rome: RomeSettings = RomeSettings()
    memit: MemitSettings = MemitSettings()

    def others(self, objective: str) -> set[str]:
        """The blocks of other objectives, which a cell neither needs nor shall be run again for."""
        return {name for name, value in self if isinstance(value, Settings) and name != objective}

    def for_localization(self, localization: str) -> "EditSettings":
        """The settings of one cell: its own learning rate, and no other cell's."""
        rate = self.learning_rates.get(localization, self.learning_rate)
        return self.model_copy(update={"learning_rate": rate, "learning_rates": {}})

    def for_facts(self, count: int) -> "EditSettings":
        """The settings with which so many facts are edited together: `epochs` as `steps`."""
        if self.epochs is None:
            return self
        return self.model_copy(update={"steps": self.epochs * -(-count // self.batch), "epochs": None})
