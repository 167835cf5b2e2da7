"""References: the crops an identity is learned from.

A stored crop holds the face at 0.35 of its side, the loose end of the paper's 0.35-0.45, so that the trainer can
cut its random views from it with the face larger and still move them about.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from studiolo.albums.geometry import align_and_crop, inside_mask, map_points
from studiolo.albums.records import Verdict
from studiolo.identities import artifacts
from studiolo.identities.captions import caption

CROP_SIDE_PX = 512
"""The face has 179 px: a trainer at 128 px needs fewer, a face set into a portrait needs them."""
CROP_FACE_RATIO = 0.35
"""Face side / crop side of a stored crop."""

BACKGROUND = 0
"""Class id of pixels that belong to no region, see `studiolo.perception.regions`."""


class Regions(Protocol):
    """Class ids of a crop's pixels; the suite's regions capability, or a function."""

    def __call__(self, rgb_u8: NDArray[np.uint8], landmarks_px: NDArray[np.float64], /) -> NDArray[np.uint8]:
        """[H, W] class ids for `rgb_u8` [H, W, 3] with the face's five points [5, 2]."""
        ...


@dataclass(frozen=True, eq=False)
class Reference:
    """One photo of the owner, ready to learn from."""

    photo_id: str
    crop_rgb_u8: NDArray[np.uint8]
    """[512, 512, 3], upright, the face's box centred, its longer side 0.35 of the crop's."""
    regions_u8: NDArray[np.uint8]
    """[512, 512] class ids; `BACKGROUND` where the crop reaches beyond the photo."""
    landmarks_px: NDArray[np.float64]
    """[5, 2] in the crop."""
    matrix: NDArray[np.float64]
    """[2, 3], photo to crop."""
    trigger: str
    caption: str
    quality_score: float
    expression_l2: float
    """From the person's usual expression, in distances of the outer eye corners."""
    verdict: Verdict
    embedding: NDArray[np.float32]
    """[128] of the face in the photo."""

    def row(self, identity_id: str, album_id: str) -> dict[str, Any]:
        """This reference as a row of `REFERENCE_SCHEMA`."""
        return {
            "identity_id": identity_id,
            "album_id": album_id,
            "photo_id": self.photo_id,
            "crop_path": artifacts.crop_path(identity_id, self.photo_id),
            "mask_path": artifacts.mask_path(identity_id, self.photo_id),
            "caption": self.caption,
            "trigger": self.trigger,
            "quality_score": self.quality_score,
            "expression_l2": self.expression_l2,
            "verdict": self.verdict.value,
            "embedding": self.embedding.tolist(),
        }


def calmest(references: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """The `count` rows of `REFERENCE_SCHEMA` whose expression is nearest to the person's usual one, in their own order.

    Sixteen grimaces learned as one face are no face.
    """
    kept = sorted(range(len(references)), key=lambda index: (references[index]["expression_l2"] or 0.0, index))[:count]
    return [references[index] for index in sorted(kept)]


def prepare_reference(
    rgb_u8: NDArray[np.uint8],
    photo: Mapping[str, Any],
    face: Mapping[str, Any],
    trigger: str,
    regions: Regions,
    expression_l2: float = 0.0,
) -> Reference:
    """The reference of one selected photo.

    `rgb_u8` [H, W, 3]: the upright photo in which `face` (a `records.FACE`, the owner's) was found; `photo`
    its `records.PHOTO`; `trigger` the album's; `expression_l2` from `unusual_expressions`. Raises `ValueError`
    when the face's landmarks have no solution.
    """
    landmarks = np.asarray(face["landmarks_px"], np.float64).reshape(5, 2)
    crop, matrix = align_and_crop(rgb_u8, face["bbox_xyxy_px"], landmarks, CROP_SIDE_PX, CROP_FACE_RATIO)
    crop_landmarks = map_points(matrix, landmarks)
    class_ids = np.array(regions(crop, crop_landmarks), np.uint8)
    if class_ids.shape != crop.shape[:2]:
        raise ValueError(f"regions gave {class_ids.shape} class ids for a crop of {crop.shape[:2]} pixels")
    height, width = rgb_u8.shape[:2]
    class_ids[~inside_mask((height, width), matrix, CROP_SIDE_PX)] = BACKGROUND
    return Reference(
        photo_id=str(photo["photo_id"]),
        crop_rgb_u8=crop,
        regions_u8=class_ids,
        landmarks_px=crop_landmarks,
        matrix=matrix,
        trigger=trigger,
        caption=caption(trigger, face["tags"] or ()),
        quality_score=float(face["quality"]["score"]),
        expression_l2=expression_l2,
        verdict=Verdict(photo["verdict"]),
        embedding=np.asarray(face["embedding"], np.float32),
    )
