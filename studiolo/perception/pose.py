"""Where a head points, from its mesh. Pure functions.

The frame of the head is read off the points themselves: x from the person's right to the left over eight pairs of
mirrored points, y from the brow to the chin along the midline, made orthogonal to x. A turn is then the product roll
(in the picture), pitch, yaw.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_RIGHT = np.array([33, 133, 61, 234, 127, 93, 132, 58])
_LEFT = np.array([263, 362, 291, 454, 356, 323, 361, 288])
_TOP, _CHIN = 10, 152

PITCH_OF_LEVEL_DEG = 8.0
"""What the line from brow (10) to chin (152) leans in a face that looks straight ahead (median of ten studio
portraits); added to every pitch.
"""


@dataclass(frozen=True)
class Pose:
    """Angles of a head in degrees; all 0 = upright, facing the camera."""

    yaw_deg: float
    """-90..90; positive = turned towards the right of the picture."""
    pitch_deg: float
    """-90..90; positive = looking up."""
    roll_deg: float
    """-180..180; positive = tilted clockwise as seen."""


def pose_of(points_px: NDArray[np.float32]) -> Pose:
    """Pose of mesh points [468, 3] (pixels; z in the same unit, smaller is nearer)."""
    x, y, z = head_axes(points_px)
    yaw = np.degrees(np.arcsin(np.clip(x[2], -1, 1)))
    pitch = -np.degrees(np.arctan2(y[2], z[2]))  # who looks up has the chin nearer than the brow
    roll = np.degrees(np.arctan2(x[1], x[0]))
    return Pose(float(yaw), float(pitch) + PITCH_OF_LEVEL_DEG, float(roll))


def head_axes(points_px: NDArray[np.float32]) -> NDArray[np.float64]:
    """Rows [3, 3]: unit vectors to the person's left, down, and away from the camera, of mesh points [468, 3]."""
    points = np.asarray(points_px, np.float64)
    x = _unit((points[_LEFT] - points[_RIGHT]).mean(axis=0))
    y = points[_CHIN] - points[_TOP]
    y = _unit(y - (y @ x) * x)
    return np.stack([x, y, np.cross(x, y)])


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    return vector / max(float(np.linalg.norm(vector)), 1e-12)
