"""Releases of an output: which there are, and how one is written.

    releases/0001/decisions.parquet     one row for each picture, kept or not (`DECISION_SCHEMA`)
    releases/0001/data/SPLIT-*.parquet  the kept rows (`DATA_SCHEMA`)
    releases/0001/release.json          settings, sources, counts, files with their hashes; comes after these
    releases/0001/...                   what is made of them, see `describe`

A release whose `release.json` is there is finished. One that is interrupted is made again under its number, and what
would be equal to a finished one is that one.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

import studiolo
from studiolo.datasets.captions.shards import caption_path
from studiolo.datasets.decide import Decisions, decision_rows
from studiolo.datasets.measures import Measures
from studiolo.datasets.records import DECISION_SCHEMA, Drop, Split
from studiolo.datasets.settings import ReleaseSettings, SourceSettings
from studiolo.datasets.sources import commercial_use, licence_of
from studiolo.errors import SettingsError, nearest
from studiolo.keys import unit_key
from studiolo.storage.store import Store

Row = dict[str, Any]

FOLDER = "releases"
RECORD = "release.json"
DECISIONS = "decisions.parquet"

_NAME = re.compile(r"\d{4,}")

PICK = pa.struct([("shard", pa.string()), ("captions", pa.string()), ("indices", pa.list_(pa.int32()))])
SAID = pa.struct(
    [field for field in DECISION_SCHEMA if field.name in ("identity", "known", "label", "licence", "weight")]
)

FILE_INPUT = pa.schema(
    [
        ("path", pa.string()),
        ("split", pa.string()),
        ("rows_per_group", pa.int32()),
        ("picks", pa.list_(PICK)),  # its rows, in their order
        ("said", pa.list_(SAID)),  # of each row, by the release
    ]
)
"""One row a data file of a release, before it is written."""

FILE_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("split", pa.string()),
        ("rows", pa.int32()),
        ("bytes", pa.int64()),
        ("sha256", pa.string()),
        ("reason", pa.string()),  # "" unless it could not be written
        ("detail", pa.string()),
    ]
)
"""One row a data file, as it was written."""


def finished(store: Store) -> dict[str, Row]:
    """Name -> record of the releases that are there, the first one first."""
    names = [name for name in store.folders(FOLDER) if _NAME.fullmatch(name)]
    return {name: store.read_json(place(name, RECORD)) for name in names if store.exists(place(name, RECORD))}


def find(store: Store, name: str | None = None) -> tuple[str, Row]:
    """Name and record of the release called `name`, of the last one when None. Raises `SettingsError`."""
    there = finished(store)
    if not there:
        raise SettingsError(f"dataset {store.url}: there is no release; make one with `python -m jobs dataset`")
    if name is None:
        name = list(there)[-1]
    if name not in there:
        raise SettingsError(f"dataset {store.url}: no release is called {name!r}; {nearest(name, there)}")
    return name, there[name]


def place(name: str, path: str) -> str:
    """Where a file of the release lies in the output."""
    return f"{FOLDER}/{name}/{path}"


def release_key(
    measures: Measures, settings: ReleaseSettings, sources: Mapping[str, SourceSettings], captioner: str
) -> str:
    """Key of all that decides a release; `captioner` is the id of who wrote the captions."""
    shards = [shard.path for shard in measures.shards]
    names = [measures.sources, measures.labels, measures.licences, shards]
    seen = hashlib.sha256(np.ascontiguousarray(measures.rows).tobytes() + json.dumps(names).encode()).hexdigest()
    said = [[sources[name].name, licence_of(sources[name]), sources[name].weight] for name in measures.sources]
    return unit_key("release", [seen, said, captioner], {"release": settings}, {})


def name_of(store: Store, key: str) -> tuple[str, Row | None]:
    """The release of this key with its record, else the name of the next one."""
    there = finished(store)
    for name, record in there.items():
        if record["key"] == key:
            return name, record
    return f"{max(map(int, there), default=0) + 1:04d}", None


def write_decisions(
    store: Store,
    name: str,
    measures: Measures,
    decisions: Decisions,
    settings: ReleaseSettings,
    sources: Mapping[str, SourceSettings],
) -> None:
    """Write `decisions.parquet` of the release."""
    rows = decision_rows(measures, decisions, settings, sources)
    store.write_rows(place(name, DECISIONS), rows, DECISION_SCHEMA)


def counted(rows: Iterable[Mapping[str, Any]]) -> Row:
    """The figures of a release from its decisions (of `DECISION_SCHEMA`): rows by reason and split, identities."""
    reasons, splits, people, known, total = Counter[str](), Counter[str](), Counter[str](), set[str](), 0
    for row in rows:
        total += 1
        if row["keep"]:
            splits[row["split"]] += 1
            people[row["identity"]] += 1
            known.update([row["identity"]] if row["known"] else [])
        else:
            reasons[row["reason"]] += 1
    return {
        "rows": total,
        "kept": splits.total(),
        "dropped": {drop.value: reasons[drop.value] for drop in Drop if drop is not Drop.NONE},
        "splits": {split.value: splits[split.value] for split in Split},
        "identities": len(people),
        "identities_known": len(known),
        "largest_identity": max(people.values(), default=0),
    }


def data_files(
    store: Store, name: str, counts: Mapping[str, int], settings: ReleaseSettings, captioner: str
) -> Iterator[Row]:
    """Rows of `FILE_INPUT` for the data files of a release whose decisions are written, split by split.

    `counts`: the kept rows of each split; `captioner`: the id of who wrote their captions. Of the decisions one file's
    rows are in memory.
    """
    for split in Split:
        files = -(-counts[split.value] // settings.rows_per_file)
        for number, rows in enumerate(_portions(_kept(store, name, split), settings.rows_per_file)):
            path = place(name, f"data/{split.value}-{number:05d}-of-{files:05d}.parquet")
            said = [{field.name: row[field.name] for field in SAID} for row in rows]
            yield {
                "path": path,
                "split": split.value,
                "rows_per_group": settings.rows_per_group,
                "picks": _picks(rows, captioner),
                "said": said,
            }


def _kept(store: Store, name: str, split: Split) -> Iterator[Row]:
    columns = ["shard", "index", "split", *(field.name for field in SAID)]
    return (row for row in store.iter_rows(place(name, DECISIONS), columns) if row["split"] == split)


def _portions(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    some: list[Row] = []
    for row in rows:
        some.append(row)
        if len(some) == size:
            yield some
            some = []
    if some:
        yield some


def _picks(rows: Sequence[Row], captioner: str) -> list[Row]:
    """The rows' places, those of one shard together."""
    picks: list[Row] = []
    for row in rows:
        if not picks or picks[-1]["shard"] != row["shard"]:
            captions = caption_path(row["shard"], captioner)
            picks.append({"shard": row["shard"], "captions": captions, "indices": []})
        picks[-1]["indices"].append(row["index"])
    return picks


