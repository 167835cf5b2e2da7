import numpy as np
import pytest
from numpy.typing import NDArray

from studiolo.perception.expression import expression_of
from studiolo.perception.mesh import POINTS
from studiolo.perception.pose import _LEFT, _RIGHT, pose_of


def _turned(yaw_deg: float, pitch_deg: float, roll_deg: float) -> NDArray[np.float32]:
    """A stick head (pairs of mirrored points, a straight midline) turned by known angles."""
    points = np.zeros((POINTS, 3))
    for number, (right, left) in enumerate(zip(_RIGHT, _LEFT, strict=True)):
        points[right], points[left] = (-30, 5 * number, 0), (30, 5 * number, 0)
    points[10], points[152] = (0, -50, 0), (0, 50, 0)
    y, p, r = np.radians([yaw_deg, pitch_deg, roll_deg])
    about_y = np.array([[np.cos(y), 0, -np.sin(y)], [0, 1, 0], [np.sin(y), 0, np.cos(y)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(p), np.sin(p)], [0, -np.sin(p), np.cos(p)]])
    about_z = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    return (points @ (about_z @ about_y @ about_x).T).astype(np.float32)


@pytest.mark.parametrize(
    "angles", [(0, 0, 0), (30, 0, 0), (-30, 0, 0), (0, 20, 0), (0, -20, 0), (0, 0, 40), (20, 10, -15)]
)
def test_known_turns_are_read_back(angles: tuple[float, float, float]):
    level = pose_of(_turned(0, 0, 0))
    pose = pose_of(_turned(*angles))
    assert pose.yaw_deg == pytest.approx(angles[0], abs=0.1)
    assert pose.pitch_deg - level.pitch_deg == pytest.approx(angles[1], abs=0.1)
    assert pose.roll_deg == pytest.approx(angles[2], abs=0.1)


def test_a_chin_that_comes_nearer_looks_up():
    points = _turned(0, 0, 0)
    points[152, 2] -= 40  # towards the camera
    assert pose_of(points).pitch_deg > pose_of(_turned(0, 0, 0)).pitch_deg + 15


def test_expression_has_no_unit():
    points = np.random.default_rng(0).normal(size=(POINTS, 3)).astype(np.float32) * 40
    one, scaled = expression_of(points), expression_of(points * 3 + 100)
    assert scaled.eye_openness == pytest.approx(one.eye_openness, rel=1e-3)
    assert scaled.mouth_openness == pytest.approx(one.mouth_openness, rel=1e-3)
    assert scaled.smile == pytest.approx(one.smile, rel=1e-3)
