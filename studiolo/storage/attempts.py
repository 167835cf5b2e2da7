"""Attempts at units of work: what tells a unit that ends its worker from one that was merely interrupted.

Before a worker starts on a unit it leaves a mark in the store, and takes it away when the unit has its row. So a mark
that is found was left by a worker that died, and the mark says whose fault that was:

- the `run` in it is the reader's own: the driver has lived on, so the worker died alone. That is a crash of the unit,
  or of the part of it that the mark names, and it counts;
- the `run` is another: that driver is gone, and took its workers with it (a kill -9, a power cut, an error of the job).
  No unit is to blame. Crashes counted before stay counted.

A crash that is followed by the driver's death before the unit's next attempt is thus forgotten: the count may be too
low, never too high.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from studiolo.errors import StoreError
from studiolo.storage.store import Store

_FOLDER = "attempts"

WHOLE = ""
"""In place of a part's name: the unit outside its parts."""

COMPANY = "in company"
"""In place of a part's name: others were worked on in the same worker, and it may have died over them."""

UNEXPLAINED = "the worker ended without a word"
"""Detail of a crash of which nothing else is known."""


@dataclass(frozen=True)
class Crash:
    """One worker that died over a unit."""

    part: str
    """The part it was at, or `WHOLE`."""
    detail: str
    """Why, as far as known."""


def forget(store: Store) -> None:
    """Take every mark away, of whatever unit. For who holds the store's lock, so that no worker is at work.

    A mark names the part it is at, such as a customer's photo, and not whose it is. Crashes counted are forgotten too.
    """
    for path in store.list(_FOLDER):
        store.remove(path)


class Attempt:
    """The mark of one unit, held by the worker that works on it; a change is in the store before its call returns."""

    def __init__(self, attempts: "Attempts", unit: str, crashes: list[Crash]) -> None:
        self._attempts = attempts
        self.unit = unit
        self.crashes = crashes
        """Of earlier attempts, the oldest first."""
        self._part = WHOLE

    def of(self, part: str) -> list[Crash]:
        """The crashes at `part`, or with `WHOLE` those outside any."""
        return [crash for crash in self.crashes if crash.part == part]

    def work_on(self, part: str) -> None:
        """A worker that dies from now on died at `part`."""
        self._part = part
        self._write()

    def explain(self, detail: str) -> None:
        """The worker is about to be ended, because of `detail`."""
        self._write(detail)

    def _write(self, detail: str = UNEXPLAINED) -> None:
        open_crash = Crash(self._part, detail)  # what this mark is worth if nobody takes it away
        self._attempts.write(self.unit, [*self.crashes, open_crash])


class Attempts:
    """Marks of one `stage` below `attempts/` of a store, read and written in the name of `run`; can be pickled."""

    def __init__(self, store: Store, stage: str, run: str) -> None:
        self.store = store
        self.stage = stage
        self.run = run

    @contextmanager
    def kept(self) -> Iterator[None]:
        """While the driver is here the folder is too: a worker that empties it does not take it from under another."""
        keeper = f"{_FOLDER}/{self.stage}/run.json"
        self.store.write_json(keeper, {"run": self.run})
        yield
        self.store.remove(keeper)  # after an error it may stay: the next run writes its own

    def begin(self, unit: str) -> Attempt:
        """Mark `unit` as worked on, and count the crash if a worker of this run died over it."""
        attempt = self.open(unit)
        attempt.work_on(WHOLE)
        return attempt

    def open(self, unit: str) -> Attempt:
        """What was counted of `unit`, which is not worked on yet."""
        path = self._path(unit)
        return Attempt(self, unit, self._read(path) if self.store.exists(path) else [])

    def end(self, unit: str) -> None:
        """Take the mark of `unit` away, with all that was counted: it has its row."""
        self.store.remove(self._path(unit))

    def write(self, unit: str, crashes: list[Crash]) -> None:
        """Store the mark: the last of `crashes` is the one that will have happened if nobody ends the attempt."""
        rows = [[crash.part, crash.detail] for crash in crashes]
        self.store.write_json(self._path(unit), {"run": self.run, "crashes": rows})

    def _read(self, path: str) -> list[Crash]:
        mark: Any = self.store.read_json(path)
        try:
            crashes = [Crash(str(part), str(detail)) for part, detail in mark["crashes"]]
            return crashes if mark["run"] == self.run else crashes[:-1]
        except (KeyError, TypeError, ValueError):
            got = json.dumps(mark)[:80]
            raise StoreError(
                f"attempts {self.store.url}: {path}: got {got}, wanted a mark; delete it and run again"
            ) from None

    def _path(self, unit: str) -> str:
        name = hashlib.sha256(unit.encode(errors="surrogatepass")).hexdigest()
        return f"{_FOLDER}/{self.stage}/{name}.json"
