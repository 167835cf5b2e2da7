"""What a finished job leaves: tables, the summary, the gallery, the contact sheet and the approvals to fill in."""

import io
import sys
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jobs.studio_check import read_approvals
from studiolo.albums.records import (
    IDENTITY_SCHEMA,
    PERCEIVED_SCHEMA,
    PORTRAIT_SCHEMA,
    REFERENCE_SCHEMA,
    Reason,
    Status,
)
from studiolo.albums.sources import AlbumSource, read_bytes
from studiolo.errors import PhotoError, SettingsError
from studiolo.identities.artifacts import album_of
from studiolo.perception.similarity import Similarity
from studiolo.portraits.approvals import APPROVALS
from studiolo.portraits.files import decode_portrait
from studiolo.portraits.gallery import write_gallery
from studiolo.portraits.order_file import ORDERED_SCHEMA, styles_of, wanted_of
from studiolo.portraits.orphans import remove_orphans
from studiolo.portraits.prints import PRINT_SCHEMA
from studiolo.portraits.scoring import similarity_to
from studiolo.portraits.sheets import SheetRow, Tile, contact_sheet
from studiolo.portraits.styles import Style
from studiolo.portraits.summary import summary
from studiolo.portraits.thumbs import GALLERY, GalleryFiles, photo_origin, thumb_path
from studiolo.storage.spool import Spool, beside
from studiolo.storage.store import Store

Row = dict[str, Any]

OTHERS = 8
"""Each accepted portrait is compared with so many other people of the job: enough for a median, flat in its size."""


def publish(
    store: Store,
    sources: Sequence[AlbumSource],
    albums: Iterable[Row],
    identities: Iterable[Row],
    portraits: Iterable[Row],
    prints: Iterable[Row],
    ordered: Iterable[Row],
    figures: Callable[[], Mapping[str, Any]],
) -> dict[str, Any]:
    """Write everything people look at, the summary last; returns it.

    Rows are read several times, each time a few in memory. Albums (a row a person), identities and portraits come in
    one order, that of the people. `ordered` are rows of `ORDERED_SCHEMA`, one an album; `figures()` are the job's own
    up to now, see `portraits.summary`.
    """
    references = (reference for row in identities for reference in row["references"])
    store.write_rows("references.parquet", references, REFERENCE_SCHEMA)
    store.write_rows("identities.parquet", identities, IDENTITY_SCHEMA)
    store.write_rows("portraits.parquet", portraits, PORTRAIT_SCHEMA)
    store.write_rows("prints.parquet", prints, PRINT_SCHEMA)
    store.write_rows("orders.parquet", ordered, ORDERED_SCHEMA)
    _write_approvals(store, portraits)
    named = {str(row["path"]) for row in chain(portraits, prints)}
    files = _files(store, sources, named)
    return _show(store, albums, identities, portraits, ordered, figures, files, named)


def refresh(store: Store) -> None:
    """Gallery, contact sheet and summary anew from the tables; nothing without a finished job.

    Customers' photos are not read: their thumbnails are those that lie there.
    """
    if not store.exists("summary.json"):
        return
    # A job that was killed may have left tables of two nights; people of whom one is missing wait for the next job.
    column = {"albums": "identity_id", "identities": "identity_id", "orders": "album_id"}
    names = {
        table: {row[name] for row in store.iter_rows(f"{table}.parquet", [name])} for table, name in column.items()
    }
    known = {name for name in names["albums"] & names["identities"] if album_of(name) in names["orders"]}
    albums, identities = Spool(PERCEIVED_SCHEMA, "identity_id"), Spool(IDENTITY_SCHEMA, "identity_id")
    portraits, ordered = Spool(PORTRAIT_SCHEMA, "identity_id", "style", "index"), Spool(ORDERED_SCHEMA, "album_id")
    tables = {"albums": albums, "identities": identities, "portraits": portraits, "orders": ordered}
    for name, spool in tables.items():
        for row in store.iter_rows(f"{name}.parquet"):
            for photo in row.get("photos", ()):
                photo["rotation_deg"] = 0  # its thumbnail was turned when it was made
            if name == "orders" or row["identity_id"] in known:
                spool.append(row)
    before = store.read_json("summary.json")
    figures = {name: before[name] for name in ("seconds_by_stage", "peak_rss_gib", "versions")}
    named = {str(row["path"]) for row in chain(portraits, store.iter_rows("prints.parquet", ["path"]))}
    _show(store, albums, identities, portraits, ordered, lambda: figures, _files_as_they_are(store, named), named)


