"""Annotation shards in, their caption shards out."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from studiolo.albums.records import Reason, Status
from studiolo.datasets.captions import open_captioner
from studiolo.datasets.captions.parts import forget_parts, in_parts
from studiolo.datasets.captions.settings import CaptionSettings
from studiolo.datasets.captions.shards import CAPTIONED_SCHEMA, IN_PARTS, UNIT, caption_key, caption_path
from studiolo.datasets.records import CAPTION_SCHEMA
from studiolo.storage.ledger import Ledger
from studiolo.storage.store import Store

Row = dict[str, Any]


class CaptionWriter:
    """Rows of `CAPTION_INPUT` in, rows of `CAPTIONED_SCHEMA` out; the captions go to the store.

    A shard that the ledger calls done is not captioned again; of one whose rows are others now, because a picture was
    read at a second try, only the new rows are.
    """

    def __init__(self, store: Store, captioner: str, settings: CaptionSettings) -> None:
        self.store = store
        self.captioner = open_captioner(captioner, settings)
        self.part: Callable[[str], AbstractContextManager[object]] = nullcontext
        """Entered around each part of a shard: who watches the worker sees where it is, and may refuse one."""

    def open(self, device: str = "cpu") -> None:
        """Load the captioner's model, if it has one."""
        self.captioner.open(device)
        self.ledger = Ledger(self.store)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """The captions of every shard of `batch`."""
        return pa.Table.from_pylist([self._shard(row["shard"]) for row in batch.to_pylist()], CAPTIONED_SCHEMA)

    def unit(self, row: Row) -> str:
        """Key of the shard's captions."""
        return caption_key(row["shard"], self.captioner.id)

    def crashed(self, row: Row, detail: str) -> pa.Table:
        """A shard that ended its workers although each of its parts was tried alone: it has no captions."""
        failure = {"reason": Reason.CRASHED_WORKER.value, "detail": detail}
        return pa.Table.from_pylist([{"shard": row["shard"], "rows": row["rows"], **failure}], CAPTIONED_SCHEMA)

    def _shard(self, shard: str) -> Row:
        key, path = caption_key(shard, self.captioner.id), caption_path(shard, self.captioner.id)
        states = self.store.iter_rows(shard, ["row_id", "status"])
        wanted = [row["row_id"] for row in states if row["status"] == Status.OK]
        done = self.ledger.done(UNIT, key)
        if done is None or [row["row_id"] for row in self.store.iter_rows(path, ["row_id"])] != wanted:
            known = {} if done is None else {row["row_id"]: row["captions"] for row in self.store.iter_rows(path)}
            done = self._write(shard, key, path, known)
        if self.captioner.rows_per_part:
            forget_parts(self.store, f"{IN_PARTS}/{key}")
        return done

    def _write(self, shard: str, key: str, path: str, known: dict[str, list[Row]]) -> Row:
        """Write the captions, those that are `known` as they are."""
        rows = [row for row in self.store.iter_rows(shard) if row["status"] == Status.OK]
        new = [row for row in rows if row["row_id"] not in known]
        before = asdict(self.captioner.usage)
        said = in_parts(self.captioner, new, self.store, f"{IN_PARTS}/{key}", self.part)
        captions = known | {row["row_id"]: some for row, some in zip(new, said, strict=True)}
        table = [{"row_id": one["row_id"], "captions": captions[one["row_id"]]} for one in rows]
        written = [{**one, "captioner": self.captioner.id} for one in table]
        self.store.write_table(path, pa.Table.from_pylist(written, CAPTION_SCHEMA))
        record = {
            **{"shard": shard, "captions": path, "reason": "", "detail": "", "rows": len(rows)},
            "silent": sum(not one["captions"] for one in table),
            **{name: value - before[name] for name, value in asdict(self.captioner.usage).items()},
        }
        self.ledger.complete(UNIT, key, record, [path])
        return record
