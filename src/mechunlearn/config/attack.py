"""What is done to an edit: one block an attack, which has the attack's name with `_` for `-`."""

from typing import Annotated, Literal

from pydantic import Field

from mechunlearn.config.settings import Ascending, LearningRate, Probability, Settings, Texts, TextTokens

Steps = Annotated[Ascending, Field(description="Measure after these many steps.")]
Batch = Annotated[int, Field(ge=1, description="Facts a step for each of the two fact losses.")]
Split = Annotated[
    Literal["facts", "subjects"],
    Field(description="Halve the forget set by facts, or by subjects, so that no subject stands in both halves."),
]
BothHalves = Annotated[
    bool, Field(description="Attack twice with the halves swapped, so that every forget fact is measured.")
]


class RetrainSettings(Settings):
    """Training on half of the forget set, by whatever parameters; the other half is measured."""

    steps: Steps
    learning_rate: LearningRate
    batch: Batch
    texts: Texts = 2
    text_tokens: TextTokens
    split: Split = "facts"
    both_halves: BothHalves = True


class RelearnSettings(RetrainSettings):
    """Adversarial relearning with LoRA (section 3.2, A.7.3): train on half of the forget set, measure the other."""

    steps: Steps = [0, 5, 10, 20]
    learning_rate: LearningRate = 2e-4
    batch: Batch = 16
    text_tokens: TextTokens = 64
    rank: int = Field(default=64, ge=1, description="LoRA rank (paper: 512 on models with d_model of 3072 and more).")
    alpha: int = Field(default=32, ge=1, description="LoRA alpha.")
    dropout: float = Field(default=0.05, ge=0, lt=1, description="LoRA dropout.")


class FinetuneSettings(RetrainSettings):
    """The same with every attention and MLP weight instead of adapters, for a few steps."""

    steps: Steps = [0, 5, 10]
    learning_rate: LearningRate = 2e-5
    batch: Batch = 8
    text_tokens: TextTokens = 48


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
    batch: Batch = 8
    split: Split = "facts"
    both_halves: BothHalves = True


class QuantizeSettings(Settings):
    """Weights of the edited model rounded to few bits: does knowledge return (Zhang et al. 2025)?"""

    bits: list[Literal[8, 4]] = Field(default=[8, 4], min_length=1, description="Bits a weight: 8, 4 or both.")
    group: int = Field(default=32, ge=1, description="Weights that share a scale at 4 bits.")


class AskingSettings(Settings):
    """An attack that asks in several formats, of those that the base model can use."""

    elicitations: list[str] = Field(
        default=[], description="The formats to choose among; none given: all of `evaluate.elicitations` that fit."
    )
    gate: Probability | None = Field(
        default=None,
        description="Chosen among are only formats in which the base model's accuracy is at least this, so that an "
        "answer by chance is not taken for knowledge; none given: `evaluate.gate`.",
    )


class PromptSearchSettings(AskingSettings):
    """The best of several ways of asking, chosen on half of the forget set, tested on the other half."""

    split: Split = "facts"
