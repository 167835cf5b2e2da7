"""Rows that wait on this machine's disk: a job of ten thousand albums holds a few of them in memory at a time."""

import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import groupby, islice
from typing import IO, Any

import pyarrow as pa

from studiolo.errors import StoreError

Row = dict[str, Any]

PORTION = 1000
"""So many rows are one table of `portions`."""


class Spool:
    """Rows of `schema`, read any number of times in the order of the columns `key`; in memory are the keys only.

    They lie in a file without a name in the folder for temporary files (`TMPDIR`), which is gone with the process.
    Rows of equal keys keep the order in which they came. Raises `StoreError` when the disk is full.
    """

    def __init__(self, schema: pa.Schema, *key: str) -> None:
        self.schema = schema
        self._key = key
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  (open as long as the spool is)
        weakref.finalize(self, _close, self._file)
        self._places: list[tuple[tuple[Any, ...], int, int]] = []
        self._end = 0

    def append(self, row: Mapping[str, Any]) -> None:
        """Keep `row`, which has all columns of the schema."""
        content = pa.RecordBatch.from_pylist([row], self.schema).serialize()
        try:
            self._file.seek(self._end)
            self._file.write(content)
            self._file.flush()
        except OSError as error:
            place = tempfile.gettempdir()
            raise StoreError(
                f"spool: cannot keep a row in {place}: {error.strerror}; make room or set TMPDIR"
            ) from error
        self._places.append((tuple(row[name] for name in self._key), self._end, content.size))
        self._end += content.size

    def filled(self, rows: Iterable[Mapping[str, Any]]) -> "Spool":
        """This spool, with `rows` appended."""
        for row in rows:
            self.append(row)
        return self

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Row]:
        for _, begin, size in sorted(self._places):
            self._file.seek(begin)
            (row,) = pa.ipc.read_record_batch(pa.py_buffer(self._file.read(size)), self.schema).to_pylist()
            yield row


def _close(file: IO[bytes]) -> None:
    with suppress(OSError):  # what a full disk did not take
        file.close()


def portions(rows: Iterable[Mapping[str, Any]], schema: pa.Schema, size: int = PORTION) -> Iterator[pa.Table]:
    """`rows` as tables of `size`, each made when it is asked for."""
    left = iter(rows)
    while some := list(islice(left, size)):
        yield pa.Table.from_pylist(some, schema)


def beside(
    rows: Iterable[Row], others: Iterable[Row], by: Callable[[Row], Any] = lambda row: row["identity_id"]
) -> Iterator[tuple[Row, list[Row]]]:
    """Each of `rows` with those of `others` of the same `by`; both in its order, in `rows` each once.

    Raises `ValueError` for one of `others` that belongs to no row: the two are not in the same order.
    """
    groups = groupby(others, by)
    name, group = next(groups, (None, iter(())))
    for row in rows:
        if name != by(row):
            yield row, []
            continue
        yield row, list(group)
        name, group = next(groups, (None, iter(())))
    if name is not None:
        raise ValueError(f"beside: {name!r} is not among the rows, or they are not in one order")
