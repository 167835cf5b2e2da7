"""Erasure: what holds certain rows is rewritten without them, all else is left, and a receipt says what was done.

The contents go onto the output's own opt-out list first, so that no later run brings them back. A shard is left as if
they had been on the list when it was made. `erasures/0001.json` names the rows before anything is touched; an erasure
that is interrupted is finished by the next one, or by the next run of the job.

Not touched are the pictures where they come from, and MLflow, which holds no row.
"""

import datetime
import hashlib
from collections.abc import Collection
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from studiolo.datasets import optout, releases
from studiolo.datasets.annotate import OPTED_OUT, opted_out
from studiolo.datasets.captions.shards import FOLDER as CAPTIONS
from studiolo.datasets.captions.shards import IN_PARTS
from studiolo.datasets.captions.shards import UNIT as CAPTIONS_UNIT
from studiolo.datasets.listing import parts_of, read_part
from studiolo.datasets.measures import Measures
from studiolo.datasets.optout import OptOut
from studiolo.datasets.records import ANNOTATION_SCHEMA, DECISION_SCHEMA, LISTED_SCHEMA, Drop
from studiolo.datasets.shards import FOLDER as SHARDS
from studiolo.datasets.shards import UNIT, counts_of
from studiolo.storage.ledger import Ledger
from studiolo.storage.store import Store

Row = dict[str, Any]

FOLDER = "erasures"
REWRITTEN, REMOVED = "rewritten", "removed"
ERASED = "erased"
"""Detail of an erased row in the decisions."""

_GONE = {
    **{"keep": False, "reason": Drop.OPTED_OUT.value, "detail": ERASED},
    **dict.fromkeys(("duplicate_of", "identity", "known", "split", "label")),
}
_BLOCK = 4096


def rows_of(store: Store, identity: str) -> set[str]:
    """Ids of the rows that any release calls `identity`, kept or not."""
    found: set[str] = set()
    for name in releases.finished(store):
        decisions = store.iter_rows(releases.place(name, releases.DECISIONS), ["row_id", "identity"])
        found.update(row["row_id"] for row in decisions if row["identity"] == identity)
    return found


def identities(store: Store) -> set[str]:
    """All that the releases know."""
    names = (releases.place(name, releases.DECISIONS) for name in releases.finished(store))
    return {row["identity"] for name in names for row in store.iter_rows(name, ["identity"]) if row["identity"]}


def why(identity: str) -> str:
    """How a receipt speaks of an identity: it can be recognised by who knows the name, and not read."""
    return f"identity with sha256 {hashlib.sha256(identity.encode()).hexdigest()}"


def opted_out_rows(measures: Measures, opt_out: OptOut, within: float) -> set[str]:
    """Ids of the annotated rows whose content, or whose face, is on a list that has grown since they were annotated."""
    found: set[str] = set()
    for begin in range(0, len(measures) if opt_out else 0, _BLOCK):
        rows = measures.rows[begin : begin + _BLOCK]
        near = opt_out.has_faces(measures.faces[begin : begin + _BLOCK], within)
        for row, face in zip(rows, near, strict=True):
            if row["annotated"] and (face or opt_out.has_content(bytes(row["content"]).hex())):
                found.add(bytes(row["row_id"]).hex())
    return found


def erase(store: Store, rows: Collection[str], why: str) -> str:
    """Erase the rows of these ids, and give the receipt's path. For who holds the store's lock; see the module."""
    numbers = [int(path.rpartition("/")[2].removesuffix(".json")) for path in store.list(FOLDER)]
    path = f"{FOLDER}/{max(numbers, default=0) + 1:04d}.json"
    holding = [shard for shard in store.list(SHARDS) if _holds(store, shard, rows)]
    told = [path for path in store.list(CAPTIONS) if _names(store, path, rows)]
    receipt = {
        "why": why,
        "begun": _now(),
        "finished": None,
        "rows": sorted(rows),
        "shards": {shard: Ledger(store).done(UNIT, _key(shard)) for shard in holding},
        "captions": {path: Ledger(store).done(CAPTIONS_UNIT, _key(path)) for path in told},
    }
    store.write_json(path, receipt)
    _carry_out(store, path, receipt)
    return path


def finish(store: Store) -> list[str]:
    """Carry out what was interrupted; the receipts' paths."""
    unfinished = [path for path in store.list(FOLDER) if store.read_json(path)["finished"] is None]
    for path in unfinished:
        _carry_out(store, path, store.read_json(path))
    return unfinished


