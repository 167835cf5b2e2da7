"""The loop around a trainer of hours: steps until the budget is spent, checkpoints on the way, a curve."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from studiolo.training.checkpoints import Budget, load_checkpoint, save_checkpoint

REPORT_EVERY = 50
"""Steps whose losses are averaged for one point of the curve."""


def warmup_cosine(budget: Budget, warmup_steps: int, final_rate: float) -> float:
    """Share of the peak learning rate: a linear warm-up, then a cosine over the budget down to `final_rate`."""
    warmup = min(1.0, (budget.spent_steps + 1) / max(1, warmup_steps))
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, budget.progress)))
    return warmup * (final_rate + (1 - final_rate) * cosine)


class Trainer(Protocol):
    """What the loop drives."""

    budget: Budget

    def step(self) -> float:
        """One step; its loss."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything a resume needs."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""


def train_until_spent(
    trainer: Trainer,
    checkpoint: Path,
    checkpoint_minutes: float = 10.0,
    on_metric: Callable[[int, float], None] | None = None,
    on_checkpoint: Callable[[int], None] | None = None,
) -> None:
    """Train until the budget is spent, going on from `checkpoint` when it is there.

    `on_metric` gets (step, mean loss); `on_checkpoint` gets the step after every checkpoint and at the end.
    """
    state = load_checkpoint(checkpoint)
    if state is not None:
        trainer.load_state_dict(state)
    losses: list[float] = []
    saved_s = trainer.budget.elapsed_s

    def keep() -> None:
        save_checkpoint(checkpoint, trainer.state_dict())
        if on_checkpoint is not None:
            on_checkpoint(trainer.budget.spent_steps)

    while trainer.budget.progress < 1:
        losses.append(trainer.step())
        if len(losses) == REPORT_EVERY:
            if on_metric is not None:
                on_metric(trainer.budget.spent_steps, float(np.mean(losses)))
            losses.clear()
        if trainer.budget.elapsed_s - saved_s > 60 * checkpoint_minutes:
            keep()
            saved_s = trainer.budget.elapsed_s
    keep()
