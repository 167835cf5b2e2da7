import numpy as np
import pytest

from studiolo.perception.detect import RgbU8
from studiolo.perception.suite import Suite
from studiolo.perception.upright import make_upright, turn

Photos = dict[tuple[str, str], RgbU8]


@pytest.mark.parametrize("given_deg", [0, 90, 180, 270])
def test_a_turned_photo_is_turned_back(suite: Suite, photos: Photos, given_deg: int):
    for photo in photos.values():
        upright = make_upright(turn(photo, given_deg), suite.detector, 0.7)
        assert upright.rotation_deg == (360 - given_deg) % 360
        assert np.array_equal(upright.rgb_u8, photo)
        assert len(upright.faces) == 1


def test_a_photo_without_a_face_stays(suite: Suite):
    picture = np.random.default_rng(1).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    upright = make_upright(picture, suite.detector, 0.7)
    assert upright.rotation_deg == 0
    assert upright.faces == []
    assert np.array_equal(upright.rgb_u8, picture)


def test_turn_is_anticlockwise():
    picture = np.arange(6, dtype=np.uint8).reshape(2, 3, 1).repeat(3, axis=2)
    assert turn(picture, 90)[:, :, 0].tolist() == [[2, 5], [1, 4], [0, 3]]
    assert np.array_equal(turn(turn(picture, 270), 90), picture)
