"""What ControlNets are shown of a picture: the head's pose, the face's landmarks, edges.

Poses and landmarks are drawn as OpenPose draws them (Cao et al., 2017), so that its published ControlNets read them as
well as our own: coloured bones between joints, and white dots for the 68 landmarks of a face.

Coordinates are pixels of a square picture of `side_px`, the centre of the first pixel at (0, 0). M = 468 mesh points.
"""

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from studiolo.perception.regions import Region

RgbU8 = NDArray[np.uint8]

LANDMARKS = (
    *(162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389),  # jaw, from the right
    *(71, 63, 105, 66, 107, 336, 296, 334, 293, 301),  # brows
    *(168, 197, 5, 4, 75, 97, 2, 326, 305),  # nose
    *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),  # eyes
    *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181),  # lips, outside
    *(78, 82, 13, 312, 308, 317, 14, 87),  # lips, inside
)
"""The mesh point of each of the 68 landmarks of iBUG 300-W, in its order."""

_NOSE, _EYES, _EARS = 4, ((33, 133), (362, 263)), (234, 454)  # right, left
_JOINT_COLOURS = ((255, 0, 0), (170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85))
_BONES = ((0, 1, (85, 0, 255)), (1, 3, (170, 0, 255)), (0, 2, (255, 0, 255)), (2, 4, (255, 0, 170)))
_BONE_SHADE = 0.6

# Of the side; OpenPose's sizes in a picture of 512 px, as its annotators draw.
_BONE_WIDTH, _JOINT_RADIUS, _DOT_RADIUS = 8 / 512, 4 / 512, 3 / 512
_SHIFT = 4  # bits behind the point in cv2's coordinates
_CANNY = (100, 200)  # of differences of grey levels, as FaceChain's

_FACE = (Region.SKIN, Region.BROWS, Region.EYES, Region.NOSE, Region.LIPS)


def landmarks_of(points_px: ArrayLike) -> NDArray[np.float64]:
    """The 68 landmarks [68, 2] of mesh points [M, 2 or 3]."""
    return np.asarray(points_px, np.float64)[list(LANDMARKS), :2]


def joints_of(points_px: ArrayLike) -> NDArray[np.float64]:
    """The joints of the head [5, 2] of mesh points [M, 2 or 3]: nose, right and left eye, right and left ear.

    They are all that OpenPose's skeleton has of a head: place, size and direction, nothing of the face's shape.
    """
    points = np.asarray(points_px, np.float64)[:, :2]
    eyes = [points[list(corners)].mean(axis=0) for corners in _EYES]
    return np.stack([points[_NOSE], *eyes, *points[list(_EARS)]])


def pose_picture(joints_px: ArrayLike, side_px: int, landmarks_px: ArrayLike | None = None) -> RgbU8:
    """The bones between `joints_px` [5, 2] and, when they are given, `landmarks_px` [68, 2]: [side_px, side_px, 3]."""
    picture = np.zeros((side_px, side_px, 3), np.uint8)
    joints = _fixed(joints_px)
    for start, end, colour in _BONES:
        shaded = [round(_BONE_SHADE * level) for level in colour]
        width = max(1, round(_BONE_WIDTH * side_px))
        cv2.line(picture, joints[start], joints[end], shaded, width, cv2.LINE_AA, _SHIFT)
    for joint, colour in zip(joints, _JOINT_COLOURS, strict=True):
        cv2.circle(picture, joint, _fixed_radius(_JOINT_RADIUS, side_px), colour, -1, cv2.LINE_AA, _SHIFT)
    for dot in [] if landmarks_px is None else _fixed(landmarks_px):
        cv2.circle(picture, dot, _fixed_radius(_DOT_RADIUS, side_px), (255, 255, 255), -1, cv2.LINE_AA, _SHIFT)
    return picture


def edge_picture(rgb_u8: RgbU8, hidden: NDArray[np.bool_] | None = None) -> RgbU8:
    """White Canny edges [H, W, 3] of a picture [H, W, 3], none where it is `hidden` [H, W].

    They are looked for in the whole picture, so that the hidden part has no outline.
    """
    edges = cv2.Canny(cv2.cvtColor(np.ascontiguousarray(rgb_u8), cv2.COLOR_RGB2GRAY), *_CANNY)
    if hidden is not None:
        edges[hidden] = 0
    return np.repeat(np.asarray(edges, np.uint8)[..., None], 3, axis=-1)


def face_mask(regions: NDArray[np.uint8], reach_px: float) -> NDArray[np.bool_]:
    """Where `regions` [H, W] show the face, without the hair, and up to `reach_px` around: [H, W]."""
    face = np.isin(regions, [int(region) for region in _FACE])
    if not face.any() or reach_px <= 0:
        return face
    away_px = cv2.distanceTransform((~face).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(away_px <= reach_px)


def face_width_px(landmarks_px: ArrayLike) -> float:
    """Width of a face on the picture, from the leftmost to the rightmost of its landmarks [68, 2]."""
    return float(np.ptp(np.asarray(landmarks_px, np.float64)[:, 0]))


def _fixed(points_px: ArrayLike) -> list[tuple[int, int]]:
    """Points [N, 2] in cv2's fixed point; what lies far outside a picture stays outside."""
    scaled = np.clip(np.asarray(points_px, np.float64) * 2**_SHIFT, -(2**18), 2**18)
    return [(round(float(x)), round(float(y))) for x, y in scaled]


def _fixed_radius(share: float, side_px: int) -> int:
    return round(max(1.0, share * side_px) * 2**_SHIFT)
