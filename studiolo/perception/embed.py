"""A face as 128 numbers: near for the same person, far for others."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from studiolo.perception import chips
from studiolo.perception.runtime import missing

RgbU8 = NDArray[np.uint8]

DIMENSIONS = 128
CHIP_SIDE_PX, CHIP_PADDING = 150, 0.25


class Embedder(Protocol):
    """Embeds faces; compare embeddings by Euclidean distance."""

    def __call__(self, rgb_u8: RgbU8, landmarks_px: Sequence[ArrayLike]) -> NDArray[np.float32]:
        """Embeddings [N, 128] of the N faces of `rgb_u8` [H, W, 3] with five points [5, 2] each."""
        ...


class EmbeddedEmbedder:
    """dlib's face recognition ResNet on aligned chips of 150 px, without jitter, so that equal input gives equal
    numbers.
    """

    def __init__(self, model: Any) -> None:
        self._model = model

    @classmethod
    def open(cls, folder: Path) -> Self:
        """From the weights folder of card `dlib-face`."""
        try:
            import dlib
        except ImportError:
            raise missing("dlib") from None
        return cls(dlib.face_recognition_model_v1(str(folder / "dlib_face_recognition_resnet_model_v1.dat")))

    def __call__(self, rgb_u8: RgbU8, landmarks_px: Sequence[ArrayLike]) -> NDArray[np.float32]:
        """See `Embedder`."""
        return self.embed_chips([chip(rgb_u8, five) for five in landmarks_px])

    def embed_chips(self, aligned_rgb_u8: Sequence[RgbU8]) -> NDArray[np.float32]:
        """Embeddings [N, 128] of aligned chips [150, 150, 3]. One at a time: a batch would make a face depend on its
        neighbours' number.
        """
        rows = [np.array(self._model.compute_face_descriptor(one, 0), np.float32) for one in aligned_rgb_u8]
        return np.stack(rows) if rows else np.zeros((0, DIMENSIONS), np.float32)


def chip(rgb_u8: RgbU8, landmarks_px: ArrayLike) -> RgbU8:
    """The chip [150, 150, 3] dlib's model was trained on: eyes and mouth where its mean face has them, padding 0.25."""
    return chips.warp(rgb_u8, chips.dlib_chip_matrix(landmarks_px, CHIP_SIDE_PX, CHIP_PADDING), CHIP_SIDE_PX)
