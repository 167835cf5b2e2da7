"""Photos that were dropped on the page and not sent yet: whether they can be read, at once, and a small picture."""

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

from PIL import Image

from studiolo.albums.decode import looks_like_an_image
from studiolo.albums.isolation import IsolatedDecoder
from studiolo.albums.records import Reason
from studiolo.errors import PhotoError
from studiolo.settings import PerceptionSettings

_SIDE_PX = 220
_QUALITY = 78
_DECODERS = 2
GONE = "It lay here too long without being sent, and was removed: drop it again."


@dataclass(frozen=True)
class Dropped:
    """One photo, looked at."""

    path: Path
    """Where it lies on this machine until it is sent."""
    picture: str
    """A small picture of it as a data URL; empty when it cannot be read."""
    sentence: str
    """Why it cannot be used; empty when it can be read."""
    sent: bool
    """Whether it goes with its album: what is no picture at all would have the whole album refused."""


class Looker:
    """Reads photos as the trainer reads them, in child processes that a bad photo may end."""

    def __init__(self, settings: PerceptionSettings) -> None:
        self._decoders: SimpleQueue[IsolatedDecoder] = SimpleQueue()
        for _ in range(_DECODERS):
            self._decoders.put(IsolatedDecoder(settings))

    def __call__(self, path: Path) -> Dropped:
        """One photo; from any thread."""
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return Dropped(path, "", GONE, sent=False)
        if not data:
            return Dropped(path, "", Reason.EMPTY_FILE.sentence(), sent=False)
        if not looks_like_an_image(data[:16]):
            return Dropped(path, "", Reason.NOT_AN_IMAGE.sentence(), sent=False)
        with self._decoder() as decode:
            try:
                rgb_u8 = decode(data)
            except PhotoError as error:
                return Dropped(path, "", Reason(error.reason).sentence(), sent=True)
        return Dropped(path, _small(Image.fromarray(rgb_u8)), "", sent=True)

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


def _small(picture: Image.Image) -> str:
    picture.thumbnail((_SIDE_PX, _SIDE_PX))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
