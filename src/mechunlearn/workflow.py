"""Starting the workflow again after it was killed."""

import os
import shutil
from pathlib import Path

import psutil

LOCKS = Path(".snakemake/locks")


def clear_stale_lock() -> None:
    """Remove Snakemake's lock of this folder where no other snakemake works in it.

    A run that was killed cannot remove its own lock, and Snakemake then refuses to start.
    """
    if LOCKS.is_dir() and any(LOCKS.iterdir()) and not _another_run():
        shutil.rmtree(LOCKS)


def _another_run() -> bool:
    """Does another process run snakemake in this folder?"""
    here = os.getcwd()
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.cwd() == here and "snakemake" in " ".join(process.cmdline()):
                return True
        except psutil.Error:
            continue
    return False
