"""A real Slurm of one node, for as long as the tests run: no root, no munge, no database, nothing outside its folder.

missing    what of Debian's slurmctld, slurmd and slurm-client is not installed
one_node   a running Slurm
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from getpass import getuser
from pathlib import Path

import psutil

PATIENCE = 120.0  # seconds for what takes one or two on an idle machine
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/completed
MinJobAge=600
MessageTimeout=30
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def wait_for(what: str, condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Ask twice a second until the condition holds. Raises TimeoutError."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.5)


@dataclass
class Cluster:
    """The two daemons, and a folder with all that they write; `environment` is what a client needs."""

    folder: Path
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        path = os.pathsep.join([str(self.folder / "bin"), os.environ["PATH"]])
        return {**os.environ, "PATH": path, "SLURM_CONF": str(self.folder / "slurm.conf")}

    def start(self, name: str) -> None:
        with open(self.folder / f"{name}.log", "ab") as log:
            program = [shutil.which(name, path=SEARCHED) or name, "-D"]
            self.daemons[name] = subprocess.Popen(program, env=self.environment, stdout=log, stderr=log)

    def stop(self, name: str) -> None:
        daemon = self.daemons.pop(name)
        daemon.send_signal(signal.SIGTERM)
        try:
            daemon.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    def ask(self, *command: str) -> str:
        """What a command of Slurm prints; nothing where it fails."""
        process = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=PATIENCE)
        return process.stdout if process.returncode == 0 else ""

    def running(self, rule: str) -> str:
        """The id of a running job of a rule; empty where there is none."""
        lines = self.ask("squeue", "--noheader", "--states=running", "--format=%i %k").splitlines()
        return next((line.split()[0] for line in lines if f" rule_{rule}_" in f"{line}_"), "")

    def ended(self) -> list[dict[str, str]]:
        """Every job that ended: its id, its state and the memory it had asked for."""
        text = (self.folder / "completed").read_text()
        return [
            {"id": found[1], "state": found[2], "memory": found[3]}
            for found in re.finditer(r"^JobId=(\d+).*? JobState=(\w+).*?mem=(\w+)", text, re.MULTILINE)
        ]


SEARCHED = os.pathsep.join([os.environ["PATH"], "/usr/local/sbin", "/usr/sbin"])
NEEDED = ("slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel")


def missing() -> list[str]:
    """The programs that are needed and not installed."""
    return [name for name in NEEDED if shutil.which(name, path=SEARCHED) is None]


@contextmanager
def one_node(folder: Path) -> Iterator[Cluster]:
    """A Slurm that takes jobs, with all its files in an empty folder; its daemons and jobs end with the block."""
    for name in ("state", "spool", "bin"):
        (folder / name).mkdir()
    sockets = [socket.socket() for _ in range(2)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    values = {
        "host": socket.gethostname().split(".")[0],
        "user": getuser(),
        "folder": folder,
        "ports": ports,
        "cpus": os.cpu_count(),
        "memory": int(psutil.virtual_memory().total / 2**20 * 0.95),
    }
    (folder / "slurm.conf").write_text(CONFIGURATION.format(**values))
    # The plugin that runs jobs on nodes unsets SLURM_CONF, as a cluster's clients find theirs in /etc/slurm.
    srun = folder / "bin" / "srun"
    srun.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {shutil.which("srun")} "$@"\n')
    srun.chmod(0o755)
    here = Cluster(folder)
    try:
        here.start("slurmctld")
        here.start("slurmd")
        wait_for("a node that takes jobs", lambda: "idle" in here.ask("sinfo", "--noheader", "--format=%T"))
        yield here
    finally:
        here.ask("scancel", "--user", getuser())
        for name in reversed(list(here.daemons)):
            here.stop(name)
