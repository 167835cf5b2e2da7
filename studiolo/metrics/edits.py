"""How well a face was drawn into a template. Pure functions."""

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

RgbU8 = NDArray[np.uint8]

_OUTER_EYE_CORNERS = (36, 45)


def landmark_distance(landmarks_px: ArrayLike, others_px: ArrayLike) -> float:
    """Mean distance of 68 landmarks [68, 2] from `others_px` [68, 2], in distances between the latter's outer eye
    corners.
    """
    ours, others = (np.asarray(points, np.float64).reshape(68, 2) for points in (landmarks_px, others_px))
    right, left = others[list(_OUTER_EYE_CORNERS)]
    return float(np.linalg.norm(ours - others, axis=1).mean() / max(float(np.linalg.norm(left - right)), 1e-9))


def seam_error(template_rgb_u8: RgbU8, drawn_rgb_u8: RgbU8, mask: NDArray[np.bool_], width_px: float) -> float:
    """Mean difference, in grey levels (0..255), of what was drawn from the template where both meet: outside `mask`
    [H, W], up to `width_px` away from it. 0 where nothing lies outside.

    It is measured before both are blended, which hides a seam and leaves a halo of it.
    """
    outside = (~mask).astype(np.uint8)
    away_px = cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    band = (outside > 0) & (away_px <= width_px)
    if not band.any():
        return 0.0
    return float(np.abs(template_rgb_u8[band].astype(float) - drawn_rgb_u8[band]).mean())
