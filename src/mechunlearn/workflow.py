"""Starting the workflow again after it was killed."""

import os
import shutil
from pathlib import Path

import psutil

from mechunlearn.errors import UserError

LOCKS = Path(".snakemake/locks")


def clear_stale_lock() -> None:
    """Remove Snakemake's lock of this folder where nobody on this machine works in it any more.

    A run that was killed cannot remove its own lock, and Snakemake then refuses to start. Raises UserError where a
    run, or a job that outlived its killed run, is still at work: it would write over the new run's results.
    """
    if working := _working_here():
        raise UserError(
            f"another run still works in this folder (process {', '.join(map(str, working))}); "
            "wait for it, or stop it with `kill`, and try again."
        )
    if LOCKS.is_dir() and any(LOCKS.iterdir()):
        shutil.rmtree(LOCKS)


def _working_here() -> list[int]:
    """Other processes that run snakemake or one of our jobs in this folder, our own callers left out."""
    here, found = os.getcwd(), []
    callers = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    for process in psutil.process_iter():
        try:
            command = [Path(word).name for word in process.cmdline()[:3]]
            if process.pid not in callers and process.cwd() == here and {"snakemake", "mechunlearn"} & set(command):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found
