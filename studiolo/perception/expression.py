"""How open eyes and mouth are, and whether a face smiles, from its mesh. Pure functions.

Ratios of distances within one face, taken in 3-D so that a turned head does not narrow them: no unit, no dependence on
size.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from studiolo.perception.pose import head_axes

# (outer corner, inner corner, upper lid, lower lid): three lid pairs an eye, as in the eye aspect ratio of Soukupova
# and Cech (2016).
_RIGHT_EYE = (33, 133, (160, 159, 158), (144, 145, 153))
_LEFT_EYE = (263, 362, (387, 386, 385), (373, 374, 380))
_MOUTH_RIGHT, _MOUTH_LEFT, _INNER_UPPER, _INNER_LOWER = 61, 291, 13, 14
_EYES_OUTER = (33, 263)
_UPPER_LIP_TOP, _LOWER_LIP_BOTTOM = 0, 17

_BROWS = (70, 63, 105, 66, 107, 336, 296, 334, 293, 300)
_EYES = (33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380)
_LIPS = (61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91, 13, 14, 78, 308)
_EYE_CORNERS = (33, 133, 362, 263)


@dataclass(frozen=True)
class Expression:
    """Measures of one face."""

    eye_openness: float
    """Eye aspect ratio, the mean of both eyes: about 0.1 shut, 0.25-0.4 open."""
    mouth_openness: float
    """Gap between the lips over the mouth's width: 0 shut, above 0.2 plainly open."""
    smile: float
    """Mouth's width over the distance of the outer eye corners, plus how far its corners are pulled up: grows with a
    smile.
    """


def expression_of(points_px: NDArray[np.float32]) -> Expression:
    """Expression of mesh points [468, 3]."""
    points = np.asarray(points_px, np.float64)
    eyes = (_eye_aspect_ratio(points, _RIGHT_EYE) + _eye_aspect_ratio(points, _LEFT_EYE)) / 2
    width = _distance(points, _MOUTH_RIGHT, _MOUTH_LEFT)
    across = max(_distance(points, *_EYES_OUTER), 1e-9)
    gap = _distance(points, _INNER_UPPER, _INNER_LOWER) / max(width, 1e-9)
    return Expression(eyes, gap, width / across + _lift(points) / across)


def expression_points(points_px: NDArray[np.float32]) -> NDArray[np.float32]:
    """Brows, eyes and lips [38, 2] of mesh points [468, 3] as seen from the front.

    The middle of the eyes is the origin, the distance of their outer corners the unit: neither the head's place and
    size nor, as far as the mesh is right, its turn is left in them.
    """
    points = np.asarray(points_px, np.float64)
    across = max(_distance(points, *_EYES_OUTER), 1e-9)
    centred = points[[*_BROWS, *_EYES, *_LIPS]] - points[list(_EYE_CORNERS)].mean(axis=0)
    return np.asarray(centred @ head_axes(points_px)[:2].T / across, np.float32)


def unusual_expressions(points_NK2: ArrayLike) -> NDArray[np.float64]:
    """How far each of one person's N faces is from that person's usual expression, the median of all: [N].

    `points_NK2`: `expression_points` of each, flat or not. Root mean square over the points, in distances of the outer
    eye corners: below 0.03 much like the usual face, a grimace or a wide open mouth above 0.04.
    """
    points = np.asarray(points_NK2, np.float64)
    points = points.reshape(len(points), -1, 2)
    offsets = points - np.median(points, axis=0)
    return np.asarray(np.sqrt((offsets**2).sum(axis=2).mean(axis=1)), np.float64)


def _eye_aspect_ratio(points: NDArray[np.float64], eye: tuple[int, int, tuple[int, ...], tuple[int, ...]]) -> float:
    outer, inner, upper, lower = eye
    heights = [_distance(points, up, low) for up, low in zip(upper, lower, strict=True)]
    return float(np.mean(heights)) / max(_distance(points, outer, inner), 1e-9)


def _lift(points: NDArray[np.float64]) -> float:
    """How far the mouth's corners lie above the middle of its lips, along the face's own vertical."""
    down = points[152] - points[10]
    down = down / max(float(np.linalg.norm(down)), 1e-9)
    middle = (points[_UPPER_LIP_TOP] + points[_LOWER_LIP_BOTTOM]) / 2
    corners = (points[_MOUTH_RIGHT] + points[_MOUTH_LEFT]) / 2
    return float((middle - corners) @ down)


def _distance(points: NDArray[np.float64], one: int, two: int) -> float:
    return float(np.linalg.norm(points[one] - points[two]))
