"""Pictures of one part of the listing in, their annotation shard out."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pyarrow as pa

from studiolo.albums.isolation import IsolatedDecoder
from studiolo.albums.records import Reason, Status
from studiolo.datasets.annotate import Annotate, Models, blank, cards_of, refusal
from studiolo.datasets.listing import read_part
from studiolo.datasets.optout import OptOut
from studiolo.datasets.records import ANNOTATION_SCHEMA
from studiolo.datasets.settings import AnnotationSettings
from studiolo.datasets.shards import SHARD_SCHEMA, UNIT, counts_of, shard_key, shard_path
from studiolo.datasets.sources.listed import ABSENT
from studiolo.datasets.sources.reading import PictureReader
from studiolo.errors import PhotoError
from studiolo.keys import unit_key
from studiolo.settings import PerceptionSettings
from studiolo.storage.ledger import Ledger
from studiolo.storage.store import Store
from studiolo.weights.cards import weights_sha256

Row = dict[str, Any]

RUNS = 2
"""So many runs try a shard of which a picture failed for a reason that may be the machine's; then it stays failed."""

_PASSING = (Reason.TOO_SLOW, Reason.DECODER_DIED, Reason.UNREADABLE)
"""Reasons that may be the machine's fault, or that of the way to the storage."""


class Annotator:
    """Rows of `PART_INPUT` in, rows of `SHARD_SCHEMA` out; the shards go to the store.

    A part that the ledger calls done is not annotated again. A picture that nothing can be made of is a row with the
    reason; only a broken store or a broken model is an exception.
    """

    def __init__(
        self,
        store: Store,
        suite: str,
        perception: PerceptionSettings,
        annotation: AnnotationSettings,
        opt_out: OptOut,
    ) -> None:
        self.store = store
        self.suite = suite
        self.perception = perception
        self.annotation = annotation
        self.opt_out = opt_out
        self.part: Callable[[str], AbstractContextManager[object]] = nullcontext
        """Entered around all work on one picture: who watches the worker sees where it is, and may refuse a picture."""
        self.decode = IsolatedDecoder(perception)

    def open(self, device: str = "cpu") -> None:
        """Load the models; the embedded ones run on the CPU wherever they are."""
        models = Models.open(self.suite)
        self.annotate = Annotate(models, self.decode, self.perception, self.annotation, self.opt_out)
        self.read = PictureReader()
        self.ledger = Ledger(self.store)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """The shard of every part of `batch`."""
        return pa.Table.from_pylist([self._shard(row) for row in batch.to_pylist()], SHARD_SCHEMA)

    def unit(self, row: Row) -> str:
        """Key of the part as it is listed."""
        return unit_key(UNIT, [row["part"]], {"perception": self.perception, "annotation": self.annotation}, {})

    def crashed(self, row: Row, detail: str) -> pa.Table:
        """A part that ended its workers although each of its pictures was tried alone: it has no shard."""
        failure = {"status": Status.FAILED.value, "reason": Reason.CRASHED_WORKER.value, "detail": detail}
        counts = {"rows": row["rows"], "ok": 0, "dropped": 0, "failed": row["rows"]}
        return pa.Table.from_pylist([{"part": row["part"], "shard": None, **failure, **counts}], SHARD_SCHEMA)

    def _shard(self, row: Row) -> Row:
        listed = read_part(self.store, row["part"])
        key = shard_key(listed, self.perception, self.annotation, weights_sha256(cards_of(self.suite)))
        done = self.ledger.done(UNIT, key)
        if done is None:
            done = self._make(key, listed)
        return {**done, "part": row["part"]}

    def _make(self, key: str, listed: list[Row]) -> Row:
        rows = [self._picture(one) for one in listed]
        path = shard_path(key)
        self.store.write_table(path, pa.Table.from_pylist(rows, ANNOTATION_SCHEMA))
        record = {"shard": path, "status": Status.OK.value, "reason": "", "detail": "", **counts_of(rows)}
        passing = [row for row in rows if row["reason"] in _PASSING and row["version"] != ABSENT]
        if passing and self.ledger.attempts(UNIT, key) + 1 < RUNS:
            self.ledger.fail(UNIT, key, passing[0]["reason"], f"{len(passing)} pictures may do better the next time")
        else:
            self.ledger.complete(UNIT, key, record, [path])
        return record

    def _picture(self, listed: Row) -> Row:
        """One row; reading it, too, is a part of its own: a place may never answer."""
        try:
            with self.part(listed["row_id"]):
                return self.annotate(listed, self.read(listed["place"]))
        except PhotoError as error:
            return {**blank(listed), **refusal(error)}
