"""How long, wide or full the parts of a face are, from its mesh as the picture shows it. Pure functions.

Each measure is a ratio of two distances within one face that looks straight ahead, with a neutral expression: a turned
head and a smile change them more than faces differ. What counts as wide is what is wider than in three faces of four.
The distance of the eyes and the height of the brows are not among them: between photos of one person they vary by 0.7
and 1.1 of what they vary by among people (docs/LOG.md).
"""

from dataclasses import dataclass
from math import erf, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

_TOP, _CHIN, _RIGHT, _LEFT = 10, 152, 234, 454
_NOSE_WINGS, _NOSE_TOP, _NOSE_BASE = (64, 294), 168, 2
_MOUTH, _UPPER_LIP, _LOWER_LIP = (61, 291), (0, 13), (14, 17)


@dataclass(frozen=True)
class Shape:
    """What is usual of one measure."""

    low: float
    """A quarter of all faces lies below."""
    high: float
    """A quarter of all faces lies above."""
    noise: float
    """Standard deviation between photos of one person."""

    def confidence(self, value: float) -> tuple[float, float]:
        """How sure a measured `value` is that the face belongs to the low and to the high quarter, each 0..1."""
        return _normal((self.low - value) / self.noise), _normal((value - self.high) / self.noise)


SHAPES = {
    "face_length": Shape(1.166, 1.233, 0.030),
    "nose_width": Shape(0.258, 0.279, 0.0058),
    "nose_length": Shape(0.302, 0.319, 0.0067),
    "mouth_width": Shape(0.354, 0.383, 0.0115),
    "lip_fullness": Shape(0.267, 0.316, 0.019),
}
"""Measured by `benchmarks.dataset_truth`: quartiles of synthetic faces, noise of ten people's photos."""


def measures_of(mesh_px: ArrayLike) -> dict[str, float]:
    """The measures in `SHAPES` of mesh points [468, 2] or flat, in pixels of one picture."""
    points = np.asarray(mesh_px, np.float64).reshape(468, -1)[:, :2]
    width, height = _distance(points, _RIGHT, _LEFT), _distance(points, _TOP, _CHIN)
    mouth = _distance(points, *_MOUTH)
    return {
        "face_length": height / width,
        "nose_width": _distance(points, *_NOSE_WINGS) / width,
        "nose_length": _distance(points, _NOSE_TOP, _NOSE_BASE) / height,
        "mouth_width": mouth / width,
        "lip_fullness": (_distance(points, *_UPPER_LIP) + _distance(points, *_LOWER_LIP)) / mouth,
    }


def _distance(points: NDArray[np.float64], one: int, two: int) -> float:
    return max(float(np.linalg.norm(points[one] - points[two])), 1e-9)


def _normal(z: float) -> float:
    """Share of a normal distribution below `z` standard deviations."""
    return 0.5 * (1 + erf(z / sqrt(2)))
