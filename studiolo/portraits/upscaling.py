"""Upscaling: RealESRGAN's weights through ncnn, on the CPU.

Factor 2 is `animevideov3` (1.2 MB, 0.1 s from 128 to 256 px on one core), factor 4 is `x4plus` (33 MB, 5 s
from 128 to 512 px): the small one is fast enough for every candidate, the large one draws skin and hair more
truly.
"""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from studiolo.errors import SettingsError, WeightsError

_BORDER_PX = 10
"""Mirrored rim that is cut off again: at the edge of the picture the network would otherwise see black."""

CARDS = {2: "realesrgan-x2", 4: "realesrgan-x4"}
"""Model card of each factor that needs a model."""

_STEMS = {2: "realesr-animevideov3-x2", 4: "realesrgan-x4plus"}


class Upscaler(Protocol):
    """Makes a picture `factor` times as wide and as high."""

    factor: int

    def __call__(self, rgb_u8: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """[H, W, 3] -> [H * factor, W * factor, 3]; the same picture gives the same bytes."""
        ...


def open_upscaler(factor: int, threads: int = 1) -> Upscaler:
    """The upscaler for `factor` 1, 2 or 4, its weights fetched when absent.

    Raises `SettingsError` for another factor, `WeightsError` when the weights cannot be had.
    """
    if factor == 1:
        return NoUpscaler()
    if factor not in CARDS:
        raise SettingsError(f"upscale: got {factor}, wanted 1, 2 or 4")
    from studiolo.weights.fetch import pull

    folder, stem = pull(CARDS[factor]), _STEMS[factor]
    return NcnnUpscaler(folder / f"{stem}.param", folder / f"{stem}.bin", factor, threads)


class NoUpscaler:
    """Factor 1: the picture itself."""

    factor = 1

    def __call__(self, rgb_u8: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """[H, W, 3] -> a copy."""
        return rgb_u8.copy()


class NcnnUpscaler:
    """A RealESRGAN network; `threads` changes the speed and no byte. Keeps no threads when it has one."""

    def __init__(self, param: Path, weights: Path, factor: int, threads: int = 1) -> None:
        """Load the network from its two files; `WeightsError` when ncnn cannot."""
        import ncnn

        self.factor = factor
        self._ncnn: Any = ncnn
        self._net = ncnn.Net()
        self._net.opt.num_threads = threads
        self._net.opt.use_vulkan_compute = False
        for path, load in ((param, self._net.load_param), (weights, self._net.load_model)):
            if not path.is_file() or load(str(path)) != 0:
                raise WeightsError(f"upscaler: ncnn cannot load {path}; run `python -m jobs models verify`")

    def __call__(self, rgb_u8: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """[H, W, 3] -> [H * factor, W * factor, 3]."""
        height, width, _ = rgb_u8.shape
        rim = min(_BORDER_PX, height - 1, width - 1)
        padded = np.pad(rgb_u8, ((rim, rim), (rim, rim), (0, 0)), mode="reflect") if rim else rgb_u8
        x_CHW = np.ascontiguousarray(padded.transpose(2, 0, 1), dtype=np.float32) / 255.0
        with self._net.create_extractor() as extractor:
            extractor.input("data", self._ncnn.Mat(x_CHW))
            code, result = extractor.extract("output")
            if code != 0:
                raise WeightsError(f"upscaler: ncnn failed with code {code} on {width}x{height} px")
            y_CHW = np.array(result)
        cut = rim * self.factor
        inner = y_CHW[:, cut : cut + height * self.factor, cut : cut + width * self.factor]
        return np.ascontiguousarray((inner.clip(0, 1) * 255.0).round().astype(np.uint8).transpose(1, 2, 0))
