"""How far a running job is, second by second: ephemeral, so that it may be lost, and kept out of SQL."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Candidate:
    """A picture that was made and judged."""

    index: int
    accepted: bool
    reason: str = ""
    """Why it was rejected, a word for programs."""
    sentence: str = ""
    """The same for people."""


@dataclass(frozen=True)
class Progress:
    """Where the newest attempt at a job is."""

    attempt: int
    """From 1."""
    stage: str
    """What is being done: `look` (at an edit's template), `denoise`, `finish`, `train`."""
    done: int
    """Steps done."""
    total: int
    """Steps there are."""
    preview: bytes | None = None
    """A small PNG of the picture as it is."""
    candidates: tuple[Candidate, ...] = ()
    """Those judged so far, oldest first."""


class Live(Protocol):
    """Where progress is asked for."""

    async def look(self, job_id: str) -> Progress | None:
        """The newest news of a job; None when there is none. Raises nothing: no news is no fault."""
        ...


class LiveMemory:
    """Progress within one process; what is older than `kept_s` is forgotten."""

    def __init__(self, kept_s: float = 600.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.kept_s, self._clock = kept_s, clock
        self._lock = threading.Lock()
        self._news: dict[str, tuple[float, Progress]] = {}

    def tell(self, job_id: str, progress: Progress) -> None:
        """A worker says how far it is; from any thread."""
        now = self._clock()
        with self._lock:
            self._news.pop(job_id, None)
            self._news[job_id] = now, progress
            for old in [name for name, (at, _) in self._news.items() if at < now - self.kept_s]:
                del self._news[old]

    def forget(self, job_id: str) -> None:
        """The job has ended, or is somebody else's."""
        with self._lock:
            self._news.pop(job_id, None)

    async def look(self, job_id: str) -> Progress | None:
        """As `Live` says."""
        with self._lock:
            found = self._news.get(job_id)
        return None if found is None or found[0] < self._clock() - self.kept_s else found[1]
