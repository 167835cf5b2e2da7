"""A row's picture as a vision model is shown it."""

import io
from typing import Any

from PIL import Image

from studiolo.datasets.captions.captioner import Row

_QUALITY = 90


def picture_of(row: Row, side_px: int) -> Any:
    """The picture, RGB, scaled down so that no side is longer than `side_px`."""
    picture = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")
    picture.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
    return picture


def jpeg_of(row: Row, side_px: int) -> bytes:
    """The same as JPEG; the row's own bytes where they are small enough."""
    content: bytes = row["image"]["bytes"]
    if max(Image.open(io.BytesIO(content)).size) <= side_px:
        return content
    buffer = io.BytesIO()
    picture_of(row, side_px).save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()
