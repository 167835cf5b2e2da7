import cv2
import numpy as np
import pytest

from studiolo.perception.detect import RgbU8
from studiolo.perception.suite import Suite

Photos = dict[tuple[str, str], RgbU8]


def test_one_face_in_each_sample_photo(suite: Suite, photos: Photos):
    for key, photo in photos.items():
        faces = suite.detector(photo, 0.7)
        assert len(faces) == 1, key
        right_eye, left_eye, nose, mouth_right, mouth_left = faces[0].landmarks_px
        assert right_eye[0] < left_eye[0]
        assert mouth_right[0] < mouth_left[0]
        assert max(right_eye[1], left_eye[1]) < nose[1] < min(mouth_right[1], mouth_left[1])


def test_every_face_of_a_sheet_is_counted_largest_first(suite: Suite, photos: Photos):
    portrait = photos["P001", "portrait.jpg"]
    tiles = [cv2.resize(portrait, (side, side), interpolation=cv2.INTER_AREA) for side in (400, 300, 350, 380)]
    sheet = np.full((800, 800, 3), 128, np.uint8)
    for tile, (y, x) in zip(tiles, ((0, 0), (0, 400), (400, 0), (400, 400)), strict=True):
        sheet[y : y + len(tile), x : x + len(tile)] = tile
    faces = suite.detector(sheet, 0.7)
    areas = [face.area_px2 for face in faces]
    assert len(faces) == 4
    assert areas == sorted(areas, reverse=True)


@pytest.mark.parametrize("scale", [0.25, 0.5])
def test_boxes_scale_with_the_photo(suite: Suite, photos: Photos, scale: float):
    photo = photos["P002", "selfie.jpg"]
    small = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    whole, part = suite.detector(photo, 0.7)[0], suite.detector(small, 0.7)[0]
    side = float((whole.bbox_xyxy_px[2:] - whole.bbox_xyxy_px[:2]).max())
    assert np.abs(part.landmarks_px / scale - whole.landmarks_px).max() < 0.08 * side


def test_a_face_that_fills_the_photo_is_found(suite: Suite, photos: Photos):
    photo = photos["P001", "portrait.jpg"]
    x0, y0, x1, y1 = suite.detector(photo, 0.7)[0].bbox_xyxy_px.astype(int)
    assert len(suite.detector(np.ascontiguousarray(photo[y0:y1, x0:x1]), 0.7)) == 1


def test_no_face_in_blank_or_noise(suite: Suite):
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    for picture in (np.zeros((480, 640, 3), np.uint8), np.full((64, 64, 3), 255, np.uint8), noise):
        assert suite.detector(picture, 0.7) == []
