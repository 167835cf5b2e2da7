"""Face fusion: a photo's face set into a portrait (FaceChain, section 2.4, "Template Face Selection" and "Face
Fusion").

FaceChain takes the photo of highest quality and a trained network. We take the photo that is good, calm and turned
like the portrait, and geometry: both faces are warped, triangle by triangle of the mesh, to one shape between them;
the photo's takes on the portrait's colours; and it is set in by Poisson's equation (Perez et al., 2003), which leaves
no seam. Figures and what failed: docs/LOG.md.

Legend: M = 468 mesh points. `strength` (0..1) is both how far the shape goes from the portrait's to the photo's and
how much of the photo's pixels is seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import LinearNDInterpolator

from studiolo.albums.geometry import map_points
from studiolo.albums.records import Fusion
from studiolo.perception.chips import similarity_matrix
from studiolo.perception.expression import expression_points, unusual_expressions
from studiolo.perception.mesh import Mesher
from studiolo.perception.pose import Pose, pose_of
from studiolo.perception.regions import OVAL
from studiolo.perception.suite import Suite
from studiolo.settings import PerceptionSettings
from studiolo.training.looks import LOOKS, put_look

RgbU8 = NDArray[np.uint8]
Points = NDArray[np.float64]

MAX_TURN_DEG = 25.0
"""A photo turned further from the portrait, to the side or up and down, lacks pixels that the portrait shows."""

_TURN_DEG, _EXPRESSION_L2 = 40.0, 0.04
"""Difference of pose, and distance from the usual expression, at which a photo counts 1/e of its quality."""

_RIM = 0.18  # of the face's size: within it the shape passes from the portrait's outline to the photo's features
_INSET, _FOREHEAD = 0.1, 0.7  # the pasted polygon: the oval drawn in, its forehead cut to keep off fringes
_FEATHER = 0.04  # of the polygon's width
_EYE_CORNERS = (33, 133, 362, 263)
_CHIN, _TOP = 152, 10


@dataclass(frozen=True, eq=False)
class Template:
    """A reference whose face can be set in."""

    rgb_u8: RgbU8
    """[S, S, 3], upright."""
    points_px: Points
    """[M, 3] in it."""
    pose: Pose
    quality_score: float
    """0..1."""
    expression_l2: float
    """From the person's usual expression, see perception/expression.py."""


def open_templates(crops: Sequence[tuple[RgbU8, float]], suite: Suite, settings: PerceptionSettings) -> list[Template]:
    """Templates from one person's stored crops, each with its quality score; a crop without a clear face gives none."""
    found: list[tuple[RgbU8, float, NDArray[np.float32]]] = []
    for rgb_u8, quality_score in crops:
        for face in suite.detector(rgb_u8, settings.detector_score)[:1]:
            mesh = suite.mesher(rgb_u8, face.landmarks_px)
            if mesh.score >= settings.mesh_score:
                found.append((rgb_u8, quality_score, mesh.points_px))
    if not found:
        return []
    unusual = unusual_expressions([expression_points(points) for _, _, points in found])
    return [
        Template(rgb_u8, points.astype(np.float64), pose_of(points), quality_score, float(expression_l2))
        for (rgb_u8, quality_score, points), expression_l2 in zip(found, unusual, strict=True)
    ]


def in_look(templates: Sequence[Template], style_words: str) -> list[Template]:
    """`templates` with the look that `style_words` ask for, as the base has learned it: a drawing gets a drawn face."""
    if style_words not in LOOKS:
        return list(templates)
    return [replace(template, rgb_u8=put_look(template.rgb_u8, style_words)) for template in templates]


def best_template(templates: Sequence[Template], pose: Pose) -> Template | None:
    """The best photo for a portrait of `pose`: quality, falling with the turn between both and with an unusual
    expression; None when every one is turned by more than `MAX_TURN_DEG`.
    """
    near = [template for template in templates if max(map(abs, _turn_deg(template, pose))) <= MAX_TURN_DEG]
    return max(near, key=lambda template: _fitness(template, pose), default=None)


def fuse(
    rgb_u8: RgbU8, landmarks_px: ArrayLike | None, templates: Sequence[Template], mesher: Mesher, strength: float
) -> tuple[RgbU8, Fusion]:
    """The portrait [H, W, 3] with the best template's face at `strength`, and what came of it.

    `landmarks_px` [5, 2] are the portrait's own, None without a face. Whenever the outcome is not `Fusion.DONE` the
    portrait itself comes back.
    """
    if strength == 0:
        return rgb_u8, Fusion.OFF
    if landmarks_px is None:
        return rgb_u8, Fusion.NO_FACE
    points = mesher(rgb_u8, landmarks_px).points_px
    template = best_template(templates, pose_of(points))
    if template is None:
        return rgb_u8, Fusion.NO_TEMPLATE
    fused = fuse_template(rgb_u8, points.astype(np.float64), template, strength)
    return (rgb_u8, Fusion.NO_FACE) if fused is None else (fused, Fusion.DONE)


