"""What each pixel of an aligned crop shows: face parts from mesh polygons, the head from the person mask.

Hair is the head minus the face's oval. The mask tells a person from the background and nothing more, so the head ends
at the chin: a person's pixels above the chin and near the face are hair (ears too: the suite does not know ears), all
others body. Long hair on the shoulders is therefore body, and a hat is hair. A fringe over the forehead counts as
skin: the oval lies beneath it.
"""

from enum import IntEnum
from pathlib import Path
from typing import Protocol, Self

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from studiolo.perception.mesh import Mesh, Mesher
from studiolo.perception.runtime import LiteModel

RgbU8 = NDArray[np.uint8]


class Region(IntEnum):
    """Class ids of a mask [H, W] uint8."""

    BACKGROUND = 0
    SKIN = 1
    """Of the face, within its oval."""
    BROWS = 2
    EYES = 3
    NOSE = 4
    LIPS = 5
    """With the open mouth between them."""
    HAIR = 6
    BODY = 7
    """Neck, clothes and all else of the person."""


HEAD = (Region.SKIN, Region.BROWS, Region.EYES, Region.NOSE, Region.LIPS, Region.HAIR)
"""What belongs to an identity."""

OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
_POLYGONS: tuple[tuple[Region, tuple[int, ...]], ...] = (
    (
        Region.NOSE,
        (168, 193, 245, 188, 174, 198, 209, 49, 64, 98, 97, 2, 326, 327, 294, 279, 429, 420, 399, 412, 465, 417),
    ),
    (Region.BROWS, (46, 53, 52, 65, 55, 107, 66, 105, 63, 70)),
    (Region.BROWS, (276, 283, 282, 295, 285, 336, 296, 334, 293, 300)),
    (Region.EYES, (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)),
    (Region.EYES, (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)),
    (Region.LIPS, (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)),
)
"""Polygons of the mesh, painted over the skin in this order."""

_CHIN, _TOP = 152, 10
_MASK_SIDE_PX = 256
_PERSON = 0.5
_HAIR_REACH = 0.5  # how far beside the face hair may lie, in widths of the face, at the height of the eyes and above
_HAIR_REACH_AT_CHIN = 0.12


class PersonMask(Protocol):
    """Tells people from the background."""

    def __call__(self, rgb_u8: RgbU8) -> NDArray[np.float32]:
        """Probability [H, W] in 0..1 that a pixel of `rgb_u8` [H, W, 3] belongs to a person."""
        ...


class EmbeddedPersonMask:
    """MediaPipe's selfie segmentation at 256 px."""

    def __init__(self, model: LiteModel) -> None:
        self._model = model

    @classmethod
    def open(cls, folder: Path, threads: int = 1) -> Self:
        """From the weights folder of card `selfie-segmentation`."""
        return cls(LiteModel(folder / "selfie_segmentation.tflite", threads))

    def __call__(self, rgb_u8: RgbU8) -> NDArray[np.float32]:
        """See `PersonMask`."""
        height, width = rgb_u8.shape[:2]
        shrink = cv2.INTER_AREA if min(height, width) > _MASK_SIDE_PX else cv2.INTER_LINEAR
        small = cv2.resize(rgb_u8, (_MASK_SIDE_PX, _MASK_SIDE_PX), interpolation=shrink)
        probability = self._model(small.astype(np.float32)[None] / 255)[0][0, ..., 0]
        return np.clip(cv2.resize(probability, (width, height), interpolation=cv2.INTER_LINEAR), 0, 1).astype(
            np.float32
        )


class EmbeddedRegions:
    """Regions from the mesh and the person mask."""

    def __init__(self, mesher: Mesher, person: PersonMask) -> None:
        self._mesher = mesher
        self._person = person

    def __call__(self, rgb_u8: RgbU8, landmarks_px: ArrayLike, /) -> NDArray[np.uint8]:
        """Class ids [H, W] of `Region` for an upright crop [H, W, 3] whose face has the five points [5, 2]."""
        return paint_regions(self._mesher(rgb_u8, landmarks_px), self._person(rgb_u8))


def paint_regions(mesh: Mesh, person: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Class ids [H, W] of an upright crop from its mesh (points in the crop) and person probabilities [H, W]."""
    points = mesh.points_px[:, :2]
    regions = np.where(person >= _PERSON, Region.BODY, Region.BACKGROUND).astype(np.uint8)
    regions[(regions == Region.BODY) & _around_head(points, person.shape)] = Region.HAIR
    _paint(regions, points, OVAL, Region.SKIN)
    for region, outline in _POLYGONS:
        _paint(regions, points, outline, region)
    return regions


def head_mask(regions: NDArray[np.uint8]) -> NDArray[np.float32]:
    """1 where `regions` [H, W] shows the head (face and hair), 0 elsewhere; float32 [H, W], for the masked loss."""
    return np.isin(regions, [int(region) for region in HEAD]).astype(np.float32)


def _paint(regions: NDArray[np.uint8], points: NDArray[np.float32], outline: tuple[int, ...], region: Region) -> None:
    polygon = np.clip(np.rint(points[list(outline)]), -(2**14), 2**14).astype(np.int32)
    cv2.fillPoly(regions, [polygon], int(region))


def _around_head(points: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Where hair may be [H, W]: above the chin, and the nearer to the chin the closer to the face, to keep shoulders
    out.
    """
    oval = points[list(OVAL)].astype(np.float64)
    left, right = oval[:, 0].min(), oval[:, 0].max()
    face_width, centre_x = max(right - left, 1.0), (left + right) / 2
    eye_y, chin_y = float(points[[33, 263], 1].mean()), float(points[_CHIN, 1])
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float64)
    down = np.clip((y - eye_y) / max(chin_y - eye_y, 1.0), 0, 1)
    aside = np.abs(x - centre_x)
    reach = face_width * (0.5 + _HAIR_REACH + (_HAIR_REACH_AT_CHIN - _HAIR_REACH) * down)
    neck = (aside < 0.5 * face_width) & (down > 0.4)  # between the jaw and the hair beside it
    return np.asarray((aside <= reach) & ~neck & (y <= chin_y) & (y >= eye_y - 2.2 * face_width))
