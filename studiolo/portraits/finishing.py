"""From a drawn picture to the portrait: enlarged, a photo's face set in, retouched, judged before and after."""

import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
from studiolo.portraits.upscaling import Upscaler, open_upscaler
from studiolo.settings import GenerationSettings, PerceptionSettings
from studiolo.training.looks import greyscale

RgbU8 = NDArray[np.uint8]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Finished:
    """A portrait and what is known of it."""

    rgb_u8: RgbU8
    """[H, W, 3]"""
    score: Score
    similarity_unfused: float
    """0..1, before a photo's face was set in."""
    fusion: Fusion
    outline_px: NDArray[np.float64] | None = None
    """[68, 2]: the landmarks of its face, where they were asked for and there is one."""
    face_xy: tuple[float, float] | None = None
    """The middle of its face in shares of width and height, where the picture shows more than a portrait does."""


class Finisher:
    """Finishes one picture at a time, whichever threads ask.

    The models of `suite` and the upscalers keep buffers of the picture they are at, so a lock is around all of them.
    The upscaler that `settings` want is opened at once, others when they are asked for. Templates of the last `people`
    persons asked for are kept: all styles of a person share them.
    """

    def __init__(
        self,
        suite: Suite,
        similarity: Similarity,
        settings: GenerationSettings,
        seeing: PerceptionSettings,
        people: int = 1,
    ) -> None:
        self._suite, self._similarity = suite, similarity
        self._settings, self._seeing = settings, seeing
        self._people = people
        self._upscalers: dict[int, Upscaler] = {settings.upscale: open_upscaler(settings.upscale)}
        self._known: OrderedDict[str, tuple[str, list[Template]]] = OrderedDict()
        self._lock = threading.Lock()

    def templates(
        self, identity_id: str, version: str, crops: Callable[[], Sequence[tuple[bytes, float]]]
    ) -> list[Template]:
        """Templates of a person from PNGs of their references, each with its quality score.

        `crops` reads them, when those of this `version` of the references are not known.
        """
        with self._lock:
            known = self._kept(identity_id, version)
        if known is not None:
            return known
        pictures = [(_pixels(png), score) for png, score in crops()]  # a store that is slow holds up nobody else
        with self._lock:
            known = self._kept(identity_id, version)  # another thread may have been faster
            if known is None:
                known = open_templates(pictures, self._suite, self._seeing)
                self._known[identity_id] = version, known
                self._known.move_to_end(identity_id)
                while len(self._known) > self._people:
                    self._known.popitem(last=False)
            return known

    def _kept(self, identity_id: str, version: str) -> list[Template] | None:
        kept_version, templates = self._known.get(identity_id, (None, []))
        if kept_version != version:
            return None
        self._known.move_to_end(identity_id)
        return templates

    def forget(self, identity_id: str) -> int:
        """Drop the templates of a person; how many there were."""
        with self._lock:
            return len(self._known.pop(identity_id, ("", []))[1])

    def __call__(
        self,
        rgb_u8: RgbU8,
        templates: Sequence[Template],
        references_ND: Floats,
        *,
        grey: bool = False,
        upscale: int | None = None,
        fusion: float | None = None,
        within: Mask | None = None,
    ) -> Finished:
        """The portrait of a picture [H, W, 3], judged against the embeddings [N, D] of its person's references.

        `upscale` is 1, 2 or 4, `fusion` 0 to 1; None: as the settings say. `within`: see `score_portrait`.
        """
        with self._lock:
            drawn_rgb_u8 = self._upscaler(upscale or self._settings.upscale)(rgb_u8)
            if grey:
                drawn_rgb_u8 = greyscale(drawn_rgb_u8)
            drawn = self._score(drawn_rgb_u8, references_ND, within)
            suite, settings = self._suite, self._settings
            share = settings.fusion if fusion is None else fusion
            image, fused = fuse(drawn_rgb_u8, drawn.landmarks_px, templates, suite.mesher, share)
            if settings.retouch and drawn.landmarks_px is not None:
                image = retouch(image, suite.regions(image, drawn.landmarks_px), settings.retouch)
            score = drawn if image is drawn_rgb_u8 else self._score(image, references_ND, within)
            return Finished(image, score, drawn.similarity, fused)

    def judge(self, rgb_u8: RgbU8, references_ND: Floats, within: Mask | None = None) -> Score:
        """The score of a picture [H, W, 3] against the embeddings [N, D] of its person's references."""
        with self._lock:
            return self._score(rgb_u8, references_ND, within)

    @contextmanager
    def models(self) -> Iterator[Suite]:
        """The suite, for as long as nobody else needs it; nothing of the finisher may be called meanwhile."""
        with self._lock:
            yield self._suite

    def _upscaler(self, factor: int) -> Upscaler:
        if factor not in self._upscalers:
            self._upscalers[factor] = open_upscaler(factor)
        return self._upscalers[factor]

    def _score(self, rgb_u8: RgbU8, references_ND: Floats, within: Mask | None) -> Score:
        return score_portrait(rgb_u8, self._suite, references_ND, self._similarity, self._seeing, within)


def _pixels(png: bytes) -> RgbU8:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), np.uint8)
