"""Checkpoints that are whole or not there, and the budget a training run may spend."""

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from studiolo.errors import TrainingError


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
