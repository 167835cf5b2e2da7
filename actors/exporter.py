"""Rows of annotation shards in, data files of a release out."""

import hashlib
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from studiolo.albums.records import Reason
from studiolo.datasets.records import CAPTION_SCHEMA, DATA_SCHEMA
from studiolo.datasets.releases import FILE_SCHEMA
from studiolo.keys import unit_key
from studiolo.storage.ledger import Ledger
from studiolo.storage.store import Store

Row = dict[str, Any]

UNIT = "data"


class Exporter:
    """Rows of `FILE_INPUT` in, rows of `FILE_SCHEMA` out; the files go to the store.

    A file that the ledger calls done is not written again.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    def open(self, device: str = "cpu") -> None:
        """Nothing is loaded."""
        self.ledger = Ledger(self.store)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """The file of every row of `batch`."""
        return pa.Table.from_pylist([self._file(row) for row in batch.to_pylist()], FILE_SCHEMA)

    def unit(self, row: Row) -> str:
        """Key of the file: of its rows, which lie in shards that are named by their content's key."""
        return unit_key(UNIT, [row], {}, {})

    def crashed(self, row: Row, detail: str) -> pa.Table:
        """A file that ended its workers."""
        failure = {"reason": Reason.CRASHED_WORKER.value, "detail": detail}
        blank = {"rows": len(row["said"]), "bytes": 0, "sha256": None}
        return pa.Table.from_pylist([{"path": row["path"], "split": row["split"], **blank, **failure}], FILE_SCHEMA)

    def _file(self, row: Row) -> Row:
        key = self.unit(row)
        done = self.ledger.done(UNIT, key)
        if done is None:
            table = _with_said(self._rows(row), row)
            self.store.write_table(row["path"], table, row["rows_per_group"])
            content = self.store.read_bytes(row["path"])
            done = {"path": row["path"], "split": row["split"], "rows": table.num_rows, "reason": "", "detail": ""}
            done |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            self.ledger.complete(UNIT, key, done, [row["path"]])
        return done

    def _rows(self, row: Row) -> pa.Table:
        """The file's rows as they are in their shards, with their captions; one shard in memory at a time."""
        return pa.concat_tables(self._pick(pick) for pick in row["picks"])

    def _pick(self, pick: Row) -> pa.Table:
        rows = self.store.read_table(pick["shard"]).take(pa.array(pick["indices"], pa.int32()))
        captions = self.store.read_table(pick["captions"])
        places = pc.index_in(rows.column("row_id"), captions.column("row_id").combine_chunks())
        said = captions.take(places)
        for name in ("captioner", "captions"):
            rows = rows.append_column(CAPTION_SCHEMA.field(name), said.column(name))
        return rows


def _with_said(table: pa.Table, row: Row) -> pa.Table:
    """The rows in `DATA_SCHEMA`, with what the release says of them."""
    said = {name: [one[name] for one in row["said"]] for name in row["said"][0]}
    said["split"] = [row["split"]] * table.num_rows
    columns = [
        table.column(field.name) if field.name in table.column_names else pa.array(said[field.name], field.type)
        for field in DATA_SCHEMA
    ]
    return pa.table(columns, schema=DATA_SCHEMA)
