"""The facts of a study, and which of them a model knows."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mechunlearn.config.settings import HUB_ROWS, Probability, Settings


class TaskSettings(Settings):
    """One set of facts to forget, and how it is drawn."""

    facts: Literal[
        "sports", "counterfact", "planted", "biographies", "own", "sports-upstream", "counterfact-upstream"
    ] = Field(
        description="The fact set: `sports`, `counterfact` for facts of many relations, `planted` for the "
        "fictitious athletes of planted models, `biographies` for the fictitious people of trained ones (who is "
        "forgotten is said there), or one that lies at `path`: `own` facts, or the papers' `sports-upstream` and "
        "`counterfact-upstream` (docs/data.md)."
    )
    path: str | None = Field(
        default=None,
        min_length=1,
        description="The file of `own` or upstream facts; of the latter also `hub:OWNER/NAME@REVISION:SPLIT`, a "
        "Hugging Face dataset at a pinned commit.",
    )
    choices: str | None = Field(
        default=None,
        min_length=1,
        description="A file of multiple choices for `counterfact-upstream`: its wrong answers join a fact's options.",
    )
    forget: Annotated[int, Field(ge=2)] | None = Field(
        default=None, description="How many known facts are edited (paper: 16 or 64 athletes); or give `answer`."
    )
    blocks: Annotated[int, Field(ge=2)] | None = Field(
        default=None,
        description="In how many equal blocks the `forget` facts are edited, one block after another, each localized "
        "by itself and none replayed (paper: 4 blocks of 16); null: all at once.",
    )
    answer: str | None = Field(
        default=None,
        description="Instead of `forget`: all known facts with this answer are to be forgotten. Edits train on half of "
        "them, the other half is measured (full-sports tasks: `basketball`, with `new_answer: golf`).",
    )
    new_answer: str | None = Field(
        default=None,
        description="What edits put in every forgotten answer's place; none given: another of the fact's answers, "
        "drawn for each.",
    )
    draw: Literal["seeded", "first"] = Field(
        default="seeded",
        description="`seeded`: a seeded random draw among the known facts; `first`: the first rows (as published).",
    )
    maintain_test: float = Field(
        default=0.2,
        gt=0,
        lt=1,
        description="The fraction of the other known facts that is held out for measuring.",
    )
    neighbors: int = Field(
        default=3,
        ge=0,
        description="How many kept facts with the old answer of a forgotten fact, and as many with its new one, are "
        "held out to be asked as its neighbors, those of `maintain_test` among them.",
    )
    seed: int = Field(default=0, ge=0, description="Seed of the draw, the split and the new answers.")

    @model_validator(mode="after")
    def _how_many(self) -> "TaskSettings":
        if self.facts == "biographies":
            if (self.forget, self.answer, self.blocks) != (None, None, None):
                raise ValueError(
                    "the streams of `biographies` say who is forgotten: neither `forget` nor `answer` nor `blocks`"
                )
            return self
        if (self.forget is None) == (self.answer is None):
            raise ValueError("it needs either `forget`, such as 16, or `answer`, such as basketball, and not both")
        if self.blocks is not None and self.forget is None:
            raise ValueError("`blocks` divides the `forget` facts, so that it may not be given with `answer`")
        if self.blocks is not None and self.forget is not None and self.forget % self.blocks:
            raise ValueError(
                f"blocks is {self.blocks}, but the blocks are equal, so that it must divide `forget`, {self.forget}"
            )
        return self

    @model_validator(mode="after")
    def _files_fit(self) -> "TaskSettings":
        shipped = self.facts in ("sports", "counterfact", "planted", "biographies")
        if shipped and self.path is not None:
            raise ValueError(f"facts: {self.facts} come with the package, so that `path` may not be given")
        if not shipped and self.path is None:
            raise ValueError(f"facts: {self.facts} needs `path`, the file that holds them")
        if self.facts == "own" and str(self.path).startswith("hub:"):
            raise ValueError("facts: own needs a .csv or .jsonl file as `path`, not a hub's dataset")
        if str(self.path).startswith("hub:") and not HUB_ROWS.fullmatch(str(self.path)):
            raise ValueError("`path` must name a commit and a split: `hub:OWNER/NAME@`, 40 hex digits, `:SPLIT`")
        if self.choices is not None and self.facts != "counterfact-upstream":
            raise ValueError(f"`choices` belongs to facts: counterfact-upstream, not to facts: {self.facts}")
        return self


class ScreenSettings(Settings):
    """Which facts count as known: P(answer) through the training prompt above the threshold, and the argmax."""

    threshold: Probability = Field(default=0.5, description="P(answer), over the full vocabulary, must exceed this.")
