"""What is measured, and with which intervals."""

from typing import Annotated

from pydantic import Field

from mechunlearn.config.settings import Probability, Settings


class EvaluateSettings(Settings):
    """What is measured before and after an edit."""

    elicitations: list[str] = Field(
        default=[
            *("completion", "question", "profession", "famous", "paraphrase-1", "paraphrase-2", "paraphrase-3"),
            *("few-shot", "few-shot-related", "system-expert", "system-original", "choice-text", "choice-letter"),
        ],
        min_length=1,
        description="The formats a fact is asked in, as far as they fit a task's facts: `question`, `profession` and "
        "`famous` fit athletes, `paraphrase-1` to `-3` `counterfact`, `few-shot-related` and `reversed` both, "
        "`paraphrase` facts of your own and of `counterfact-upstream` (the last two are not among the default), and "
        "the others, with `completion`, the training prompt, all facts.",
    )
    samples: int = Field(
        default=4, ge=0, description="Texts that the model writes about each forgotten subject; 0: none."
    )
    texts: int = Field(default=48, ge=1, description="Held-out text passages for the general cross-entropy.")
    gate: Probability = Field(
        default=0.6,
        description="A format counts only where the base model's accuracy through it is at least this: the "
        "share of known facts whose answer is the likeliest of all tokens.",
    )
    benchmarks: list[str] = Field(
        default=[],
        description="Benchmarks of general ability, by their names in the library lm-eval, such as `mmlu`, `sciq` or "
        "`tinyMMLU`: any multiple choice. Their datasets are downloaded once by the library.",
    )
    benchmark_limit: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="The first so many items of each task of a benchmark (`mmlu` has 57 tasks); null: all.",
    )
    benchmark_tasks: str = Field(
        default="", description="A folder with lm-eval tasks of your own as YAML files; empty: none."
    )


class ReportSettings(Settings):
    """Intervals of the report."""

    bootstrap: int = Field(default=2000, ge=100, description="Bootstrap samples of each interval in metrics.csv.")
    confidence: float = Field(
        default=0.95, gt=0, lt=1, description="Confidence of each interval in metrics.csv; those of localizers are 95%."
    )
