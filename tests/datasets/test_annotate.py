import io

import cv2
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from studiolo.albums.decode import decode
from studiolo.albums.geometry import map_points
from studiolo.datasets.annotate import Annotate, Models, parts_in
from studiolo.datasets.optout import OptOut
from studiolo.datasets.records import ANNOTATION_SCHEMA, row_id
from studiolo.datasets.settings import AnnotationSettings
from studiolo.datasets.sources.reading import PictureReader, synthetic_face
from studiolo.perception.regions import Region
from studiolo.settings import PerceptionSettings

LISTED = {"row_id": row_id("faces", "1.jpg"), "source": "faces", "uri": "1.jpg", "version": "1"}
SIDE_PX = 256
NOTHING = OptOut()


@pytest.fixture(scope="module")
def models(weights):
    return Models.open("embedded")


@pytest.fixture(scope="module")
def content(weights):
    return PictureReader()(synthetic_face(5, 512))


def annotate(models, opt_out=NOTHING):
    perception = PerceptionSettings()
    return Annotate(
        models, lambda data: decode(data, perception), perception, AnnotationSettings(image_side_px=SIDE_PX), opt_out
    )


@pytest.fixture(scope="module")
def row(models, content):
    return annotate(models)(LISTED, content)


def pixels(image):
    return np.asarray(Image.open(io.BytesIO(image["bytes"])))


def nothing_but(row, *names):
    return {name for name, value in row.items() if value not in (None, "")} <= {
        *("row_id", "source", "uri", "version", "status", "reason", "detail", "content_sha256"),
        *names,
    }


def test_a_row_has_everything_and_fits_the_schema(row):
    assert (row["status"], row["reason"], row["faces"]) == ("ok", "", 1)
    assert all(row[name] is not None for name in ANNOTATION_SCHEMA.names)
    (back,) = pa.Table.from_pylist([row], ANNOTATION_SCHEMA).to_pylist()
    assert back["parts"] == row["parts"]
    assert (len(row["face_embedding"]), len(row["image_embedding"]), len(row["mesh_px"])) == (128, 384, 936)
    assert row["face_model"].startswith("dlib-face@")


def test_the_mask_fits_the_picture_and_the_parts_the_mask(row):
    image, mask = pixels(row["image"]), pixels(row["mask"])
    assert image.shape == (SIDE_PX, SIDE_PX, 3)
    assert mask.shape == (SIDE_PX, SIDE_PX)
    assert row["parts"] == parts_in(mask)
    assert [part["part"] for part in row["parts"]][:5] == ["face", "brows", "eyes", "nose", "mouth"]
    points = np.rint(np.reshape(row["landmarks_px"], (5, 2))).astype(int)
    wanted = [Region.EYES, Region.EYES, Region.NOSE, Region.LIPS, Region.LIPS]
    for (x, y), region in zip(points, wanted, strict=True):
        around = mask[max(y - 8, 0) : y + 9, max(x - 8, 0) : x + 9]
        assert (around == region).any()


def test_coordinates_lead_back_to_the_photo(row):
    matrix = np.reshape(row["crop_matrix"], (2, 3))
    x0, y0, x1, y1 = row["photo_bbox_xyxy_px"]
    corners = map_points(matrix, [[x0, y0], [x1, y0], [x0, y1], [x1, y1]])
    assert np.allclose([*corners.min(axis=0), *corners.max(axis=0)], row["bbox_xyxy_px"], atol=1e-3)


def test_the_same_content_gives_the_same_row(models, content, row):
    assert annotate(models)(LISTED, content) == row


def test_a_photo_on_its_side_gives_nearly_the_same_row(models, content, row):
    turned = np.rot90(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR))
    other = annotate(models)(LISTED, cv2.imencode(".png", np.ascontiguousarray(turned))[1].tobytes())
    assert other["rotation_deg"] == 270
    assert np.linalg.norm(np.subtract(other["face_embedding"], row["face_embedding"])) < 0.1
    assert np.abs(pixels(other["image"]).astype(int) - pixels(row["image"])).mean() < 5


def test_what_is_no_picture_or_shows_nobody_says_so(models):
    failed = annotate(models)(LISTED, b"no picture")
    assert (failed["status"], failed["reason"]) == ("failed", "not_an_image")
    assert nothing_but(failed)
    noise = np.random.default_rng(0).integers(0, 255, (128, 128, 3), dtype=np.uint8)
    dropped = annotate(models)(LISTED, cv2.imencode(".png", noise)[1].tobytes())
    assert (dropped["status"], dropped["reason"], dropped["faces"]) == ("dropped", "no_face", 0)
    assert dropped["image"] is None
    pa.Table.from_pylist([failed, dropped], ANNOTATION_SCHEMA)


def test_nothing_is_kept_of_who_opted_out(models, content, row):
    by_content = OptOut(frozenset([row["content_sha256"]]))
    by_face = OptOut(faces=np.asarray([row["face_embedding"]], np.float32) + 0.01)
    for opt_out in (by_content, by_face):
        found = annotate(models, opt_out)(LISTED, content)
        assert (found["status"], found["reason"]) == ("dropped", "opted_out")
        assert nothing_but(found)
    elsewhere = OptOut(frozenset(["ab" * 32]), np.full((1, 128), 3, np.float32))
    assert annotate(models, elsewhere)(LISTED, content) == row


def test_boxes_are_half_open():
    mask = np.zeros((8, 8), np.uint8)
    mask[2:4, 1:6] = Region.NOSE
    assert parts_in(mask)[1] == {"part": "nose", "bbox_xyxy_px": [1, 2, 6, 4], "area_px": 10}
    assert parts_in(np.zeros((4, 4), np.uint8)) == []
