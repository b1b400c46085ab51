"""Weight masking."""

from typing import Annotated

from pydantic import Field

from mechunlearn.config.settings import Ascending, Settings, Texts, TextTokens

Weight = Annotated[float, Field(ge=0)]


class MaskingSettings(Settings):
    """Weight masking (section 3.5, A.4): which weights, set to zero, make a model forget?"""

    localizations: list[str] = Field(
        default=[], description="In which of the study's localizations masks are learned; none given: no masking."
    )
    sizes: Annotated[
        Ascending,
        Field(
            description="Measure with these many weights masked, as far as so many masks are below 1 (paper: up to 2.4 "
            "or 6 million)."
        ),
    ] = [0, 1_000, 3_000, 10_000, 30_000, 100_000]
    elicitations: list[str] = Field(
        default=["completion", "choice-text"], min_length=1, description="The formats in which facts are asked."
    )
    steps: int = Field(default=25, ge=1, description="Steps of gradient descent with momentum 0.9 (paper: 50 epochs).")
    learning_rate: float = Field(
        default=5.0, gt=0, description="Of the masks; their gradient is a weight times the weight's gradient."
    )
    penalty: Weight = Field(
        default=1e-3, description="Weight of the sum of 1 - mask: masks that matter less return to 1."
    )
    retain_weight: Weight = Field(default=1.0, description="Weight of the loss on the facts to keep.")
    text_weight: Weight = Field(default=1.0, description="Weight of the loss on general text.")
    batch: int = Field(default=16, ge=1, description="Facts a step for each of the two fact losses.")
    texts: Texts = 2
    text_tokens: TextTokens = 48
