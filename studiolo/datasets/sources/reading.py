"""The bytes of a listed picture: a file, a stretch of a file, or a face that is made on the spot."""

import re
import time

import cv2
import fsspec

from studiolo.albums.records import Reason
from studiolo.albums.sources import MAX_FILE_BYTES, is_local, local_path, read_bytes
from studiolo.errors import PhotoError
from studiolo.storage.store import RETRY_PAUSES_S
from studiolo.training.synthesis import CARD, FaceSynthesiser
from studiolo.weights.fetch import pull

JPEG_QUALITY = 95
"""Of a face that is made."""

_STRETCH = re.compile(r"stretch:(\d+)\+(\d+):(.+)", re.DOTALL)
_FACE = re.compile(r"synthetic:(\d+):(\d+)")


def stretch(place: str, offset: int, size: int) -> str:
    """Place of `size` bytes from `offset` on of the file at `place`."""
    return f"stretch:{offset}+{size}:{place}"


def synthetic_face(number: int, side_px: int) -> str:
    """Place of random face `number`."""
    return f"synthetic:{number}:{side_px}"


class PictureReader:
    """Bytes by place. Keeps the synthesiser of faces once one was wanted; what it cannot read is a `PhotoError`."""

    def __init__(self, limit_bytes: int = MAX_FILE_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._synthesiser: FaceSynthesiser | None = None

    def __call__(self, place: str) -> bytes:
        """The picture's file. Storages that are far away are asked again, after `RETRY_PAUSES_S`, before it fails."""
        if face := _FACE.fullmatch(place):
            return self._make(int(face[1]), int(face[2]))
        far = not is_local(_STRETCH.sub(r"\3", place))
        pauses_s = iter(RETRY_PAUSES_S if far else ())
        while True:
            try:
                return self._read(place)
            except PhotoError as error:
                pause_s = next(pauses_s, None)
                if (
                    pause_s is None
                    or error.reason != Reason.UNREADABLE
                    or isinstance(error.__cause__, FileNotFoundError)
                ):
                    raise
            time.sleep(pause_s)

    def _read(self, place: str) -> bytes:
        found = _STRETCH.fullmatch(place)
        if not found:
            return read_bytes(place, self._limit_bytes)
        offset, size, file = int(found[1]), int(found[2]), found[3]
        if size > self._limit_bytes:
            raise PhotoError(Reason.TOO_MANY_PIXELS, f"{file!r}: a member is longer than {self._limit_bytes} bytes")
        try:
            content = _read_stretch(file, offset, size)
        except Exception as error:  # every file system has its own errors; one unreadable picture must stay one row
            raise PhotoError(Reason.UNREADABLE, f"{file!r}: {type(error).__name__}: {error}") from error
        if len(content) < size:
            raise PhotoError(Reason.UNREADABLE, f"{file!r} ends at {offset + len(content)}, wanted {offset + size}")
        return content

    def _make(self, number: int, side_px: int) -> bytes:
        if self._synthesiser is None:
            self._synthesiser = FaceSynthesiser.open(pull(CARD))
        rgb_u8 = self._synthesiser(number, side_px)
        jpeg = cv2.imencode(".jpg", rgb_u8[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
        return bytes(jpeg.tobytes())


def _read_stretch(file: str, offset: int, size: int) -> bytes:
    if is_local(file):
        with open(local_path(file), "rb") as opened:
            opened.seek(offset)
            return opened.read(size)
    fs, path = fsspec.core.url_to_fs(file)
    return bytes(fs.cat_file(path, offset, offset + size))
