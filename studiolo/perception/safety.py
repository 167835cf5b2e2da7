"""Whether a picture is safe for work."""

from pathlib import Path
from typing import Any, Protocol, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from studiolo.perception.runtime import onnx_session

RgbU8 = NDArray[np.uint8]

_RESIZED_PX, _SIDE_PX = 256, 224
_MEAN_BGR = np.array([104, 117, 123], np.float32)


class Safety(Protocol):
    """Scores pictures."""

    def score(self, rgb_u8: RgbU8) -> float:
        """0 (safe) .. 1 (not safe for work) of `rgb_u8` [H, W, 3]."""
        ...


class EmbeddedSafety:
    """Yahoo's Open NSFW: the whole picture squeezed to 256 px, its middle 224 px looked at."""

    def __init__(self, session: Any) -> None:
        self._session = session

    @classmethod
    def open(cls, folder: Path, threads: int = 1) -> Self:
        """From the weights folder of card `nsfw`."""
        return cls(onnx_session(folder / "open_nsfw.onnx", threads))

    def score(self, rgb_u8: RgbU8) -> float:
        """See `Safety`."""
        small = cv2.resize(rgb_u8, (_RESIZED_PX, _RESIZED_PX), interpolation=cv2.INTER_AREA)
        edge = (_RESIZED_PX - _SIDE_PX) // 2
        middle = small[edge : edge + _SIDE_PX, edge : edge + _SIDE_PX, ::-1].astype(np.float32) - _MEAN_BGR
        probabilities = self._session.run(None, {"input_0": np.ascontiguousarray(middle[None])})[0][0]
        return float(np.clip(probabilities[1], 0, 1))
