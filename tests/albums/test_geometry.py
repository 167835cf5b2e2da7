import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from studiolo.albums.geometry import (
    FACE_RATIO_MAX,
    FACE_RATIO_MIN,
    TEMPLATE_N2,
    affine_between,
    align_and_crop,
    alignment_deg,
    crop_matrix,
    inside_mask,
    invert,
    map_points,
    rotate,
)

ANGLES = st.floats(-180, 180, exclude_min=True)
PROPERTY = settings(deadline=None, derandomize=True, max_examples=40)

FACE_CENTRE = np.array([300.0, 260.0])
FACE_SIDE = 112.0
UPRIGHT = TEMPLATE_N2 - TEMPLATE_N2.mean(axis=0) + FACE_CENTRE


def photo(width: int = 620, height: int = 540) -> NDArray[np.uint8]:
    """A smooth colourful scene; no two places look alike."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    waves = [np.sin(x / 17 + y / 41), np.sin(y / 23 - x / 59), np.cos((x + y) / 37)]
    return np.rint(127.5 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)


def box_around(centre: NDArray[np.float64], side: float) -> NDArray[np.float64]:
    return np.concatenate([centre - side / 2, centre + side / 2])


def signed(angle_deg: float) -> float:
    """The angle in [-180, 180)."""
    return (angle_deg + 180) % 360 - 180


def turned(points: NDArray[np.float64], angle_deg: float) -> NDArray[np.float64]:
    """`points` turned about their mean, by hand: clockwise on the screen."""
    a = np.radians(angle_deg)
    turn = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    mean = points.mean(axis=0)
    return (points - mean) @ turn.T + mean


def test_the_template_is_upright() -> None:
    assert alignment_deg(TEMPLATE_N2) == pytest.approx(0, abs=1e-9)


@given(angle_deg=ANGLES, scale=st.floats(0.05, 50), shift=st.tuples(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4)))
@PROPERTY
def test_equation_1_recovers_any_angle(angle_deg: float, scale: float, shift: tuple[float, float]) -> None:
    landmarks = turned(TEMPLATE_N2, angle_deg) * scale + np.array(shift)
    assert abs(signed(alignment_deg(landmarks) + angle_deg)) < 1e-4
    assert alignment_deg(landmarks.reshape(10)) == alignment_deg(landmarks)


@given(angle_deg=ANGLES, seed=st.integers(0, 999))
@PROPERTY
def test_the_angle_turns_exactly_with_a_face_that_is_no_template(angle_deg: float, seed: int) -> None:
    face = TEMPLATE_N2 + np.random.default_rng(seed).normal(0, 4, (5, 2))
    difference = alignment_deg(turned(face, angle_deg)) - alignment_deg(face)
    assert abs(signed(difference + angle_deg)) < 1e-6


def test_arctan_alone_would_leave_this_face_upside_down() -> None:
    upside_down = turned(TEMPLATE_N2, 180)
    assert abs(alignment_deg(upside_down)) == pytest.approx(180)
    assert abs(alignment_deg(turned(TEMPLATE_N2, 90)) + 90) < 1e-6


@pytest.mark.parametrize("landmarks", [np.zeros((5, 2)), np.arange(10.0).reshape(5, 2), np.full((5, 2), np.nan)])
def test_landmarks_without_a_solution_are_refused(landmarks: NDArray[np.float64]) -> None:
    with pytest.raises(ValueError, match="on one line or not finite"):
        alignment_deg(landmarks)


@given(angle_deg=ANGLES)
@settings(deadline=None, derandomize=True, max_examples=15)
def test_a_turned_photo_gives_the_same_crop(angle_deg: float) -> None:
    expected, _ = align_and_crop(photo(), box_around(FACE_CENTRE, FACE_SIDE), UPRIGHT, 128)
    rgb_u8, points, _ = rotate(photo(), np.vstack([UPRIGHT, FACE_CENTRE]), angle_deg)
    crop, _ = align_and_crop(rgb_u8, box_around(points[5], FACE_SIDE), points[:5], 128)
    assert np.abs(crop.astype(int) - expected.astype(int)).mean() < 2.0
    assert np.abs(crop.astype(int) - expected.astype(int)).max() < 16


@given(
    angle_deg=ANGLES,
    ratio=st.floats(0.3, 0.45),
    side_px=st.integers(32, 512),
    width=st.floats(20, 400),
    height=st.floats(20, 400),
)
@PROPERTY
def test_the_face_is_centred_with_its_side_at_the_ratio(
    angle_deg: float, ratio: float, side_px: int, width: float, height: float
) -> None:
    box = np.array([100.0, 50.0, 100.0 + width, 50.0 + height])
    matrix = crop_matrix(box, turned(UPRIGHT, angle_deg), side_px, ratio)
    centre = map_points(matrix, (box[:2] + box[2:]) / 2)
    assert np.allclose(centre, (side_px - 1) / 2)
    scale = np.sqrt(np.linalg.det(matrix[:, :2]))
    assert scale * max(width, height) == pytest.approx(ratio * side_px)
    assert abs(alignment_deg(map_points(matrix, turned(UPRIGHT, angle_deg)))) < 1e-4


@given(angle_deg=ANGLES, points=st.lists(st.tuples(st.floats(-2e3, 2e3), st.floats(-2e3, 2e3)), min_size=1))
@PROPERTY
def test_the_inverse_brings_every_point_back(angle_deg: float, points: list[tuple[float, float]]) -> None:
    matrix = crop_matrix([10, 20, 90, 120], turned(UPRIGHT, angle_deg), 256, 0.33)
    assert np.allclose(map_points(invert(matrix), map_points(matrix, points)), points, atol=1e-6)
    assert np.allclose(invert(invert(matrix)), matrix)


def test_pixels_follow_the_matrix() -> None:
    rgb_u8 = np.zeros((400, 500, 3), np.uint8)
    rgb_u8[180:183, 260:263] = 255
    crop, matrix = align_and_crop(rgb_u8, [200, 130, 300, 230], turned(UPRIGHT, 33), 256)
    y, x = np.unravel_index(cv2.GaussianBlur(crop[..., 0], (0, 0), 2).argmax(), crop.shape[:2])
    assert np.abs(map_points(matrix, [261, 181]) - (x, y)).max() < 1.5


def test_shrinking_does_not_alias() -> None:
    checkers = (np.indices((1600, 1600)).sum(axis=0) % 2 * 255).astype(np.uint8)
    crop, _ = align_and_crop(np.dstack([checkers] * 3), [500, 500, 1100, 1100], UPRIGHT, 128)
    assert np.abs(crop.astype(int) - 127).max() < 25


@pytest.mark.parametrize("corner", [(60.0, 60.0), (560.0, 60.0), (60.0, 480.0), (560.0, 480.0)])
@pytest.mark.parametrize("angle_deg", [0.0, 30.0])
def test_no_black_wedge_and_no_second_face_at_the_border(corner: tuple[float, float], angle_deg: float) -> None:
    bright = np.full((540, 620, 3), 180, np.uint8)
    centre = np.array(corner)
    cv2.circle(bright, (int(corner[0]), int(corner[1])), 25, (255, 0, 0), -1)
    landmarks = turned(UPRIGHT - UPRIGHT.mean(axis=0) + centre, angle_deg)
    crop, matrix = align_and_crop(bright, box_around(centre, FACE_SIDE), landmarks, 128)
    inside = inside_mask((540, 620), matrix, 128)
    assert 0.3 < inside.mean() < 0.95
    filling = crop[~inside].astype(int)
    assert filling.min() > 120  # black is nowhere, nor the spot's colour (255, 0, 0)
    assert (filling[:, 0] - filling[:, 1]).max() < 60
    assert crop[64, 64].tolist() == [255, 0, 0]


def test_the_filling_leaves_the_photo_itself_alone() -> None:
    box, landmarks = box_around(np.array([40.0, 40.0]), FACE_SIDE), UPRIGHT - UPRIGHT.mean(axis=0) + 40
    crop, matrix = align_and_crop(photo(), box, landmarks, 280)
    wide = cv2.copyMakeBorder(photo(), 300, 300, 300, 300, cv2.BORDER_REPLICATE)
    whole, moved = align_and_crop(wide, box + 300, landmarks + 300, 280)
    inside = inside_mask(photo().shape[:2], matrix, 280)
    assert np.allclose(matrix[:, :2], moved[:, :2])
    assert np.abs(crop.astype(int) - whole.astype(int))[inside].max() <= 1
    assert np.abs(np.diff(crop.astype(int), axis=1)).max() < 60  # no seam


def test_hair_at_the_edge_does_not_grow_a_pillar() -> None:
    studio = np.full((300, 500, 3), 130, np.uint8)
    studio[:60, 200:300] = 5
    crop, matrix = align_and_crop(studio, [200, 60, 300, 200], UPRIGHT, 256, 0.33)
    outside = ~inside_mask(studio.shape[:2], matrix, 256)
    top = crop[:, 128, 0].astype(int)
    assert outside[0, 128]
    assert top[0] > 70  # the background's colour has come through
    assert crop[np.flatnonzero(~outside[:, 128])[0] + 3, 128, 0] < 20  # while the hair itself is untouched


@pytest.mark.parametrize("quarter", [0, 90, 180, 270, -90])
def test_quarter_turns_move_pixels_and_change_none(quarter: int) -> None:
    rgb_u8, points, matrix = rotate(photo(), [[10.0, 20.0]], quarter)
    assert (np.sort(rgb_u8, axis=None) == np.sort(photo(), axis=None)).all()
    x, y = np.rint(points[0]).astype(int)
    assert rgb_u8[y, x].tolist() == photo()[20, 10].tolist()
    assert np.allclose(map_points(invert(matrix), points), [[10, 20]])


@pytest.mark.parametrize(
    ("box", "ratio"), [([0, 0, 0, 10], 0.4), ([5, 5, 1, 9], 0.4), ([0, 0, 9, 9], 0.0), ([0, 0, 9, 9], 1.5)]
)
def test_boxes_and_ratios_that_cannot_be(box: list[float], ratio: float) -> None:
    with pytest.raises(ValueError, match="face ratio"):
        crop_matrix(box, UPRIGHT, 128, ratio)


def test_the_default_lies_in_the_papers_range() -> None:
    matrix = align_and_crop(photo(), box_around(FACE_CENTRE, FACE_SIDE), UPRIGHT, 100)[1]
    share = np.sqrt(np.linalg.det(matrix[:, :2])) * FACE_SIDE / 100
    assert FACE_RATIO_MIN <= share <= FACE_RATIO_MAX


POINTS = np.random.default_rng(3).uniform(0, 128, (68, 2))
AFFINE = st.builds(
    lambda values: np.array(values).reshape(2, 3),
    st.lists(st.floats(-3, 3), min_size=6, max_size=6),
).filter(lambda matrix: abs(np.linalg.det(matrix[:, :2])) > 1e-3)


@given(matrix=AFFINE)
@PROPERTY
def test_the_affine_of_points_and_their_affine_image_is_found(matrix: NDArray[np.float64]) -> None:
    np.testing.assert_allclose(affine_between(POINTS, map_points(matrix, POINTS)), matrix, atol=1e-6)


@given(matrix=AFFINE, change=st.lists(st.floats(-0.05, 0.05), min_size=6, max_size=6))
@PROPERTY
def test_no_other_affine_is_nearer(matrix: NDArray[np.float64], change: list[float]) -> None:
    target = map_points(matrix, POINTS) + np.random.default_rng(4).normal(0, 2, POINTS.shape)

    def error(candidate: NDArray[np.float64]) -> float:
        return float(np.square(map_points(candidate, POINTS) - target).sum())

    best = affine_between(POINTS, target)
    assert error(best) <= error(best + np.array(change).reshape(2, 3)) + 1e-6


@pytest.mark.parametrize("points", [np.zeros((68, 2)), POINTS * [1, 0], POINTS[:2], np.full((5, 2), np.nan)])
def test_points_on_one_line_have_no_affine(points: NDArray[np.float64]) -> None:
    with pytest.raises(ValueError, match="span a plane"):
        affine_between(points, points)
