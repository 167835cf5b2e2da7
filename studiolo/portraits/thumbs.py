"""Small copies of pictures for the gallery: WebP, named by the place of the original."""

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from studiolo.albums.decode import decode
from studiolo.errors import StudioloError
from studiolo.perception.upright import turn
from studiolo.portraits.sheets import square
from studiolo.settings import PerceptionSettings

GALLERY = "gallery"
_DECODING = PerceptionSettings(min_side_px=1, working_side_px=512)


@dataclass(frozen=True)
class GalleryFiles:
    """How the gallery reaches files: `read` and `write` by paths relative to the output, `read_photo` by
    album and uri.

    `read_photo(album_id, uri)` may raise any `StudioloError` for a photo that cannot be had; the photo then
    has no thumbnail. What `read` and `write` raise ends the gallery.
    """

    read: Callable[[str], bytes]
    write: Callable[[str, bytes], None]
    read_photo: Callable[[str, str], bytes]


@dataclass(frozen=True)
class Thumb:
    """A written thumbnail: `src` is relative to the gallery's folder."""

    src: str
    width_px: int
    height_px: int


def portrait_thumb(files: GalleryFiles, path: str, side_px: int = 320, face_xy: Sequence[float] | None = None) -> Thumb:
    """Square thumbnail of a picture of the output (a portrait or a reference crop), see `square`."""
    return _write(files, path, square(decode(files.read(path), _DECODING), side_px, face_xy))


def photo_thumb(files: GalleryFiles, album_id: str, uri: str, rotation_deg: int, side_px: int = 280) -> Thumb | None:
    """Thumbnail of a customer's photo, turned upright, at most `side_px` long; None when it cannot be
    decoded.
    """
    try:
        rgb_u8 = decode(files.read_photo(album_id, uri), _DECODING)
    except StudioloError:
        return None
    image = Image.fromarray(turn(rgb_u8, rotation_deg or 0))
    image.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
    return _write(files, photo_origin(album_id, uri), image)


def photo_origin(album_id: str, uri: str) -> str:
    """What names the thumbnail of a customer's photo; a picture of the output is named by its path.

    Albums of a manifest share its uri and may share a file, so it is the album's name that tells them apart.
    """
    return f"{album_id}\0{uri}"


def thumb_path(origin: str) -> str:
    """Where the thumbnail of `origin` lies, relative to the output."""
    return f"{GALLERY}/thumbs/{hashlib.sha256(origin.encode(errors='surrogatepass')).hexdigest()[:24]}.webp"


def _write(files: GalleryFiles, origin: str, image: Image.Image) -> Thumb:
    path = thumb_path(origin)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=84, method=4)
    files.write(path, buffer.getvalue())
    return Thumb(path.removeprefix(f"{GALLERY}/"), image.width, image.height)
