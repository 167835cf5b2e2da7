"""A worker's own watchdog: it ends the process that takes too long or too much memory, and says so first."""

import faulthandler
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import psutil

EVERY_S = 0.25
"""The watchdog looks this often; a worker takes about 1 GiB more in between at worst."""

GRACE_S = 10.0
"""So much later a worker is ended without a word: it held Python's lock, or could not write down why."""


class _Watch:
    """One block under watch."""

    def __init__(self, limit_s: float, explain: Callable[[str], None]) -> None:
        self.limit_s, self.explain = limit_s, explain
        self.deadline_s = math.inf


class Watchdog:
    """Watches the process it is made in, in a thread: any number of blocks at once, each with a time of its own.

    A thread cannot run while native code holds Python's lock. So the time that is up first is set a second time,
    `GRACE_S` longer, with `faulthandler`, whose timer needs no Python at all; it writes the traceback to the worker's
    log.
    """

    def __init__(self, memory_mib: int | None) -> None:
        self._memory_mib = memory_mib
        self._lock = threading.Lock()
        self._watches: list[_Watch] = []
        threading.Thread(target=self._look, name="watchdog", daemon=True).start()

    @contextmanager
    def watching(self, limit_s: float, explain: Callable[[str], None]) -> Iterator[Callable[[], None]]:
        """End the process, after `explain(why)`, when the block takes longer, whatever others do meanwhile, or when the
        process takes too much memory; then all blocks that are in it explain. Gives what begins the block's time anew.
        """
        watch = _Watch(limit_s, explain)

        def restart() -> None:
            with self._lock:
                watch.deadline_s = time.monotonic() + limit_s
                self._arm()

        with self._lock:
            self._watches.append(watch)
        restart()
        try:
            yield restart
        finally:
            with self._lock:  # else it may fire for what is over
                self._watches.remove(watch)
                self._arm()

    def _arm(self) -> None:
        """Set faulthandler's only timer for the block whose time is up first."""
        faulthandler.cancel_dump_traceback_later()
        first_s = min((watch.deadline_s for watch in self._watches), default=math.inf)
        if first_s < math.inf:
            left_s = max(first_s - time.monotonic(), 0)
            faulthandler.dump_traceback_later(left_s + GRACE_S, exit=True, file=2)

    def _look(self) -> None:
        me = psutil.Process()
        while True:
            time.sleep(EVERY_S)
            with self._lock:
                for watch in self._watches:
                    if time.monotonic() > watch.deadline_s:
                        self._end(me, [watch], f"took longer than {watch.limit_s:g} s")
                taken_mib = tree_rss_bytes(me) / 2**20 if self._memory_mib and self._watches else 0.0
                if self._memory_mib and taken_mib > self._memory_mib:
                    why = f"its worker took {taken_mib:.0f} MiB of memory, limit {self._memory_mib}"
                    self._end(me, self._watches, why)

    def _end(self, me: psutil.Process, watches: Sequence[_Watch], why: str) -> None:
        faulthandler.dump_traceback_later(GRACE_S, exit=True, file=2)  # should the store not answer
        try:
            for watch in watches:
                watch.explain(why)
        finally:
            for child in me.children(recursive=True):
                with suppress(psutil.Error):
                    child.kill()
            os._exit(1)


def tree_rss_bytes(process: psutil.Process) -> int:
    """Resident memory of a process and all it started; pages they share count once for each."""
    return sum(map(_rss_bytes, [process, *process.children(recursive=True)]))


def _rss_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0
