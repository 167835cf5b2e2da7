"""What stands between the workers and a unit that ends them: such a unit fails alone, and the job goes on.

1. A unit is marked in the store before its worker starts on it (`studiolo.storage.attempts`).
2. A worker that dies over it, by itself or by the watchdog's hand, is started anew by Ray, which sends the unit again;
   the mark that is still there is counted.
3. A unit of parts (an album of photos) that has ended `ATTEMPTS` workers is worked on with each part marked as well, so
   that the part that ends workers is known; after `ATTEMPTS` it alone is given up, and the rest of the unit goes on.
4. A unit that cannot be saved so is given up: its row says `failed`, `crashed_worker` and why.

Where a worker has several units at once, its death in their company proves nothing against one of them. It counts, and
from then on each is worked on alone: only what ends `ATTEMPTS` workers alone is given up.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa

from pipelines.watchdog import Watchdog
from studiolo.albums.records import Reason
from studiolo.errors import PhotoError, StudioloError
from studiolo.storage.attempts import COMPANY, WHOLE, Attempt, Attempts, Crash

Row = dict[str, Any]

ATTEMPTS = 2
"""So many workers may die over a unit, and so many over a part: one may have been an accident. One more may die over it
in company."""

MOST_CRASHES = 20
"""A unit that has ended so many workers is given up whatever its parts; an album may hold nine such photos."""

OPENINGS = 3
"""A worker that died so often while it loaded its models ends the job."""

OPEN_LIMIT_S = 3600.0
"""Longest that loading the models may take, a slow download included."""

NO_PROGRESS_S = 6 * 3600
"""A stage of which no unit ends for so long, and the time of its attempts, is an error, not a wait: Ray finds no place
for its workers. A unit that hangs is the watchdog's matter."""

GIVEN_UP_IN_A_ROW = 25
"""So many units that ended their workers and none finished between them: then it is the workers, not the units."""


class Actor(Protocol):
    """What `actors/` holds: settings in the constructor, weights in `open`, one batch a call."""

    def open(self, device: str = "cpu") -> None:
        """Load weights; runs once, on the worker."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Annotate one batch of rows."""
        ...

    def unit(self, row: Row) -> str:
        """Key of the row and all settings it is worked on with: its attempts are counted under this name."""
        ...

    def crashed(self, row: Row, detail: str) -> pa.Table:
        """What comes of a row that ended its workers. Touches nothing but the row."""
        ...


@runtime_checkable
class Divisible(Protocol):
    """An actor whose units have parts that may fail alone."""

    part: Callable[[str], AbstractContextManager[object]]
    """The actor enters `part(name)` while it works on a part: `PhotoError` for one that was given up."""


class _Room:
    """Where a worker's units are worked on: any number together, or one alone, which goes before those that wait."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = self._alone = 0

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Inside beside others, when nobody is or wants to be alone."""
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Inside, when nobody else is, and nobody else until the end."""
        with self._changed:
            self._alone += 1
            self._changed.wait_for(lambda: not self._inside)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._alone -= 1
                self._changed.notify_all()


class Guard:
    """An actor whose crashes are counted. Batches have one row; at most `together` calls are inside at a time."""

    def __init__(
        self, actor: Actor, attempts: Attempts, limit_s: float, memory_mib: int | None = None, together: int = 1
    ) -> None:
        self.actor = actor
        self.attempts = attempts
        self.limit_s = limit_s
        self.together = together
        self.watchdog = Watchdog(memory_mib)
        self._room = _Room()
        self._at_work: tuple[Attempt, Callable[[], None]]
        """For parts: the unit's attempt, and what begins its time anew."""
        if isinstance(actor, Divisible):
            assert together == 1, "units of parts are worked on one at a time"
            actor.part = self._part

    def open(self, worker: str) -> None:
        """Open the actor. Raises `StudioloError` when `worker`, a name that outlives its process, keeps dying at it."""
        attempt = self.attempts.begin(f"open {worker}")
        if len(attempt.crashes) >= OPENINGS:
            raise StudioloError(f"a worker could not load its models in {_told(attempt.crashes)}; see its log")
        with self.watchdog.watching(OPEN_LIMIT_S, attempt.explain):
            self.actor.open()
        self.attempts.end(attempt.unit)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """One unit through the actor, or its row as a crashed one."""
        (row,) = batch.to_pylist()
        attempt = self.attempts.open(self.actor.unit(row))  # while it waits its mark stays as it is
        if self._is_lost(attempt):
            result = self.actor.crashed(row, _told(attempt.crashes))
            self.attempts.end(attempt.unit)
            return result
        alone = self.together == 1 or bool(attempt.crashes)
        with self._room.alone() if alone else self._room.shared():
            attempt.work_on(WHOLE if alone else COMPANY)
            with self.watchdog.watching(self.limit_s, attempt.explain) as restart:
                self._at_work = attempt, restart
                result = self.actor(batch)
            self.attempts.end(attempt.unit)
        return result

    def _is_lost(self, attempt: Attempt) -> bool:
        whole = len(attempt.of(WHOLE))
        most = 2 * ATTEMPTS if isinstance(self.actor, Divisible) else ATTEMPTS
        return whole >= most or len(attempt.crashes) >= MOST_CRASHES

    @contextmanager
    def _part(self, name: str) -> Iterator[None]:
        crashes = self._at_work[0].of(name)
        if len(crashes) >= ATTEMPTS:
            raise PhotoError(Reason.CRASHED_WORKER, _told(crashes))
        self._at(name)
        try:
            yield
        finally:
            self._at(WHOLE)

    def _at(self, part: str) -> None:
        """Each part is marked, which costs two writes, once the unit has ended `ATTEMPTS` workers."""
        attempt, restart = self._at_work
        if len(attempt.of(WHOLE)) >= ATTEMPTS:
            attempt.work_on(part)
        restart()


def _told(crashes: Sequence[Crash]) -> str:
    return f"{len(crashes)} attempts, the last: {crashes[-1].detail}"
