"""The finishing actor: drawn candidates in, finished and judged portraits out, for people whose references lie in the
store.
"""

import hashlib
import logging
import threading
import time
from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from studiolo.errors import UnacceptableError, WeightsError
from studiolo.perception.similarity import Similarity
from studiolo.perception.suite import open_suite
from studiolo.portraits.finishing import Finished, Finisher
from studiolo.portraits.fusion import Template, in_look
from studiolo.service.logs import answering
from studiolo.settings import GenerationSettings, PerceptionSettings
from studiolo.storage.store import Store

log = logging.getLogger(__name__)

SEEING = PerceptionSettings(min_side_px=32, min_face_px=24)
"""How portraits are looked at: they are small, and their faces are where we put them."""

_STALL_S = 300.0
"""Longest that a candidate may take, those before it included."""


@dataclass(frozen=True, eq=False)
class Sitter:
    """The person of a portrait as their references show them."""

    identity_id: str
    crop_paths: tuple[str, ...] = ()
    """PNGs in the store."""
    quality_scores: tuple[float, ...] = ()
    """Of each."""
    embeddings_ND: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 128), np.float32))
    """Of each; none of a person of the base."""

    def version(self) -> str:
        """Stands for the references."""
        digest = hashlib.sha256(self.embeddings_ND.tobytes())
        for path, score in zip(self.crop_paths, self.quality_scores, strict=True):
            digest.update(f"\0{path}\0{score}".encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class Finish:
    """How a candidate is finished."""

    style_words: str
    grey: bool
    upscale: int
    """1, 2 or 4."""
    fusion: float
    """0 to 1."""
    request_id: str | None = None
    """Of the HTTP request it is for, for the log."""


class PortraitFinisher:
    """Finishes and judges with the models of `suite`; templates of the last `people` persons are kept."""

    def __init__(self, store: Store, suite: str, settings: GenerationSettings, people: int = 16) -> None:
        self.store, self.suite_name, self.settings, self.people = store, suite, settings, people

    def open(self) -> None:
        """Load the perception suite and the upscaler."""
        suite, similarity = open_suite(self.suite_name), Similarity.load(self.suite_name)
        self._finisher = Finisher(suite, similarity, self.settings, SEEING, self.people)
        self._forgotten: set[str] = set()
        self._begun: dict[int, float] = {}
        """By thread: when the candidate at which it is was begun."""

    def finish(self, rgb_u8: NDArray[np.uint8], sitter: Sitter, how: Finish) -> Finished:
        """The portrait of a picture [H, W, 3], as the bulk job makes it; from any thread, one at a time.

        Raises `UnacceptableError` for a person who was forgotten, and what the store raises.
        """
        self._require_known(sitter)
        began_s = self._begun[threading.get_ident()] = time.monotonic()
        try:
            finished = self._finish(rgb_u8, sitter, how)
            self._require_known(sitter)
        finally:
            del self._begun[threading.get_ident()]
        with answering(how.request_id) if how.request_id else nullcontext():
            log.info("a candidate is finished", extra={"ms": round(1000 * (time.monotonic() - began_s), 1)})
        return finished

    def _require_known(self, sitter: Sitter) -> None:
        if sitter.identity_id in self._forgotten:
            self._finisher.forget(sitter.identity_id)  # what was in work meanwhile
            raise UnacceptableError("identity", "The person is not there any more.")

    def check(self) -> None:
        """Raises `WeightsError` when a candidate is not finished in any time it could take."""
        if any(time.monotonic() - began_s > _STALL_S for began_s in list(self._begun.values())):
            raise WeightsError(f"finisher: a candidate took more than {_STALL_S:g} s; start it again")

    def _finish(self, rgb_u8: NDArray[np.uint8], sitter: Sitter, how: Finish) -> Finished:
        templates = in_look(self._templates(sitter), how.style_words) if how.fusion else []
        return self._finisher(
            rgb_u8, templates, sitter.embeddings_ND, grey=how.grey, upscale=how.upscale, fusion=how.fusion
        )

    def _templates(self, sitter: Sitter) -> list[Template]:
        references = zip(sitter.crop_paths, sitter.quality_scores, strict=True)
        return self._finisher.templates(
            sitter.identity_id,
            sitter.version(),
            lambda: [(self.store.read_bytes(path), score) for path, score in references],
        )

    def forget(self, identity_id: str) -> dict[str, int]:
        """Take nothing more of a person, and drop what is kept of them; how much of what."""
        self._forgotten.add(identity_id)
        return {"templates": self._finisher.forget(identity_id)}
