"""One live driver an output: a small file with a heartbeat.

The holder rewrites the file every `BEAT_S`. A file whose beat is older than `STALE_S`, or whose process is
known to be dead, is taken over; so a killed job never leaves its output locked.
"""

import fcntl
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from studiolo.errors import LockedError, StoreError

if TYPE_CHECKING:
    from studiolo.storage.store import Store

LOCK_PATH = ".lock.json"
BEAT_S = 10.0
STALE_S = 60.0
SETTLE_S = 1.0
"""On an object store, the pause between writing the lock and reading back who won; a put is much shorter."""


class Lock:
    """The lock of one store, beating in a background thread between `acquire` and `release`.

    A local acquisition is atomic (`flock` on the folder). Object stores have no such thing: the last of two
    simultaneous writers wins, and the other one finds out after `SETTLE_S`. A holder that slept longer than
    `STALE_S` may have lost its lock; `check` says so, and `release` then leaves the new holder's file alone.
    """

    def __init__(self, store: "Store", owner: str) -> None:
        self._store = store
        self._me = {
            "owner": owner,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "pid_namespace": _pid_namespace(),
            "token": uuid.uuid4().hex,
        }
        self._lost_to: str | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self) -> None:
        """Take the lock, or raise `LockedError` naming the live holder."""
        holder = self._read()
        if holder and self._is_foreign(holder) and _age_s(holder) > STALE_S:
            # The other host's clock may be wrong: a beat seen moving counts more than a timestamp.
            time.sleep(BEAT_S * 1.5)
            moved = self._read()
            if moved and moved.get("beat_unix_s") != holder.get("beat_unix_s"):
                raise self._refusal(moved)
        with self._exclusively():
            holder = self._read()
            if holder and not self._is_abandoned(holder):
                raise self._refusal(holder)
            self._beat()
        if self._store.local_path(LOCK_PATH) is None:
            time.sleep(SETTLE_S)
            winner = self._read()
            if winner and winner.get("token") != self._me["token"]:
                raise self._refusal(winner)
        self._thread = threading.Thread(target=self._keep_beating, name="store-lock", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise `LockedError` when the lock was lost; a long job calls this between its stages."""
        if self._lost_to is not None:
            advice = "run the same command again"
            raise LockedError(f"store {self._store.url}: the lock was lost: {self._lost_to}; {advice}")

    def release(self) -> None:
        """Stop beating and remove the file, unless someone else holds it by now."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        with suppress(StoreError), self._exclusively():
            holder = self._read()
            if holder and holder.get("token") == self._me["token"]:
                self._store.remove(LOCK_PATH)

    def _keep_beating(self) -> None:
        last_beat_s = time.monotonic()
        while not self._stop.wait(BEAT_S):
            try:
                with self._exclusively():
                    holder = self._read()
                    if holder is not None and holder.get("token") != self._me["token"]:
                        self._lost_to = f"{_describe(holder)} took it over"
                        return
                    self._beat()
                last_beat_s = time.monotonic()
            except StoreError as error:
                if time.monotonic() - last_beat_s > STALE_S:
                    self._lost_to = f"no heartbeat could be written for {STALE_S:.0f} s ({error})"
                    return

    def _beat(self) -> None:
        self._store.write_json(LOCK_PATH, {**self._me, "beat_unix_s": time.time()})

    def _read(self) -> dict[str, Any] | None:
        """The holder's record; None when there is none, or one nobody could have written."""
        if not self._store.exists(LOCK_PATH):
            return None
        try:
            holder = self._store.read_json(LOCK_PATH)
        except StoreError:
            if self._store.exists(LOCK_PATH):
                raise
            return None  # released between the two calls
        return holder if isinstance(holder, dict) else None

    def _is_foreign(self, holder: dict[str, Any]) -> bool:
        """Whether the holder's pid says nothing here: another host, or another container on this one."""
        return any(holder.get(name) != self._me[name] for name in ("host", "pid_namespace"))

    def _is_abandoned(self, holder: dict[str, Any]) -> bool:
        return _age_s(holder) > STALE_S or not (self._is_foreign(holder) or _is_alive(holder.get("pid")))

    def _refusal(self, holder: dict[str, Any]) -> LockedError:
        return LockedError(
            f"store {self._store.url}: {_describe(holder)} is writing here, wanted no other live job; wait"
            f" for it, stop it, or choose another output (a dead job's lock lapses after {STALE_S:.0f} s)"
        )

    @contextmanager
    def _exclusively(self) -> Iterator[None]:
        """No other process of this file system is between reading and writing the lock."""
        place = self._store.local_path(LOCK_PATH)
        if place is None:
            yield
            return
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(place.parent, os.O_RDONLY)
        except OSError as error:
            message = f"cannot lock: {error.strerror}; check the path and its permissions"
            raise StoreError(f"store {self._store.url}: {message}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _age_s(holder: dict[str, Any]) -> float:
    beat = holder.get("beat_unix_s")
    return time.time() - beat if isinstance(beat, int | float) else float("inf")


def _describe(holder: dict[str, Any]) -> str:
    names = (holder.get("owner"), holder.get("host"), holder.get("pid"))
    return "job {!r} (host {}, pid {}, last heartbeat {:.0f} s ago)".format(*names, _age_s(holder))


def _is_alive(pid: object) -> bool:
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # it exists and belongs to someone else
    return True


def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
