"""Even skin, in the manner of FaceChain's retouching (section 2.1.1), by frequencies instead of a network.

Blotches are of a middle size: the skin's fine grain (pores) is set aside, what is left is smoothed by a bilateral
filter, which stops at edges, and the grain is put back. Skin gets neither lighter nor of another colour: the mean
colour of what is retouched stays.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from studiolo.perception.regions import Region

RgbU8 = NDArray[np.uint8]

SKIN = (Region.SKIN, Region.NOSE)
"""What is retouched; brows, eyes, lips and all else keep their bytes."""

_GRAIN, _BLOTCH, _FEATHER = 0.006, 0.05, 0.02  # of the skin's extent, the root of its area
_EDGE = 0.12  # of the range 0..1: a step of this size is kept


def retouch(rgb_u8: RgbU8, regions_u8: NDArray[np.uint8], strength: float) -> RgbU8:
    """The picture [H, W, 3] with evener skin where `regions_u8` [H, W] shows it; `strength` 0 (the same bytes) to 1.

    Pixels outside the skin keep their bytes.
    """
    skin = np.isin(regions_u8, [int(region) for region in SKIN])
    extent_px = float(np.sqrt(skin.sum()))
    if strength == 0 or extent_px < 8:
        return rgb_u8
    picture = rgb_u8.astype(np.float32) / 255
    coarse = cv2.GaussianBlur(picture, (0, 0), max(_GRAIN * extent_px, 0.5))
    even = cv2.bilateralFilter(coarse, -1, _EDGE, max(_BLOTCH * extent_px, 1.0))
    depth_px = cv2.distanceTransform(skin.astype(np.uint8), cv2.DIST_L2, 3)
    share = strength * np.clip(depth_px / max(_FEATHER * extent_px, 1.0), 0, 1)[..., None]
    change = share * (even - coarse)
    change -= share * (change[skin].sum(axis=0) / max(float(share[skin].sum()), 1e-9))
    return np.asarray(np.rint(np.clip(picture + change, 0, 1) * 255), np.uint8)
