"""An output with listing, annotation shards and captions of made-up rows, for what decides about them."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from studiolo.datasets.annotate import blank
from studiolo.datasets.captions.shards import UNIT, caption_key, caption_path
from studiolo.datasets.listing import bring_up_to_date, parts_of, read_part
from studiolo.datasets.measures import Shard
from studiolo.datasets.records import ANNOTATION_SCHEMA, CAPTION_SCHEMA, WHOLE
from studiolo.datasets.sources.listed import Listed
from studiolo.storage.ledger import Ledger
from studiolo.storage.store import Store

Row = dict[str, Any]

CAPTIONER = "grammar@test"


def face(person: int, number: int = 0) -> list[float]:
    """An embedding of a person: about 0.05 from their others, more than 1 from those of others."""
    centre = np.random.default_rng(person).normal(size=128)
    noise = np.random.default_rng([person, number, 1]).normal(size=128)
    return [float(value) for value in centre / np.linalg.norm(centre) + 0.003 * noise]


def annotated(listed: Row, person: int = 0, **more: Any) -> Row:
    """A row that every threshold lets through; what it says of the picture is made of its uri."""
    rng = np.random.default_rng(int(listed["row_id"][:8], 16))
    row = {
        **blank(listed),
        "content_sha256": hashlib.sha256(listed["uri"].encode()).hexdigest(),
        "phash": rng.bytes(8).hex(),
        "width_px": 512,
        "height_px": 512,
        "rotation_deg": 0,
        "unsafe_score": 0.0,
        "faces": 1,
        "second_face_share": 0.0,
        "image": {"bytes": b"image of " + listed["uri"].encode(), "path": None},
        "mask": {"bytes": b"mask of " + listed["uri"].encode(), "path": None},
        "parts": [],
        "photo_bbox_xyxy_px": [0.0, 0.0, 200.0, 200.0],
        "face_embedding": face(person, int(listed["row_id"][:6], 16)),
        "image_embedding": rng.normal(size=384).tolist(),
        "pose": {"yaw_deg": 0.0, "pitch_deg": 0.0, "roll_deg": 0.0},
        "quality": {**dict.fromkeys(["size", "sharpness", "exposure", "pose", "eyes"], 1.0), "score": 0.9},
    }
    return {**row, **more}


def caption(text: str) -> Row:
    return {"part": WHOLE, "text": text, "evidence": []}


def listed(uri: str, label: str | None = None) -> Listed:
    return Listed(uri, f"/nowhere/{uri}", "1", label)


def make_output(store: Store, source: str, rows: Sequence[tuple[Listed, Row]], rows_per_shard: int = 4) -> list[Shard]:
    """List `rows` of a source and write their shards; the second of a pair says what differs in the annotation.

    Each row has one caption, its uri.
    """
    bring_up_to_date(store, source, [one for one, _ in rows], rows_per_shard)
    said = {one.uri: more for one, more in rows}
    shards = []
    for part in parts_of(store, [source]):
        path = f"shards/{part.number:064x}.parquet"
        table = [annotated(row, **said.get(row["uri"], {})) for row in read_part(store, part.path)]
        store.write_table(path, pa.Table.from_pylist(table, ANNOTATION_SCHEMA))
        captions = [
            {"row_id": row["row_id"], "captioner": CAPTIONER, "captions": [caption(f"Picture {row['uri']}.")]}
            for row in table
            if row["status"] == "ok"
        ]
        captioned = caption_path(path, CAPTIONER)
        store.write_table(captioned, pa.Table.from_pylist(captions, CAPTION_SCHEMA))
        record = {"shard": path, "captions": captioned, "rows": len(captions), "silent": 0}
        Ledger(store).complete(UNIT, caption_key(path, CAPTIONER), record, [captioned])
        shards.append(Shard(part, path))
    return shards
