"""Pictures that were dropped on the page: whether they can be read and show a face, at once, and a small picture; the
faces of those that are to be edited.
"""

import base64
import hashlib
import io
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import compress
from operator import not_
from pathlib import Path
from queue import Empty, SimpleQueue

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from studiolo.albums.decode import looks_like_an_image
from studiolo.albums.isolation import IsolatedDecoder
from studiolo.albums.records import Reason
from studiolo.errors import PhotoError, WeightsError
from studiolo.perception.detect import Detection, Detector
from studiolo.perception.suite import open_detector
from studiolo.perception.upright import make_upright
from studiolo.settings import PerceptionSettings

log = logging.getLogger(__name__)

_SIDE_PX = 220
_TEMPLATE_SIDE_PX = 1024
_QUALITY = 78
_DECODERS = 2
_BLIND_S = 60.0
"""So long a detector that could not be had is not asked for again."""
GONE = "It lay here too long without being sent, and was removed: drop it again."


@dataclass(frozen=True)
class Dropped:
    """One photo, looked at."""

    path: Path
    """Where it lies on this machine until it is sent."""
    picture: str
    """A small picture of it as a data URL; empty when it cannot be read."""
    sentence: str
    """Why it cannot be used; empty where nothing is known against it."""
    sent: bool
    """Whether it goes with its album: what is no picture at all would have the whole album refused."""
    sha256: str = ""
    """Of the file; empty when it cannot be read."""
    face: bool = False
    """Whether a face was found that is large enough; False, too, where none was looked for."""


@dataclass(frozen=True)
class Face:
    """A face of a picture: its box, in shares of the picture's width and height."""

    left: float
    top: float
    width: float
    height: float

    @property
    def point(self) -> str:
        """Its middle, as `POST /v1/edits` is told which face is meant."""
        return f"{self.left + self.width / 2:.4f},{self.top + self.height / 2:.4f}"


@dataclass(frozen=True)
class Template:
    """A picture to be edited, looked at."""

    file: Dropped
    """Its picture is as large as one is shown."""
    faces: tuple[Face, ...] = ()
    """From left to right."""
    too_small: tuple[Face, ...] = ()
    """Those that cannot be drawn anew."""

    @property
    def sentence(self) -> str:
        """Why it cannot be edited; empty when it can."""
        if self.file.sentence or self.faces:
            return self.file.sentence
        return _without_face(bool(self.too_small)).sentence()


class Looker:
    """Reads pictures as workers read them, in child processes that a bad one may end, and finds faces as they do."""

    def __init__(self, settings: PerceptionSettings, suite: str = "embedded") -> None:
        self._settings, self._suite = settings, suite
        self._decoders: SimpleQueue[IsolatedDecoder] = SimpleQueue()
        for _ in range(_DECODERS):
            self._decoders.put(IsolatedDecoder(settings))
        self._room = threading.BoundedSemaphore(_DECODERS)
        """For whole pictures in memory."""
        self._finding = threading.Lock()
        self._detector: Detector | None = None
        """Opened for the first picture."""
        self._blind_until_s = 0.0

    def __call__(self, path: Path) -> Dropped:
        """One photo; from any thread. Where no faces can be looked for it is only read."""
        with self._room:
            found, sha256 = self._opened(path)
            if isinstance(found, Dropped):
                return found
            dropped = Dropped(path, _small(found, _SIDE_PX), "", True, sha256)
            try:
                with self._detecting() as detector:
                    faces = make_upright(found, detector, self._settings.detector_score).faces
            except WeightsError:
                return dropped
            if any(map(self._is_large, faces)):
                return replace(dropped, face=True)
            return replace(dropped, sentence=_without_face(bool(faces)).sentence())

    def template(self, path: Path) -> Template:
        """One picture to be edited; from any thread. Raises `WeightsError` where no faces can be looked for."""
        with self._room:
            found, sha256 = self._opened(path)
            if isinstance(found, Dropped):
                return Template(found)
            height, width = found.shape[:2]
            with self._detecting() as detector:
                detected = detector(found, self._settings.detector_score)
            detected.sort(key=lambda one: float(one.bbox_xyxy_px[[0, 2]].mean()))
            large = [*map(self._is_large, detected)]
            faces = [_face(one, width, height) for one in detected]
            file = Dropped(path, _small(found, _TEMPLATE_SIDE_PX), "", True, sha256, any(large))
            return Template(file, tuple(compress(faces, large)), tuple(compress(faces, map(not_, large))))

    def _is_large(self, face: Detection) -> bool:
        return face.short_side_px >= self._settings.min_face_px

    def _opened(self, path: Path) -> tuple[NDArray[np.uint8] | Dropped, str]:
        """A file's pixels [H, W, 3], or why there are none; and its sha256."""
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return Dropped(path, "", GONE, sent=False), ""
        if not data:
            return Dropped(path, "", Reason.EMPTY_FILE.sentence(), sent=False), ""
        if not looks_like_an_image(data[:16]):
            return Dropped(path, "", Reason.NOT_AN_IMAGE.sentence(), sent=False), ""
        sha256 = hashlib.sha256(data).hexdigest()
        with self._decoder() as decode:
            try:
                return decode(data), sha256
            except PhotoError as error:
                return Dropped(path, "", Reason(error.reason).sentence(), sent=True), sha256

    @contextmanager
    def _detecting(self) -> Iterator[Detector]:
        """The detector, for one thread at a time. Raises `WeightsError`."""
        with self._finding:
            if self._detector is None:
                self._detector = self._open_detector()
            yield self._detector

    def _open_detector(self) -> Detector:
        if time.monotonic() < self._blind_until_s:
            raise WeightsError("the detector could not be had a moment ago")
        try:
            return open_detector(self._suite)
        except WeightsError as error:
            log.error("no faces can be looked for: %s", error)
            self._blind_until_s = time.monotonic() + _BLIND_S
            raise

    def close(self) -> None:
        """End the children."""
        while True:
            try:
                self._decoders.get_nowait().close()
            except Empty:
                return

    @contextmanager
    def _decoder(self) -> Iterator[IsolatedDecoder]:
        decoder = self._decoders.get()
        try:
            yield decoder
        finally:
            self._decoders.put(decoder)


def said_of_repeats(photos: Sequence[Dropped]) -> list[Dropped]:
    """The same photos; those that can be read and are there before, byte for byte, say so."""
    said: list[Dropped] = []
    before: set[str] = set()
    for photo in photos:
        repeated = photo.sha256 in before
        said.append(replace(photo, sentence=Reason.DUPLICATE.sentence()) if repeated else photo)
        before |= {photo.sha256} - {""}
    return said


def _without_face(too_small: bool) -> Reason:
    """Why a picture has no face that can be used; `too_small` when there is a smaller one."""
    return Reason.FACE_TOO_SMALL if too_small else Reason.NO_FACE


def _face(found: Detection, width_px: int, height_px: int) -> Face:
    """A face as far as it is in its picture."""
    size = np.array((width_px, height_px))
    first, last = (np.clip(corner / size, 0.0, 1.0) for corner in found.bbox_xyxy_px.reshape(2, 2))
    return Face(*map(float, (*first, *(last - first))))


def _small(rgb_u8: NDArray[np.uint8], side_px: int) -> str:
    picture = Image.fromarray(rgb_u8)
    picture.thumbnail((side_px, side_px))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
