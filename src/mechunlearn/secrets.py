"""Keeping tokens out of logs.

hide   from now on what this process writes to its standard streams has no secret in it
clean  a text without secrets

A job's log is what the job writes to these streams, and libraries write there too: huggingface_hub, for one, names the
address that it could not reach, with whatever account stands in it.
"""

import os
import re
import sys
from typing import Any, TextIO

SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|ACCESS_?KEY", re.IGNORECASE)
ACCOUNT = re.compile(r"(?<=://)[^/\s@]+(?=@)")
SHORTEST = 8  # of a value that is hidden: a switch such as TOKENIZERS_PARALLELISM=false is no secret
HIDDEN = "[hidden]"


def hide() -> None:
    """Replace the standard streams by ones that leave secrets out."""
    sys.stdout, sys.stderr = Hiding(sys.stdout), Hiding(sys.stderr)


def clean(text: str) -> str:
    """The text without accounts in URLs and without the values of environment variables that are named like secrets."""
    values = {value for name, value in os.environ.items() if SECRET.search(name) and len(value) >= SHORTEST}
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    return ACCOUNT.sub(HIDDEN, text)


class Hiding:
    """A text stream that cleans what is written to it and is otherwise the one it stands for."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(clean(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