def with_formats(store: Store, record: Row, formats: Iterable[str]) -> Row:
    """The record of a finished release that is also to be had in `formats`."""
    wanted = {**record, "formats": sorted({*record["formats"], *formats})}
    if wanted != record:
        store.write_json(place(record["name"], RECORD), wanted)
    return wanted


def source_row(source: SourceSettings) -> Row:
    """What a release says of a source."""
    said = {"name": source.name, "spec": source.line, "licence": licence_of(source), "weight": source.weight}
    return {**said, "commercial_use": commercial_use(source).value}


def complete(store: Store, name: str, record: Mapping[str, Any], files: Sequence[Row]) -> Row:
    """Write the record of a release whose files are there, and remove what an earlier attempt left beside them.

    `record` is what is to be said of it, with its `key`; `files` are the data files.
    """
    wanted = {place(name, DECISIONS), *(row["path"] for row in files)}
    for path in store.list(f"{FOLDER}/{name}"):
        if path not in wanted:
            store.remove(path)
    decisions = store.read_bytes(place(name, DECISIONS))
    of_decisions = {
        "path": DECISIONS,
        "rows": record["counts"]["rows"],
        "size_bytes": len(decisions),
        "sha256": hashlib.sha256(decisions).hexdigest(),
    }
    described = [
        {
            "path": row["path"].removeprefix(place(name, "")),
            "split": row["split"],
            "rows": row["rows"],
            "size_bytes": row["bytes"],
            "sha256": row["sha256"],
        }
        for row in sorted(files, key=lambda row: str(row["path"]))
    ]
    files_of_it = [of_decisions, *described]
    finished = {"name": name, "studiolo": studiolo.__version__, **record, "formats": [], "files": files_of_it}
    store.write_json(place(name, RECORD), finished)
    return finished
