"""Masks of class ids, drawn: as colours over a picture, and as outlines. Pure functions."""

import io

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from studiolo.datasets.captions.captioner import Row
from studiolo.perception.regions import Region

COLOURS: dict[Region, tuple[int, int, int]] = {
    Region.SKIN: (236, 178, 92),
    Region.BROWS: (120, 86, 196),
    Region.EYES: (46, 134, 222),
    Region.NOSE: (60, 176, 122),
    Region.LIPS: (226, 72, 92),
    Region.HAIR: (150, 98, 62),
    Region.BODY: (120, 128, 140),
}
"""One colour a class, RGB."""

_SMALLEST_PX2 = 12.0
_ROUGH_PX = 0.75


def picture_and_mask(row: Row) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A row's picture [side, side, 3] and its class ids [side, side]."""
    picture = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")
    return np.asarray(picture), np.asarray(Image.open(io.BytesIO(row["mask"]["bytes"])))


def painted(rgb_u8: NDArray[np.uint8], regions_u8: NDArray[np.uint8], strength: float = 0.55) -> NDArray[np.uint8]:
    """The picture [H, W, 3] with each class of the mask [H, W] in its colour, background as it is."""
    colours = np.zeros((256, 3), np.float32)
    for region, colour in COLOURS.items():
        colours[int(region)] = colour
    share = strength * (regions_u8 > 0)[..., None]
    return np.rint(rgb_u8 * (1 - share) + colours[regions_u8] * share).astype(np.uint8)


def outlines(regions_u8: NDArray[np.uint8]) -> dict[Region, list[NDArray[np.int32]]]:
    """The rings [N, 2] around each class that a mask [H, W] holds, holes too, in px; a little simplified, specks left
    out. Filled by the even-odd rule they are the class.
    """
    found = {}
    for region in COLOURS:
        mask = (regions_u8 == region).astype(np.uint8)
        rings, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        simple = [cv2.approxPolyDP(ring, _ROUGH_PX, True)[:, 0] for ring in rings if len(ring) > 2]
        kept = [ring.astype(np.int32) for ring in simple if len(ring) > 2 and cv2.contourArea(ring) >= _SMALLEST_PX2]
        if kept:
            found[region] = kept
    return found
