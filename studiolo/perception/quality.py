"""How good a face is to learn from: one score, and the five parts it is made of, each 0..1. Pure functions of
measurements.

    score = size^0.20 * sharpness^0.35 * exposure^0.15 * pose^0.20 * eyes^0.10

a weighted geometric mean: one bad part cannot be bought back by the others. No part counts as less than 0.001 in it;
one part at that floor keeps the score of a perfect face below 0.09 (sharpness) or 0.36 (exposure).

    size        log(s / 24) / log(256 / 24) in 0..1, s = shorter side of the face's box in px
    sharpness   log(v / 0.028) / log(0.12 / 0.028) in 0..1, v = RMS of the Laplacian over the face's contrast, at a
    face of 128 px
    exposure    1 for a mean luma of 0.22..0.80 on the face, falling to 0 at 0.03 and 0.99; times 1 - 2 x share of
    clipped pixels
    pose        exp(-(yaw/45)^2 - (pitch/45)^2), degrees; roll costs nothing, since alignment undoes it
    eyes        (eye aspect ratio - 0.06) / (0.16 - 0.06) in 0..1
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from studiolo.perception.pose import Pose

RgbU8 = NDArray[np.uint8]

WEIGHTS = {"size": 0.20, "sharpness": 0.35, "exposure": 0.15, "pose": 0.20, "eyes": 0.10}
"""Exponents of the geometric mean; they sum to 1."""

FACE_SIDE_PX = 128
"""Side of the aligned face that sharpness and exposure are measured on."""

_FLOOR = 0.001
_SHARP_NONE, _SHARP_FULL = 0.028, 0.12
_SIZE_NONE_PX, _SIZE_FULL_PX = 24.0, 256.0
_LUMA = (0.03, 0.22, 0.80, 0.99)
_CLIPPED_DARK, _CLIPPED_BRIGHT = 3, 252


@dataclass(frozen=True)
class Quality:
    """Fields of `records.QUALITY`, all 0..1."""

    score: float
    size: float
    sharpness: float
    exposure: float
    pose: float
    eyes: float


def quality_of(face_rgb_u8: RgbU8, side_px: float, pose: Pose, eye_openness: float) -> Quality:
    """Quality of a face.

    `face_rgb_u8` [128, 128, 3]: the aligned face; `side_px`: shorter side of its box in the photo; `eye_openness`: eye
    aspect ratio.
    """
    parts = {
        "size": size_score(side_px),
        "sharpness": sharpness_score(face_rgb_u8),
        "exposure": exposure_score(face_rgb_u8),
        "pose": pose_score(pose),
        "eyes": eyes_score(eye_openness),
    }
    return Quality(score=combine(parts), **parts)


def combine(parts: dict[str, float]) -> float:
    """Weighted geometric mean of the five parts."""
    logs = [weight * np.log(max(parts[name], _FLOOR)) for name, weight in WEIGHTS.items()]
    return float(np.exp(sum(logs)))


def weakest_part(parts: Mapping[str, float]) -> str:
    """Name of the part, one of `WEIGHTS`, that takes most from the score; `parts` is a `records.QUALITY`."""
    return min(WEIGHTS, key=lambda name: WEIGHTS[name] * np.log(max(parts[name], _FLOOR)))


def size_score(side_px: float) -> float:
    """0 at 24 px and less, 1 at 256 px and more."""
    return _log_ramp(side_px, _SIZE_NONE_PX, _SIZE_FULL_PX)


def sharpness_score(face_rgb_u8: RgbU8) -> float:
    """0 for a face without any edge. Contrast is divided out: a dull day is not a blur."""
    luma = cv2.GaussianBlur(_luma(face_rgb_u8), (0, 0), 0.6)  # takes the sensor's noise, not the lashes
    contrast = float(luma.std())
    if contrast < 1e-3:
        return 0.0
    edges = cv2.Laplacian(luma, cv2.CV_32F, ksize=1)
    return _log_ramp(float(np.sqrt((edges**2).mean())) / (contrast + 0.03), _SHARP_NONE, _SHARP_FULL)


def exposure_score(face_rgb_u8: RgbU8) -> float:
    """0 for a black or white face."""
    luma = _luma(face_rgb_u8)
    level = float(np.interp(float(luma.mean()), _LUMA, (0.0, 1.0, 1.0, 0.0)))
    clipped = float(((luma <= _CLIPPED_DARK / 255) | (luma >= _CLIPPED_BRIGHT / 255)).mean())
    return level * max(0.0, 1 - 2 * clipped)


def pose_score(pose: Pose) -> float:
    """1 facing the camera."""
    return float(np.exp(-((pose.yaw_deg / 45) ** 2) - (pose.pitch_deg / 45) ** 2))


def eyes_score(eye_openness: float) -> float:
    """0 for shut eyes."""
    return float(np.clip((eye_openness - 0.06) / 0.10, 0, 1))


def as_row(quality: Quality) -> dict[str, float]:
    """A row of `records.QUALITY`."""
    return asdict(quality)


def _luma(rgb_u8: RgbU8) -> NDArray[np.float32]:
    return np.asarray(cv2.cvtColor(rgb_u8, cv2.COLOR_RGB2GRAY), np.float32) / np.float32(255)


def _log_ramp(value: float, none: float, full: float) -> float:
    return float(np.clip(np.log(max(value, 1e-9) / none) / np.log(full / none), 0, 1))
