"""Tags that belong to the picture and not to the person: measured, and silent when unsure. Pure functions.

The vocabulary is closed (`VOCABULARY`). "left" and "right" are the picture's, as the viewer sees it.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from studiolo.perception import colour
from studiolo.perception.expression import Expression
from studiolo.perception.pose import Pose
from studiolo.perception.regions import Region

RgbU8 = NDArray[np.uint8]

HAIR_COLOURS = ("black", "brown", "blonde", "grey", "red")
BACKGROUND_COLOURS = ("white", "grey", "black", "green", "blue", "brown", "red", "yellow")
CLOTHES_COLOURS = ("white", "black", "grey", "blue", "red", "green", "brown", "pink", "yellow")
EXPRESSIONS = ("smile", "open mouth", "neutral expression", "closed eyes")
POSES = ("facing forward", "looking left", "looking right", "looking up", "looking down")
VOCABULARY = (
    *(f"{name} hair" for name in HAIR_COLOURS),
    *(f"{name} background" for name in BACKGROUND_COLOURS),
    "blurred background",
    *(f"{name} clothes" for name in CLOTHES_COLOURS),
    *EXPRESSIONS,
    *POSES,
)
"""Every tag there is."""

EYES_SHUT, EYES_OPEN = 0.11, 0.14
MOUTH_SHUT, MOUTH_OPEN = 0.06, 0.20
SMILE_ABOVE, SMILE_BELOW = 0.66, 0.625
FORWARD_DEG, TURNED_DEG = 13.0, 18.0
"""Between the two of a pair nothing is said."""

_LEAST_SHARE = 0.02  # of the crop: a smaller region is not named
_BLURRED_DETAIL, _PLAIN_AGREEMENT, _CLOTH_AGREEMENT = 0.012, 0.60, 0.50
_SKIN_DISTANCE = 12.0


@dataclass(frozen=True, eq=False)
class Crop:
    """An upright crop around a face, with what is known of its pixels."""

    rgb_u8: RgbU8
    """[H, W, 3]."""
    regions_u8: NDArray[np.uint8]
    """[H, W] of `Region`."""
    person: NDArray[np.float32]
    """[H, W], 0..1."""
    inside: NDArray[np.bool_]
    """[H, W]: the pixel shows the photo."""


def tags_of(crop: Crop, pose: Pose, expression: Expression) -> list[str]:
    """Tags of one face in the order of `VOCABULARY`."""
    return [
        *hair_tags(crop),
        *background_tags(crop),
        *clothes_tags(crop),
        *expression_tags(expression),
        *pose_tags(pose),
    ]


def hair_tags(crop: Crop) -> list[str]:
    """The hair's colour; nothing where it looks like the skin (a bald or shaved head) or is mostly out of the
    picture.
    """
    mask = _eroded((crop.regions_u8 == Region.HAIR) & crop.inside & (crop.person > 0.8), 1)
    tone, skin = colour.tone_of(crop.rgb_u8, mask), _skin(crop)
    if tone is None or skin is None or mask.mean() < _LEAST_SHARE:
        return []
    # Blonde hair can be the colour of the skin, so only a little "hair" of that colour is taken for a bald head.
    little = mask.sum() < 0.4 * np.isin(crop.regions_u8, (Region.SKIN, Region.NOSE)).sum()
    name = colour.hair_colour(tone)
    bald = little and colour.distance(tone, skin) < _SKIN_DISTANCE
    return [f"{name} hair"] if name and not bald else []


def background_tags(crop: Crop) -> list[str]:
    """One plain colour, or blurred: many colours without a sharp edge."""
    mask = _eroded((crop.person < 0.1) & crop.inside, 3)
    tone = colour.tone_of(crop.rgb_u8, mask)
    if tone is None or mask.mean() < _LEAST_SHARE:
        return []
    if tone.agreement >= _PLAIN_AGREEMENT:
        name = colour.surface_colour(tone)
        return [f"{name} background"] if name in BACKGROUND_COLOURS else []
    return ["blurred background"] if _detail(crop.rgb_u8, mask) < _BLURRED_DETAIL else []


def clothes_tags(crop: Crop) -> list[str]:
    """The colour of what is worn below the chin; skin of neck and shoulders is left out."""
    body = _eroded((crop.regions_u8 == Region.BODY) & crop.inside & (crop.person > 0.8), 1) & _below_neck(crop)
    skin = _skin(crop)
    if skin is not None and body.any():
        near_skin = np.zeros_like(body)
        near_skin[body] = np.linalg.norm(colour.to_lab(crop.rgb_u8[body]) - np.array(skin.lab, np.float32), axis=1) < 16
        if near_skin[body].mean() > 0.6:
            return []
        body &= ~near_skin
    tone = colour.tone_of(crop.rgb_u8, body)
    if tone is None or body.mean() < _LEAST_SHARE or tone.agreement < _CLOTH_AGREEMENT:
        return []
    name = colour.surface_colour(tone)
    return [f"{name} clothes"] if name in CLOTHES_COLOURS else []


def expression_tags(expression: Expression) -> list[str]:
    """Of smile, open mouth, neutral expression and closed eyes those that hold; neutral excludes the others."""
    smiles = expression.smile > SMILE_ABOVE
    mouth_open = expression.mouth_openness > MOUTH_OPEN
    shut_eyes = expression.eye_openness < EYES_SHUT
    calm = (
        expression.smile < SMILE_BELOW
        and expression.mouth_openness < MOUTH_SHUT
        and expression.eye_openness > EYES_OPEN
    )
    holds = (smiles, mouth_open, calm, shut_eyes)
    return [name for name, held in zip(EXPRESSIONS, holds, strict=True) if held]


def pose_tags(pose: Pose) -> list[str]:
    """Where the head points; nothing between 13 and 18 degrees."""
    if max(abs(pose.yaw_deg), abs(pose.pitch_deg)) < FORWARD_DEG:
        return ["facing forward"]
    holds = (
        False,
        pose.yaw_deg < -TURNED_DEG,
        pose.yaw_deg > TURNED_DEG,
        pose.pitch_deg > TURNED_DEG,
        pose.pitch_deg < -TURNED_DEG,
    )
    return [name for name, held in zip(POSES, holds, strict=True) if held]


def _skin(crop: Crop) -> colour.Tone | None:
    return colour.tone_of(crop.rgb_u8, np.isin(crop.regions_u8, (Region.SKIN, Region.NOSE)) & crop.inside)


def _below_neck(crop: Crop) -> NDArray[np.bool_]:
    """Rows under the chin: at once beside the neck, a quarter of a face lower in its middle."""
    face = np.isin(crop.regions_u8, (Region.SKIN, Region.NOSE, Region.LIPS, Region.EYES, Region.BROWS))
    if not face.any():
        return np.zeros(face.shape, np.bool_)
    rows, columns = np.nonzero(face)
    top, chin, left, right = rows.min(), rows.max(), columns.min(), columns.max()
    y, x = np.mgrid[: face.shape[0], : face.shape[1]]
    beside = np.abs(x - (left + right) / 2) > 0.45 * (right - left)
    drop = np.where(beside, 0.12, 0.35) * (chin - top)
    return np.asarray(y > chin + drop)


def _eroded(mask: NDArray[np.bool_], radius_px: int) -> NDArray[np.bool_]:
    size = 2 * radius_px + 1
    return np.asarray(cv2.erode(mask.astype(np.uint8), np.ones((size, size), np.uint8)) > 0)


def _detail(rgb_u8: RgbU8, mask: NDArray[np.bool_]) -> float:
    """Mean absolute Laplacian of the luma (0..1) under `mask`."""
    luma = cv2.cvtColor(rgb_u8, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    return float(np.abs(cv2.Laplacian(luma, cv2.CV_32F, ksize=1))[mask].mean())
