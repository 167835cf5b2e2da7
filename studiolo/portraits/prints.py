"""Print files: a portrait cropped around the face to a print's aspect, at exactly inches x dpi.

The crop is the largest of the print's aspect that the picture holds. Across, the face's middle is the crop's, as far as
the picture's edges let it. Upright, of the height that the face's box leaves free, `HEADROOM` lies above it and the
rest below, as portraits are framed: the eyes above the middle, room for hair, more for neck and shoulders. A crop that
would cut the face's box is none: such a print is refused.
"""

import io
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pydantic
from PIL import Image, ImageCms

from studiolo.identities.artifacts import identity_folder, safe_segment
from studiolo.settings import Section

DPI = 300
"""Dots an inch of a print whose order names none."""
HEADROOM = 0.45
"""Share of the free height that lies above the face's box."""
QUALITY = 95
"""JPEG quality; colour is not subsampled."""

_SIZE = re.compile(r"(\d+(?:\.\d+)?)x(\d+(?:\.\d+)?)(?:@(\d+))?")
_PROFILE_DATE = slice(24, 36)
_PROFILE_DAY = b"\x07\xd0\0\1\0\1\0\0\0\0\0\0"  # the first of January 2000
_HEAD_BYTES = 256

Box = tuple[float, float, float, float]
"""left, top, right, bottom in px."""


class PrintSize(Section):
    """A print: `4x5` is 4 inches wide and 5 high at 300 dpi, `8x10@240` says the dots an inch."""

    width_in: float = pydantic.Field(ge=1, le=40)
    """Width, inches."""
    height_in: float = pydantic.Field(ge=1, le=40)
    """Height, inches."""
    dpi: int = pydantic.Field(DPI, ge=72, le=600)
    """Dots an inch."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """The size that `text` names; `ValueError` (pydantic's for a value out of range) when it names none."""
        match = _SIZE.fullmatch(text.strip().lower())
        if match is None:
            raise ValueError(f"got the print {text!r}, wanted inches such as 4x5 or 8x10@240")
        return cls(width_in=float(match[1]), height_in=float(match[2]), dpi=int(match[3] or DPI))

    @property
    def name(self) -> str:
        """As it is ordered and as files are called: `4x5`, `8x10@240`."""
        inches = f"{self.width_in:g}x{self.height_in:g}"
        return inches if self.dpi == DPI else f"{inches}@{self.dpi}"

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height of the file."""
        return round(self.width_in * self.dpi), round(self.height_in * self.dpi)


PRINT_SCHEMA = pa.schema(
    [
        ("portrait_id", pa.string()),
        ("identity_id", pa.string()),
        ("style", pa.string()),
        ("index", pa.int32()),
        ("print", pa.string()),  # name of its `PrintSize`
        ("status", pa.string()),
        ("reason", pa.string()),
        ("path", pa.string()),  # JPEG, relative to the output; empty when there is none
    ]
)
"""One row a print of an accepted portrait."""


def print_path(identity_id: str, style: str, index: int, size: PrintSize) -> str:
    """JPEG of a portrait's print, relative to the output."""
    return f"{identity_folder(identity_id)}/prints/{safe_segment(style)}/{index:03d}-{size.name}.jpg"


def crop_around(face_xyxy_px: Sequence[float], width_px: int, height_px: int, size: PrintSize) -> Box | None:
    """The crop of a picture for a print of `size`; None when no crop of that aspect holds the whole face.

    A box that reaches beyond the picture counts as far as it shows.
    """
    left, right = (min(max(x, 0.0), float(width_px)) for x in face_xyxy_px[0::2])
    top, bottom = (min(max(y, 0.0), float(height_px)) for y in face_xyxy_px[1::2])
    aspect = size.size_px[0] / size.size_px[1]
    crop_width = min(float(width_px), height_px * aspect)
    crop_height = min(float(height_px), width_px / aspect)
    if right - left > crop_width or bottom - top > crop_height:
        return None
    x = (left + right - crop_width) / 2
    y = top - (crop_height - (bottom - top)) * HEADROOM
    x, y = min(max(x, 0.0), width_px - crop_width), min(max(y, 0.0), height_px - crop_height)
    return x, y, x + crop_width, y + crop_height


def encode_print(rgb_u8: npt.NDArray[np.uint8], crop: Box, size: PrintSize) -> bytes:
    """JPEG of the `crop` of a picture [H, W, 3], resized to `size` (Lanczos), with its dpi and sRGB's profile.

    The same input gives the same bytes.
    """
    image = Image.fromarray(rgb_u8).resize(size.size_px, Image.Resampling.LANCZOS, box=crop)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY, subsampling=0, dpi=(size.dpi, size.dpi), icc_profile=_srgb_profile())
    return buffer.getvalue()


def is_print(content: bytes) -> bool:
    """Whether `content` is a print of ours, by the date of its colour profile; pixels are not decoded."""
    _, found, profile = content[:_HEAD_BYTES].partition(b"ICC_PROFILE\0\1\1")
    return content.startswith(b"\xff\xd8") and bool(found) and profile[_PROFILE_DATE] == _PROFILE_DAY


@lru_cache(maxsize=1)
def _srgb_profile() -> bytes:
    """sRGB's ICC profile without the moment it was made at, which would tell two equal runs apart."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[_PROFILE_DATE] = _PROFILE_DAY
    return bytes(profile)
