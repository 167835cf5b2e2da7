from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from studiolo.albums.decode import decode
from studiolo.albums.geometry import align_and_crop, map_points
from studiolo.albums.records import Fusion
from studiolo.perception.pose import Pose
from studiolo.perception.regions import OVAL
from studiolo.perception.suite import Suite, open_suite
from studiolo.portraits.fusion import (
    MAX_TURN_DEG,
    Template,
    best_template,
    fuse,
    fuse_template,
    in_look,
    open_templates,
)
from studiolo.settings import PerceptionSettings
from studiolo.training.looks import put_look

SEEING = PerceptionSettings(working_side_px=1024)
NAMES = ("expression-14-shocked.jpg", "expression-01-neutral.jpg", "portrait.jpg", "expression-12-pensive.jpg")

Picture = tuple[NDArray[np.uint8], NDArray[np.float64]]


@pytest.fixture(scope="module")
def suite() -> Suite:
    return open_suite("embedded")


def crop_of(path: Path, suite: Suite, face_ratio: float, side_px: int = 256) -> Picture:
    """A square crop around the photo's face, and its five points in it."""
    photo = decode(path.read_bytes(), SEEING)
    face = suite.detector(photo, SEEING.detector_score)[0]
    crop, matrix = align_and_crop(photo, face.bbox_xyxy_px, face.landmarks_px, side_px, face_ratio)
    return crop, map_points(matrix, face.landmarks_px)


@pytest.fixture(scope="module")
def portrait(people: Path, suite: Suite) -> Picture:
    """One person as the small base draws: without detail."""
    crop, landmarks = crop_of(people / "P001" / "portrait.jpg", suite, 0.7)
    return cv2.GaussianBlur(crop, (0, 0), 2.5), landmarks


@pytest.fixture(scope="module")
def templates(people: Path, suite: Suite) -> list[Template]:
    """Four photos of another person, the first one shocked."""
    crops = [crop_of(people / "P002" / name, suite, 0.35, 512)[0] for name in NAMES]
    return open_templates([(crop, 0.9) for crop in crops], suite, SEEING)


def points_of(portrait: Picture, suite: Suite) -> NDArray[np.float64]:
    return suite.mesher(*portrait).points_px.astype(np.float64)


def test_strength_0_and_failures_leave_every_byte(portrait: Picture, templates: list[Template], suite: Suite):
    rgb_u8, landmarks = portrait
    turned = [replace(item, pose=Pose(MAX_TURN_DEG + 20, 0.0, 0.0)) for item in templates]
    for outcome, points, faces, strength in (
        (Fusion.OFF, landmarks, templates, 0.0),
        (Fusion.NO_FACE, None, templates, 1.0),
        (Fusion.NO_TEMPLATE, landmarks, [], 1.0),
        (Fusion.NO_TEMPLATE, landmarks, turned, 1.0),
    ):
        image, fusion = fuse(rgb_u8, points, faces, suite.mesher, strength)
        assert (image is rgb_u8, fusion) == (True, outcome)
        assert bool(fusion.sentence()) == (outcome != Fusion.OFF)


def test_the_stronger_the_more_alike(portrait: Picture, templates: list[Template], suite: Suite, people: Path):
    other = crop_of(people / "P002" / "selfie.jpg", suite, 0.5)  # a photo that is no template
    wanted = suite.embedder(other[0], [other[1]])[0]
    distances = []
    for strength in (0.0, 0.5, 1.0):
        image, fusion = fuse(*portrait, templates, suite.mesher, strength)
        assert fusion == (Fusion.DONE if strength else Fusion.OFF)
        face = suite.detector(image, SEEING.detector_score)[0]
        distances.append(float(np.linalg.norm(suite.embedder(image, [face.landmarks_px])[0] - wanted)))
    assert distances[0] > distances[1] + 0.1
    assert distances[1] > distances[2]


