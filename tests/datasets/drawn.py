"""Rows of a data set drawn by formula: a face of ellipses with what would have been measured of it, without a model."""

import io
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from studiolo.datasets.records import PARTS, Split, row_id
from studiolo.perception.regions import OVAL, Region

SIDE_PX = 128

_COLOURS = {"black": (22, 20, 24), "brown": (96, 62, 40), "blue": (60, 90, 170), "grey": (150, 150, 152)}
_SKIN = (214, 170, 146)
_BOXES = {
    Region.BODY: (8, 104, 120, 150),
    Region.HAIR: (28, 8, 100, 96),
    Region.SKIN: (36, 24, 92, 108),
    Region.NOSE: (58, 54, 70, 80),
    Region.LIPS: (50, 84, 78, 94),
}
_PAIRS = {Region.BROWS: (44, 44, 58, 48), Region.EYES: (44, 50, 58, 57)}


def drawn_regions() -> np.ndarray:
    """Class ids [128, 128] of a face that looks straight ahead."""
    picture = Image.new("L", (SIDE_PX, SIDE_PX))
    pen = ImageDraw.Draw(picture)
    for region in (Region.BODY, Region.HAIR, Region.SKIN):
        pen.ellipse(_BOXES[region], int(region))
    for region, (x0, y0, x1, y1) in _PAIRS.items():
        pen.ellipse((x0, y0, x1, y1), int(region))
        pen.ellipse((SIDE_PX - x1, y0, SIDE_PX - x0, y1), int(region))
    for region in (Region.NOSE, Region.LIPS):
        pen.ellipse(_BOXES[region], int(region))
    return np.asarray(picture)


def drawn_picture(hair: str, clothes: str, background: str) -> np.ndarray:
    """The same face in colours [128, 128, 3]."""
    regions = drawn_regions()
    rgb_u8 = np.full((SIDE_PX, SIDE_PX, 3), _COLOURS[background], np.uint8)
    rgb_u8[regions > 0] = _SKIN
    rgb_u8[regions == Region.HAIR] = _COLOURS[hair]
    rgb_u8[regions == Region.BODY] = _COLOURS[clothes]
    rgb_u8[regions == Region.EYES] = (70, 50, 40)
    rgb_u8[regions == Region.LIPS] = (170, 80, 80)
    return rgb_u8


def drawn_mesh() -> np.ndarray:
    """468 points [468, 2]: the oval on the skin's outline, the points that are measured where they belong."""
    points = np.full((468, 2), 64.0)
    angle = np.linspace(0, 2 * np.pi, len(OVAL), endpoint=False)
    points[list(OVAL)] = np.stack([64 + 28 * np.sin(angle), 66 - 42 * np.cos(angle)], axis=1)
    places = {33: (44, 53), 133: (58, 53), 362: (70, 53), 263: (84, 53), 159: (51, 50), 386: (77, 50)}
    places |= {105: (51, 44), 334: (77, 44), 168: (64, 50), 2: (64, 80), 64: (57, 76), 294: (71, 76)}
    places |= {61: (50, 89), 291: (78, 89), 0: (64, 84), 13: (64, 88), 14: (64, 89), 17: (64, 94)}
    for index, place in places.items():
        points[index] = place
    return points


def png(picture: np.ndarray) -> bytes:
    return _encoded(picture, "PNG")


def _encoded(picture: np.ndarray, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind, **options)
    return buffer.getvalue()


def annotation(number: int = 0, **changes: Any) -> dict[str, Any]:
    """A row of `ANNOTATION_SCHEMA` with status ok; `changes` on top, those of nested fields by `field__name`."""
    regions, uri = drawn_regions(), f"face-{number}.jpg"
    rng = np.random.default_rng(number)
    row: dict[str, Any] = {
        "row_id": row_id("drawn", uri),
        "source": "drawn",
        "uri": uri,
        "version": "1",
        "status": "ok",
        "reason": "",
        "detail": "",
        "content_sha256": row_id("content", uri),
        "phash": f"{number:016x}",
        "width_px": SIDE_PX,
        "height_px": SIDE_PX,
        "rotation_deg": 0,
        "unsafe_score": 0.01,
        "faces": 1,
        "second_face_share": 0.0,
        "image": {"bytes": _encoded(drawn_picture("black", "blue", "grey"), "JPEG", quality=95), "path": None},
        "mask": {"bytes": png(regions), "path": None},
        "parts": parts(regions),
        "crop_matrix": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        "photo_bbox_xyxy_px": [36.0, 24.0, 92.0, 108.0],
        "bbox_xyxy_px": [36.0, 24.0, 92.0, 108.0],
        "landmarks_px": [51.0, 53.0, 77.0, 53.0, 64.0, 72.0, 52.0, 89.0, 76.0, 89.0],
        "mesh_px": drawn_mesh().reshape(-1).tolist(),
        "detector_score": 0.95,
        "mesh_score": 0.99,
        "face_embedding": (rng.normal(size=128) / 11.3).tolist(),
        "face_model": "dlib-face@0",
        "image_embedding": rng.normal(size=384).tolist(),
        "image_model": "saliency-vit@0",
        "attributes": {
            "p_female": 0.97,
            "age_years": 28.0,
            "glasses": "unknown",
            "headwear": "unknown",
            "ears": "unknown",
        },
        "pose": {"yaw_deg": 1.0, "pitch_deg": -2.0, "roll_deg": 0.0},
        "quality": {"score": 0.9, "size": 0.9, "sharpness": 0.9, "exposure": 1.0, "pose": 0.99, "eyes": 1.0},
        "expression": {"eye_openness": 0.3, "mouth_openness": 0.02, "smile": 0.7},
        "tags": ["black hair", "grey background", "blue clothes", "smile", "facing forward"],
    }
    for name, value in changes.items():
        field, _, inner = name.partition("__")
        if inner:
            row[field] = {**row[field], inner: value}
        else:
            row[field] = value
    return row


def parts(regions: np.ndarray) -> list[dict[str, Any]]:
    found = []
    for part, ids in PARTS.items():
        rows, columns = np.nonzero(np.isin(regions, [int(one) for one in ids]))
        if len(rows):
            box = [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]
            found.append({"part": part, "bbox_xyxy_px": box, "area_px": len(rows)})
    return found


def kept(number: int, captions: list[dict[str, Any]], split: Split = Split.TRAIN, **changes: Any) -> dict[str, Any]:
    """A row of `DATA_SCHEMA`."""
    row = annotation(number, **changes)
    for name in ("version", "status", "reason", "detail"):
        del row[name]
    decided = {"identity": f"unknown/{row['row_id']}", "known": False, "split": split.value, "weight": 1.0}
    listed = {"label": None, "licence": "CC0-1.0"}
    return {**listed, **row, "captioner": "grammar@test", "captions": captions, **decided}
