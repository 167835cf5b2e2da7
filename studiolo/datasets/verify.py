"""An output checked against itself: each problem is a sentence that begins with the file it is in."""

import hashlib
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from studiolo.datasets import releases
from studiolo.datasets.annotate import parts_in
from studiolo.datasets.captions.shards import UNIT as CAPTIONS_UNIT
from studiolo.datasets.captions.shards import caption_path
from studiolo.datasets.decide import decide, decision_rows
from studiolo.datasets.describe import undescribed
from studiolo.datasets.listing import parts_of, read_part
from studiolo.datasets.measures import FACE_SIZE, IMAGE_SIZE, Measures, Shard, gather
from studiolo.datasets.records import ANNOTATION_SCHEMA, CAPTION_SCHEMA, DATA_SCHEMA, DECISION_SCHEMA, Drop, Split
from studiolo.datasets.settings import ReleaseSettings, SourceSettings
from studiolo.datasets.shards import UNIT
from studiolo.errors import StoreError
from studiolo.perception.regions import Region
from studiolo.storage.ledger import Ledger
from studiolo.storage.store import Store

Row = dict[str, Any]

FACE_NORM = (0.9, 2.5)
"""Lengths that embeddings of faces have: 1.44 to 1.65 were seen, see docs/LOG.md."""

_CLASS_IDS = [int(region) for region in Region]
_SIZES = {"landmarks_px": 10, "mesh_px": 936, "crop_matrix": 6, "bbox_xyxy_px": 4, "photo_bbox_xyxy_px": 4}


def verify(store: Store, name: str, record: Row) -> Iterator[str]:
    """The problems of the release called `name` and of the shards that it is made of; none when all is well.

    Hashes, schemas, counts, pictures and masks, captions, embeddings, every number on the card, that nobody is in two
    splits and no content kept twice.
    Then all is decided once more from the shards, duplicates and neighbours across splits included, and compared,
    unless the listing or a shard has changed since by a later run or an erasure.
    """
    path = releases.place(name, releases.DECISIONS)
    yield from _files(store, name, record)
    if not store.exists(path):
        return
    schema = store.read_schema(path)
    if not schema.equals(DECISION_SCHEMA):
        yield f"{path}: its columns are {schema.names}, wanted {DECISION_SCHEMA.names}"
        return
    shards = {row["shard"] for row in store.iter_rows(path, ["shard"]) if row["shard"]}
    yield from _decisions(store, path, record["counts"])
    for shard in sorted(shards):
        yield from _table(store, shard, UNIT, ANNOTATION_SCHEMA)
        yield from _table(store, caption_path(shard, record["captioner"]), CAPTIONS_UNIT, CAPTION_SCHEMA)
    contents: dict[str, str] = {}
    for split in Split:
        yield from _data(store, name, record, split, contents)
    yield from _again(store, name, record)
    yield from undescribed(store, name, record)


def _files(store: Store, name: str, record: Row) -> Iterator[str]:
    """Each file that the record names is there, as it was written."""
    for file in record["files"]:
        path = releases.place(name, file["path"])
        if not store.exists(path):
            yield f"{path}: it is not there"
        elif hashlib.sha256(store.read_bytes(path)).hexdigest() != file["sha256"]:
            yield f"{path}: its bytes are not those that were written"


def _decisions(store: Store, path: str, counts: Row) -> Iterator[str]:
    """The record's counts are those of the rows, and nobody is in two splits."""
    columns = ["row_id", "keep", "reason", "identity", "known", "split"]
    of_identity: dict[str, set[str]] = {}
    for row in store.iter_rows(path, columns):
        if row["keep"] != (row["reason"] == Drop.NONE) or row["keep"] != (row["split"] is not None):
            yield f"{path}: row {row['row_id']}: keep, reason and split do not go together"
            return
        if row["keep"]:
            of_identity.setdefault(row["identity"], set()).add(row["split"])
    for identity, some in of_identity.items():
        if len(some) > 1:
            yield f"{path}: {identity} is in {' and '.join(sorted(some))}"
    for figure, value in releases.counted(store.iter_rows(path, columns)).items():
        if counts[figure] != value:
            yield f"{path}: {figure}: got {value}, and {releases.RECORD} says {counts[figure]}"


def _table(store: Store, path: str, unit: str, wanted: pa.Schema) -> Iterator[str]:
    """The shard is what was completed under its key, with the columns `wanted`."""
    key = path.rpartition("/")[2].removesuffix(".parquet")
    try:
        schema = store.read_schema(path)
    except StoreError as error:
        yield f"{path}: {error}"
        return
    if not schema.equals(wanted):
        yield f"{path}: its columns are {schema.names}, wanted {wanted.names}"
    elif Ledger(store).done(unit, key) is None and not Ledger(store).attempts(unit, key):
        yield f"{path}: its bytes are not those that it was completed with"


