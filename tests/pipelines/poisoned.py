"""Actors whose rows do to their worker what the row says."""

import os
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pyarrow as pa

from studiolo.errors import PhotoError
from studiolo.storage.store import Store

Row = dict[str, Any]

SCHEMA = pa.schema(
    [
        ("value", pa.int64()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("lost", pa.list_(pa.string())),
    ]
)


def suffer(deed: str) -> None:
    """Do `deed` to this process."""
    if deed == "abort":
        os.abort()
    elif deed == "hang":
        time.sleep(3600)
    elif deed == "eat":
        eaten = []
        while len(eaten) < 4000:
            eaten.append(bytearray(b"x") * 2**20)
            time.sleep(0.002)
    elif deed == "raise":
        raise RuntimeError("a bug of ours")


class Whole:
    """Rows (value, does): what is finished is written down, once for each time it is done, and each bad deed begun.

    A good row takes `slow_s`; a bad deed is begun when a quarter of that is over, so that it finds company at work.
    """

    def __init__(self, store: Store, at_opening: str = "", slow_s: float = 0.0) -> None:
        self.store = store
        self.at_opening = at_opening
        self.slow_s = slow_s

    def open(self, device: str = "cpu") -> None:
        suffer(self.at_opening)

    def unit(self, row: Row) -> str:
        return str(row["value"])

    def crashed(self, row: Row, detail: str) -> pa.Table:
        failed = {"value": row["value"], "status": "failed", "reason": "crashed_worker", "detail": detail}
        return pa.Table.from_pylist([{**failed, "lost": []}], SCHEMA)

    def __call__(self, batch: pa.Table) -> pa.Table:
        (row,) = batch.to_pylist()
        time.sleep(self.slow_s / 4 if row["does"] else self.slow_s)
        if row["does"]:
            self.store.write_bytes(f"begun/{row['value']}/{uuid.uuid4().hex}", b"")
        suffer(row["does"])
        return self.finished(row, [])

    def finished(self, row: Row, lost: list[str]) -> pa.Table:
        self.store.write_bytes(f"finished/{row['value']}/{uuid.uuid4().hex}", b"")
        done = {"value": row["value"], "status": "ok", "reason": "", "detail": "", "lost": lost}
        return pa.Table.from_pylist([done], SCHEMA)


class Parted(Whole):
    """The same with rows of parts: each word of `does` is one, named by its place."""

    part: Callable[[str], AbstractContextManager[object]] = nullcontext

    def __call__(self, batch: pa.Table) -> pa.Table:
        (row,) = batch.to_pylist()
        lost = []
        for place, deed in enumerate(row["does"].split()):
            try:
                with self.part(str(place)):
                    time.sleep(self.slow_s)
                    suffer(deed)
            except PhotoError as error:
                lost.append(f"{place}: {error}")
        return self.finished(row, lost)
