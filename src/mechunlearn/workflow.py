"""Starting the workflow: one run a folder, and again after one was killed."""

import fcntl
import logging
import os
import shutil
import time
from pathlib import Path

import psutil

from mechunlearn.errors import UserError

LOCKS = Path(".snakemake/locks")
RUN = Path(".snakemake/run")  # held by a folder's one run and says its process
log = logging.getLogger(__name__)


def claim() -> None:
    """Make a folder this process's own, also where an earlier run was killed, until the process ends.

    A killed run cannot remove its own lock, and Snakemake then refuses to start; its jobs may live on, and would
    write over the new run's results. So the lock goes, once jobs that are left have ended. Raises UserError where
    another run is alive. Only this machine is looked at.
    """
    _hold()
    if runs := _processes_here("snakemake"):
        raise _taken(runs[0])
    if jobs := _processes_here("mechunlearn"):
        log.info("waiting for the jobs of a killed run: process %s", ", ".join(map(str, jobs)))
        while _processes_here("mechunlearn"):  # looked at anew: a zombie never ends, but runs nothing
            time.sleep(0.5)
    if LOCKS.is_dir() and any(LOCKS.iterdir()):
        shutil.rmtree(LOCKS)


def _hold() -> None:
    """Of runs that start at once one goes on. What this process executes next holds the file in its stead."""
    try:
        RUN.parent.mkdir(exist_ok=True)
        held = os.open(RUN, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UserError(f"{RUN} cannot be written: {error.strerror or error}.") from None
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(0.2)  # whoever has just taken it writes its number now
        raise _taken(os.read(held, 20).decode()) from None
    except OSError:
        log.info("this file system knows no locks: start one run at a time")
    os.truncate(held, 0)
    os.write(held, str(os.getpid()).encode())
    os.set_inheritable(held, True)


def _taken(process: int | str) -> UserError:
    return UserError(f"another run works in this folder (process {process}); wait for it, or stop it.")


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
