"""Progress a person can follow: a bar with rate and time left on a terminal, plain lines in a log."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

Item = TypeVar("Item")
log = logging.getLogger(__name__)
EVERY = 10.0  # seconds between lines in a log


def track(items: Iterable[Item], what: str) -> Iterator[Item]:
    """Yield the items, telling how far they are."""
    total = len(items) if isinstance(items, Sized) else None
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        speed = TextColumn("{task.speed:.2f}/s" if total else "")
        columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), speed, TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True)) as bars:
            task = bars.add_task(what, total=total)
            for item in items:
                yield item
                bars.advance(task)
        return
    start = shown = time.monotonic()
    for number, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - shown >= EVERY or number == total:
            shown, rate = now, number / max(now - start, 1e-9)
            left = f", {(total - number) / rate:.0f} s left" if total else ""
            log.info("%s: %d of %s, %.2f/s%s", what, number, total or "?", rate, left)