def _data(store: Store, name: str, record: Row, split: Split, contents: dict[str, str]) -> Iterator[str]:
    """The rows of the split's files are those that were decided, in their order, and each is whole.

    `contents` are the rows seen so far, in whatever split, by the hash of their content.
    """
    wanted = _decided(store, name, split, record["captioner"])
    for file in record["files"]:
        if file.get("split") != split.value:
            continue
        path = releases.place(name, file["path"])
        try:
            schema = store.read_schema(path)
            if not schema.equals(DATA_SCHEMA):
                yield f"{path}: its columns are {schema.names}, wanted {DATA_SCHEMA.names}"
                return
            for row in store.iter_rows(path):
                decided, said = next(wanted, ({"row_id": None}, None))
                if decided["row_id"] != row["row_id"]:
                    yield f"{path}: row {row['row_id']} is not the one that was decided next"
                    return
                problems = [*_row(row, decided), *_captions(row, said, record["captioner"])]
                yield from (f"{path}: row {row['row_id']}: {problem}" for problem in problems)
                twin = contents.setdefault(row["content_sha256"], row["row_id"])
                if twin != row["row_id"]:
                    yield f"{path}: row {row['row_id']} holds the same content as {twin}"
        except (StoreError, pa.ArrowException, OSError) as error:
            yield f"{path}: cannot be read: {error}"
            return
    if next(wanted, None) is not None:
        yield f"{releases.place(name, 'data')}: rows of {split.value} are missing"


def _decided(store: Store, name: str, split: Split, captioner: str) -> Iterator[tuple[Row, Any]]:
    """The kept rows of the split as they were decided, each with its captions; those of one shard are in memory."""
    shard, captions = None, dict[str, Any]()
    for row in store.iter_rows(releases.place(name, releases.DECISIONS)):
        if row["split"] == split:
            if row["shard"] != shard:
                shard = row["shard"]
                captions = {one["row_id"]: one["captions"] for one in store.iter_rows(caption_path(shard, captioner))}
            yield row, captions.get(row["row_id"])


def _captions(row: Row, said: Any, captioner: str) -> Iterator[str]:
    if row["captioner"] != captioner or row["captions"] != said:
        yield "its captions are not those of its caption shard"
    for caption in row["captions"] or ():
        for one in caption["evidence"] or ():
            if one["phrase"] not in caption["text"]:
                yield f"caption of {caption['part']}: {one['phrase']!r} has a measurement and does not stand in it"


def _row(row: Row, decided: Row) -> Iterator[str]:
    for name in ("identity", "known", "split", "label", "licence", "weight"):
        if row[name] != decided[name]:
            yield f"{name} is {row[name]!r}, decided was {decided[name]!r}"
    yield from _pixels(row)
    for name, size in {**_SIZES, "face_embedding": FACE_SIZE, "image_embedding": IMAGE_SIZE}.items():
        if len(row[name] or ()) != size or not np.isfinite(row[name]).all():
            yield f"{name}: wanted {size} finite numbers"
    norm = float(np.linalg.norm(row["face_embedding"] or ()))
    if not FACE_NORM[0] < norm < FACE_NORM[1]:
        yield f"face_embedding has the length {norm:.2f}, wanted {FACE_NORM[0]:g} to {FACE_NORM[1]:g}"


def _pixels(row: Row) -> Iterator[str]:
    """The picture and its mask decode, fit each other, and the parts are those of the mask."""
    try:
        image, mask = (_decoded(row[name]["bytes"]) for name in ("image", "mask"))
    except (OSError, TypeError, ValueError) as error:
        yield f"picture or mask cannot be decoded: {error}"
        return
    if image.ndim != 3 or mask.ndim != 2 or image.shape[:2] != mask.shape or mask.shape[0] != mask.shape[1]:
        yield f"picture {image.shape} and mask {mask.shape} are not one square"
    elif not np.isin(mask, _CLASS_IDS).all():
        yield f"the mask holds {sorted(set(np.unique(mask).tolist()) - set(_CLASS_IDS))}, which are no class ids"
    elif parts_in(mask) != row["parts"]:
        yield "boxes and areas of the parts are not those of the mask"


def _decoded(content: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image, np.uint8)


def _again(store: Store, name: str, record: Row) -> Iterator[str]:
    """Everything decided once more."""
    sources = {source["name"]: SourceSettings.parse(source["spec"]) for source in record["sources"]}
    settings = ReleaseSettings.model_validate(record["settings"])
    path = releases.place(name, releases.DECISIONS)
    measures = _measures(store, path, list(sources))
    if measures is None or releases.release_key(measures, settings, sources, record["captioner"]) != record["key"]:
        return  # a later listing, or an erasure
    decisions = decide(measures, settings)
    if decisions.across_splits != record["merged_across_splits"]:
        yield f"{releases.place(name, releases.RECORD)}: merged_across_splits is {decisions.across_splits}"
    rows = decision_rows(measures, decisions, settings, sources)
    differing = [
        one["row_id"]
        for one, other in zip(rows, store.iter_rows(path), strict=True)
        if {**one, "weight": other["weight"]} != other  # float32 there
    ]
    if differing:
        yield f"{path}: decided once more, {len(differing)} rows differ, such as {differing[0]}"


def _measures(store: Store, path: str, sources: list[str]) -> Measures | None:
    """What the release was decided by; None when the listing has other parts now."""
    of_part: list[str | None] = []
    parts = [part for part in parts_of(store, sources) if any(row["listed"] for row in read_part(store, part.path))]
    for row in store.iter_rows(path, ["shard", "index"]):
        if row["index"] == 0:
            of_part.append(row["shard"])
    if len(of_part) != len(parts):
        return None
    return gather(store, [Shard(part, shard) for part, shard in zip(parts, of_part, strict=True)])
