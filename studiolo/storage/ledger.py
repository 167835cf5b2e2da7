"""Which units of work are finished: one small record a unit, written after everything it speaks of.

A key is the sha256 of all a unit depends on (its inputs, its section of the settings, the weights, the
library), so a record never goes out of date: a changed input is another key. The paths of a unit's files do not hold
its key, so a run with other settings writes over them: the record holds their hashes, and counts only while the files
are those. Resuming means doing the units without such a record.
"""

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from studiolo.errors import StoreError
from studiolo.identities.artifacts import album_of, identity_folder
from studiolo.storage.store import Store

_KIND = re.compile(r"[a-z][a-z0-9_-]*")
_KEY = re.compile(r"[0-9a-f]{64}")
_NAMES = ("identity_id", "album_id")
"""Fields of a record whose texts are names; any other text may be a word that somebody is called by."""


class Ledger:
    """Completion and failure records below `ledger/` of a store; can be pickled.

    `kind` is the unit's name (`album`, `identity`, `order`), `key` its 64 hexadecimal digits.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    def done(self, kind: str, key: str) -> dict[str, Any] | None:
        """The record the unit was completed with; None while it is not complete, or one of its files is gone or has
        other bytes than it was completed with.
        """
        stored = self._read(_path("done", kind, key))
        if stored is None or "files" not in stored:
            return None
        if any(not self.store.exists(path) or self._sha256(path) != sha256 for path, sha256 in stored["files"].items()):
            return None
        record: dict[str, Any] = stored["record"]
        return record

    def complete(self, kind: str, key: str, record: dict[str, Any], files: Iterable[str] = ()) -> None:
        """Mark the unit complete. Call it last: its `files`, paths of the store, must be there already."""
        hashes = {path: self._sha256(path) for path in files}
        self.store.write_json(_path("done", kind, key), {"record": record, "files": hashes})

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

    def about(self, album_ids: Collection[str]) -> dict[str, list[str]]:
        """Paths of the records, failures included, that speak of each album or its people; of none there is no entry.

        A record does when it names one as its `identity_id` or `album_id`, or when one of its texts holds the name in
        quotes or is a path in the album's folder.
        """
        signs = {  # its folder, and in quotes its name and how its people's begin
            name: (f"{identity_folder(name)}/", repr(name), repr(f"{name}/other-")[:-1]) for name in album_ids
        }
        found: dict[str, list[str]] = {}
        for path in self.store.list("ledger") if signs else ():
            fields = set(_texts(self._read(path)))
            texts = {text for _, text in fields}
            names = {album_of(text) for field, text in fields if field in _NAMES}
            for name, (folder, *quoted) in signs.items():
                told = any(text.startswith(folder) or any(sign in text for sign in quoted) for text in texts)
                if told or name in names:
                    found.setdefault(name, []).append(path)
        return found

    def naming(self, pattern: re.Pattern[str]) -> dict[str, list[str]]:
        """Paths of the records, failures included, by whatever in their texts matches `pattern`."""
        found: dict[str, list[str]] = {}
        for path in self.store.list("ledger"):
            texts = " ".join(text for _, text in _texts(self._read(path)))
            for name in set(pattern.findall(texts)):
                found.setdefault(name, []).append(path)
        return found

    def _sha256(self, path: str) -> str:
        return hashlib.sha256(self.store.read_bytes(path)).hexdigest()

    def _read(self, path: str) -> dict[str, Any] | None:
        if not self.store.exists(path):
            return None
        record = self.store.read_json(path)
        if not isinstance(record, dict):
            got = type(record).__name__
            raise StoreError(f"ledger {self.store.url}: {path}: got a {got}, wanted an object; delete it and run again")
        return record


def _texts(value: Any, field: str = "") -> Iterator[tuple[str, str]]:
    """(field, text) of every text in a JSON value; names of fields are texts without a field."""
    if isinstance(value, str):
        yield field, value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield "", name
            yield from _texts(item, name)
    elif isinstance(value, list):
        for item in value:
            if not isinstance(item, float):  # embeddings
                yield from _texts(item, field)


def _path(outcome: str, kind: str, key: str) -> str:
    if not _KIND.fullmatch(kind):
        raise ValueError(f"ledger: got kind {kind!r}, wanted lower-case letters, digits, - and _")
    if not _KEY.fullmatch(key):
        raise ValueError(f"ledger: got key {key!r}, wanted the 64 hexadecimal digits of a sha256")
    return f"ledger/{outcome}/{kind}/{key}.json"
