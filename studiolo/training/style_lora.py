"""A style-LoRA from pictures of one look, by the trainer that learns people: one learner in a pack of its own."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray

from studiolo.identities.references import CROP_FACE_RATIO, CROP_SIDE_PX
from studiolo.settings import FaceLoraSettings
from studiolo.training.cache import TrainingPhoto
from studiolo.training.face_lora import FaceLora
from studiolo.training.learner import Learner
from studiolo.training.pack import Pack

_CLOSEST = 1.25
"""A view shows all of a picture's square, or down to this part of its side."""


def train_style(
    base: StableDiffusionPipeline,
    pictures: Sequence[NDArray[np.uint8]],
    words: str,
    settings: FaceLoraSettings,
    seed: int = 0,
    stepped: Callable[[], None] = lambda: None,
) -> FaceLora:
    """The style-LoRA of `pictures` (each [H, W, 3]), all of them captioned with the style's `words`.

    Of each the middle square counts, wholly and in closer views, with its mirror image. What settings say of faces, of
    looks and of validation does not. Raises `TrainingError` without pictures and when the training diverges.
    """
    own = {
        "view_face_ratio": (CROP_FACE_RATIO, _CLOSEST * CROP_FACE_RATIO),
        "background_weight": 1.0,
        "look_share": 0.0,
        "prior_weight": 0.0,
        "validate_every": 0,
    }
    settings = settings.model_copy(update=own)
    pack = Pack(base, settings, 1)
    photos = [_photo(rgb_u8, words) for rgb_u8 in pictures]
    learner = pack.learner("style", photos, seed)
    waiting = [learner]

    def take(free: int) -> list[Learner]:
        return [waiting.pop()] if waiting else []

    pack.run(take, lambda _: None, stepped)
    if learner.error is not None:
        raise learner.error
    return pack.face_lora(learner, trigger=words, photos=len(photos), seed=seed)


def _photo(rgb_u8: NDArray[np.uint8], words: str) -> TrainingPhoto:
    """The middle square of a picture, all of it to be learned."""
    height, width, _ = rgb_u8.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = rgb_u8[top : top + side, left : left + side]
    shrinks = cv2.INTER_AREA if side > CROP_SIDE_PX else cv2.INTER_CUBIC
    square = cv2.resize(square, (CROP_SIDE_PX, CROP_SIDE_PX), interpolation=shrinks)
    return TrainingPhoto(square, np.ones((CROP_SIDE_PX, CROP_SIDE_PX), np.float32), words)
