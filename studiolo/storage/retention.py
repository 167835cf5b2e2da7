"""How long things are kept, and how they go: everything made of an album, wherever it lies.

`retention.parquet` holds each album's first day and, when it has one, its last; `erased.jsonl` a line for each album
that is gone, with the sha256 of its name in the name's place. An erasure first writes `erasing.json`: who, since when,
how much was found. What is then deleted is looked for anew at every try, so one that was killed is finished by the
next, with the figures of the first. The customers' albums are read by no line of this file.
"""

import datetime
import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from studiolo.identities.artifacts import album_of, identity_folder, safe_segment
from studiolo.portraits.approvals import APPROVALS, Approvals
from studiolo.portraits.delivery import delivered_files
from studiolo.portraits.thumbs import GALLERY, photo_origin, thumb_path
from studiolo.storage import attempts
from studiolo.storage.ledger import Ledger
from studiolo.storage.store import Store
from studiolo.storage.tracking import MlflowTracker

RETENTION, ERASED, ERASING = "retention.parquet", "erased.jsonl", "erasing.json"

RETENTION_SCHEMA = pa.schema(
    [
        ("album_id", pa.string()),
        ("first_day", pa.date32()),  # of the first job with this album
        ("last_day", pa.date32()),  # on which anything is kept; null: no end
    ]
)

_TABLES = {
    "albums.parquet": "album_id",
    "identities.parquet": "identity_id",
    "references.parquet": "identity_id",
    "face_loras.parquet": "identity_id",
    "portraits.parquet": "identity_id",
    "prints.parquet": "identity_id",
    "orders.parquet": "album_id",
    RETENTION: "album_id",
}
"""Every table of the output, and the column that names an album or one of its people."""

Dates = Mapping[str, datetime.date | None]


def remember(store: Store, ordered: Dates, retention_days: int | None, today: datetime.date) -> None:
    """Write down first and last day of the albums of a job; those of earlier jobs stay. Call it under the lock."""
    rows = _rows(store) | _dated(store, ordered, retention_days, today)
    store.write_table(RETENTION, pa.Table.from_pylist([rows[album] for album in sorted(rows)], RETENTION_SCHEMA))


def closed(store: Store, ordered: Dates, retention_days: int | None, today: datetime.date) -> dict[str, str]:
    """Albums of which nothing may be made any more, with the reason in words.

    `ordered`: album -> the last day its order names. An erased album opens again with an order that names one to come.
    """
    gone = {line["album_sha256"]: line["erased_at"] for line in _erased(store)}
    erasing = _journal(store)
    shut: dict[str, str] = {}
    for album, row in _dated(store, ordered, retention_days, today).items():
        if album in erasing:
            shut[album] = "its erasure is not finished; run `python -m jobs retain`"
        elif row["last_day"] is not None and row["last_day"] < today:
            shut[album] = f"its last day was {row['last_day']}"
        elif _sha256(album) in gone and ordered[album] is None:
            shut[album] = f"erased at {gone[_sha256(album)]}; an order with `delete_after` to come opens it again"
    return shut


def due(store: Store, today: datetime.date) -> list[str]:
    """Albums whose last day has passed, and those whose erasure was not finished."""
    past = {album for album, row in _rows(store).items() if row["last_day"] is not None and row["last_day"] < today}
    return sorted(past | set(_journal(store)))


def unfinished(store: Store) -> set[str]:
    """Albums whose erasure has begun and was not finished."""
    return set(_journal(store))


def known_albums(store: Store) -> set[str]:
    """Albums of which something may lie here."""
    albums = set(_rows(store)) | set(_journal(store))
    if store.exists("albums.parquet"):
        albums.update(row["album_id"] for row in store.iter_rows("albums.parquet", ["album_id"]))
    return albums


def was_erased(store: Store, album_id: str) -> bool:
    """Whether `erased.jsonl` holds a line of this album."""
    return any(line["album_sha256"] == _sha256(album_id) for line in _erased(store))


@dataclass(frozen=True)
class Found:
    """What is kept of one album and its people, outside the tables."""

    files: list[str]
    """Paths of the output: references, face-LoRA, portraits, prints, gallery page and thumbnails."""
    ledger: list[str]
    """Paths of records that speak of it, failures included."""
    runs: list[str]
    """MLflow runs."""
    delivered: list[tuple[str, str]]
    """(URL of a delivery folder, path in it)."""

    @property
    def counts(self) -> dict[str, int]:
        """How much there is of each."""
        return {"files": len(self.files), "records": len(self.ledger), "runs": len(self.runs)} | {
            "delivered": len(self.delivered)
        }


