"""The general text of a study."""

from pydantic import Field, field_validator

from mechunlearn.config.settings import HUB_ROWS, ROWS, Settings


class TextSettings(Settings):
    """General text: edits train on some passages to leave it as it is, others are held out for measuring."""

    path: str | None = Field(
        default=None,
        min_length=1,
        description="A file of texts in rows (`.jsonl`, `.jsonl.zst`, `.json`, `.parquet` or `.csv`, with a field "
        "`text`), or `hub:OWNER/NAME@REVISION:SPLIT`, such as the Pile; null: the passages of the package.",
    )
    passages: int = Field(
        default=200, ge=2, description="How many passages are taken from `path`: the first texts that are long enough."
    )
    characters: int = Field(
        default=500, ge=20, description="Each is cut, after a word, to at most this many characters (about 100 tokens)."
    )

    @field_validator("path")
    @classmethod
    def _readable(cls, path: str | None) -> str | None:
        if path and path.startswith("hub:"):
            if not HUB_ROWS.fullmatch(path):
                raise ValueError("it must name a commit and a split: `hub:OWNER/NAME@`, 40 hex digits, `:SPLIT`")
        elif path and not path.endswith(ROWS):
            raise ValueError(f"it must end in {', '.join(ROWS)}")
        return path
