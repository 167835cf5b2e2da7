"""Templates: pictures in which another person's face is drawn (FaceChain, section 2.5, for one face).

FaceChain finds the face's region by a parsing network; we take the regions that perception paints
(`studiolo.perception.regions`), without the hair, and expand them, too.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from studiolo.albums.geometry import FACE_CENTRE, align_and_crop, crop_matrix, inside_mask, invert, map_points
from studiolo.albums.records import Reason
from studiolo.errors import PhotoError
from studiolo.perception.chips import scale_of
from studiolo.perception.conditions import face_mask, face_width_px, joints_of, landmarks_of
from studiolo.perception.detect import Detection
from studiolo.perception.mesh import Mesh
from studiolo.perception.pose import Pose, pose_of
from studiolo.perception.regions import paint_regions
from studiolo.perception.suite import Suite
from studiolo.portraits.blending import feathered, placed_mask
from studiolo.settings import PerceptionSettings, SelectionSettings

RgbU8 = NDArray[np.uint8]

MAX_YAW_DEG, MAX_PITCH_DEG = 40.0, 35.0
"""A face turned further hides what landmarks and photos of another person could say."""

_REACH = 0.12  # of the face's width: the mask reaches so far beyond the face, for a face of another shape
_FEATHER = 0.1  # of the face's width, within the mask
_NEAR = 0.75  # of the face's box, either way from its middle: a point there means this face
_GREY = 10  # of 255: between the channels of a grey pixel that was in a JPEG
_RIM = 1 / 32  # of the crop's side: the mask keeps so far away from its border


@dataclass(frozen=True, eq=False)
class TemplateFace:
    """The face of a template, as the base is shown it. S is the side of the crop, the base's own."""

    matrix: NDArray[np.float64]
    """[2, 3]: from the picture to the crop."""
    crop_rgb_u8: RgbU8
    """[S, S, 3]: the face, upright."""
    joints_px: NDArray[np.float64]
    """[5, 2] in the crop, see `studiolo.perception.conditions`."""
    landmarks_px: NDArray[np.float64]
    """[68, 2] in the crop."""
    pose: Pose
    mask: NDArray[np.bool_]
    """[S, S]: where the face is drawn anew."""


@dataclass(frozen=True, eq=False)
class EditTemplate:
    """A picture and where in it a face is drawn anew."""

    rgb_u8: RgbU8
    """[H, W, 3]: the whole picture."""
    face: TemplateFace
    seen: NDArray[np.float32]
    """[H, W] in 0..1: how much of what is drawn is seen; 0 outside the mask."""

    @property
    def face_xy(self) -> tuple[float, float]:
        """The middle of the face, in shares of width and height."""
        middle_px = map_points(invert(self.face.matrix), self.face.landmarks_px.mean(axis=0, keepdims=True))[0]
        height, width = self.rgb_u8.shape[:2]
        return float(middle_px[0] / width), float(middle_px[1] / height)

    @cached_property
    def grey(self) -> bool:
        """Whether the picture has no colours, but for what a JPEG leaves; looked at once for all candidates."""
        return bool(np.percentile(np.ptp(self.rgb_u8, axis=-1), 99) <= _GREY)


def see_template(
    rgb_u8: RgbU8,
    suite: Suite,
    side_px: int,
    face_ratio: float,
    settings: PerceptionSettings,
    unsafe_above: float,
    face_xy: tuple[float, float] | None = None,
) -> EditTemplate:
    """The template of a picture [H, W, 3] for a base of `side_px`, the face `face_ratio` of the crop's side.

    `face_xy`, shares of width and height in 0..1, is a point of the face that is meant, where there are several.
    Raises `PhotoError` with the reason for which a picture is no template: `unsafe`, `no_face`, `several_faces` (when
    none is named and none dominates), `no_face_there`, `face_too_small`, `turned_away`.
    """
    face, mesh, pose = check_template(rgb_u8, suite, settings, unsafe_above, face_xy)
    hw_px = (rgb_u8.shape[0], rgb_u8.shape[1])
    crop, matrix = _cut(rgb_u8, face, side_px, face_ratio)
    points = mesh.points_px.astype(np.float64)
    points[:, :2] = map_points(matrix, points[:, :2])
    landmarks = landmarks_of(points)
    width_px = face_width_px(landmarks)
    regions = paint_regions(Mesh(points.astype(np.float32), mesh.score), suite.person_mask(crop))
    mask = face_mask(regions, _REACH * width_px) & inside_mask(hw_px, matrix, side_px) & _within_rim(side_px)
    seen = feathered(placed_mask(mask, matrix, hw_px), _FEATHER * width_px / scale_of(matrix))
    return EditTemplate(rgb_u8, TemplateFace(matrix, crop, joints_of(points), landmarks, pose, mask), seen)


