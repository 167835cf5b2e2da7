"""The plain name of a colour, in CIE Lab. Pure functions; unsure is None.

L is 0..100; chroma is the distance from grey, about 0..100; hue is an angle in degrees: 0 red, 90 yellow, 180 green,
270 blue.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

MIN_PIXELS = 120
"""Fewer pixels have no colour name."""


@dataclass(frozen=True)
class Tone:
    """The typical colour of some pixels."""

    lightness: float
    chroma: float
    hue_deg: float
    """0..360."""
    agreement: float
    """Share of the pixels that are near it (Lab distance below 22)."""
    lab: tuple[float, float, float]


def to_lab(rgb_N3: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Lab [N, 3] of sRGB pixels [N, 3]."""
    pixels = np.ascontiguousarray(rgb_N3, np.float32).reshape(-1, 1, 3) / 255
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB), np.float32).reshape(-1, 3)


def tone_of(rgb_u8: NDArray[np.uint8], mask: NDArray[np.bool_]) -> Tone | None:
    """Median colour of `rgb_u8` [H, W, 3] under `mask` [H, W]; None for fewer than `MIN_PIXELS` pixels."""
    if int(mask.sum()) < MIN_PIXELS:
        return None
    lab = to_lab(rgb_u8[mask])
    middle = np.median(lab, axis=0)
    agreement = float((np.linalg.norm(lab - middle, axis=1) < 22).mean())
    lightness, a, b = (float(value) for value in middle)
    return Tone(
        lightness, float(np.hypot(a, b)), float(np.degrees(np.arctan2(b, a))) % 360, agreement, (lightness, a, b)
    )


def distance(one: Tone, two: Tone) -> float:
    """Lab distance; about 2 is just visible."""
    return float(np.linalg.norm(np.subtract(one.lab, two.lab)))


def hair_colour(tone: Tone) -> str | None:
    """black, brown, blonde, grey or red."""
    light, chroma, hue = tone.lightness, tone.chroma, tone.hue_deg
    if (light < 28 and chroma < 10) or (light < 16 and chroma < 20):
        return "black"
    if chroma < 8:
        return "grey" if light > 58 else None
    if light >= 50:
        return "blonde" if 45 <= hue < 105 and chroma > 10 else None
    if 25 <= hue < 58 and chroma > 29:
        return "red"
    return "brown" if 25 <= hue < 100 and chroma > 10 else None


def surface_colour(tone: Tone) -> str | None:
    """white, grey, black, green, blue, brown, red, yellow or pink of a wall or of cloth."""
    light, chroma = tone.lightness, tone.chroma
    if light < 16 and chroma < 15:
        return "black"
    grey_below, colour_above = (8.0, 9.0) if light < 32 else (10.0, 12.5)
    if chroma < grey_below or (light > 80 and chroma < 13):
        return _neutral(light)
    if 200 <= tone.hue_deg < 310 and light > 62 and chroma < 18:
        # Open shade is lit by the blue sky: a white shirt outdoors measures like this.
        return "white" if light > 78 else None
    return _chromatic(light, chroma, tone.hue_deg) if chroma > colour_above else None


def _neutral(light: float) -> str | None:
    if light < 20:
        return "black"
    if light > 83:
        return "white"
    return "grey" if 26 < light < 80 else None


def _chromatic(light: float, chroma: float, hue: float) -> str | None:
    if hue >= 335 or hue < 42:
        if light > 58:
            return "pink"
        return "red" if chroma > 28 else "brown" if 20 <= hue < 42 else None
    if hue < 108:
        if chroma > 34 and light > 58:
            return "yellow"
        return "brown" if light < 62 else None
    if hue < 190:
        return "green"
    return "blue" if hue < 300 else None
