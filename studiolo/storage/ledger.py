"""Which units of work are finished: one small record a unit, written after everything it speaks of.

A key is the sha256 of all a unit depends on (its inputs, its section of the settings, the weights, the
library), so a record never goes out of date: a changed input is another key. Resuming means doing the units
without a record.
"""

import re
from collections.abc import Iterable
from typing import Any

from studiolo.errors import StoreError
from studiolo.storage.store import Store

_KIND = re.compile(r"[a-z][a-z0-9_-]*")
_KEY = re.compile(r"[0-9a-f]{64}")


class Ledger:
    """Completion and failure records below `ledger/` of a store; can be pickled.

    `kind` is the unit's name (`album`, `identity`, `order`), `key` its 64 hexadecimal digits.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    def done(self, kind: str, key: str) -> dict[str, Any] | None:
        """The record the unit was completed with; None while it is not complete."""
        return self._read(_path("done", kind, key))

    def complete(self, kind: str, key: str, record: dict[str, Any]) -> None:
        """Mark the unit complete. Call it last: all files `record` names must be in the store already."""
        self.store.write_json(_path("done", kind, key), record)

    def pending(self, kind: str, keys: Iterable[str]) -> list[str]:
        """Those of `keys` without a completion record, in their order, by one listing of the store."""
        finished = set(self.store.list(_folder("done", kind)))
        return [key for key in keys if _path("done", kind, key) not in finished]

    def fail(self, kind: str, key: str, reason: str, detail: str = "") -> None:
        """Record that one more attempt at the unit failed; the unit stays pending.

        `reason` is a `studiolo.albums.records.Reason`, `detail` the text for the log.
        """
        failure = {"reason": str(reason), "detail": detail, "attempts": self.attempts(kind, key) + 1}
        self.store.write_json(_path("failed", kind, key), failure)

    def failure(self, kind: str, key: str) -> dict[str, Any] | None:
        """`reason`, `detail` and `attempts` of the latest failed attempt; None when none failed."""
        return self._read(_path("failed", kind, key))

    def attempts(self, kind: str, key: str) -> int:
        """How many attempts at the unit have failed so far."""
        failure = self.failure(kind, key)
        return int(failure["attempts"]) if failure else 0

    def _read(self, path: str) -> dict[str, Any] | None:
        if not self.store.exists(path):
            return None
        record = self.store.read_json(path)
        if not isinstance(record, dict):
            got = type(record).__name__
            raise StoreError(f"ledger {self.store.url}: {path}: got a {got}, wanted an object; delete it and run again")
        return record


def _folder(outcome: str, kind: str) -> str:
    if not _KIND.fullmatch(kind):
        raise ValueError(f"ledger: got kind {kind!r}, wanted lower-case letters, digits, - and _")
    return f"ledger/{outcome}/{kind}"


def _path(outcome: str, kind: str, key: str) -> str:
    if not _KEY.fullmatch(key):
        raise ValueError(f"ledger: got key {key!r}, wanted the 64 hexadecimal digits of a sha256")
    return f"{_folder(outcome, kind)}/{key}.json"
