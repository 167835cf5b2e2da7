"""Age and gender of a face. What the suite cannot know is `unknown`, never guessed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from studiolo.albums.records import UNKNOWN
from studiolo.perception import chips
from studiolo.perception.runtime import onnx_session

RgbU8 = NDArray[np.uint8]

_PADDING = 0.2
_AGE_SIDE_PX, _GENDER_SIDE_PX = 64, 32
_MEAN_RGB = np.array([122.782, 117.001, 104.298], np.float32)
_BIN_YEARS = np.array([0.25, *range(1, 81)])  # "age_weights" of the models' manifest


@dataclass(frozen=True)
class Attributes:
    """Fields of `records.ATTRIBUTES`."""

    p_female: float
    """0..1."""
    age_years: float
    """Mean of the model's distribution over 0..80 years."""
    glasses: str = UNKNOWN
    headwear: str = UNKNOWN
    ears: str = UNKNOWN


class AttributeReader(Protocol):
    """Reads attributes of one face."""

    def __call__(self, rgb_u8: RgbU8, landmarks_px: ArrayLike) -> Attributes:
        """`rgb_u8` [H, W, 3], `landmarks_px` [5, 2] in the order of `records.FACE`."""
        ...


class EmbeddedAttributes:
    """dlib's age and gender networks, exported to ONNX. Glasses, headwear and ears: unknown."""

    def __init__(self, age: Any, gender: Any) -> None:
        self._age = age
        self._gender = gender

    @classmethod
    def open(cls, folder: Path, threads: int = 1) -> Self:
        """From the weights folder of card `age-gender`."""
        return cls(onnx_session(folder / "age-v1.onnx", threads), onnx_session(folder / "gender-v1.onnx", threads))

    def __call__(self, rgb_u8: RgbU8, landmarks_px: ArrayLike) -> Attributes:
        """See `AttributeReader`."""
        p_age = self._age.run(None, {"images": _input(rgb_u8, landmarks_px, _AGE_SIDE_PX)})[0][0]
        p_gender = self._gender.run(None, {"images": _input(rgb_u8, landmarks_px, _GENDER_SIDE_PX)})[0][0]
        years = float(np.asarray(p_age, np.float64) @ _BIN_YEARS / max(float(p_age.sum()), 1e-9))
        return Attributes(p_female=float(np.clip(p_gender[0], 0, 1)), age_years=years)


def _input(rgb_u8: RgbU8, landmarks_px: ArrayLike, side_px: int) -> NDArray[np.float32]:
    """[1, 3, side, side]: dlib's face chip, normalised as its input layer does."""
    chip = chips.warp(rgb_u8, chips.dlib_chip_matrix(landmarks_px, side_px, _PADDING), side_px)
    return np.ascontiguousarray(((chip.astype(np.float32) - _MEAN_RGB) / 256).transpose(2, 0, 1)[None])
