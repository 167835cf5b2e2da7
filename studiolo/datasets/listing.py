"""The kept listing of an output: which pictures are in which shard. It only grows.

`listing/000000-SOURCE.parquet`, `000001-SOURCE`, ... hold the rows of one shard each, of one source. A picture that is
new, or has another version, goes into a part of its own; what is only said of a row that is there (its place, label and
licence, and whether it is still listed) is brought up to date where it stands. The order of the parts, and of the rows
in them, is the order in which pictures were first seen.
"""

import hashlib
import re
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

import pyarrow as pa

from studiolo.datasets.records import LISTED_SCHEMA, row_id
from studiolo.datasets.sources.listed import Listed
from studiolo.errors import SettingsError
from studiolo.storage.store import Store

Row = dict[str, Any]

FOLDER = "listing"

_PATH = re.compile(rf"{FOLDER}/(\d+)-(.+)\.parquet")
_KEY_BYTES = 16


class Part(NamedTuple):
    """One part of the listing, the rows of one shard."""

    number: int
    source: str
    path: str


def parts_of(store: Store, sources: Collection[str] | None = None) -> list[Part]:
    """The parts of the output, of `sources` when given, the first seen first."""
    found = [Part(int(match[1]), match[2], match[0]) for match in map(_PATH.fullmatch, store.list(FOLDER)) if match]
    return sorted(part for part in found if sources is None or part.source in sources)


def read_part(store: Store, path: str) -> list[Row]:
    """The rows of a part."""
    rows: list[Row] = store.read_table(path).to_pylist()
    return rows


def bring_up_to_date(store: Store, source: str, pictures: Iterable[Listed], rows_per_shard: int) -> int:
    """List `pictures` of `source`; the number of rows that are new.

    For who holds the store's lock. Whatever it is interrupted at, the same call again ends in the same listing. Some
    hundred bytes are in memory for each picture. Raises `SettingsError` when a picture is listed twice.
    """
    known = _known(store, source)
    seen, current, changed = set[bytes](), set[bytes](), dict[bytes, Row]()
    new, added = list[Row](), 0
    number = max((part.number for part in parts_of(store)), default=-1) + 1
    for picture in pictures:
        row = {"row_id": row_id(source, picture.uri), "source": source, **picture._asdict(), "listed": True}
        short = bytes.fromhex(row["row_id"])[:_KEY_BYTES]
        if short in seen:
            raise SettingsError(f"source {source!r}: {picture.uri!r} is listed twice; wanted each picture once")
        seen.add(short)
        current.add(key := _key(row))
        if key not in known:
            new.append(row)
            added += 1
        elif known[key] != _said(row):
            changed[key] = row
        if len(new) == rows_per_shard:
            _write(store, number, source, new)
            new, number = [], number + 1
    if new:
        _write(store, number, source, new)
    if changed or any(key not in current for key in known):
        _correct(store, source, current, changed)
    return added


def _known(store: Store, source: str) -> dict[bytes, int]:
    """What is said of each row and version that is there."""
    parts = parts_of(store, [source])
    return {_key(row): _said(row) for part in parts for row in read_part(store, part.path)}


def _correct(store: Store, source: str, current: Collection[bytes], changed: dict[bytes, Row]) -> None:
    for part in parts_of(store, [source]):
        rows = read_part(store, part.path)
        corrected = [changed.get(key) or {**row, "listed": key in current} for row in rows if (key := _key(row))]
        if corrected != rows:
            _write(store, part.number, source, corrected)


def _write(store: Store, number: int, source: str, rows: list[Row]) -> None:
    store.write_table(f"{FOLDER}/{number:06d}-{source}.parquet", pa.Table.from_pylist(rows, LISTED_SCHEMA))


def _key(row: Row) -> bytes:
    return hashlib.sha256(f"{row['row_id']}\0{row['version']}".encode()).digest()[:_KEY_BYTES]


def _said(row: Row) -> int:
    return hash((row["place"], row["label"], row["licence"], row["listed"]))
