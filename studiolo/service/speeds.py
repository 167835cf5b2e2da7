"""How fast the samplers and trainers are, as they report it themselves."""

import math
import threading
import time
from collections.abc import Callable
from functools import partial

import sqlalchemy as sa
from sqlalchemy.orm import Session

from studiolo.service.database import Database
from studiolo.service.records import Kind
from studiolo.service.settings import AdmissionSettings
from studiolo.service.tables import SpeedRow

MEMORY_S = 60.0
"""Busy seconds over which a worker's speed is averaged."""
_KEPT_S = 86_400.0


class Speeds:
    """Steps a second, by worker and kind; can be pickled."""

    def __init__(self, database: Database, settings: AdmissionSettings | None = None) -> None:
        self.database = database
        self.settings = settings or AdmissionSettings()

    def report(self, worker: str, kind: Kind, steps: int, busy_s: float) -> None:
        """A worker did `steps` in `busy_s` seconds of work since its last report; 0 and 0 says that it is there.

        Call it every few seconds, idle or not: who is silent is not counted with.
        """
        self.database.write(partial(self._report, worker, kind, steps, busy_s))

    def leave(self, worker: str) -> None:
        """A worker ends in order; its speed stays known, but it is not counted with any more."""

        def leave(session: Session) -> None:
            row = session.get(SpeedRow, worker)
            if row is not None:
                row.reported_at = min(row.reported_at, self.database.now(session) - self.settings.speed_window_s - 1)

        self.database.write(leave)

    def steps_per_s(self, session: Session, kind: Kind) -> float:
        """Of all workers of a kind that are there; with none, of one, as last measured, else as the settings say."""
        now = self.database.now(session)
        query = sa.select(SpeedRow).filter_by(kind=kind).order_by(SpeedRow.reported_at.desc())
        rows = session.scalars(query).all()
        known = [row.steps_per_s for row in rows if row.steps_per_s is not None]
        usual = known[0] if known else self.settings.steps_per_s(kind)
        there = [row for row in rows if row.reported_at >= now - self.settings.speed_window_s]
        return sum(row.steps_per_s or usual for row in there) or usual

    def _report(self, worker: str, kind: Kind, steps: int, busy_s: float, session: Session) -> None:
        now = self.database.now(session)
        row = session.get(SpeedRow, worker, with_for_update=True)
        if row is None:
            row = SpeedRow(worker=worker, kind=kind, steps_per_s=None, reported_at=now)
            session.add(row)
        row.kind, row.reported_at = kind, now
        if busy_s > 0 and (steps or row.steps_per_s):  # before its first step it is not slow, but not known
            row.steps_per_s = moved(row.steps_per_s, steps, busy_s)
        long_ago = sa.and_(SpeedRow.reported_at < now - _KEPT_S, SpeedRow.worker != worker)
        session.execute(sa.delete(SpeedRow).where(long_ago))


class Effort:
    """Steps and busy seconds of one worker since they were last asked for; of any threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._steps, self._busy_s = 0, 0.0
        self._busy_since_s: float | None = None

    def work(self, steps: int = 0) -> None:
        """The worker is busy from now on, if it was not, and has done `steps` more."""
        with self._lock:
            self._steps += steps
            self._count(self._clock())

    def rest(self) -> None:
        """The worker waits for something to do."""
        with self._lock:
            self._count(None)

    def take(self) -> tuple[int, float]:
        """Steps and busy seconds; they are counted from 0 again."""
        with self._lock:
            if self._busy_since_s is not None:
                self._count(self._clock())
            taken = self._steps, self._busy_s
            self._steps, self._busy_s = 0, 0.0
            return taken

    def _count(self, busy_since_s: float | None) -> None:
        if self._busy_since_s is not None:
            self._busy_s += self._clock() - self._busy_since_s
        self._busy_since_s = busy_since_s


def moved(before: float | None, steps: int, busy_s: float) -> float:
    """A moving speed after `steps` more in `busy_s`; reports of any length add up to the same."""
    speed = steps / busy_s
    return speed if before is None else speed + (before - speed) * math.exp(-busy_s / MEMORY_S)
