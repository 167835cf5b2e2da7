import numpy as np
import pytest

from studiolo.perception.detect import RgbU8
from studiolo.perception.expression import Expression, expression_of, expression_points, unusual_expressions
from studiolo.perception.suite import Suite

Photos = dict[tuple[str, str], RgbU8]
Meshes = dict[tuple[str, str], np.ndarray]


@pytest.fixture(scope="module")
def meshes(suite: Suite, photos: Photos) -> Meshes:
    return {key: _mesh(suite, photo) for key, photo in photos.items()}


def _mesh(suite: Suite, photo: RgbU8) -> np.ndarray:
    return suite.mesher(photo, suite.detector(photo, 0.7)[0].landmarks_px).points_px


def values(expression: Expression) -> tuple[float, float, float]:
    return expression.eye_openness, expression.mouth_openness, expression.smile


def test_happy_smiles_and_shocked_opens_the_mouth(meshes: Meshes):
    for person in ("P001", "P002"):
        calm = expression_of(meshes[person, "portrait.jpg"])
        assert expression_of(meshes[person, "expression-02-happy.jpg"]).smile > calm.smile + 0.1
        assert expression_of(meshes[person, "expression-14-shocked.jpg"]).mouth_openness > calm.mouth_openness + 0.1


def test_neither_size_nor_place_nor_a_turn_in_the_picture_matters(meshes: Meshes):
    angle = np.radians(35)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    for points in meshes.values():
        moved = (points @ turn.T * 0.37 + np.array([120, -45, 9])).astype(np.float32)
        assert values(expression_of(moved)) == pytest.approx(values(expression_of(points)), abs=1e-3)


def test_closing_the_lids_closes_the_eyes_and_nothing_else(meshes: Meshes):
    points = meshes["P001", "portrait.jpg"]
    shut = points.copy()
    lids = {160: 144, 159: 145, 158: 153, 387: 373, 386: 374, 385: 380}
    for upper, lower in lids.items():
        shut[upper] = shut[lower]
    was, now = expression_of(points), expression_of(shut)
    assert now.eye_openness == pytest.approx(0, abs=1e-6)
    assert was.eye_openness > 0.2
    assert (now.mouth_openness, now.smile) == (was.mouth_openness, was.smile)


def test_a_mirrored_photo_has_the_same_expression(suite: Suite, photos: Photos, meshes: Meshes):
    for key in (("P001", "expression-02-happy.jpg"), ("P002", "portrait.jpg")):
        mirrored = expression_of(_mesh(suite, photos[key][:, ::-1].copy()))
        assert values(mirrored) == pytest.approx(values(expression_of(meshes[key])), abs=0.06)


def test_expression_points_forget_place_size_and_turn_of_the_head(meshes: Meshes):
    yaw, roll = np.radians(20), np.radians(35)
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]]) @ np.array(
        [[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]]
    )
    for points in meshes.values():
        moved = (points @ turn.T * 0.37 + np.array([120, -45, 9])).astype(np.float32)
        assert expression_points(moved) == pytest.approx(expression_points(points), abs=1e-4)


def test_the_usual_expression_is_the_one_most_photos_show(meshes: Meshes):
    for person in ("P001", "P002"):
        calm = expression_points(meshes[person, "portrait.jpg"])
        shocked = expression_points(meshes[person, "expression-14-shocked.jpg"])
        happy = expression_points(meshes[person, "expression-02-happy.jpg"])
        unusual = unusual_expressions([calm, shocked, calm * 1.01, happy, calm * 0.99])
        assert unusual[[0, 2, 4]].max() < 0.03
        assert unusual[1] > 0.04
        assert unusual[1] > unusual[3] > unusual[0]


def test_one_photo_alone_is_usual(meshes: Meshes):
    points = expression_points(meshes["P001", "portrait.jpg"]).reshape(-1)
    assert unusual_expressions([points]).tolist() == [0.0]
