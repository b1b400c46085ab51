"""What a study is: the pydantic models here are the only definition of the configuration.

Study            the whole file, e.g. config/config.yaml; one module a block
load_study       YAML files -> Study, or one ConfigError naming key, value and what is allowed
validate_study   the same for a mapping (what Snakemake hands over)
check            the same for one block
read_mapping     a YAML file as it is

The JSON schema (config/schema.json) and the table in config/README.md are generated from these models by
`mechunlearn schema`. Torch-free: the Snakefile reads it on every start.
"""

from mechunlearn.config.attack import (
    AskingSettings,
    FinetuneSettings,
    ProbeAttackSettings,
    PromptSearchSettings,
    QuantizeSettings,
    RelearnSettings,
    RetrainSettings,
    SoftPromptSettings,
)
from mechunlearn.config.edit import ClosedFormSettings, EditSettings, MemitSettings, RomeSettings, SurgerySettings
from mechunlearn.config.evaluate import EvaluateSettings, ReportSettings
from mechunlearn.config.localize import (
    AttributionSettings,
    HandSettings,
    LocalizeSettings,
    PathSettings,
    ProbeSettings,
    TraceSettings,
)
from mechunlearn.config.masking import MaskingSettings
from mechunlearn.config.models import BiographySettings, ModelSettings, PlantSettings
from mechunlearn.config.names import unknown, unknown_benchmark
from mechunlearn.config.reading import check, load_study, read_mapping, validate_study
from mechunlearn.config.settings import HUB_ROWS, NAME, ROWS, Format, Settings
from mechunlearn.config.study import Study, attack_settings
from mechunlearn.config.sweep import PARAMETERS, SweepSettings, SweptSettings
from mechunlearn.config.tasks import ScreenSettings, TaskSettings
from mechunlearn.config.text import TextSettings
from mechunlearn.errors import ConfigError

__all__ = [
    "HUB_ROWS",
    "NAME",
    "PARAMETERS",
    "ROWS",
    "AskingSettings",
    "AttributionSettings",
    "BiographySettings",
    "ClosedFormSettings",
    "ConfigError",
    "EditSettings",
    "EvaluateSettings",
    "FinetuneSettings",
    "Format",
    "HandSettings",
    "LocalizeSettings",
    "MaskingSettings",
    "MemitSettings",
    "ModelSettings",
    "PathSettings",
    "PlantSettings",
    "ProbeAttackSettings",
    "ProbeSettings",
    "PromptSearchSettings",
    "QuantizeSettings",
    "RelearnSettings",
    "ReportSettings",
    "RetrainSettings",
    "RomeSettings",
    "ScreenSettings",
    "Settings",
    "SoftPromptSettings",
    "Study",
    "SurgerySettings",
    "SweepSettings",
    "SweptSettings",
    "TaskSettings",
    "TextSettings",
    "TraceSettings",
    "attack_settings",
    "check",
    "load_study",
    "read_mapping",
    "unknown",
    "unknown_benchmark",
    "validate_study",
]
