"""A job in hand: who works on it, whether it moves, and how it is stopped."""

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from studiolo.portraits.rounds import Drawings
from studiolo.service.live import Candidate
from studiolo.service.records import Lease

STILL_S = 600.0
"""Longest that a job may be in hand without news: longer than any worker takes to start, or to be found hanging."""


class Stopped(Exception):
    """Nobody wants the job's result any more, or not from us."""


@dataclass(eq=False)
class Hand:
    """A job in hand."""

    lease: Lease
    lease_s: float
    """For how long it was leased."""
    lost: str = ""
    """Why it is no longer held, as `LeaseLostError` says; empty while it is."""
    given_up: bool = False
    """It is to be given back."""
    drawings: Drawings | None = None
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    """That its stages took."""
    steps_before: int = 0
    """Done in earlier rounds."""
    steps_done: int = 0
    candidates: tuple[Candidate, ...] = ()
    preview: bytes | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    leased_s: float = field(default_factory=time.monotonic)
    extended_s: float = field(default_factory=time.monotonic)
    """When it was leased, or the lease extended last."""
    moved_s: float = field(default_factory=time.monotonic)
    """When there was news of it last."""

    @property
    def stopped(self) -> bool:
        """Whether whoever works on it is to come to an end."""
        return bool(self.lost) or self.given_up

    @property
    def silent_s(self) -> float:
        """Seconds since there was news of it."""
        return time.monotonic() - self.moved_s

    @property
    def left_s(self) -> float:
        """Seconds until its deadline, by the clock of the database when it was leased, and since then by ours."""
        at_leasing_s = self.lease.job.deadline_at - (self.lease.until - self.lease_s)
        return at_leasing_s - (time.monotonic() - self.leased_s)

    @property
    def in_vain(self) -> bool:
        """Whether it is held though nothing comes of it: not begun by its deadline, or without news for long."""
        begun = self.steps_done > 0 or bool(self.candidates)
        return self.silent_s > STILL_S or (not begun and self.left_s < 0)

    def move(self) -> None:
        """There is news of it."""
        self.moved_s = time.monotonic()

    def stop(self, lost: str = "") -> None:
        """Free its slots; the thread that works on it comes to an end. It is given back if it was not `lost`."""
        with self.lock:
            self.lost, self.given_up = self.lost or lost, self.given_up or not lost
            drawings = self.drawings
        self.move()
        if drawings is not None:
            _close(drawings)

    def hold(self, drawings: Drawings) -> Drawings:
        """Raises `Stopped` when it was stopped before."""
        with self.lock:
            self.drawings, stopped = drawings, self.stopped
        if stopped:
            _close(drawings)
            raise Stopped
        return drawings

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """What is done within is time of a stage, if it succeeds."""
        began_s = time.monotonic()
        yield
        self.seconds[stage] += time.monotonic() - began_s


def _close(drawings: Drawings) -> None:
    with suppress(Exception):  # of a worker far away, anything: other jobs have to go on
        drawings.close()
