"""A worker's own watchdog: it ends the process that takes too long or too much memory, and says so first."""

import faulthandler
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psutil

EVERY_S = 0.25
"""The watchdog looks this often; a worker takes about 1 GiB more in between at worst."""

GRACE_S = 10.0
"""So much later a worker is ended without a word: it held Python's lock, or could not write down why."""


class Watchdog:
    """Watches the process it is made in, in a thread.

    A thread cannot run while native code holds Python's lock. So each limit is set a second time, `GRACE_S` longer,
    with `faulthandler`, whose timer needs no Python at all; it writes the traceback to the worker's log.
    """

    def __init__(self, memory_mib: int | None) -> None:
        self._memory_mib = memory_mib
        self._lock = threading.Lock()
        self._limit_s = self._deadline_s = math.inf
        self._explain: Callable[[str], None] = print
        threading.Thread(target=self._look, name="watchdog", daemon=True).start()

    @contextmanager
    def watching(self, limit_s: float, explain: Callable[[str], None]) -> Iterator[None]:
        """End the process, after `explain(why)`, when the block, or the time since `restart`, takes longer."""
        self._limit_s, self._explain = limit_s, explain
        self.restart()
        try:
            yield
        finally:
            with self._lock:  # else it may fire for what is over
                self._deadline_s = math.inf
                faulthandler.cancel_dump_traceback_later()

    def restart(self) -> None:
        """Something was finished: the time begins anew."""
        with self._lock:
            self._deadline_s = time.monotonic() + self._limit_s
            faulthandler.dump_traceback_later(self._limit_s + GRACE_S, exit=True, file=2)

    def _look(self) -> None:
        me = psutil.Process()
        while True:
            time.sleep(EVERY_S)
            with self._lock:
                if time.monotonic() > self._deadline_s:
                    self._end(me, f"took longer than {self._limit_s:g} s")
                taken_mib = tree_rss_bytes(me) / 2**20 if self._memory_mib else 0.0
                if self._memory_mib and taken_mib > self._memory_mib and self._deadline_s < math.inf:
                    self._end(me, f"its worker took {taken_mib:.0f} MiB of memory, limit {self._memory_mib}")

    def _end(self, me: psutil.Process, why: str) -> None:
        faulthandler.dump_traceback_later(GRACE_S, exit=True, file=2)  # should the store not answer
        try:
            self._explain(why)
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
