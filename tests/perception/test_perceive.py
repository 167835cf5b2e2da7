import json

import cv2
import numpy as np
import pyarrow as pa
import pytest

from studiolo.albums.records import FACE
from studiolo.perception.detect import RgbU8
from studiolo.perception.perceive import PerceivedPhoto, perceive_photo
from studiolo.perception.suite import Suite
from studiolo.perception.tag import TURNED_DEG
from studiolo.perception.upright import turn
from studiolo.settings import PerceptionSettings

Photos = dict[tuple[str, str], RgbU8]
Perceived = dict[tuple[str, str], PerceivedPhoto]
SETTINGS = PerceptionSettings()


def test_faces_round_trip_through_their_record(perceived: Perceived):
    for seen in perceived.values():
        rows = pa.array(seen.faces, FACE).to_pylist()
        assert [set(row) for row in rows] == [set(face) for face in seen.faces]
        for row, face in zip(rows, seen.faces, strict=True):
            assert row["bbox_xyxy_px"] == face["bbox_xyxy_px"]
            assert row["embedding"] == face["embedding"]
            assert row["tags"] == face["tags"]
            assert row["quality"]["score"] == pytest.approx(face["quality"]["score"], rel=1e-6)
            assert all(value is not None for part in ("attributes", "pose", "quality") for value in row[part].values())


@pytest.mark.parametrize("given_deg", [90, 180, 270])
def test_a_turned_photo_shows_the_same_faces(suite: Suite, photos: Photos, perceived: Perceived, given_deg: int):
    for key in (("P001", "selfie.jpg"), ("P002", "full-body-outdoors.jpg")):
        seen = perceive_photo(suite, turn(photos[key], given_deg), SETTINGS)
        assert seen.rotation_deg == (360 - given_deg) % 360
        assert seen.faces == perceived[key].faces


def test_the_same_photo_gives_the_same_bytes(suite: Suite, photos: Photos, perceived: Perceived):
    key = ("P001", "portrait.jpg")
    again = perceive_photo(suite, photos[key].copy(), SETTINGS)
    assert json.dumps(again.faces) == json.dumps(perceived[key].faces)
    assert np.array_equal(again.rgb_u8, perceived[key].rgb_u8)


def test_mirror_swaps_left_and_right(suite: Suite, photos: Photos, perceived: Perceived):
    key = ("P001", "full-body-outdoors.jpg")
    mirrored = perceive_photo(suite, np.ascontiguousarray(photos[key][:, ::-1]), SETTINGS)
    one, two = perceived[key].faces[0], mirrored.faces[0]
    assert two["pose"]["yaw_deg"] == pytest.approx(-one["pose"]["yaw_deg"], abs=4)
    for this, that in (("looking left", "looking right"), ("looking right", "looking left")):
        assert this not in one["tags"] or this not in two["tags"]
        # Near the threshold one of the two may stay silent.
        if abs(one["pose"]["yaw_deg"]) > TURNED_DEG + 4:
            assert (this in one["tags"]) == (that in two["tags"])


def test_pictures_without_a_face_give_no_rows(suite: Suite):
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    for picture in (np.zeros((64, 64, 3), np.uint8), noise, np.full((900, 30, 3), 200, np.uint8)):
        seen = perceive_photo(suite, picture, SETTINGS)
        assert seen.faces == []
        assert seen.rotation_deg == 0


def test_settings_say_which_faces_count(suite: Suite, photos: Photos):
    photo = photos["P001", "full-body-outdoors.jpg"]
    assert perceive_photo(suite, photo, SETTINGS).faces
    assert not perceive_photo(suite, photo, PerceptionSettings(min_face_px=1000)).faces
    assert not perceive_photo(suite, photo, PerceptionSettings(detector_score=1.0)).faces


def test_blur_lowers_the_quality_of_a_photo(suite: Suite, photos: Photos, perceived: Perceived):
    key = ("P001", "portrait.jpg")
    blurred = perceive_photo(suite, cv2.GaussianBlur(photos[key], (0, 0), 12), SETTINGS)
    assert blurred.faces[0]["quality"]["score"] < 0.8 * perceived[key].faces[0]["quality"]["score"]