def check_template(
    rgb_u8: RgbU8,
    suite: Suite,
    settings: PerceptionSettings,
    unsafe_above: float,
    face_xy: tuple[float, float] | None = None,
) -> tuple[Detection, Mesh, Pose]:
    """The face that is meant. Raises `PhotoError` as `see_template` does."""
    if suite.safety.score(rgb_u8) > unsafe_above:
        raise PhotoError(Reason.UNSAFE, "template")
    face = _one_face(suite.detector(rgb_u8, settings.detector_score), (rgb_u8.shape[0], rgb_u8.shape[1]), face_xy)
    _check_size(face, settings.min_face_px)
    mesh = suite.mesher(rgb_u8, face.landmarks_px)
    if mesh.score < settings.mesh_score:
        raise PhotoError(Reason.NO_FACE, f"template: got a face mesh with a score of {mesh.score:.2f}")
    pose = pose_of(mesh.points_px)
    check_pose(pose)
    return face, mesh, pose


def check_pose(pose: Pose) -> None:
    """Raise `PhotoError` for a head that is turned too far away, `turned_away`."""
    if abs(pose.yaw_deg) > MAX_YAW_DEG or abs(pose.pitch_deg) > MAX_PITCH_DEG:
        raise PhotoError(Reason.TURNED_AWAY, f"template: yaw {pose.yaw_deg:.0f}, pitch {pose.pitch_deg:.0f} degrees")


def _one_face(faces: list[Detection], hw_px: tuple[int, int], face_xy: tuple[float, float] | None) -> Detection:
    """The face at `face_xy`; without it the only one, or the one that dominates as in an album."""
    if face_xy is not None:
        faces = faces_at(faces, hw_px, face_xy)[:1]
        if not faces:
            raise PhotoError(Reason.NO_FACE_THERE, f"template: none at {face_xy}")
    if not faces:
        raise PhotoError(Reason.NO_FACE, "template")
    if len(faces) > 1 and faces[0].area_px2 < SelectionSettings().dominant_face_ratio * faces[1].area_px2:
        raise PhotoError(Reason.SEVERAL_FACES, f"template: got {len(faces)} faces")
    return faces[0]


def faces_at(faces: list[Detection], hw_px: tuple[int, int], face_xy: tuple[float, float]) -> list[Detection]:
    """Those that a point may mean, in shares of width and height of a picture of `hw_px`; the nearest first."""
    point_px = np.array(face_xy) * (hw_px[1], hw_px[0])
    return sorted(filter(lambda face: _reaches(face, point_px), faces), key=lambda face: _away(face, point_px))


def _reaches(face: Detection, point_px: NDArray[np.float64]) -> bool:
    """Whether a point is in the face's box or as near to it as hair and chin are."""
    half_px = (face.bbox_xyxy_px[2:] - face.bbox_xyxy_px[:2]) * _NEAR
    return bool((np.abs(point_px - _middle(face)) <= half_px).all())


def _away(face: Detection, point_px: NDArray[np.float64]) -> float:
    return float(np.hypot(*(point_px - _middle(face))))


def _middle(face: Detection) -> NDArray[np.float64]:
    return np.asarray((face.bbox_xyxy_px[:2] + face.bbox_xyxy_px[2:]) / 2, np.float64)


def _check_size(face: Detection, min_face_px: int) -> None:
    if face.short_side_px < min_face_px:
        raise PhotoError(Reason.FACE_TOO_SMALL, f"template: got {face.short_side_px:.0f} px, wanted {min_face_px}")


def _cut(rgb_u8: RgbU8, face: Detection, side_px: int, face_ratio: float) -> tuple[RgbU8, NDArray[np.float64]]:
    """The crop around a face, which lies in it where the faces of a base's training lie, and its matrix."""
    bbox, landmarks = face.bbox_xyxy_px.astype(np.float64), face.landmarks_px
    turn = invert(crop_matrix(bbox, landmarks, side_px, face_ratio))[:, :2]
    shift = turn @ ((0.5 - np.array(FACE_CENTRE)) * side_px)
    return align_and_crop(rgb_u8, bbox + np.tile(shift, 2), landmarks, side_px, face_ratio)


def _within_rim(side_px: int) -> NDArray[np.bool_]:
    rim = max(1, round(_RIM * side_px))
    inner = np.zeros((side_px, side_px), bool)
    inner[rim:-rim, rim:-rim] = True
    return inner
