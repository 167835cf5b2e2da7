"""A photo in, its faces with everything the suite knows of them out."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studiolo.albums.geometry import map_points
from studiolo.perception import chips
from studiolo.perception.detect import Detection
from studiolo.perception.expression import expression_of, expression_points
from studiolo.perception.mesh import Mesh
from studiolo.perception.pose import pose_of
from studiolo.perception.quality import FACE_SIDE_PX, as_row, quality_of
from studiolo.perception.regions import paint_regions
from studiolo.perception.suite import Suite
from studiolo.perception.tag import Crop, tags_of
from studiolo.perception.upright import make_upright
from studiolo.settings import PerceptionSettings

RgbU8 = NDArray[np.uint8]
Face = dict[str, Any]

_CROP_SIDE_PX, _CROP_FACE_RATIO = 256, 0.33
_QUALITY_PADDING = 0.35


@dataclass(frozen=True, eq=False)
class PerceivedPhoto:
    """What was seen in a photo."""

    rgb_u8: RgbU8
    """[H, W, 3], upright; all coordinates are in it."""
    rotation_deg: int
    """Anticlockwise turn that made it upright: 0, 90, 180 or 270."""
    faces: list[Face]
    """Rows of `records.FACE`, the largest first; empty without a face."""
    too_small_px: float
    """Shorter side of the largest face that does not count because it is too small; 0 without one."""


def perceive_photo(suite: Suite, rgb_u8: RgbU8, settings: PerceptionSettings) -> PerceivedPhoto:
    """Turn the photo [H, W, 3] upright and describe its faces.

    A face counts when the detector gives it `settings.detector_score`, the shorter side of its box has
    `settings.min_face_px` and the mesh on it `settings.mesh_score`. No content of a photo raises.
    """
    upright = make_upright(np.ascontiguousarray(rgb_u8), suite.detector, settings.detector_score)
    found = [face for face in upright.faces if _has_extent(face)]
    seen = [face for face in found if face.short_side_px >= settings.min_face_px]
    too_small_px = max((face.short_side_px for face in found if face.short_side_px < settings.min_face_px), default=0.0)
    meshes = [suite.mesher(upright.rgb_u8, face.landmarks_px) for face in seen]
    kept = [pair for pair in zip(seen, meshes, strict=True) if pair[1].score >= settings.mesh_score]
    embeddings = suite.embedder(upright.rgb_u8, [face.landmarks_px for face, _ in kept])
    faces = [
        _face_row(suite, upright.rgb_u8, face_id, face, mesh, embedding)
        for face_id, ((face, mesh), embedding) in enumerate(zip(kept, embeddings, strict=True))
    ]
    return PerceivedPhoto(upright.rgb_u8, upright.rotation_deg, faces, too_small_px)


def _face_row(
    suite: Suite, rgb_u8: RgbU8, face_id: int, face: Detection, mesh: Mesh, embedding: NDArray[np.float32]
) -> Face:
    pose, expression = pose_of(mesh.points_px), expression_of(mesh.points_px)
    matrix = chips.dlib_chip_matrix(face.landmarks_px, FACE_SIDE_PX, _QUALITY_PADDING)
    chip = chips.warp(rgb_u8, matrix, FACE_SIDE_PX)
    quality = quality_of(chip, face.short_side_px, pose, expression.eye_openness)
    return {
        "face_id": face_id,
        "bbox_xyxy_px": face.bbox_xyxy_px.tolist(),
        "landmarks_px": face.landmarks_px.reshape(-1).tolist(),
        "detector_score": face.score,
        "mesh_score": mesh.score,
        "embedding": embedding.tolist(),
        "attributes": asdict(suite.attributes(rgb_u8, face.landmarks_px)),
        "pose": asdict(pose),
        "quality": as_row(quality),
        "expression": expression_points(mesh.points_px).reshape(-1).tolist(),
        "tags": tags_of(crop_around(suite, rgb_u8, face, mesh), pose, expression),
    }


def crop_around(suite: Suite, rgb_u8: RgbU8, face: Detection, mesh: Mesh) -> Crop:
    """The upright crop that tags are measured on: the face a third of its side, or as much of the photo as there is."""
    hw_px = (rgb_u8.shape[0], rgb_u8.shape[1])
    matrix = chips.square_matrix(hw_px, face.bbox_xyxy_px, face.roll_deg, _CROP_SIDE_PX, _CROP_FACE_RATIO)
    crop = chips.warp(rgb_u8, matrix, _CROP_SIDE_PX)
    points = mesh.points_px.copy()
    points[:, :2] = map_points(matrix, points[:, :2])
    person = suite.person_mask(crop)
    return Crop(
        crop, paint_regions(Mesh(points, mesh.score), person), person, chips.inside(hw_px, matrix, _CROP_SIDE_PX)
    )


def _has_extent(face: Detection) -> bool:
    """Whether the five points span a face: points on one spot can be neither aligned nor cut out."""
    spread = face.landmarks_px - face.landmarks_px.mean(axis=0)
    return bool(np.isfinite(spread).all()) and float(np.abs(spread).max()) >= 1.0
