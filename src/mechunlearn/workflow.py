"""Starting the workflow again after it was killed."""

import logging
import os
import shutil
import time
from pathlib import Path

import psutil

from mechunlearn.errors import UserError

LOCKS = Path(".snakemake/locks")
log = logging.getLogger(__name__)


def clear_stale_lock() -> None:
    """Make a folder ready for a run where an earlier one was killed.

    A killed run cannot remove its own lock, and Snakemake then refuses to start; its jobs may live on, and would
    write over the new run's results. So the lock goes, once jobs that are left have ended. Raises UserError where
    another run is alive. Only this machine is looked at.
    """
    if runs := _processes_here("snakemake"):
        raise UserError(f"another run works in this folder (process {runs[0]}); wait for it, or stop it.")
    if jobs := _processes_here("mechunlearn"):
        log.info("waiting for the jobs of a killed run: process %s", ", ".join(map(str, jobs)))
        while _processes_here("mechunlearn"):  # looked at anew: a zombie never ends, but runs nothing
            time.sleep(0.5)
    if LOCKS.is_dir() and any(LOCKS.iterdir()):
        shutil.rmtree(LOCKS)


def _processes_here(program: str) -> list[int]:
    """Other processes that run a program in this folder; our own callers are left out."""
    here, found = os.getcwd(), []
    callers = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    for process in psutil.process_iter():
        try:
            words = [Path(word).name for word in process.cmdline()[:2]]
            if process.pid not in callers and process.cwd() == here and program in words:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found
