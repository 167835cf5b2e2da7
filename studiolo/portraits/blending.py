"""A drawn face back into the picture it was cut out for: placed, feathered, blended. Pure functions.

Coordinates as in `studiolo.albums.geometry`: a matrix [2, 3] maps a point of the picture to a point of the crop.
"""

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from studiolo.albums.geometry import invert
from studiolo.perception.chips import scale_of

RgbU8 = NDArray[np.uint8]


def enlarged(matrix: ArrayLike, factor: float) -> NDArray[np.float64]:
    """The matrix [2, 3] to a crop whose side is `factor` times as long, of the same part of the picture."""
    made = np.asarray(matrix, np.float64) * factor
    made[:, 2] += (factor - 1) / 2
    return made


def placed(crop_rgb_u8: RgbU8, matrix: ArrayLike, hw_px: tuple[int, int]) -> RgbU8:
    """A crop [S, S, 3] where `matrix` took it from, in a picture [H, W, 3]; around it its border continues."""
    back = invert(matrix)
    scale = scale_of(back)
    if scale < 1:  # averaged first, so that nothing aliases
        side = max(1, round(len(crop_rgb_u8) * scale))
        back = invert(enlarged(matrix, side / len(crop_rgb_u8)))
        crop_rgb_u8 = np.asarray(cv2.resize(crop_rgb_u8, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
    size = (hw_px[1], hw_px[0])
    wide = cv2.warpAffine(crop_rgb_u8, back, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(wide, np.uint8)


def placed_mask(mask: NDArray[np.bool_], matrix: ArrayLike, hw_px: tuple[int, int]) -> NDArray[np.bool_]:
    """A mask [S, S] of a crop in the picture [H, W]; False beyond the crop."""
    size = (hw_px[1], hw_px[0])
    wide = cv2.warpAffine(mask.astype(np.float32), invert(matrix), size, flags=cv2.INTER_LINEAR)
    return np.asarray(wide > 0.5)


def feathered(mask: NDArray[np.bool_], width_px: float) -> NDArray[np.float32]:
    """How much is seen of what is drawn, 0..1 [H, W]: 0 outside `mask`, rising within it over `width_px` to 1."""
    if not mask.any():
        return np.zeros(mask.shape, np.float32)
    inside_px = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    t = np.clip(inside_px / max(width_px, 1.0), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def blend(rgb_u8: RgbU8, drawn_rgb_u8: RgbU8, seen: NDArray[np.float32]) -> RgbU8:
    """`rgb_u8` with `seen` [H, W] (0..1) of `drawn_rgb_u8`, all [H, W, 3]; where nothing is seen no byte changes."""
    share = seen[..., None]
    mixed = np.rint(rgb_u8 * (1 - share) + drawn_rgb_u8 * share)
    return np.where(share > 0, np.clip(mixed, 0, 255), rgb_u8).astype(np.uint8)