def survey(
    store: Store, albums: Collection[str], tracker: MlflowTracker, deliveries: Iterable[str]
) -> dict[str, Found]:
    """What is kept of each of `albums`; the ledger is read once for all."""
    records = Ledger(store).about(albums)
    runs = tracker.runs_of(albums)
    shown: dict[str, list[str]] = {album: [_page(album)] for album in albums}
    if store.exists("identities.parquet"):
        for row in store.iter_rows("identities.parquet", ["album_id", "identity_id"]):
            if row["album_id"] in albums and row["identity_id"] != row["album_id"]:
                shown[row["album_id"]].append(_page(row["identity_id"]))
    if store.exists("albums.parquet"):
        for row in store.iter_rows("albums.parquet", ["album_id", "photos"]):
            if row["album_id"] in albums:
                shown[row["album_id"]] += [thumb_path(photo_origin(row["album_id"], it["uri"])) for it in row["photos"]]
    places = [(url, Store(url)) for url in deliveries]
    found = {}
    for album in sorted(albums):
        own = store.list(identity_folder(album))
        files = [*own, *filter(store.exists, [*map(thumb_path, own), *shown[album]])]
        delivered = [(url, path) for url, place in places for path in delivered_files(store, place, album)]
        found[album] = Found(files, records.get(album, []), runs.get(album, []), delivered)
    return found


def begin(store: Store, found: Mapping[str, Found], now: datetime.datetime) -> None:
    """Write down that these erasures have begun; one begun earlier keeps its time and figures."""
    fresh = {
        album: {"erased_at": now.isoformat(timespec="seconds"), "counts": item.counts} for album, item in found.items()
    }
    store.write_json(ERASING, fresh | _journal(store))


def erase(store: Store, found: Mapping[str, Found], tracker: MlflowTracker) -> None:
    """Delete what was `found`, the albums' rows in every table and in the approvals, and all marks of attempts."""
    attempts.forget(store)  # they may name photos, and do not say whose
    for item in found.values():
        tracker.erase(item.runs)
        for url, path in item.delivered:
            Store(url).remove(path)
        for path in (*item.files, *item.ledger):
            store.remove(path)
    if store.exists(APPROVALS):
        approvals = Approvals.read(store.read_bytes(APPROVALS))
        store.write_bytes(APPROVALS, approvals.without(found, _portrait_ids(store, found)))
    for name, column in _TABLES.items():
        if store.exists(name):
            store.keep_rows(name, lambda row, column=column: album_of(row[column]) not in found)  # type: ignore[misc]


def finish(store: Store) -> None:
    """Turn the begun erasures into lines of `erased.jsonl`; everything of them must be gone."""
    lines = [{"album_sha256": _sha256(album), **entry} for album, entry in sorted(_journal(store).items())]
    before = _erased(store)
    lines = before + [line for line in lines if line not in before]  # killed between the two writes
    store.write_bytes(ERASED, "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines).encode())
    store.remove(ERASING)


def _portrait_ids(store: Store, albums: Collection[str]) -> list[str]:
    if not store.exists("portraits.parquet"):
        return []
    rows = store.iter_rows("portraits.parquet", ["identity_id", "portrait_id"])
    return [row["portrait_id"] for row in rows if album_of(row["identity_id"]) in albums]


def _page(identity_id: str) -> str:
    return f"{GALLERY}/people/{safe_segment(identity_id)}.html"


def _dated(store: Store, ordered: Dates, days: int | None, today: datetime.date) -> dict[str, dict[str, Any]]:
    """Rows of `RETENTION_SCHEMA` for the albums of a job: a last day once given is replaced, never taken away."""
    before = _rows(store)
    rows = {}
    for album, last_day in ordered.items():
        first_day = before[album]["first_day"] if album in before else today
        if last_day is None and days is not None:
            last_day = first_day + datetime.timedelta(days)
        if last_day is None and album in before:
            last_day = before[album]["last_day"]
        rows[album] = {"album_id": album, "first_day": first_day, "last_day": last_day}
    return rows


def _rows(store: Store) -> dict[str, dict[str, Any]]:
    rows = store.read_table(RETENTION).to_pylist() if store.exists(RETENTION) else []
    return {row["album_id"]: row for row in rows}


def _journal(store: Store) -> dict[str, dict[str, Any]]:
    return dict(store.read_json(ERASING)) if store.exists(ERASING) else {}


def _erased(store: Store) -> list[dict[str, Any]]:
    lines = store.read_bytes(ERASED).decode().splitlines() if store.exists(ERASED) else []
    return [json.loads(line) for line in lines]


def _sha256(album_id: str) -> str:
    return hashlib.sha256(album_id.encode(errors="surrogatepass")).hexdigest()
