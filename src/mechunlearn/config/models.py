"""The models of a study, and planting facts in them."""

import re
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from mechunlearn.config.settings import PART, Format, LearningRate, Settings, Texts, TextTokens

People = Annotated[int, Field(ge=2)]
NAMES = 3124  # of invented people (facts/planted.py)


class ModelSettings(Settings):
    """One model under study."""

    source: str = Field(
        pattern=r"^(package|hub|path|planted|trained):.+$",
        description="Where the weights come from: `package:NAME` (a Python package that carries a GGUF file, "
        "converted once to safetensors), `hub:OWNER/NAME@REVISION` (a Hugging Face repository at a pinned "
        "commit), `path:FOLDER` (a local folder in Hugging Face format), `planted:MODEL@LAYER` (another model of "
        "the study, with fictitious facts trained into the MLP of one layer) or `trained:MODEL@pre` and "
        "`trained:MODEL@baseline` (another model, trained on biographies: those to be unlearned, or their update).",
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
        if source.startswith("hub:") and not re.fullmatch(rf"hub:{PART}/{PART}@[0-9a-f]{{40}}", source, re.ASCII):
            raise ValueError("a hub source must name a commit: `hub:OWNER/NAME@` and 40 hexadecimal digits")
        if source.startswith("package:") and not re.fullmatch(r"package:[A-Za-z0-9][A-Za-z0-9_-]*", source):
            raise ValueError("a package source must name a Python package: `package:NAME`, of letters, digits, - and _")
        if source.startswith("planted:") and not re.fullmatch(r"planted:[^@]+@\d+", source):
            raise ValueError("a planted source must name a model and a layer: `planted:MODEL@3`")
        if source.startswith("trained:") and not re.fullmatch(r"trained:[^@]+@(pre|baseline)", source):
            raise ValueError("a trained source must name a model and its texts: `trained:MODEL@pre` or `@baseline`")
        return source

    @property
    def planted(self) -> tuple[str, int] | None:
        """The model and the layer in which facts are planted, where that is the source."""
        kind, _, name = self.source.partition(":")
        base, _, layer = name.partition("@")
        return (base, int(layer)) if kind == "planted" else None

    @property
    def trained(self) -> tuple[str, str] | None:
        """The model that is trained on biographies, and on which (`pre` or `baseline`), where that is the source."""
        kind, _, name = self.source.partition(":")
        base, _, texts = name.partition("@")
        return (base, texts) if kind == "trained" else None

    @property
    def base(self) -> str | None:
        """The study's model that this one is made from; None for one of its own."""
        made = self.planted or self.trained
        return made[0] if made else None


class PlantSettings(Settings):
    """Fictitious facts trained into one layer's MLP: models whose source is `planted:MODEL@LAYER`."""

    facts: int = Field(default=18, ge=6, description="How many fictitious athletes.")
    probability: float = Field(default=0.7, gt=0, lt=1, description="Train until every answer has more than this.")
    steps: int = Field(default=60, ge=1, description="Optimizer steps, at most.")
    learning_rate: LearningRate = 1e-3
    texts: Texts = 1
    text_tokens: TextTokens = 32
    seed: int = Field(default=0, ge=0, description="Seed of the names, their sports and the training.")


class BiographySettings(Settings):
    """Fictitious people, and training on their biographies: models whose source is `trained:MODEL@pre` or `@baseline`.

    `pre` reads what is to be unlearned and what is to be kept, `baseline` the updates and what is to be kept.
    """

    problematic: People = Field(default=6, description="People to forget.")
    obsolete: People = Field(default=6, description="People to forget for an update.")
    retain: People = Field(default=4, description="People to keep, whose texts an edit may use.")
    kept: People = Field(default=4, description="People to keep, who are only measured.")
    wordings: int = Field(default=5, ge=1, le=5, description="Texts a person.")
    epochs: int = Field(default=4, ge=1, description="Passes over the texts.")
    batch: int = Field(default=8, ge=1, description="Texts a step.")
    texts: int = Field(default=24, ge=0, description="General text passages beside the biographies.")
    text_tokens: TextTokens = 48
    learning_rate: LearningRate = 1e-4
    seed: int = Field(default=0, ge=0, description="Seed of the people, their texts and questions, and the training.")

    @model_validator(mode="after")
    def _enough_names(self) -> "BiographySettings":
        count = self.problematic + self.obsolete + self.retain + self.kept
        if count > NAMES:
            raise ValueError(
                f"problematic, obsolete, retain and kept are {count} people together; allowed: {NAMES}, as many as "
                "there are names"
            )
        return self
