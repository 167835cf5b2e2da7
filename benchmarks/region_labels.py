"""Outlines of face regions in 40 pictures, and the class ids they stand for: the truth of `benchmarks.region_truth`.

`labels/regions.jsonl` has a row a picture. Pictures are 20 photos of the sample people and 20 random faces, chosen by
number: person k of ten takes the k-th and the (k+10)-th of the 20 photos of the album by name, so that each kind of
photo is there once; of the random faces those with the numbers 0, 50, ..., 950, at the side that the dataset job makes
them. The outlines were set by eye, once, by one annotator, in enlarged views and before any mask of these pictures was
looked at. Each was then drawn over its picture, looked at again, and moved where it was off.

They say what the picture shows, in the words of `studiolo.perception.regions.Region`:

- `skin`: of the face, up to the hairline, the jaw and the front of the ears; a beard is skin, a hand or a scarf before
  the face is not; spectacles are as if they were not there.
- `brows`: the hairs of the brows, faint ends too; what lies under a fringe is hair.
- `eyes`: the eyeball between the lids, with the inner corner; a shut eye has none.
- `nose`: bridge, tip and wings, from between the eyes, at the height of the upper lids, to the base.
- `lips`: both, with the open mouth between them and a tongue in it.
- `hair`: of the head, however long; a fringe as far as it hides the face (skin that shows between thin strands is
  skin); sideburns down to the middle of the ear; stubble of a shaved head where it is darker than the skin. Gaps
  between curls count as hair, single strands do not.
- `background`: none of these; it takes away what was painted before, as ears, earrings, and what shows through hair.
  Hats, necks and clothes have no outline.

Outlines are painted in the order of the row, each over those before it. A region that the picture does not show at all
is named in `unseen`; where one eye is shut or one brow hidden, the other is the region.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from studiolo.albums.geometry import invert, map_points
from studiolo.perception.regions import Region

LABELS = Path(__file__).resolve().parent / "labels" / "regions.jsonl"

SIDE_PX = 512
"""Side of the square picture in whose pixels the outlines are."""

LABELLED = (Region.SKIN, Region.BROWS, Region.EYES, Region.NOSE, Region.LIPS, Region.HAIR)
"""Regions that a row either outlines or calls unseen."""

_FINE = 7  # fine pixels a pixel; odd, so that one of them lies on each pixel's centre


@dataclass(frozen=True, eq=False)
class Label:
    """The outlines of one picture."""

    picture: str
    """ALBUM/PHOTO of the sample people, or a place that `datasets.sources.reading` makes a face for."""
    crop_matrix: NDArray[np.float64]
    """[2, 3], from the upright photo to the square of `SIDE_PX`: the labelled square, whatever a detector finds."""
    unseen: frozenset[Region]
    outlines: tuple[tuple[Region, NDArray[np.float64]], ...]
    """Region and ring [N, 2] in px of the square, the centre of the first pixel at (0, 0); in the order of painting."""


def read_labels(path: Path = LABELS) -> Iterator[Label]:
    """The labels in a file, row by row."""
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        yield Label(
            picture=row["picture"],
            crop_matrix=np.asarray(row["crop_matrix"], np.float64).reshape(2, 3),
            unseen=frozenset(Region[name.upper()] for name in row["unseen"]),
            outlines=tuple((Region[name.upper()], np.asarray(ring, np.float64)) for name, ring in row["outlines"]),
        )


def render(label: Label, matrix: ArrayLike, side_px: int) -> NDArray[np.uint8]:
    """Class ids [side_px, side_px] of the square that `matrix` [2, 3] cuts out of the same upright photo.

    A pixel has the class of its centre.
    """
    fine = np.zeros((side_px * _FINE, side_px * _FINE), np.uint8)
    to_photo = invert(label.crop_matrix)
    for region, ring in label.outlines:
        moved = map_points(matrix, map_points(to_photo, ring))
        cv2.fillPoly(fine, [np.rint(moved * _FINE + _FINE // 2).astype(np.int32)], int(region))
    return np.ascontiguousarray(fine[_FINE // 2 :: _FINE, _FINE // 2 :: _FINE])
