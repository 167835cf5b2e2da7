"""From a drawn picture to the portrait: enlarged, a photo's face set in, retouched, judged before and after."""

import hashlib
import io
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from studiolo.albums.people import Similarity
from studiolo.albums.records import Fusion
from studiolo.metrics.identity import Floats
from studiolo.perception.retouch import retouch
from studiolo.perception.suite import Suite
from studiolo.portraits.fusion import Template, fuse, open_templates
from studiolo.portraits.scoring import Score, score_portrait
from studiolo.portraits.upscaling import Upscaler
from studiolo.settings import GenerationSettings, PerceptionSettings
from studiolo.training.looks import greyscale

RgbU8 = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Finished:
    """A portrait and what is known of it."""

    rgb_u8: RgbU8
    """[H, W, 3]"""
    score: Score
    similarity_unfused: float
    """0..1, before a photo's face was set in."""
    fusion: Fusion


class Finisher:
    """Finishes one picture at a time, whichever threads ask.

    The models of `suite` and the upscaler keep buffers of the picture they are at, so a lock is around all of them.
    Templates of the last `people` persons asked for are kept: all styles of a person share them.
    """

    def __init__(
        self,
        suite: Suite,
        upscaler: Upscaler,
        similarity: Similarity,
        settings: GenerationSettings,
        seeing: PerceptionSettings,
        people: int = 1,
    ) -> None:
        self._suite, self._upscaler, self._similarity = suite, upscaler, similarity
        self._settings, self._seeing = settings, seeing
        self._people = people
        self._known: OrderedDict[str, list[Template]] = OrderedDict()
        self._lock = threading.Lock()

    def templates(self, crops: Sequence[tuple[bytes, float]]) -> list[Template]:
        """Templates of a person from PNGs of their references, each with its quality score."""
        digest = hashlib.sha256()
        for png, score in crops:
            digest.update(hashlib.sha256(png).digest() + f"{score}\0".encode())
        key = digest.hexdigest()
        with self._lock:
            if key not in self._known:
                pictures = [(_pixels(png), score) for png, score in crops]
                self._known[key] = open_templates(pictures, self._suite, self._seeing)
            self._known.move_to_end(key)
            while len(self._known) > self._people:
                self._known.popitem(last=False)
            return self._known[key]

    def __call__(
        self, rgb_u8: RgbU8, templates: Sequence[Template], references_ND: Floats, *, grey: bool = False
    ) -> Finished:
        """The portrait of a picture [H, W, 3], judged against the embeddings [N, D] of its person's references."""
        with self._lock:
            drawn_rgb_u8 = self._upscaler(rgb_u8)
            if grey:
                drawn_rgb_u8 = greyscale(drawn_rgb_u8)
            drawn = self._score(drawn_rgb_u8, references_ND)
            suite, settings = self._suite, self._settings
            image, fusion = fuse(drawn_rgb_u8, drawn.landmarks_px, templates, suite.mesher, settings.fusion)
            if settings.retouch and drawn.landmarks_px is not None:
                image = retouch(image, suite.regions(image, drawn.landmarks_px), settings.retouch)
            score = drawn if image is drawn_rgb_u8 else self._score(image, references_ND)
            return Finished(image, score, drawn.similarity, fusion)

    def _score(self, rgb_u8: RgbU8, references_ND: Floats) -> Score:
        return score_portrait(rgb_u8, self._suite, references_ND, self._similarity, self._seeing)


def _pixels(png: bytes) -> RgbU8:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), np.uint8)