def test_nothing_changes_outside_the_oval_and_detail_appears_within(
    portrait: Picture, templates: list[Template], suite: Suite
):
    rgb_u8, points = portrait[0], points_of(portrait, suite)
    fused = fuse_template(rgb_u8, points, templates[1], 1.0)
    assert fused is not None
    oval = np.zeros(rgb_u8.shape[:2], np.uint8)
    cv2.fillConvexPoly(oval, cv2.convexHull(points[:, :2].astype(np.float32)).astype(np.int32), 1)
    outside = cv2.dilate(oval, np.ones((5, 5), np.uint8)) == 0
    assert outside.mean() > 0.3
    np.testing.assert_array_equal(fused[outside], rgb_u8[outside])
    eyes = slice(int(points[[159, 386], 1].min()) - 8, int(points[[145, 374], 1].max()) + 8)
    detail = [cv2.Laplacian(image[eyes], cv2.CV_32F).std() for image in (rgb_u8, fused)]
    assert detail[1] > 2 * detail[0]
    np.testing.assert_array_equal(fused, fuse_template(rgb_u8, points, templates[1], 1.0))


def test_the_seam_is_no_step(portrait: Picture, templates: list[Template], suite: Suite):
    dark, points = (portrait[0] * 0.4).astype(np.uint8), points_of(portrait, suite)
    fused = fuse_template(dark, points, templates[1], 1.0)
    assert fused is not None
    cheeks = points[[50, 280], :2].astype(int)
    for x, y in cheeks:
        change = fused[y - 4 : y + 4, x - 4 : x + 4].mean() - dark[y - 4 : y + 4, x - 4 : x + 4].mean()
        assert abs(change) < 25  # the photo itself is 60 to 100 brighter
    outline = np.zeros(dark.shape[:2], np.uint8)
    cv2.polylines(outline, [points[list(OVAL), :2].astype(np.int32)], True, 1, 5)
    steps = [np.abs(np.diff(image.astype(int), axis=1))[outline[:, 1:] > 0].max() for image in (dark, fused)]
    assert steps[1] < steps[0] + 12


def test_a_portrait_without_colours_stays_without(portrait: Picture, templates: list[Template], suite: Suite):
    grey = np.repeat(cv2.cvtColor(portrait[0], cv2.COLOR_RGB2GRAY)[..., None], 3, axis=-1)
    fused = fuse_template(grey, points_of(portrait, suite), templates[1], 1.0)
    assert fused is not None
    assert np.ptp(fused.astype(int), axis=-1).max() <= 4


def test_a_drawing_gets_a_drawn_face(portrait: Picture, templates: list[Template], suite: Suite):
    rgb_u8, landmarks = portrait
    drawing = put_look(rgb_u8, "pencil drawing")
    drawn = in_look(templates, "pencil drawing")
    fused, outcome = fuse(drawing, landmarks, drawn, suite.mesher, 1.0)
    assert outcome == Fusion.DONE
    assert np.ptp(fused.astype(int), axis=-1).max() <= 2  # as grey as the drawing
    assert in_look(templates, "studio backdrop, grey background") == templates


def test_good_calm_photos_turned_alike_are_chosen(templates: list[Template]):
    ahead = Pose(0.0, 0.0, 0.0)
    shocked, neutral = templates[:2]
    assert best_template(templates, ahead) is not shocked
    assert best_template([shocked, neutral], ahead) is neutral
    poor, good = replace(neutral, quality_score=0.5), replace(neutral, quality_score=0.7)
    assert best_template([poor, good], ahead) is good
    left, right = replace(good, pose=Pose(-15.0, 0.0, 0.0)), replace(good, pose=Pose(20.0, 0.0, 0.0))
    assert best_template([left, right], Pose(8.0, 0.0, 0.0)) is right
    assert best_template([left, right], Pose(-8.0, 0.0, 0.0)) is left


def test_a_crop_without_a_face_is_no_template(suite: Suite, templates: list[Template]):
    blank = np.full((512, 512, 3), 128, np.uint8)
    assert open_templates([(blank, 1.0)], suite, SEEING) == []
    found = open_templates([(blank, 1.0), (templates[1].rgb_u8, 0.6)], suite, SEEING)
    assert [(item.quality_score, item.expression_l2) for item in found] == [(0.6, 0.0)]


@pytest.mark.parametrize("shift", [(150, 0), (-150, 0), (0, 90), (400, 400)])
def test_a_face_beyond_the_picture_is_no_error(
    portrait: Picture, templates: list[Template], suite: Suite, shift: tuple[int, int]
):
    points = points_of(portrait, suite)
    points[:, :2] += shift
    fused = fuse_template(portrait[0], points, templates[1], 1.0)
    assert (fused is None) == (shift == (400, 400))
