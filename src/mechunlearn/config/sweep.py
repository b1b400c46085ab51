"""Sweeps of learning rates and weights, and the file of what they chose."""

from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field, TypeAdapter, ValidationError, field_validator

from mechunlearn.config.edit import weights
from mechunlearn.config.files import read_yaml
from mechunlearn.config.settings import Settings
from mechunlearn.errors import ConfigError

Parameter = Literal[
    "learning_rate",
    "forget_weight",
    "retain_weight",
    "text_weight",
    "unlearn_weight",
    "obsolete_weight",
    "update_weight",
]
Value = Annotated[float, Field(gt=0)]
PARAMETERS: tuple[str, ...] = get_args(Parameter)


def parameters(objective: str, people: bool) -> tuple[str, ...]:
    """Those of PARAMETERS that an objective trains with, on people's biographies or on other facts."""
    return ("learning_rate", *weights(objective, people))


class SweepSettings(Settings):
    """Trials of learning rates and weights, on facts and text that no report sees (appendix A.6): `snakemake sweep`."""

    grids: dict[Parameter, Annotated[list[Value], Field(min_length=2)]] = Field(
        default={
            "learning_rate": [2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4],
            "forget_weight": [0.1, 0.2, 0.5, 1.0, 2.0, 5.0],
        },
        min_length=1,
        description="The values to try: one setting of `edit` after another in this order, each with the best of those "
        "before (as published).",
    )
    rule: Literal["worst-case", "paper"] = Field(
        default="worst-case",
        description="`paper`: forgetting, new answers, kept facts and text in the training prompt, added up; "
        "`worst-case`: each of them in the format that is worst for it, of those that the model can use, and no "
        "reward for knowing kept facts or text better than before.",
    )
    localizations: list[str] = Field(default=[], description="Which of the study's; none given: all.")
    objectives: list[str] = Field(
        default=[],
        description="Which of the study's; none given: all but closed forms, which have no such settings.",
    )
    elicitations: list[str] = Field(
        default=[], description="Which of `evaluate.elicitations` are asked; none given: all of them."
    )
    forget: Annotated[int, Field(ge=2)] | None = Field(
        default=None, description="How many facts a trial forgets; null: as many as its task."
    )
    texts: int = Field(
        default=24, ge=1, description="Text passages held out of a trial's training, besides those of `evaluate.texts`."
    )
    seeds: list[Annotated[int, Field(ge=0)]] = Field(
        default=[0], min_length=1, description="Seeds of a trial's training, one edit each."
    )
    seed: int = Field(default=0, ge=0, description="Seed of the draw of its facts, and of their new answers.")

    @field_validator("grids")
    @classmethod
    def _once(cls, grids: dict[str, list[float]]) -> dict[str, list[float]]:
        for name, values in grids.items():
            if len(set(values)) != len(values):
                raise ValueError(f"every value of {name} may stand there once")
        return grids


class SweptSettings(Settings):
    """What a sweep chose for one cell: instead of what `edit` says."""

    learning_rate: Value | None = None
    forget_weight: Value | None = None
    retain_weight: Value | None = None
    text_weight: Value | None = None
    unlearn_weight: Value | None = None
    obsolete_weight: Value | None = None
    update_weight: Value | None = None


# model -> task -> localization -> objective -> settings
Swept = dict[str, dict[str, dict[str, dict[str, SweptSettings]]]]


def read_swept(path: str | Path) -> Swept:
    """What a sweep chose, from the YAML file that it wrote. Raises ConfigError: key, value and what is allowed."""
    if not Path(path).is_file():
        raise ConfigError(f"swept is {str(path)!r}: it must be a file as `snakemake sweep` writes it.")
    try:
        return TypeAdapter(Swept).validate_python(read_yaml(path))
    except ValidationError as error:
        found = error.errors()[0]
        where = ".".join(str(part) for part in found["loc"]) or "the file"
        allowed = f"allowed: {', '.join(PARAMETERS)}" if found["type"] == "extra_forbidden" else found["msg"].lower()
        raise ConfigError(
            f"{path}: `{where}` is {found['input']!r}: {allowed}; keys are model, task, localization, objective."
        ) from None
