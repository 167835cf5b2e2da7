"""A perceptual hash: 64 bits that stay nearly the same when a picture is scaled, compressed or toned."""

import cv2
import numpy as np
from numpy.typing import NDArray

_SIDE_PX = 32
_KEPT = 8


def perceptual_hash(rgb_u8: NDArray[np.uint8]) -> str:
    """16 hex digits for the picture [H, W, 3]: which of its 64 lowest frequencies are above their median.

    The discrete cosine transform of the luma at 32 px (Zauner 2010, "pHash"). Compare two by the bits they differ in.
    """
    luma = cv2.cvtColor(np.ascontiguousarray(rgb_u8), cv2.COLOR_RGB2GRAY)
    small = cv2.resize(luma, (_SIDE_PX, _SIDE_PX), interpolation=cv2.INTER_AREA).astype(np.float32)
    lowest = cv2.dct(small)[:_KEPT, :_KEPT]
    return np.packbits(lowest > np.median(lowest)).tobytes().hex()
