"""The output of a finished job on drawn pictures, with everything that is kept of a customer; no model, no cluster."""

import csv
import sqlite3
import tempfile
from collections import Counter
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from jobs.publish import publish
from studiolo.albums.records import (
    FACE_LORA_SCHEMA,
    IDENTITY_SCHEMA,
    PERCEIVED_SCHEMA,
    PORTRAIT_SCHEMA,
    Status,
    photo_id,
)
from studiolo.albums.sources import list_albums
from studiolo.identities.artifacts import album_of, crop_path, lora_path
from studiolo.portraits.files import decode_portrait, image_sha256
from studiolo.portraits.order_file import AlbumOrder
from studiolo.portraits.prints import PRINT_SCHEMA, PrintSize, crop_around, encode_print, print_path
from studiolo.portraits.styles import all_styles
from studiolo.storage import retention
from studiolo.storage.ledger import Ledger
from studiolo.storage.store import Store
from studiolo.storage.tracking import MlflowTracker
from tests.portraits.job_rows import Job, png

PRINT = PrintSize.parse("2x3@100")
SHARED = "albums/everybody.jpg"
"""A photo that a manifest lists in every album."""
FIGURES = {"seconds_by_stage": {"perceive": 1.0}, "peak_rss_gib": 1.0, "versions": {"torch": "2"}}


def finished_job(
    folder: Path, names: tuple[str, ...], dates: retention.Dates, today: Any, failed: str = "", manifest: bool = False
) -> Store:
    """`folder/albums` with an album for each name and `folder/out` with what a job made of them.

    A name such as `anna/other-1` is another person of anna's album. With `manifest` the albums are those of
    `folder/m.csv`, and each holds `SHARED` as well, unused.
    """
    job = Job()
    for name in names:
        job.add(name, ("studio", "warm-film"), failed=name == failed)
        place = folder / "albums" / album_of(name)
        place.mkdir(parents=True, exist_ok=True)
        for photo in job.people[-1][1]["photos"]:
            (place / photo["uri"]).write_bytes(job.photos[album_of(name), photo["uri"]])
    store = Store(folder / "out")
    store.write_bytes("mlflow.db", empty_database())
    albums_url = _as_manifest(folder, job) if manifest else str(folder / "albums")
    sources = {source.album_id: source for source in list_albums(albums_url)}
    people = sorted(job.people, key=lambda person: person[0]["identity_id"])
    albums, identities, portraits, prints = [], [], [], []
    for number, (identity, album, rows) in enumerate(people):
        name = identity["identity_id"]
        identity = {**identity, "references": [_reference(store, name, row) for row in identity["references"]]}
        portraits += [_portrait(store, job, row) for row in rows]
        prints += [_print(store, row) for row in portraits if row["identity_id"] == name and row["status"] == Status.OK]
        identities.append(_filled(identity, IDENTITY_SCHEMA))
        albums.append(_filled({**identity, **album, "album_uri": sources[album_of(name)].album_uri}, PERCEIVED_SCHEMA))
        _keep(store, number, name, rows)
    store.write_table("albums.parquet", pa.Table.from_pylist(albums, PERCEIVED_SCHEMA))
    loras = [{"identity_id": name, "status": "ok", "path": lora_path(name)} for name in names]
    store.write_table("face_loras.parquet", pa.Table.from_pylist(loras, FACE_LORA_SCHEMA))
    styles = all_styles()
    people_of = Counter(map(album_of, names))
    wanted = {"styles": {"studio": 2, "warm-film": 3}, "prints": (PRINT,)}
    orders = [
        AlbumOrder(album_id=album, people=count, **wanted).row(styles) for album, count in sorted(people_of.items())
    ]
    retention.remember(store, dates, None, today)
    publish(store, list(sources.values()), albums, identities, portraits, prints, orders, lambda: FIGURES)
    return store


@lru_cache(maxsize=1)
def empty_database() -> bytes:
    """An MLflow database without a run: laying its tables takes seconds, so it is done once."""
    with tempfile.TemporaryDirectory() as folder:
        MlflowTracker(f"sqlite:///{folder}/mlflow.db").runs_of(["nobody"])
        database = Path(folder) / "mlflow.db"
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("DELETE FROM experiments WHERE name = 'studiolo'")  # it says where its files lie
            connection.commit()
        return database.read_bytes()


def _as_manifest(folder: Path, job: Job) -> str:
    """A manifest of the albums that lie in `folder/albums`; the photos' rows name them as it does."""
    (folder / SHARED).write_bytes(png(job.draw()))
    with (folder / "m.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["album_id", "uri"])
        for _, album, _ in job.people:
            for photo in album["photos"]:
                photo["uri"] = f"albums/{album['album_id']}/{photo['uri']}"
            unused = next(photo for photo in album["photos"] if photo["status"] == Status.DROPPED)
            shared = {**unused, "photo_id": photo_id(album["album_id"], SHARED), "uri": SHARED}
            album["photos"].append(shared)
            table.writerows([album["album_id"], photo["uri"]] for photo in album["photos"])
    return str(folder / "m.csv")


def _reference(store: Store, name: str, row: dict[str, Any]) -> dict[str, Any]:
    path = crop_path(name, row["photo_id"])
    store.write_bytes(path, png(Job().draw()))
    return {**row, "crop_path": path, "embedding": [0.1] * 128}


def _portrait(store: Store, job: Job, row: dict[str, Any]) -> dict[str, Any]:
    content = job.files[row["path"]]
    store.write_bytes(row["path"], content)
    sha256 = image_sha256(decode_portrait(content)[0])
    return _filled({**row, "embedding": [0.1] * 128, "image_sha256": sha256}, PORTRAIT_SCHEMA)


def _print(store: Store, row: dict[str, Any]) -> dict[str, Any]:
    path = print_path(row["identity_id"], row["style"], row["index"], PRINT)
    crop = crop_around((30, 30, 60, 60), 96, 96, PRINT)
    assert crop is not None
    store.write_bytes(path, encode_print(decode_portrait(store.read_bytes(row["path"]))[0], crop, PRINT))
    return _filled({**row, "print": PRINT.name, "status": "ok", "reason": "", "path": path}, PRINT_SCHEMA)


def _keep(store: Store, number: int, name: str, portraits: list[dict[str, Any]]) -> None:
    """Face-LoRA, records of every kind and an MLflow run with files."""
    store.write_bytes(lora_path(name), name.encode())
    ledger = Ledger(store)
    ledger.complete("album", f"{number:064x}", {"album_id": album_of(name), "references": []})
    ledger.complete("identity", f"{number:064x}", {"identity_id": name}, [lora_path(name)])
    ledger.complete(
        "order", f"{number:064x}", {"portraits": [{"identity_id": name}]}, [row["path"] for row in portraits]
    )
    ledger.fail("identity", f"{number + 100:064x}", "training_failed", f"face-LoRA of {name!r}: got a loss of nan")
    tracker = MlflowTracker.beside(store)
    run = tracker.start(f"key {number}", name, {"rank": 4}, parent=tracker.start("job", "studio", {}))
    tracker.log_artifact(run, "references.png", b"a picture of " + name.encode())
    tracker.finish(run, ok=True)


def _filled(row: dict[str, Any], schema: pa.Schema) -> dict[str, Any]:
    return {name: row.get(name) for name in schema.names}