def fuse_template(rgb_u8: RgbU8, points_px: Points, template: Template, strength: float) -> RgbU8 | None:
    """`template`'s face at `strength` (above 0) in a portrait [H, W, 3] whose mesh has `points_px` [M, 3].

    Pixels outside the face's oval keep their bytes. None when too little of the face lies in the picture.
    """
    shape = _shape_between(points_px[:, :2], template.points_px[:, :2], strength)
    photo, known = _warped(template.rgb_u8, template.points_px[:, :2], shape, rgb_u8.shape[:2])
    own, _ = _warped(rgb_u8, points_px[:, :2], shape, rgb_u8.shape[:2])
    own = np.where(known[..., None], own, rgb_u8)
    mask = _pasted(shape, rgb_u8.shape[:2]) * known.astype(np.uint8)
    x, y, width, height = cv2.boundingRect(mask)
    if min(width, height) < 8:
        return None
    toned = np.where(known[..., None], _toned(photo, own, mask > 0), own)
    # seamlessClone writes into the mask it is given (OpenCV 5.0).
    cloned = cv2.seamlessClone(toned, own, mask.copy(), (x + width // 2, y + height // 2), cv2.NORMAL_CLONE)
    blurred = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), _FEATHER * width)
    seen = strength * np.clip(blurred / 127.5 - 1, 0, 1)[..., None]
    return np.asarray(np.clip(np.rint(own * (1 - seen) + cloned * seen), 0, 255), np.uint8)


def _turn_deg(template: Template, pose: Pose) -> tuple[float, float]:
    return template.pose.yaw_deg - pose.yaw_deg, template.pose.pitch_deg - pose.pitch_deg


def _fitness(template: Template, pose: Pose) -> float:
    yaw, pitch = _turn_deg(template, pose)
    away = (yaw**2 + pitch**2) / _TURN_DEG**2 + (template.expression_l2 / _EXPRESSION_L2) ** 2
    return template.quality_score * float(np.exp(-away))


def _shape_between(own_M2: Points, photo_M2: Points, strength: float) -> Points:
    """Points [M, 2] of the fused face: on the oval the portrait's own, within it drawn to the photo's features, which
    are laid over the portrait by turn, scale and shift alone.
    """
    laid = map_points(similarity_matrix(photo_M2, own_M2), photo_M2)
    oval = own_M2[list(OVAL)].astype(np.float32)
    inside = [max(cv2.pointPolygonTest(oval, (float(x), float(y)), True), 0.0) for x, y in own_M2]
    t = np.clip(np.array(inside) / (_RIM * max(np.sqrt(cv2.contourArea(oval)), 1.0)), 0, 1)
    share = strength * t * t * (3 - 2 * t)
    return np.asarray(own_M2 + share[:, None] * (laid - own_M2), np.float64)


def _warped(rgb_u8: RgbU8, from_M2: Points, to_M2: Points, hw_px: tuple[int, ...]) -> tuple[RgbU8, NDArray[np.bool_]]:
    """A canvas [H, W, 3] on which the points `from_M2` of a picture lie at `to_M2`, and where it is known: [H, W]."""
    x, y = np.meshgrid(np.arange(hw_px[1]), np.arange(hw_px[0]))
    field = LinearNDInterpolator(to_M2, from_M2)(np.stack([x, y], axis=-1))
    known = np.isfinite(field).all(axis=-1)
    places = np.where(known[..., None], field, 0).astype(np.float32)
    canvas = cv2.remap(rgb_u8, places[..., 0], places[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(canvas, np.uint8), known


def _pasted(shape_M2: Points, hw_px: tuple[int, ...]) -> NDArray[np.uint8]:
    """255 where the photo is pasted, else 0: [H, W]."""
    outline, eyes = shape_M2[list(OVAL)], shape_M2[list(_EYE_CORNERS)].mean(axis=0)
    down = shape_M2[_CHIN] - shape_M2[_TOP]
    down = down / max(float(np.linalg.norm(down)), 1e-9)
    above = np.minimum((outline - eyes) @ down, 0)
    outline = outline - (1 - _FOREHEAD) * above[:, None] * down
    outline = outline + _INSET * (outline.mean(axis=0) - outline)
    mask = np.zeros(hw_px[:2], np.uint8)
    cv2.fillPoly(mask, [np.clip(np.rint(outline), -(2**14), 2**14).astype(np.int32)], 255)
    mask[[0, 1, -2, -1]] = 0
    mask[:, [0, 1, -2, -1]] = 0  # Poisson's equation needs a rim
    return mask


def _toned(photo: RgbU8, own: RgbU8, mask: NDArray[np.bool_]) -> RgbU8:
    """`photo` with the mean and, where that is lower, the contrast of `own` under `mask`, in Lab: a portrait without
    colours stays without.
    """
    from_lab, to_lab = (cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) for picture in (photo, own))
    source, target = from_lab[mask], to_lab[mask]
    contrast = np.minimum(target.std(axis=0) / np.maximum(source.std(axis=0), 1e-3), 1)
    lab = (from_lab - source.mean(axis=0)) * contrast + target.mean(axis=0)
    rgb = cv2.cvtColor(lab.astype(np.float32), cv2.COLOR_LAB2RGB)
    return np.asarray(np.rint(np.clip(rgb, 0, 1) * 255), np.uint8)
