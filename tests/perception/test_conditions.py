import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from studiolo.albums.geometry import align_and_crop, map_points
from studiolo.perception.conditions import (
    LANDMARKS,
    edge_picture,
    face_mask,
    face_width_px,
    joints_of,
    landmarks_of,
    pose_picture,
)
from studiolo.perception.detect import RgbU8
from studiolo.perception.perceive import PerceivedPhoto
from studiolo.perception.regions import OVAL, Region
from studiolo.perception.suite import Suite

SIDE = 128
POINTS = np.random.default_rng(0).uniform(20, 108, (468, 3))


def dots(picture: RgbU8) -> NDArray[np.bool_]:
    return (picture > 127).all(axis=-1)


@pytest.fixture(scope="module")
def face(
    suite: Suite, photos: dict[tuple[str, str], RgbU8], perceived: dict[tuple[str, str], PerceivedPhoto]
) -> tuple[RgbU8, NDArray[np.float32]]:
    """An upright crop of a real face, and its mesh."""
    key = ("P001", "portrait.jpg")
    row = perceived[key].faces[0]
    crop, matrix = align_and_crop(photos[key], row["bbox_xyxy_px"], row["landmarks_px"], SIDE, 0.6)
    return crop, suite.mesher(crop, map_points(matrix, np.reshape(row["landmarks_px"], (5, 2)))).points_px


def test_the_landmarks_are_where_their_names_say(face: tuple[RgbU8, NDArray[np.float32]]) -> None:
    assert len(LANDMARKS) == len(set(LANDMARKS)) == 68
    points = landmarks_of(face[1])
    jaw, brows, nose, eyes, lips = (points[part] for part in np.split(np.arange(68), [17, 27, 36, 48]))
    assert brows[:, 1].mean() < eyes[:, 1].mean() < nose[:, 1].mean() < lips[:, 1].mean() < jaw[8, 1]
    assert jaw[0, 0] < eyes[0, 0] < eyes[3, 0] < nose[3, 0] < eyes[6, 0] < eyes[9, 0] < jaw[16, 0]
    assert abs(joints_of(face[1])[0] - nose[3]).max() == 0
    right, left = joints_of(face[1])[1:3]
    assert abs(right - eyes[:6].mean(axis=0)).max() < 2
    assert abs(left - eyes[6:].mean(axis=0)).max() < 2
    assert face_width_px(points) == pytest.approx(jaw[16, 0] - jaw[0, 0], rel=0.1)


def test_every_landmark_is_a_dot_where_it_is() -> None:
    for point in landmarks_of(POINTS):
        alone = np.full((68, 2), -999.0)
        alone[30] = point
        picture = pose_picture(np.full((5, 2), -999.0), SIDE, alone)
        y, x = np.nonzero(picture[..., 0])
        weights = picture[y, x, 0].astype(float)
        centre = np.array([np.average(x, weights=weights), np.average(y, weights=weights)])
        assert np.abs(centre - point).max() < 0.25


def test_bones_alone_say_nothing_of_the_face() -> None:
    changed = POINTS.copy()
    kept = [4, 33, 133, 362, 263, 234, 454]
    others = [index for index in range(468) if index not in kept]
    changed[others] += 5
    assert np.array_equal(*(pose_picture(joints_of(points), SIDE) for points in (POINTS, changed)))
    bones = pose_picture(joints_of(POINTS), SIDE)
    assert bones.any()
    assert not dots(bones).any()
    both = pose_picture(joints_of(POINTS), SIDE, landmarks_of(POINTS))
    assert dots(both).any()
    hidden = pose_picture(joints_of(POINTS - 1000), SIDE, landmarks_of(POINTS + 1000))
    assert not hidden.any()


def test_a_larger_picture_shows_the_same() -> None:
    small = pose_picture(joints_of(POINTS), SIDE, landmarks_of(POINTS))
    scale = 4
    moved = POINTS * scale + (scale - 1) / 2
    large = pose_picture(joints_of(moved), SIDE * scale, landmarks_of(moved))
    shrunk = cv2.resize(large, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    assert np.abs(shrunk.astype(float) - small).mean() < 8


def test_edges_are_hidden_where_they_are_to_be_and_no_outline_appears(face: tuple[RgbU8, NDArray[np.float32]]) -> None:
    crop = face[0]
    edges = edge_picture(crop)
    hidden = np.zeros((SIDE, SIDE), bool)
    hidden[30:90, 30:90] = True
    left = edge_picture(crop, hidden)
    assert set(np.unique(edges)) == {0, 255}
    assert edges[hidden].any()
    assert not left[hidden].any()
    assert np.array_equal(left[~hidden], edges[~hidden])
    flat = np.full_like(crop, 90)
    assert not edge_picture(flat, hidden).any()


@pytest.mark.parametrize("reach", [0.0, 3.0, 10.0])
def test_the_face_is_without_the_hair_and_grows_by_the_reach(
    suite: Suite, face: tuple[RgbU8, NDArray[np.float32]], reach: float
) -> None:
    crop, points = face
    five = suite.detector(crop, 0.5)[0].landmarks_px
    regions = suite.regions(crop, five)
    bare = face_mask(regions, 0.0)
    assert not bare[regions == Region.HAIR].any()
    assert bare[regions == Region.LIPS].all()
    grown = face_mask(regions, reach)
    assert grown[bare].all()
    away = cv2.distanceTransform((~bare).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    assert np.array_equal(grown, away <= reach)
    oval = points[list(OVAL), :2]
    area = cv2.contourArea(oval.astype(np.float32))
    assert bare.sum() == pytest.approx(area, rel=0.1)


def test_no_face_no_mask() -> None:
    assert not face_mask(np.full((8, 8), Region.BODY, np.uint8), 5.0).any()
