"""Small aligned pictures that models take in, and the matrices that cut them.

A matrix [2, 3] maps a point of the photo to a point of the chip; the centre of the first pixel is (0, 0).
"""

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from studiolo.albums.geometry import invert, map_points

RgbU8 = NDArray[np.uint8]

_MAX_SHRINK = 16


def similarity_matrix(from_N2: ArrayLike, to_N2: ArrayLike) -> NDArray[np.float64]:
    """The turn, scale and shift [2, 3] that carries `from_N2` closest to `to_N2`, both [N, 2], N >= 2 (Umeyama, 1991).

    Without a mirror image: two points already fix it. Coinciding points give a matrix of scale 0.
    """
    source, target = np.asarray(from_N2, np.float64), np.asarray(to_N2, np.float64)
    a, b = source - source.mean(axis=0), target - target.mean(axis=0)
    norm = max(float((a**2).sum()), 1e-12)
    cos = float((a * b).sum()) / norm
    sin = float((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum()) / norm
    turn = np.array([[cos, -sin], [sin, cos]])
    return np.concatenate([turn, (target.mean(axis=0) - turn @ source.mean(axis=0))[:, None]], axis=1)


def square_matrix(
    photo_hw_px: tuple[int, int], bbox_xyxy_px: ArrayLike, roll_deg: float, side_px: int, face_ratio: float
) -> NDArray[np.float64]:
    """Matrix [2, 3] from the photo to an upright square of `side_px` around a face that is turned by `roll_deg`.

    The longer side of the face's box becomes `face_ratio` (0..1) of the square's, or more where the photo is smaller
    than that. The square is moved into the photo where it fits, so that a close-up is not surrounded by invented
    pixels.
    """
    height, width = photo_hw_px
    box = np.asarray(bbox_xyxy_px, np.float64)
    side = min(float((box[2:] - box[:2]).max()) / face_ratio, float(min(height, width)))
    limits = np.array([width, height], np.float64)
    centre = np.clip((box[:2] + box[2:]) / 2, side / 2, limits - side / 2)
    angle = np.radians(-roll_deg)
    scale = side_px / side
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.concatenate([turn, ((side_px - 1) / 2 - turn @ centre)[:, None]], axis=1)


def scale_of(matrix: ArrayLike) -> float:
    """Chip pixels per photo pixel."""
    return float(np.sqrt(abs(np.linalg.det(np.asarray(matrix, np.float64)[:, :2]))))


def warp(rgb_u8: RgbU8, matrix: ArrayLike, side_px: int) -> RgbU8:
    """The chip [side_px, side_px, 3]. A shrunk one is averaged over blocks, so that nothing aliases; beyond the photo
    its border continues.
    """
    m = np.asarray(matrix, np.float64)
    # A chip of a 1200 px face sampled bilinearly sees one pixel in 60: sample at the photo's own scale, then average.
    blocks = int(np.clip(np.ceil(1 / max(scale_of(m), 1e-6)), 1, _MAX_SHRINK))
    fine = m * blocks
    fine[:, 2] += (blocks - 1) / 2
    size = (side_px * blocks, side_px * blocks)
    wide = cv2.warpAffine(rgb_u8, fine, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    chip = wide if blocks == 1 else cv2.resize(wide, (side_px, side_px), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(chip, np.uint8)


def inside(photo_hw_px: tuple[int, int], matrix: ArrayLike, side_px: int) -> NDArray[np.bool_]:
    """Which pixels [side_px, side_px] of a chip show the photo and not what continues its border."""
    x, y = np.meshgrid(np.arange(side_px), np.arange(side_px))
    source = map_points(invert(matrix), np.stack([x, y], axis=-1))
    limits = np.array([photo_hw_px[1], photo_hw_px[0]]) - 0.5
    return np.asarray(((source >= -0.5) & (source <= limits)).all(axis=-1))


# Where the five points lie on dlib's mean face (0..1 across the brows, `get_face_chip_details` and the 68-point
# `mean_face_shape` of dlib). dlib itself aligns by eye corners and the nose's base, which a five-point detector does
# not give. The centres of the mean face's six eye points, its nose tip (point 30) and its mouth corners (48, 54) are
# the same face in the same frame, so chips come out as dlib's own.
_MEAN_FACE_N2 = np.array(
    [[0.225490, 0.215992], [0.754765, 0.215992], [0.490127, 0.515625], [0.254149, 0.780233], [0.726104, 0.780233]]
)


def dlib_chip_matrix(landmarks_px: ArrayLike, side_px: int, padding: float) -> NDArray[np.float64]:
    """Matrix [2, 3] of a dlib face chip of `side_px` with `padding` (share of the mean face's width added on each
    side).

    `landmarks_px` [5, 2] or [10] in the order of `records.FACE`: right eye, left eye, nose, right and left mouth
    corner.
    """
    target = (padding + _MEAN_FACE_N2) / (2 * padding + 1) * side_px
    return similarity_matrix(np.asarray(landmarks_px, np.float64).reshape(5, 2), target)
