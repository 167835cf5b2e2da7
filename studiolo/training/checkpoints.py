"""Checkpoints that are whole or not there, in a file or in a store, and the budget a training run may spend."""

import hashlib
import io
import logging
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from studiolo.errors import TrainingError
from studiolo.storage.store import Store

_log = logging.getLogger(__name__)


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors and plain values) to `path`: a temporary file, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """The state in `path`, None when there is no such file; `TrainingError` when it cannot be read."""
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen types for a damaged file
        raise TrainingError(f"checkpoint {path}: {error}; delete it to start again") from error
    return state


class UnitCheckpoint:
    """Where the training of one unit of work stands, at `path` of `store`; made `every_s` seconds after the last.

    The file begins with the sha256 (32 bytes) of the unit's `key` and the rest, so that another unit's state and a
    damaged one are known before anything is read from them: torch checks no sums.
    """

    def __init__(self, store: Store, path: str, key: str, every_s: float) -> None:
        self._store, self._path, self._key, self._every_s = store, path, key, every_s
        self._saved_s = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """The unit's state; None, with a warning in the log, for what is not whole or another unit's."""
        if not self._store.exists(self._path):
            return None
        content = self._store.read_bytes(self._path)
        digest, saved = content[:32], content[32:]
        if digest != self._digest(saved):
            text = "checkpoint %s: got one that is damaged or of other inputs, wanted one of unit %s; starting again"
            _log.warning(text, self._path, self._key)
            return None
        state: dict[str, Any] = torch.load(io.BytesIO(saved), map_location="cpu", weights_only=True)
        return state

    @property
    def due(self) -> bool:
        """Whether it is time for the next one."""
        return time.monotonic() - self._saved_s >= self._every_s

    def save(self, state: dict[str, Any]) -> None:
        """Put `state` (tensors and plain values) in the place of the last one."""
        self._saved_s = time.monotonic()  # also of one that fails: a store that is away is not asked at every step
        buffer = io.BytesIO()
        torch.save(state, buffer)
        saved = buffer.getvalue()
        self._store.write_bytes(self._path, self._digest(saved) + saved)

    def remove(self) -> None:
        """The unit is done with it; no error when there is none."""
        self._store.remove(self._path)

    def _digest(self, saved: bytes) -> bytes:
        return hashlib.sha256(f"{self._key}\0".encode() + saved).digest()


@dataclass
class Budget:
    """What a run may spend, in steps or in minutes; what was spent before a resume counts."""

    steps: int | None = None
    minutes: float | None = None
    spent_steps: int = 0
    spent_s: float = 0.0
    _since_s: float = field(default_factory=time.monotonic)

    @property
    def elapsed_s(self) -> float:
        """Seconds spent, over all runs."""
        return self.spent_s + time.monotonic() - self._since_s

    @property
    def progress(self) -> float:
        """Share of the budget that is spent, 1 or more when nothing is left."""
        if self.steps is not None:
            return self.spent_steps / self.steps
        return self.elapsed_s / (60 * self.minutes) if self.minutes else 1.0

    def resume(self, steps: int, seconds: float) -> None:
        """Count what an earlier run spent."""
        self.spent_steps, self.spent_s, self._since_s = steps, seconds, time.monotonic()
