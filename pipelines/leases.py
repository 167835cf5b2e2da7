"""The queue of identities in training: who has which, who died over what, and what came of each.

A training group lives in attempts: a worker that dies takes the whole group with it, and Ray Train starts it anew. So

- a lease belongs to an attempt; the next one voids it, and a worker of the one before can give nothing back;
- only the ranks that Ray Train names as dead are to blame, not those that it ended with them;
- an identity that died in company is a suspect, and trained alone, in a pack that is padded to its size; one that ends
  `ATTEMPTS` workers alone is given up (`failed`, `crashed_worker`), and the rest go on.

Marks in the store (`studiolo.storage.attempts`) keep what was counted beyond the death of the driver.
"""

import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pipelines.guard import ATTEMPTS, GIVEN_UP_IN_A_ROW, MOST_CRASHES, OPENINGS
from studiolo.storage.attempts import COMPANY, WHOLE, Attempt, Attempts

Row = dict[str, Any]


@dataclass(eq=False)
class Unit:
    """One identity on its way."""

    name: str
    """Under which attempts at it are counted."""
    row: Row
    rank: int | None = None
    """The worker that has it."""
    mark: Attempt | None = None
    """Read from the store when its turn comes."""
    share: float = 0.0
    """Of its steps that are done, as its worker said last."""


class Leases:
    """The queue; one process owns it, and the workers ask it from theirs."""

    def __init__(self, units: Sequence[tuple[str, Row]], attempts: Attempts) -> None:
        self.attempts = attempts
        self.attempt = 0
        self.fatal = ""
        self._waiting = deque(Unit(name, row) for name, row in units)
        self._held: list[Unit] = []
        self._results: list[Row] = []
        self._lost: list[tuple[Row, str]] = []
        self._explained: dict[int, str] = {}
        self._dead_openings = self._given_up = 0
        self._idle_since_s = time.monotonic()

    def begin(self) -> int:
        """A new group of workers: its number. What the last one had goes to the head of the queue."""
        self.attempt += 1
        self._explained.clear()
        self._waiting.extendleft(reversed(self._held))
        for unit in self._held:
            unit.rank, unit.share = None, 0.0
        self._held = []
        return self.attempt

    def met(self, attempt: int) -> bool:
        """All workers of `attempt` are there; whether they are wanted."""
        if attempt == self.attempt:
            self._idle_since_s = math.inf
        return not self.over(attempt)

    def starting_s(self) -> float:
        """For so long no group of workers has been at work; 0 while one is."""
        return max(0.0, time.monotonic() - self._idle_since_s)

    def take(self, attempt: int, rank: int, free: int) -> list[Row]:
        """At most `free` rows for worker `rank`; a suspect only to one that has nothing else, and nothing beside it."""
        if self.over(attempt):
            return []
        mine = [unit for unit in self._held if unit.rank == rank]
        if any(self._mark(unit).crashes for unit in mine):
            return []
        units = self._first(free, suspects=False) or ([] if mine else self._first(1, suspects=True))
        for unit in units:
            self._waiting.remove(unit)
            unit.rank = rank
            self._mark(unit).work_on(WHOLE)  # in the store before the worker starts on it
        self._held += units
        return [unit.row for unit in units]

    def finish(self, attempt: int, row: Row) -> bool:
        """The outcome of a lease; False, and nothing else, for one that is void."""
        found = [unit for unit in self._held if unit.row["identity_id"] == row["identity_id"]]
        if attempt != self.attempt or not found:
            return False
        self._held.remove(found[0])
        self.attempts.end(found[0].name)
        self._results.append(row)
        self._dead_openings = self._given_up = 0
        return True

    def explain(self, attempt: int, rank: int, why: str) -> None:
        """A worker is about to end itself, because of `why`."""
        if attempt == self.attempt:
            self._explained[rank] = why

    def blame(self, ranks: Sequence[int]) -> None:
        """These workers of the attempt have died."""
        self._idle_since_s = time.monotonic()
        without = []
        for rank in ranks:
            mine = [unit for unit in self._held if unit.rank == rank]
            for unit in mine:
                self._held.remove(unit)
                self._crashed(unit, COMPANY if len(mine) > 1 else WHOLE, self._explained.get(rank))
            if not mine:
                without.append(rank)
        if without:
            self._died_without(without)

    def hear(self, attempt: int, shares: Mapping[str, float]) -> bool:
        """How far a worker of `attempt` is with what it has, by identity; whether it works for nothing, as `over`."""
        if attempt == self.attempt:
            for unit in self._held:
                unit.share = shares.get(unit.row["identity_id"], unit.share)
        return self.over(attempt)

    def under_way(self) -> float:
        """How much is done of those that are in training, in identities."""
        return sum(unit.share for unit in self._held)

    def over(self, attempt: int) -> bool:
        """Whether the workers of `attempt` do their work for nothing: it is void, or the job has failed."""
        return bool(self.fatal) or attempt != self.attempt

    def fail(self, why: str) -> None:
        """An error of a worker that is nobody's fault: the job ends."""
        self.fatal = self.fatal or why

    def collect(self) -> tuple[list[Row], list[tuple[Row, str]], str]:
        """Since the last call: outcomes, and rows that were given up, with why;
        and why the job must end, if it must."""
        results, lost = self._results, self._lost
        self._results, self._lost = [], []
        return results, lost, self.fatal

    def _mark(self, unit: Unit) -> Attempt:
        if unit.mark is None:
            unit.mark = self.attempts.open(unit.name)
        return unit.mark

    def _first(self, most: int, suspects: bool) -> list[Unit]:
        """The first of those waiting over which a worker has died, or of the others."""
        units = (unit for unit in self._waiting if bool(self._mark(unit).crashes) is suspects)
        return list(islice(units, most))

    def _crashed(self, unit: Unit, part: str, why: str | None) -> None:
        unit.rank, unit.share = None, 0.0
        mark = self._mark(unit)
        mark.work_on(part)
        if why is not None:
            mark.explain(why)
        unit.mark = mark = self.attempts.begin(unit.name)  # reads it again, and counts
        if len(mark.of(WHOLE)) < ATTEMPTS and len(mark.crashes) < MOST_CRASHES:
            self._waiting.append(unit)
            return
        told = f"{len(mark.crashes)} attempts, the last: {mark.crashes[-1].detail}"
        self.attempts.end(unit.name)
        self._lost.append((unit.row, told))
        self._given_up += 1
        if self._given_up >= GIVEN_UP_IN_A_ROW:
            self.fail(
                f"{self._given_up} units in a row ended their workers ({told}), and none was finished between them;"
                f" check the machine's memory and {self.attempts.stage}.memory_limit_mib, then run the same command"
                " again"
            )

    def _died_without(self, ranks: Sequence[int]) -> None:
        """Workers that had no identity; those that died together are one death, of the machine they shared perhaps."""
        self._dead_openings += 1
        if self._dead_openings >= OPENINGS:
            why = next((self._explained[rank] for rank in ranks if rank in self._explained), "it ended without a word")
            self.fail(f"a worker could not load its models in {OPENINGS} attempts, the last: {why}; see its log")
