"""The finishing actor: drawn candidates in, finished and judged portraits out, for people whose references lie in the
store.
"""

import hashlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from studiolo.albums.isolation import IsolatedDecoder
from studiolo.albums.records import Reason
from studiolo.errors import PhotoError, UnacceptableError, WeightsError
from studiolo.perception.similarity import Similarity
from studiolo.perception.suite import open_suite
from studiolo.portraits.edit_rounds import outlined, set_in
from studiolo.portraits.edit_templates import EditTemplate, TemplateFace, see_template
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
_TEMPLATES = 16
"""Of edits, kept for their other candidates: as many as a dispatcher works on for two samplers; one of 1600 px takes
18 MB."""


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
class TemplateFile:
    """A template in the store, and what is looked for in it."""

    identity_id: str
    """Who is to be drawn there."""
    path: str
    side_px: int
    """Of the base's pictures."""
    face_ratio: float
    """The face's share of that side."""
    face_xy: tuple[float, float] | None
    """A point of the face that is meant, in shares of width and height."""
    unsafe_above: float
    """A template scored above this by the safety model is none."""


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
    outline: bool = False
    """Whether the landmarks of its face are wanted: of an edit's sketch."""
    template: TemplateFile | None = None
    """What it is set into: of an edit."""


class PortraitFinisher:
    """Finishes and judges with the models of `suite`; templates of the last `people` persons are kept.

    `perception` says how the templates of edits, which strangers send, are opened and seen.
    """

    def __init__(
        self,
        store: Store,
        suite: str,
        settings: GenerationSettings,
        people: int = 16,
        perception: PerceptionSettings | None = None,
    ) -> None:
        self.store, self.suite_name, self.settings, self.people = store, suite, settings, people
        self.perception = perception or PerceptionSettings()

    def open(self) -> None:
        """Load the perception suite and the upscaler."""
        suite, similarity = open_suite(self.suite_name), Similarity.load(self.suite_name)
        self._finisher = Finisher(suite, similarity, self.settings, SEEING, self.people)
        self._forgotten: set[str] = set()
        self._decode, self._opening = IsolatedDecoder(self.perception), threading.Lock()
        """The decoder, for one at a time."""
        self._opened: OrderedDict[TemplateFile, EditTemplate] = OrderedDict()
        self._keeping = threading.Lock()
        """Guards the one above."""
        self._begun: dict[int, float] = {}
        """By thread: when the candidate at which it is was begun."""

    def finish(self, rgb_u8: NDArray[np.uint8], sitter: Sitter, how: Finish) -> Finished:
        """The portrait of a picture [H, W, 3], as the bulk job makes it; from any thread, one at a time.

        Raises `UnacceptableError` for a person who was forgotten, and what the store raises.
        """
        with self._for(sitter.identity_id, how.request_id, "a candidate is finished"):
            return self._finish(rgb_u8, sitter, how)

    def look(self, wanted: TemplateFile, request_id: str | None = None) -> TemplateFace:
        """The face of a template, whose file is opened in a process of its own; from any thread.

        Raises `UnacceptableError` with the reason for which it is none, and for a person who was forgotten, and what
        the store raises.
        """
        with self._for(wanted.identity_id, request_id, "a template is seen"):
            return self._template(wanted).face

    @contextmanager
    def _for(self, identity_id: str, request_id: str | None, said: str) -> Iterator[None]:
        """Work for a person who is known before and after it; `said` is what the log says then."""
        self._require_known(identity_id)
        began_s = self._begun[threading.get_ident()] = time.monotonic()
        try:
            yield
            self._require_known(identity_id)
        finally:
            del self._begun[threading.get_ident()]
        with answering(request_id) if request_id else nullcontext():
            log.info(said, extra={"ms": round(1000 * (time.monotonic() - began_s), 1)})

    def _require_known(self, identity_id: str) -> None:
        if identity_id in self._forgotten:
            self._drop(identity_id)  # what was in work meanwhile
            raise UnacceptableError("identity", "The person is not there any more.")

    def check(self) -> None:
        """Raises `WeightsError` when a candidate is not finished in any time it could take."""
        if any(time.monotonic() - began_s > _STALL_S for began_s in list(self._begun.values())):
            raise WeightsError(f"finisher: a candidate took more than {_STALL_S:g} s; start it again")

    def _finish(self, rgb_u8: NDArray[np.uint8], sitter: Sitter, how: Finish) -> Finished:
        templates = in_look(self._templates(sitter), how.style_words) if how.fusion else []
        shown = None if how.template is None else self._template(how.template)
        finished = self._finisher(
            rgb_u8,
            templates,
            sitter.embeddings_ND,
            grey=how.grey if shown is None else shown.grey,
            upscale=how.upscale,
            fusion=how.fusion,
            within=None if shown is None else shown.face.mask,
        )
        if shown is not None:
            return set_in(self._finisher, finished, shown, sitter.embeddings_ND)
        return outlined(self._finisher, finished) if how.outline else finished

    def _templates(self, sitter: Sitter) -> list[Template]:
        references = zip(sitter.crop_paths, sitter.quality_scores, strict=True)
        return self._finisher.templates(
            sitter.identity_id,
            sitter.version(),
            lambda: [(self.store.read_bytes(path), score) for path, score in references],
        )

    def _template(self, wanted: TemplateFile) -> EditTemplate:
        """A template that was seen lately, or is now. Raises `UnacceptableError` when it is none."""
        found = self._known(wanted)  # nobody waits for another's to be opened
        if found is not None:
            return found
        with self._opening:
            found = self._known(wanted) or self._seen(wanted)
            with self._keeping:
                self._opened[wanted] = found
                while len(self._opened) > _TEMPLATES:
                    self._opened.popitem(last=False)
            return found

    def _known(self, wanted: TemplateFile) -> EditTemplate | None:
        with self._keeping:
            if wanted in self._opened:
                self._opened.move_to_end(wanted)
            return self._opened.get(wanted)

    def _seen(self, wanted: TemplateFile) -> EditTemplate:
        content = self.store.read_bytes(wanted.path)
        try:
            rgb_u8 = self._decode(content)
            with self._finisher.models() as suite:
                how = wanted.face_ratio, self.perception, wanted.unsafe_above, wanted.face_xy
                return see_template(rgb_u8, suite, wanted.side_px, *how)
        except PhotoError as error:
            log.info("no template: %s", error.reason)
            raise UnacceptableError(str(error.reason), Reason(error.reason).sentence()) from None
        finally:
            self._decode.close()  # edits are few, and nothing of the picture stays in it

    def forget(self, identity_id: str) -> dict[str, int]:
        """Take nothing more of a person, and drop what is kept of them; how much of what."""
        self._forgotten.add(identity_id)
        return {"templates": self._drop(identity_id)}

    def _drop(self, identity_id: str) -> int:
        """Drop the templates of a person, and those that the person was to be drawn in; how many there were."""
        with self._keeping:
            own = [one for one in self._opened if one.identity_id == identity_id]
            for one in own:
                del self._opened[one]
        return len(own) + self._finisher.forget(identity_id)
