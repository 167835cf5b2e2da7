"""468 points on a face."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from studiolo.albums.geometry import invert, map_points
from studiolo.perception import chips
from studiolo.perception.runtime import LiteModel

RgbU8 = NDArray[np.uint8]

POINTS = 468
_SIDE_PX = 192
_FACE_SIDES = 1.5  # side of the crop over the longer side of the points' box: what MediaPipe's tracker crops
_EYES_TO_CROP = 3.9  # first crop: side over the distance from the eyes to the mouth, or between the eyes

RIGHT_EYE_OUTER, LEFT_EYE_OUTER = 33, 263


@dataclass(frozen=True, eq=False)
class Mesh:
    """A face as 468 points in MediaPipe's numbering."""

    points_px: NDArray[np.float32]
    """[468, 3]: x and y in the picture; z in the same unit, smaller is nearer, 0 about at the head's centre."""
    score: float
    """0..1: that there is a face."""


class Mesher(Protocol):
    """Fits the mesh to a face whose five points are known."""

    def __call__(self, rgb_u8: RgbU8, landmarks_px: ArrayLike) -> Mesh:
        """`rgb_u8` [H, W, 3], `landmarks_px` [5, 2] or [10] in the order of `records.FACE`."""
        ...


class EmbeddedMesher:
    """MediaPipe's face landmark model (468 points).

    The crop is a square turned so that the eyes lie level, as MediaPipe does it: first around the five points, then,
    as its tracker does from frame to frame, 1.5 times the longer side of the box of the points found. The second look
    makes the result almost independent of the first.
    """

    def __init__(self, model: LiteModel) -> None:
        self._model = model

    @classmethod
    def open(cls, folder: Path, threads: int = 1) -> Self:
        """From the weights folder of card `face-mesh`."""
        return cls(LiteModel(folder / "face_landmark.tflite", threads))

    def __call__(self, rgb_u8: RgbU8, landmarks_px: ArrayLike) -> Mesh:
        """See `Mesher`."""
        five = np.asarray(landmarks_px, np.float64).reshape(5, 2)
        first = self._look(rgb_u8, _crop_of_five(five))
        across = first.points_px[LEFT_EYE_OUTER, :2] - first.points_px[RIGHT_EYE_OUTER, :2]
        return self._look(rgb_u8, _crop_of_points(first.points_px[:, :2].astype(np.float64), across))

    def _look(self, rgb_u8: RgbU8, matrix: NDArray[np.float64]) -> Mesh:
        chip = chips.warp(rgb_u8, matrix, _SIDE_PX).astype(np.float32)[None] / np.float32(255)
        raw, logit = self._model(chip)
        points = raw.reshape(POINTS, 3).astype(np.float64)
        scale = max(chips.scale_of(matrix), 1e-9)
        in_photo = map_points(invert(matrix), points[:, :2])
        stacked = np.concatenate([in_photo, points[:, 2:] / scale], axis=1)
        return Mesh(stacked.astype(np.float32), float(1 / (1 + np.exp(-float(logit.reshape(-1)[0])))))


def _crop_of_five(five_N2: NDArray[np.float64]) -> NDArray[np.float64]:
    eyes, mouth = five_N2[:2].mean(axis=0), five_N2[3:].mean(axis=0)
    across, down = five_N2[1] - five_N2[0], mouth - eyes
    side = _EYES_TO_CROP * max(float(np.hypot(*across)), float(np.hypot(*down)), 1.0)
    # A profile's eyes nearly coincide: the line from the eyes to the mouth, turned back by a right angle, helps them
    # out.
    return _square((eyes + mouth) / 2, across + np.array([down[1], -down[0]]), side)


def _crop_of_points(points_N2: NDArray[np.float64], across: NDArray[np.float32]) -> NDArray[np.float64]:
    level = _square(np.zeros(2), np.asarray(across, np.float64), 1.0)[:, :2]
    turned = points_N2 @ level.T
    low, high = turned.min(axis=0), turned.max(axis=0)
    unit = float(_SIDE_PX)
    side = _FACE_SIDES * max(float((high - low).max()) / unit, 1.0)
    centre = np.linalg.inv(level) @ ((low + high) / 2)
    return _square(centre, np.asarray(across, np.float64), side)


def _square(centre: NDArray[np.float64], across: NDArray[np.float64], side: float) -> NDArray[np.float64]:
    """Matrix [2, 3] of the square crop of `side` around `centre` in which the direction `across` lies level."""
    length = max(float(np.hypot(*across)), 1e-9)
    cos, sin = across / length
    turn = np.array([[cos, sin], [-sin, cos]]) * (_SIDE_PX / side)
    shift = (_SIDE_PX - 1) / 2 - turn @ centre
    return np.concatenate([turn, shift[:, None]], axis=1)
