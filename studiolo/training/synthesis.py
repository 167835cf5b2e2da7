"""Synthetic faces for the embedded base to learn from, each made from its number alone."""

from pathlib import Path
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from studiolo.perception.runtime import VinoModel

CARD = "random-face"
SIDE_PX = 1024
"""Side of a face before it is scaled down."""

TRUNCATION = 0.8
"""How far a style lies from the mean style, as a share of its own distance: below 1, plainer and safer."""

_FIRST_SEED = 1000
_MEAN_DRAWS, _MEAN_SEED = 256, 0
_LATENTS = 512


class FaceSynthesiser:
    """MobileStyleGAN: latents -> style -> face (Belousov 2021; truncation as in StyleGAN, Karras et al. 2019)."""

    def __init__(self, mapping: VinoModel, synthesis: VinoModel) -> None:
        self._mapping, self._synthesis = mapping, synthesis
        rng = np.random.default_rng(_MEAN_SEED)
        self._mean_style = np.mean([self._style(rng) for _ in range(_MEAN_DRAWS)], axis=0)

    @classmethod
    def open(cls, folder: Path, threads: int = 1) -> Self:
        """From the weights folder of card `random-face`."""
        names = ("MappingNetwork.xml", "SynthesisNetwork.xml")
        return cls(*(VinoModel(folder / name, threads) for name in names))

    def __call__(self, number: int, side_px: int) -> NDArray[np.uint8]:
        """Face `number` (at least 0), `rgb_u8` [side_px, side_px, 3], at most 1024 px, scaled down by area."""
        style = self._style(np.random.default_rng(_FIRST_SEED + number))
        truncated = self._mean_style + TRUNCATION * (style - self._mean_style)
        image_HWC = self._synthesis(truncated.astype(np.float32))[0].transpose(1, 2, 0)
        rgb_u8 = np.clip((image_HWC + 1) * 127.5, 0, 255).astype(np.uint8)
        return np.asarray(cv2.resize(rgb_u8, (side_px, side_px), interpolation=cv2.INTER_AREA), np.uint8)

    def _style(self, rng: np.random.Generator) -> NDArray[np.float32]:
        return self._mapping(rng.normal(size=(1, _LATENTS)).astype(np.float32))
