"""Prints of a real face, found anew by the real detector."""

import io
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from actors.printer import PRINT_INPUT, Printer
from studiolo.portraits.files import encode_portrait, image_sha256
from studiolo.portraits.orders import portrait_path
from studiolo.storage.store import Store


@pytest.fixture(scope="module")
def printer(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Printer:
    made = Printer(Store(tmp_path_factory.mktemp("prints")), "embedded")
    made.open()
    return made


@pytest.fixture(scope="module")
def face_u8(people: Path) -> np.ndarray:
    """A sample person, the face in the middle third."""
    return np.asarray(Image.open(people / "P001" / "portrait.jpg").convert("RGB"))


def order(
    printer: Printer, style: str, rgb_u8: np.ndarray, *prints: str, face_xy: tuple[float, float] | None = None
) -> pa.Table:
    path = portrait_path("anna", style, 0)
    printer.store.write_bytes(path, encode_portrait(rgb_u8, {}))
    row = {"portrait_id": style, "identity_id": "anna", "style": style, "index": 0, "path": path, "face_xy": face_xy}
    return pa.Table.from_pylist([row | {"image_sha256": image_sha256(rgb_u8), "prints": list(prints)}], PRINT_INPUT)


def test_the_face_is_whole_in_every_print(printer: Printer, face_u8: np.ndarray):
    rows = printer(order(printer, "studio", face_u8, "4x5@100", "5x7@100")).to_pylist()
    assert [(row["print"], row["status"]) for row in rows] == [("4x5@100", "ok"), ("5x7@100", "ok")]
    for row, size in zip(rows, ((400, 500), (500, 700)), strict=True):
        print_u8 = np.asarray(Image.open(io.BytesIO(printer.store.read_bytes(row["path"]))))
        assert print_u8.shape[1::-1] == size
        (found,) = printer.suite.detector(print_u8, 0.7)
        assert (found.bbox_xyxy_px >= -2).all()
        assert (found.bbox_xyxy_px[2:] <= np.array(size) + 2).all()


def test_prints_that_are_done_are_not_made_again(printer: Printer, face_u8: np.ndarray):
    table = order(printer, "again", face_u8, "4x5@100")
    first = printer(table).to_pylist()
    place = printer.store.local_path(first[0]["path"])
    assert place is not None
    before = place.stat().st_mtime_ns
    assert printer(table).to_pylist() == first
    assert place.stat().st_mtime_ns == before
    content = place.read_bytes()
    place.unlink()
    assert printer(table).to_pylist() == first
    assert place.read_bytes() == content


def test_what_cannot_be_printed_says_why(printer: Printer, face_u8: np.ndarray):
    (found,) = printer.suite.detector(face_u8, 0.7)
    x0, y0, x1, y1 = np.maximum(found.bbox_xyxy_px, 0).astype(int)
    close_u8 = np.ascontiguousarray(face_u8[y0:y1, x0:x1])
    close_u8 = cv2.resize(close_u8, (256, 256))
    rows = printer(order(printer, "close", close_u8, "2x6@100")).to_pylist()
    rows += printer(order(printer, "blank", np.full((64, 64, 3), 99, np.uint8), "4x5@100")).to_pylist()
    assert [(row["reason"], row["path"]) for row in rows] == [("crop_cuts_face", ""), ("not_one_face", "")]


def test_of_several_faces_the_named_one_is_printed(printer: Printer, face_u8: np.ndarray):
    large_u8, small_u8 = cv2.resize(face_u8, (600, 600)), cv2.resize(face_u8, (400, 400))
    both_u8 = np.full((600, 1200, 3), 99, np.uint8)
    both_u8[:, :600], both_u8[100:500, 700:1100] = large_u8, small_u8
    prints = []
    for style, face_xy in (("largest", None), ("named", (0.75, 0.5))):
        (row,) = printer(order(printer, style, both_u8, "4x5@100", face_xy=face_xy)).to_pylist()
        prints.append(np.asarray(Image.open(io.BytesIO(printer.store.read_bytes(row["path"])))))
    sides = [found.short_side_px for print_u8 in prints for found in printer.suite.detector(print_u8, 0.7)]
    assert len(sides) == 2
    assert sides[1] < 0.8 * sides[0]
