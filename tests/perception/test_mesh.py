import numpy as np
import pytest

from studiolo.perception.detect import RgbU8
from studiolo.perception.expression import expression_of
from studiolo.perception.mesh import POINTS
from studiolo.perception.pose import pose_of
from studiolo.perception.suite import Suite

Photos = dict[tuple[str, str], RgbU8]


def test_points_lie_in_the_face(suite: Suite, photos: Photos):
    for photo in photos.values():
        face = suite.detector(photo, 0.7)[0]
        mesh = suite.mesher(photo, face.landmarks_px)
        low, high = face.bbox_xyxy_px[:2], face.bbox_xyxy_px[2:]
        slack = 0.25 * (high - low)
        assert mesh.points_px.shape == (POINTS, 3)
        assert mesh.score > 0.9
        assert (mesh.points_px[:, :2] > low - slack).all()
        assert (mesh.points_px[:, :2] < high + slack).all()
        eyes = np.stack([mesh.points_px[[33, 133], :2].mean(axis=0), mesh.points_px[[263, 362], :2].mean(axis=0)])
        assert np.abs(eyes - face.landmarks_px[:2]).max() < 0.08 * float((high - low).max())


def test_two_looks_forget_where_the_first_began(suite: Suite, photos: Photos):
    photo = photos["P001", "portrait.jpg"]
    face = suite.detector(photo, 0.7)[0]
    side = float((face.bbox_xyxy_px[2:] - face.bbox_xyxy_px[:2]).max())
    moved = face.landmarks_px + 0.04 * side
    difference = suite.mesher(photo, face.landmarks_px).points_px - suite.mesher(photo, moved).points_px
    assert np.abs(difference[:, :2]).mean() < 0.01 * side


def test_mirror_flips_yaw_and_roll_and_keeps_pitch_and_expression(suite: Suite, photos: Photos):
    for photo in photos.values():
        mirrored = np.ascontiguousarray(photo[:, ::-1])
        poses, expressions = [], []
        for picture in (photo, mirrored):
            points = suite.mesher(picture, suite.detector(picture, 0.7)[0].landmarks_px).points_px
            poses.append(pose_of(points))
            expressions.append(expression_of(points))
        assert poses[1].yaw_deg == pytest.approx(-poses[0].yaw_deg, abs=4)
        assert poses[1].roll_deg == pytest.approx(-poses[0].roll_deg, abs=2)
        assert poses[1].pitch_deg == pytest.approx(poses[0].pitch_deg, abs=4)
        assert expressions[1].smile == pytest.approx(expressions[0].smile, abs=0.06)
        assert expressions[1].eye_openness == pytest.approx(expressions[0].eye_openness, abs=0.05)
