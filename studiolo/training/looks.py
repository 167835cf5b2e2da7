"""The looks of the embedded styles, put into pictures together with their words.

Pure functions of pixels: a base, or a face-LoRA, that sees pictures with these looks under these words renders them
when it is asked for them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.float32]
"""RGB [H, W, 3] in 0..255."""

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Look:
    """One look."""

    apply: Callable[[Pixels], Pixels]
    share: float
    """Share of the base's training views that get it."""
    colourless: bool = False
    """Whether the colours of hair, clothes and background are gone, and their tags with them."""
    whole_range: bool = True
    """Whether a white or black background is still one."""


def put_look(rgb_u8: NDArray[np.uint8], words: str) -> NDArray[np.uint8]:
    """The picture [H, W, 3] with the look of `LOOKS` called `words`. Raises `KeyError` for other words."""
    return np.clip(np.rint(LOOKS[words].apply(rgb_u8.astype(np.float32))), 0, 255).astype(np.uint8)


def greyscale(rgb_u8: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture [H, W, 3] with its luma in all three channels."""
    return put_look(rgb_u8, "black and white photo")


def without_lost_colours(tags: tuple[str, ...], words: str) -> tuple[str, ...]:
    """`tags` without those that the look called `words` makes untrue."""
    look = LOOKS[words]
    if look.colourless:
        tags = tuple(tag for tag in tags if not tag.endswith((" hair", " clothes")) and not _coloured(tag))
    if not look.whole_range:
        tags = tuple(tag for tag in tags if not tag.endswith("background"))
    return tags


def _coloured(tag: str) -> bool:
    return tag.endswith(" background") and tag.split()[0] not in ("white", "grey", "black", "blurred")


def _grey(pixels: Pixels) -> Pixels:
    return (pixels @ _LUMA)[..., None]


def _black_and_white(pixels: Pixels) -> Pixels:
    return np.repeat(_grey(pixels), 3, -1)


def _warm_film(pixels: Pixels) -> Pixels:
    """The golden tones of daylight film: blue taken back, shadows lifted."""
    gain, lift = np.array([1.08, 1.0, 0.82], np.float32), np.array([14, 6, 0], np.float32)
    return 16 + (pixels * gain + lift) * np.float32(228 / 255)


def _cool_film(pixels: Pixels) -> Pixels:
    """Shade on film: red taken back, shadows towards teal."""
    gain, lift = np.array([0.80, 0.98, 1.06], np.float32), np.array([0, 14, 26], np.float32)
    return 8 + (pixels * gain + lift) * np.float32(228 / 255)


def _sepia(pixels: Pixels) -> Pixels:
    """A brown print that darkens towards its corners."""
    dark, light = np.array([48, 24, 10], np.float32), np.array([255, 232, 196], np.float32)
    toned = dark + (_grey(pixels) / 255) ** 0.85 * (light - dark)
    return toned * (1 - 0.6 * _distance_from_middle(pixels) ** 2)


def _duotone(pixels: Pixels) -> Pixels:
    """Two inks: violet for the shadows, apricot for the lights."""
    dark, light = np.array([58, 18, 110], np.float32), np.array([255, 196, 120], np.float32)
    share = np.clip((_grey(pixels) - 24) / 200, 0, 1)
    return dark + share * (light - dark)


def _pencil(pixels: Pixels) -> Pixels:
    """Grey strokes where the picture has edges, a little shading, white paper."""
    grey = np.clip(_grey(pixels)[..., 0], 1, 255)
    smooth = cv2.bilateralFilter(grey, 5, 25, 3)
    around = cv2.GaussianBlur(255 - smooth, (0, 0), sigmaX=pixels.shape[0] / 25)
    strokes = np.clip(smooth / np.maximum(255 - around, 1), 0, 1) ** 1.2
    shade = 0.72 + 0.28 * np.sqrt(smooth / 255)
    return np.asarray(np.repeat((252 * strokes * shade)[..., None], 3, -1), np.float32)


def _watercolour(pixels: Pixels) -> Pixels:
    """Flat washes of strong colour with a trace of outline, running out into white paper at the edges."""
    rgb_u8 = np.clip(pixels, 0, 255).astype(np.uint8)
    washes = cv2.edgePreservingFilter(rgb_u8, flags=cv2.RECURS_FILTER, sigma_s=20, sigma_r=0.38).astype(np.float32)
    washes = 255 * (washes / 255) ** np.float32(0.8)
    grey = _grey(washes)
    vivid = 30 + (grey + 1.7 * (washes - grey)) * np.float32(0.88)
    outline = np.clip((_pencil(pixels) / 252) ** 0.9, 0.25, 1)
    paper = np.clip((_distance_from_middle(pixels) - 0.62) / 0.3, 0, 1)
    return vivid * outline * (1 - paper) + 250 * paper


def _high_key(pixels: Pixels) -> Pixels:
    """Bright all over: shadows lifted, colours pale."""
    bright = np.asarray(255 * (np.clip(pixels, 0, 255) / 255) ** 0.55, np.float32)
    return 62 + np.float32(0.78) * (np.float32(0.35) * _grey(bright) + np.float32(0.65) * bright)


def _low_key(pixels: Pixels) -> Pixels:
    """One light from the upper left, and the rest in the dark."""
    height, width = pixels.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    away = np.hypot((x / width - 0.38) / 0.75, (y / height - 0.42) / 0.75)[..., None]
    return 255 * (np.clip(pixels, 0, 255) / 255) ** 1.5 * np.clip(1.05 - away**1.5, 0.03, 1)


def _distance_from_middle(pixels: Pixels) -> Pixels:
    """[H, W, 1]: 0 in the middle, 1 in the corners."""
    height, width = pixels.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    offset = np.hypot((x + 0.5) / width - 0.5, (y + 0.5) / height - 0.5)
    return np.asarray(offset[..., None] / np.float32(np.sqrt(0.5)), np.float32)


LOOKS: dict[str, Look] = {
    "black and white photo": Look(_black_and_white, 0.08, colourless=True),
    "warm film photo": Look(_warm_film, 0.06),
    "cool film photo": Look(_cool_film, 0.06),
    "sepia photo": Look(_sepia, 0.05, colourless=True, whole_range=False),
    "duotone": Look(_duotone, 0.05, colourless=True, whole_range=False),
    "pencil drawing": Look(_pencil, 0.06, colourless=True, whole_range=False),
    "watercolour": Look(_watercolour, 0.06, whole_range=False),
    "high key photo": Look(_high_key, 0.05, whole_range=False),
    "low key photo": Look(_low_key, 0.05, whole_range=False),
}
"""Every look by its words, as prompts say them."""
