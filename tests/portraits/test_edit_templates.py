import io
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from studiolo.albums.decode import decode
from studiolo.albums.geometry import map_points
from studiolo.albums.records import Reason
from studiolo.errors import PhotoError
from studiolo.perception.pose import Pose
from studiolo.perception.suite import Suite, open_suite
from studiolo.portraits.edit_templates import MAX_PITCH_DEG, MAX_YAW_DEG, EditTemplate, check_pose, see_template
from studiolo.settings import PerceptionSettings

SEEING = PerceptionSettings(working_side_px=1024)
SIDE, RATIO = 128, 0.66


@pytest.fixture(scope="module")
def suite() -> Suite:
    return open_suite("embedded")


@pytest.fixture(scope="module")
def photo(people: Path) -> NDArray[np.uint8]:
    return decode((people / "P001" / "portrait.jpg").read_bytes(), SEEING)


@pytest.fixture(scope="module")
def template(photo: NDArray[np.uint8], suite: Suite) -> EditTemplate:
    return see_template(photo, suite, SIDE, RATIO, SEEING, 0.8)


def test_the_crop_shows_the_face_as_the_base_draws_faces(template: EditTemplate, suite: Suite) -> None:
    assert template.face.crop_rgb_u8.shape == (SIDE, SIDE, 3)
    (found,) = suite.detector(template.face.crop_rgb_u8, 0.7)
    low, high = found.bbox_xyxy_px[:2], found.bbox_xyxy_px[2:]
    assert max(high - low) == pytest.approx(RATIO * SIDE, rel=0.1)
    assert np.abs((low + high) / 2 - [SIDE * 0.5, SIDE * 0.54]).max() < 0.05 * SIDE
    assert abs(found.roll_deg) < 6
    own = suite.mesher(template.face.crop_rgb_u8, found.landmarks_px).points_px
    eyes = template.face.joints_px[1:3]
    assert np.abs(eyes - [own[[33, 133], :2].mean(axis=0), own[[362, 263], :2].mean(axis=0)]).max() < 3


def test_the_mask_covers_the_face_and_keeps_off_the_rim(template: EditTemplate) -> None:
    x, y = np.rint(template.face.landmarks_px).astype(int).T
    assert template.face.mask[y, x].all()
    assert not template.face.mask[[0, 1, -1, -2]].any()
    assert not template.face.mask[:, [0, 1, -1, -2]].any()
    assert 0.15 < template.face.mask.mean() < 0.75
    ys, xs = np.nonzero(template.seen)
    places = np.rint(map_points(template.face.matrix, np.stack([xs, ys], -1))).astype(int)
    assert template.face.mask[places[:, 1], places[:, 0]].mean() > 0.98
    assert template.seen.max() == 1


def test_a_face_at_the_border_is_drawn_only_where_the_picture_is(photo: NDArray[np.uint8], suite: Suite) -> None:
    face = suite.detector(photo, 0.7)[0]
    left = int(face.bbox_xyxy_px[0] + 0.1 * (face.bbox_xyxy_px[2] - face.bbox_xyxy_px[0]))
    cut = np.ascontiguousarray(photo[:, left:])
    template = see_template(cut, suite, SIDE, RATIO, SEEING, 0.8)
    assert template.seen.shape == cut.shape[:2]
    assert template.face.mask.any()


def test_what_is_no_template_has_a_reason(photo: NDArray[np.uint8], suite: Suite) -> None:
    small = cv2.resize(photo, None, fx=0.2, fy=0.2, interpolation=cv2.INTER_AREA)
    face_px = min(np.diff(suite.detector(small, 0.7)[0].bbox_xyxy_px.reshape(2, 2), axis=0)[0])
    strict = SEEING.model_copy(update={"min_face_px": int(face_px) + 5})
    cases = {
        Reason.NO_FACE: (np.full((300, 300, 3), 127, np.uint8), SEEING, 0.8),
        Reason.SEVERAL_FACES: (np.concatenate([photo, photo], axis=1), SEEING, 0.8),
        Reason.FACE_TOO_SMALL: (small, strict, 0.8),
        Reason.UNSAFE: (photo, SEEING, -1.0),
    }
    for reason, (picture, seeing, unsafe_above) in cases.items():
        with pytest.raises(PhotoError) as raised:
            see_template(picture, suite, SIDE, RATIO, seeing, unsafe_above)
        assert raised.value.reason == reason
        assert reason.sentence()


def test_of_several_faces_a_point_names_one(photo: NDArray[np.uint8], template: EditTemplate, suite: Suite) -> None:
    two = np.concatenate([photo, photo], axis=1)
    box = suite.detector(photo, 0.7)[0].bbox_xyxy_px
    x, y = (box[:2] + box[2:]) / 2 / (photo.shape[1], photo.shape[0])
    left, right = (see_template(two, suite, SIDE, RATIO, SEEING, 0.8, ((x + number) / 2, y)).face for number in (0, 1))
    offset = map_points(right.matrix, (photo.shape[1], 0.0)) - map_points(left.matrix, (0.0, 0.0))
    assert np.abs(offset).max() < 8  # a whole picture is more than 128
    assert np.abs(left.landmarks_px - template.face.landmarks_px).max() < 8
    assert np.abs(np.array(template.face_xy) - (x, y)).max() < 0.1
    with pytest.raises(PhotoError) as raised:
        see_template(two, suite, SIDE, RATIO, SEEING, 0.8, (0.5, 0.01))
    assert raised.value.reason == Reason.NO_FACE_THERE


def test_a_grey_picture_is_one_though_a_jpeg_has_been_at_it(template: EditTemplate) -> None:
    grey = np.repeat(template.rgb_u8.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "JPEG", quality=60)
    assert not template.grey
    assert replace(template, rgb_u8=grey).grey
    assert replace(template, rgb_u8=np.asarray(Image.open(buffer))).grey


@pytest.mark.parametrize("pose", [Pose(MAX_YAW_DEG + 1, 0, 0), Pose(-60, 0, 90), Pose(0, -MAX_PITCH_DEG - 1, 0)])
def test_a_face_that_is_turned_away_is_refused(pose: Pose) -> None:
    check_pose(Pose(MAX_YAW_DEG - 1, MAX_PITCH_DEG - 1, 120.0))
    with pytest.raises(PhotoError) as raised:
        check_pose(pose)
    assert raised.value.reason == Reason.TURNED_AWAY
    assert Reason.TURNED_AWAY.sentence()
