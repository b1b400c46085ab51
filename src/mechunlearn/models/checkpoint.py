"""What a job that was killed had reached, so that the same job goes on from there.

keeping       a job's folder of checkpoints, inside a block; nothing is left of it where the job ends by itself
Checkpoints   that folder, and when to write there
Checkpoint    one file in it: tensors and what they are about
Training      the checkpoint of a training: trained weights, optimizer, schedule and losses
NOWHERE       for whom nothing is kept

A file is named by a hash of all that it follows from: what the job was given, the base model, every source file of the
package, versions and machine. What was written for anything else is never found, so going on gives the bits that an
uninterrupted job gives.
"""

import hashlib
import logging
import platform
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from mechunlearn.errors import ArtifactError, UserError
from mechunlearn.models import tensors
from mechunlearn.models.model import Model

log = logging.getLogger(__name__)
PACKAGE = Path(__file__).parents[1]
EVERY = 60.0  # seconds between two checkpoints: so much work can be lost
SHARE = 0.05  # of a job's time at most goes into writing them


class Checkpoints:
    """The folder of a job's checkpoints, and when the last was written; without a folder nothing ever is."""

    def __init__(self, folder: Path | None) -> None:
        self.folder, self._last, self._took = folder, time.monotonic(), 0.0

    def due(self) -> bool:
        """Is it time to write?"""
        return self.folder is not None and time.monotonic() - self._last >= max(EVERY, self._took / SHARE)

    def of(self, model: Model, *given: object) -> "Checkpoint":
        """The checkpoint of what follows from a base model and from `given`, by its `repr`."""
        return Checkpoint(self, model, _key(model, given) if self.folder else "")

    def written(self, begin: float) -> None:
        """A checkpoint has been written since then."""
        self._last = time.monotonic()
        self._took = self._last - begin


NOWHERE = Checkpoints(None)


@contextmanager
def keeping(folder: Path) -> Iterator[Checkpoints]:
    """Checkpoints in that folder, which is removed where the block ends, or ends with a sentence for the user."""
    try:
        yield Checkpoints(folder)
    except UserError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


class Checkpoint:
    """One file of checkpoints."""

    def __init__(self, home: Checkpoints, model: Model, key: str) -> None:
        self.home, self.model = home, model
        self.path = home.folder / f"{key}.safetensors" if home.folder else None

    def exists(self) -> bool:
        """Has it been written?"""
        return self.path is not None and self.path.is_file()

    def read(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """What was written, if anything was and it is whole."""
        if self.path is None or not self.exists():
            return None
        try:
            return tensors.read(self.path, self.model, "the job")
        except ArtifactError as error:
            log.warning("begun anew: %s", error)
            return None

    def write(self, found: Mapping[str, torch.Tensor], about: Mapping[str, Any]) -> None:
        """Write it. A job that cannot be kept goes on all the same."""
        if self.path is None:
            return
        begin = time.monotonic()
        try:
            tensors.write(self.path, self.model, found, about)
        except ArtifactError as error:
            log.warning("nothing is kept for a killed job to go on from: %s", error)
        self.home.written(begin)

    def remove(self) -> None:
        """Remove it where it is there."""
        if self.path is not None and self.exists():
            self.path.unlink()


class Training:
    """How far a training has come, as a checkpoint keeps it.

    rows      the losses of the steps taken
    seconds   what they took
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self._tensors, about = checkpoint.read() or (
            {},
            {"rows": [], "seconds": 0.0, "schedule": {}, "states": [], "kept": []},
        )
        self.rows: list[dict[str, float]] = about["rows"]
        self._about, self._begin = about, time.perf_counter() - about["seconds"]

    @property
    def seconds(self) -> float:
        """What the training has taken, the part before it was killed included."""
        return time.perf_counter() - self._begin

    def restore(
        self, parameters: Sequence[torch.nn.Parameter], optimizer: torch.optim.Optimizer, schedule: Any
    ) -> list[dict[str, float]]:
        """Put everything back as it was after the last step kept, and return the losses up to there."""
        if not self.rows:
            return []
        model, found = self.checkpoint.model, self._tensors
        with torch.no_grad():
            for number, parameter in enumerate(parameters):
                parameter.copy_(found[f"weights.{number}"])
        states = {
            number: {name: found[f"{name}.{number}"] if value is None else value for name, value in state.items()}
            for number, state in enumerate(self._about["states"])
        }
        (group,) = optimizer.state_dict()["param_groups"]
        schedule.load_state_dict(self._about["schedule"])
        rate = self._about["schedule"]["_last_lr"][0]
        optimizer.load_state_dict({"state": states, "param_groups": [{**group, "lr": rate}]})
        for number, generator in enumerate(_generators(model)):
            generator.set_state(found[f"random.{number}"])
        if model.frozen is not None:
            for number, ids in enumerate(self._about["kept"]):
                model.frozen.kept[tuple(ids)] = found[f"kept.{number}"].to(model.device)
        self._tensors = {}
        log.info("taken up after step %d", len(self.rows))
        return self.rows

    def step(
        self,
        row: dict[str, float],
        parameters: Sequence[torch.nn.Parameter],
        optimizer: torch.optim.Optimizer,
        schedule: Any,
    ) -> None:
        """Another step has been taken; write how far it is, where it is time to."""
        self.rows.append(row)
        if not self.checkpoint.home.due():
            return
        model = self.checkpoint.model
        # What entered the first trained layer depends, in its last bits, on the batch in which it was computed.
        kept = model.frozen.kept if model.frozen else {}
        found = {f"weights.{number}": parameter.detach() for number, parameter in enumerate(parameters)}
        states = [optimizer.state[parameter] for parameter in parameters]
        found |= {
            # Moments of 8 bits share one code book, and a file holds no two tensors of the same memory.
            f"{name}.{number}": value.clone() if name.startswith("qmap") else value
            for number, state in enumerate(states)
            for name, value in state.items()
            if isinstance(value, torch.Tensor)
        }
        found |= {f"random.{number}": each.get_state() for number, each in enumerate(_generators(model))}
        found |= {f"kept.{number}": stream for number, stream in enumerate(kept.values())}
        about = {
            "rows": self.rows,
            "seconds": self.seconds,
            "schedule": schedule.state_dict(),
            "states": [  # null where the value is a tensor
                {name: None if isinstance(value, torch.Tensor) else value for name, value in state.items()}
                for state in states
            ],
            "kept": list(kept),
        }
        self.checkpoint.write(found, about)


def _generators(model: Model) -> list[torch.Generator]:
    """Those that a network draws from in training."""
    on_device = [torch.cuda.default_generators[model.device.index or 0]] if model.device.type == "cuda" else []
    return [torch.default_generator, *on_device]


def _key(model: Model, given: Sequence[object]) -> str:
    """A hash of what a result follows from, to the last bit."""
    device = model.device
    machine = (
        torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    )
    said = [
        model.manifest.sha256,
        model.network.dtype,
        machine,
        torch.get_num_threads(),
        *(version(name) for name in ("torch", "transformers", "bitsandbytes")),
        _sources(),
        *given,
    ]
    return hashlib.sha256(repr(said).encode()).hexdigest()[:32]


@cache
def _sources() -> str:
    """A hash of every source file of the package."""
    found = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        found.update(f"{path.relative_to(PACKAGE)} {path.stat().st_size} ".encode() + path.read_bytes())
    return found.hexdigest()
