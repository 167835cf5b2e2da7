"""The leases that one worker holds, extended in time by a thread of its own while the worker works."""

import math
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from studiolo.errors import LeaseLostError
from studiolo.service.queue import JobQueue
from studiolo.service.records import Kind, Lease
from studiolo.storage.tracking import thinned


@dataclass(eq=False)
class Held:
    """A job in hand."""

    lease: Lease
    until_s: float
    """By this process's own clock (`time.monotonic`), and a little early."""
    steps_done: int = 0
    """What the worker says; told with the next extension."""
    losses: Sequence[float] = ()
    """Of a training, of each step from the first on; thinned and told with it. It may grow meanwhile."""
    lost: str = ""
    """Why it is no longer held, see `LeaseLostError`; empty while it is."""

    @property
    def sure(self) -> bool:
        """Whether nobody else can have the job now. Without a database that answers it is not sure, and not lost."""
        return not self.lost and time.monotonic() < self.until_s


class LeaseKeeper:
    """Takes jobs for `worker` and holds them, `for_s` seconds at a time; its methods may be called by any thread."""

    def __init__(self, queue: JobQueue, worker: str, for_s: float) -> None:
        self.queue, self.worker, self.for_s = queue, worker, for_s
        self._lock = threading.Lock()
        self._held: list[Held] = []

    def take(self, kinds: Collection[Kind], fresh: bool = False) -> Held | None:
        """Begin an attempt at the next job, see `JobQueue.lease`; None when there is none. Raises `DatabaseError`."""
        began_s = time.monotonic()
        for lease in self.queue.lease(kinds, self.worker, self.for_s, fresh=fresh):
            held = Held(lease, began_s + self.for_s)
            with self._lock:
                self._held.append(held)
            return held
        return None

    def extend(self, held: Held) -> None:
        """Hold a job anew from now on. Raises `LeaseLostError`, which it remembers, and `DatabaseError`."""
        began_s = time.monotonic()
        try:
            curve = thinned([(step, loss) for step, loss in enumerate(held.losses, 1) if math.isfinite(loss)])
            self.queue.extend(held.lease, self.for_s, held.steps_done, curve)
        except LeaseLostError as error:
            held.lost = error.reason
            raise
        held.until_s = began_s + self.for_s

    def extend_all(self) -> None:
        """Hold all jobs anew; those that are lost say so from now on. Raises `DatabaseError`.

        Call it at a third of `for_s`, or more often.
        """
        for one in self.held:
            try:
                self.extend(one)
            except LeaseLostError:
                self.drop(one)

    def secure(self) -> None:
        """Hold all jobs anew if one runs out soon. Raises `DatabaseError`.

        Call it before leases that ran out are given back, which each `take` does too: after an outage of the database
        that was longer than a lease, the first to be found are one's own.
        """
        soon_s = time.monotonic() + self.for_s / 3
        if any(held.until_s < soon_s for held in self.held):
            self.extend_all()

    @property
    def held(self) -> list[Held]:
        """The jobs in hand."""
        with self._lock:
            return [*self._held]

    def drop(self, held: Held) -> None:
        """The job has ended, was given back or is lost; no error when it was dropped before."""
        with self._lock:
            self._held = [one for one in self._held if one is not held]
