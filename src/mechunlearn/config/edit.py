"""Training of edits."""

from typing import Annotated

from pydantic import Field

from mechunlearn.config.settings import Settings


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