def _carry_out(store: Store, path: str, receipt: Row) -> None:
    """Every step may be done twice."""
    rows, shards, captions = frozenset(receipt["rows"]), receipt.pop("shards"), receipt.pop("captions")
    seen = (row for shard in shards for row in store.iter_rows(shard, ["row_id", "content_sha256"]))
    optout.add(store, {row["content_sha256"] for row in seen if row["row_id"] in rows and row["content_sha256"]})
    files: dict[str, str] = {}
    for part in (part.path for part in parts_of(store)):
        if _forget_labels(store, part, rows):
            files[part] = REWRITTEN
    for name in releases.finished(store):
        files.update(_leave_out(store, name, rows))
    for captioned, done in captions.items():
        _unsay(store, captioned, rows, done)
        files[captioned] = REWRITTEN
    for some in store.list(IN_PARTS):  # of whom, their names do not say
        store.remove(some)
        files[some] = REMOVED
    for shard, done in shards.items():
        _blank_out(store, shard, rows, done)
        files[shard] = REWRITTEN
    store.write_json(path, {**receipt, "finished": _now(), "files": dict(sorted(files.items()))})


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _key(shard: str) -> str:
    return shard.rpartition("/")[2].removesuffix(".parquet")


def _holds(store: Store, shard: str, rows: Collection[str]) -> bool:
    held = store.iter_rows(shard, ["row_id", "reason"])
    return any(row["row_id"] in rows and row["reason"] != OPTED_OUT for row in held)


def _names(store: Store, table: str, rows: Collection[str]) -> bool:
    return any(row["row_id"] in rows for row in store.iter_rows(table, ["row_id"]))


def _blank_out(store: Store, shard: str, rows: Collection[str], done: Row | None) -> None:
    """Leave the shard as if the contents had been on the opt-out list, complete if it was: `done` is its record."""
    table = store.read_table(shard).to_pylist()
    left = [opted_out(row, row["content_sha256"]) if row["row_id"] in rows else row for row in table]
    store.write_table(shard, pa.Table.from_pylist(left, ANNOTATION_SCHEMA))
    if done is not None:
        Ledger(store).complete(UNIT, _key(shard), {**done, **counts_of(left)}, [shard])


def _unsay(store: Store, captions: str, rows: Collection[str], done: Row | None) -> None:
    """Leave the captions without those of the rows, complete if they were: `done` is their record."""
    store.keep_rows(captions, lambda row: row["row_id"] not in rows)
    if done is not None:
        left = list(store.iter_rows(captions, ["captions"]))
        counts = {"rows": len(left), "silent": sum(not row["captions"] for row in left)}
        Ledger(store).complete(CAPTIONS_UNIT, _key(captions), {**done, **counts}, [captions])


def _leave_out(store: Store, name: str, rows: Collection[str]) -> dict[str, str]:
    """Rewrite what holds the rows in a release, and its record; what was done to each file.

    What was made of the release is removed: `describe` makes it anew.
    """
    decisions, of_record = (releases.place(name, path) for path in (releases.DECISIONS, releases.RECORD))
    record = store.read_json(of_record)
    if not _names(store, decisions, rows):
        return {}
    done: dict[str, str] = {}
    named = {of_record, *(releases.place(name, file["path"]) for file in record["files"])}
    for path in store.list(f"{releases.FOLDER}/{name}"):
        if path not in named:
            store.remove(path)
            done["/".join(path.split("/")[:3])] = REMOVED  # the page alone may be thousands of files
    for file in record["files"]:
        path = releases.place(name, file["path"])
        if path == decisions:
            gone = ({**row, **_GONE} if row["row_id"] in rows else row for row in store.iter_rows(path))
            store.write_rows(path, gone, DECISION_SCHEMA)
        elif not _remove_rows(store, path, rows, record["settings"]["rows_per_group"]):
            continue
        file.update(_described(store, path))
        done[path] = REWRITTEN
    record["counts"] = releases.counted(store.iter_rows(decisions))
    store.write_json(of_record, record)
    return {**done, of_record: REWRITTEN}


def _remove_rows(store: Store, path: str, rows: Collection[str], rows_per_group: int) -> bool:
    """Whether a data file held any of the rows; now it does not."""
    if not _names(store, path, rows):
        return False
    table = store.read_table(path)
    held = pc.is_in(table.column("row_id"), pa.array(sorted(rows), pa.string()))
    store.write_table(path, table.filter(pc.invert(held)), rows_per_group)
    return True


def _described(store: Store, path: str) -> Row:
    content = store.read_bytes(path)
    rows = store.read_table(path, ["row_id"]).num_rows
    return {"rows": rows, "size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _forget_labels(store: Store, part: str, rows: Collection[str]) -> bool:
    """Take the names out of the listing; whether there was one."""
    table = read_part(store, part)
    if not any(row["row_id"] in rows and row["label"] is not None for row in table):
        return False
    left = [{**row, "label": None} if row["row_id"] in rows else row for row in table]
    store.write_table(part, pa.Table.from_pylist(left, LISTED_SCHEMA))
    return True