def _show(
    store: Store,
    albums: Iterable[Row],
    identities: Iterable[Row],
    portraits: Iterable[Row],
    ordered: Iterable[Row],
    figures: Callable[[], Mapping[str, Any]],
    files: GalleryFiles,
    named: set[str],
) -> dict[str, Any]:
    """Gallery, contact sheet and summary; what else of the gallery or of these orders lies there goes."""
    similarities = array("d", _other_similarities(identities, portraits))
    wanted, styles = wanted_of(ordered), styles_of(ordered)

    def summed() -> dict[str, Any]:
        return summary(albums, identities, portraits, wanted=wanted, other_similarities=similarities, **figures())

    write_gallery(_people(albums, identities, portraits), summed(), styles, wanted, files)
    _write_sheet(store, identities, portraits, list(styles.values()))
    remove_orphans(store, named)
    result = summed()
    store.write_json("summary.json", result)
    return result


def _write_approvals(store: Store, portraits: Iterable[Row]) -> None:
    """`approvals.csv` with a row for every accepted portrait; one that cannot be read is left as it is."""
    try:
        before = read_approvals(store)
    except SettingsError as error:
        print(f"warning: {error}; it was left as it is", file=sys.stderr)
        return
    store.write_bytes(APPROVALS, before.written(portraits))


def _people(
    albums: Iterable[Row], identities: Iterable[Row], portraits: Iterable[Row]
) -> Iterator[tuple[Row, Row, list[Row]]]:
    for album, (identity, made) in zip(albums, beside(identities, portraits), strict=True):
        yield identity, album, made


def _files(store: Store, sources: Sequence[AlbumSource], named: set[str]) -> GalleryFiles:
    """The gallery's access to files; adds the path of each that it writes to `named`."""
    photos = {source.album_id: source.photos for source in sources}

    def read_photo(album_id: str, uri: str) -> bytes:
        place = dict(photos.get(album_id, ())).get(uri)
        if place is None:
            raise PhotoError(Reason.UNREADABLE, f"{uri!r} is no photo of {album_id!r}")
        return read_bytes(place)

    def write(path: str, content: bytes) -> None:
        store.write_bytes(path, content)
        named.add(path)

    return GalleryFiles(read=store.read_bytes, write=write, read_photo=read_photo)


def _files_as_they_are(store: Store, named: set[str]) -> GalleryFiles:
    """As `_files`, with the thumbnails that lie there in the place of customers' photos."""

    def read_photo(album_id: str, uri: str) -> bytes:
        path = thumb_path(photo_origin(album_id, uri))
        if not store.exists(path):
            raise PhotoError(Reason.UNREADABLE, f"{uri!r} has no thumbnail")
        return store.read_bytes(path)

    def write(path: str, content: bytes) -> None:
        if not (path.startswith(f"{GALLERY}/thumbs/") and store.exists(path)):
            store.write_bytes(path, content)
        named.add(path)

    return GalleryFiles(read=store.read_bytes, write=write, read_photo=read_photo)


def _other_similarities(identities: Iterable[Row], portraits: Iterable[Row]) -> Iterator[float]:
    """Calibrated similarity of every accepted portrait to people it does not show: the next ones, in a circle."""
    similarity = Similarity.load()
    others = min(OTHERS, sum(bool(row["references"]) for row in identities) - 1)
    if others < 1:
        return

    def known() -> Iterator[NDArray[np.float32]]:
        for row in identities:
            if row["references"]:
                yield np.array([reference["embedding"] for reference in row["references"]], np.float32)

    circle = chain(known(), islice(known(), others))
    following = deque(islice(circle, others), maxlen=others)
    for identity, made in beside(identities, portraits):
        if not identity["references"]:
            continue
        following.append(next(circle))
        for portrait in made:
            if portrait["status"] == Status.OK and portrait["embedding"] is not None:
                embedding = np.asarray(portrait["embedding"], np.float32)
                yield from (similarity_to(embedding, other, similarity) for other in following)


def _write_sheet(
    store: Store,
    identities: Iterable[Row],
    portraits: Iterable[Row],
    styles: Sequence[Style],
    people: int = 12,
) -> None:
    """`contact-sheet.png`: a reference and the best portrait in each style, for the first people with portraits."""
    rows: list[SheetRow] = []
    for identity, made in beside(identities, portraits):
        if len(rows) == people:
            break
        if identity["status"] != Status.OK:
            continue
        best = {row["style"]: row for row in made if row["rank"] == 1}
        reference = Image.open(io.BytesIO(store.read_bytes(identity["references"][0]["crop_path"])))
        tiles: list[Tile | None] = [Tile(np.asarray(reference), "reference")]
        for style in styles:
            row = best.get(style.name)
            tiles.append(_tile(store, row) if row else None)
        rows.append(SheetRow(identity["identity_id"], tiles))
    if not rows:
        store.remove("contact-sheet.png")  # an earlier run's
    else:
        sheet = Image.fromarray(contact_sheet(rows, ["album", *(style.title for style in styles)]))
        buffer = io.BytesIO()
        sheet.save(buffer, "PNG")
        store.write_bytes("contact-sheet.png", buffer.getvalue())


def _tile(store: Store, row: Row) -> Tile:
    return Tile(decode_portrait(store.read_bytes(row["path"]))[0], f"likeness {row['similarity']:.2f}")
