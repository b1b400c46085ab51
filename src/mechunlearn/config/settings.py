"""What every block of settings is made of."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

NAME = r"^[a-z0-9][a-z0-9.-]*$"
Name = Annotated[str, Field(pattern=NAME, max_length=60)]
Format = Literal["bfloat16", "float16", "float32"]
Probability = Annotated[float, Field(ge=0, le=1)]
Layer = Annotated[int, Field(ge=0)]
LearningRate = Annotated[float, Field(gt=0, description="Peak learning rate of AdamW, cosine to zero.")]
Texts = Annotated[int, Field(ge=1, description="Text passages a step.")]
TextTokens = Annotated[int, Field(ge=8, description="Text passages are cut to this many tokens.")]


def _ascending(numbers: list[int]) -> list[int]:
    """Numbers to measure at, as given. Raises ValueError."""
    if not numbers or numbers[0] != 0 or sorted(set(numbers)) != numbers or len(numbers) < 2:
        raise ValueError("it must start at 0 and ascend, e.g. [0, 5, 10, 20]")
    return numbers


Ascending = Annotated[list[int], AfterValidator(_ascending)]
PART = r"[A-Za-z0-9_][\w.-]*"  # of a hub's address: it becomes a folder, so that it must not begin with a dot
HUB_ROWS = re.compile(rf"hub:({PART}/{PART})@([0-9a-f]{{40}}):({PART})", re.ASCII)  # repository, revision, split

ROWS = (".csv", ".parquet", ".json", ".jsonl", ".jsonl.zst")  # files of rows


class Settings(BaseModel):
    """Base of all settings: unknown keys are errors, values never change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
