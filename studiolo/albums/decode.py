"""Photo bytes to upright-by-EXIF sRGB pixels, or the reason why not.

What a file is, its bytes decide; its name is never looked at. The checks run from cheap to dear: empty, what
kind, how many pixels (from the header), and only then the pixels themselves.
"""

import hashlib
import io
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from studiolo.albums.records import Reason
from studiolo.errors import PhotoError
from studiolo.settings import PerceptionSettings

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF")
"""No others: some of Pillow's formats start outside programs, and phones write none of them."""

_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif", b"avis")
_EXIF_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def content_sha256(data: bytes) -> str:
    """sha256 of a file's bytes as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def decode(data: bytes, settings: PerceptionSettings) -> NDArray[np.uint8]:
    """The picture in `data` as `rgb_u8` [H, W, 3], sRGB, turned as EXIF says, longest side at most
    `working_side_px`.

    Transparent parts lie on white; of an animation the first frame counts. Raises `PhotoError`: `EMPTY_FILE`,
    `NOT_AN_IMAGE`, `DAMAGED`, `TOO_MANY_PIXELS` (more than `max_pixels`, or than Pillow's own hard limit of
    179 million), `TOO_SMALL` (shorter side under `min_side_px`, before or after scaling), `TOO_MUCH_MEMORY`
    (where the process is limited, as in `studiolo.albums.isolation`).
    """
    if not data:
        raise PhotoError(Reason.EMPTY_FILE, "0 bytes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd EXIF and large pictures; the row says what matters
        image = _open(data)
        with image:
            size = _check_size(image.size, settings)
            try:
                return _pixels(image, size)
            except Exception as error:  # decoders raise whatever they stumble over; one photo must stay one row
                if (
                    isinstance(error, MemoryError) or "memory" in str(error).lower()
                ):  # "out of memory", "memory alloc..."
                    detail = f"{image.format}, {image.width}x{image.height} px: limit {settings.decode_mib} MiB"
                    raise PhotoError(Reason.TOO_MUCH_MEMORY, detail) from error
                raise PhotoError(Reason.DAMAGED, f"{image.format}: {type(error).__name__}: {error}") from error


def _open(data: bytes) -> Image.Image:
    """The picture with only its header read."""
    import pillow_heif

    pillow_heif.register_heif_opener()
    try:
        return Image.open(io.BytesIO(data), formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise PhotoError(Reason.TOO_MANY_PIXELS, str(error)) from error
    except MemoryError:
        raise
    except Exception as error:
        begins = f"begins with {data[:12].hex(' ')}"
        if looks_like_an_image(data):
            raise PhotoError(Reason.DAMAGED, f"{type(error).__name__}; {begins}") from error
        raise PhotoError(Reason.NOT_AN_IMAGE, begins) from error


def looks_like_an_image(data: bytes) -> bool:
    """Whether a file that begins with `data` (16 bytes will do) is of a kind that is opened; nothing is decoded."""
    starts = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"II*\x00", b"MM\x00*")
    heif = data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS
    return data.startswith(starts) or heif or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")


def _check_size(size_px: tuple[int, int], settings: PerceptionSettings) -> tuple[int, int]:
    """Working (width, height) in px for a picture of `size_px`; never larger than the picture."""
    width, height = size_px
    if width * height > settings.max_pixels:
        raise PhotoError(Reason.TOO_MANY_PIXELS, f"{width}x{height} px, limit {settings.max_pixels}")
    scale = min(1.0, settings.working_side_px / max(width, height))
    working = (round(width * scale), round(height * scale))
    if min(working) < settings.min_side_px:
        raise PhotoError(Reason.TOO_SMALL, f"{width}x{height} px, shorter side under {settings.min_side_px} px")
    return working


def _pixels(image: Image.Image, size: tuple[int, int]) -> NDArray[np.uint8]:
    if image.mode in ("RGB", "L"):
        image.draft(image.mode, size)  # lets the JPEG decoder skip detail that is scaled away below
    image.load()
    profile = image.info.get("icc_profile")
    upright = _flatten(image)
    turn = _exif_turn(image)
    if turn is not None:
        upright = upright.transpose(turn)
    swapped = (upright.width > upright.height) != (size[0] > size[1])
    target = size[::-1] if swapped else size
    if upright.size != target:
        upright = upright.resize(target, Image.Resampling.LANCZOS, reducing_gap=3.0)
    return np.ascontiguousarray(np.asarray(_to_srgb(upright, profile), dtype=np.uint8))


def _flatten(image: Image.Image) -> Image.Image:
    """The first frame as RGB, L or CMYK with 8 bits a channel, transparency composited on white."""
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_to_8_bit(np.asarray(image), image.mode))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image if image.mode in ("RGB", "L", "CMYK") else image.convert("RGB")


def _to_8_bit(grey: NDArray[Any], mode: str) -> NDArray[np.uint8]:
    """Grey values of 16 or 32 bits as 0..255: 16 bits by their high byte; floats and 32 bits by their own
    largest.
    """
    if mode.startswith("I;16"):
        return (grey.astype(np.uint16) >> 8).astype(np.uint8)
    values = np.nan_to_num(grey.astype(np.float64), posinf=0.0, neginf=0.0).clip(0.0)
    top = values.max()
    full = next((limit for limit in (1.0, 255.0, 65535.0) if top <= limit), top)
    return np.rint(values * (255.0 / full)).astype(np.uint8)


def _exif_turn(image: Image.Image) -> Image.Transpose | None:
    """What EXIF says must be done to the loaded `image`; unreadable EXIF says nothing."""
    try:
        return _EXIF_TURNS.get(image.getexif().get(0x0112, 1))
    except Exception:  # a broken EXIF block says nothing about the pixels
        return None


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """RGB in sRGB. A profile that is broken or made for another kind of picture is ignored, as viewers do."""
    if profile and image.mode in ("RGB", "L", "CMYK"):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, _SRGB, outputMode="RGB")
        except (ImageCms.PyCMSError, OSError):
            converted = None
        if converted is not None:
            return converted
    return image.convert("RGB")
