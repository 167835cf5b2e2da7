"""Pictures of several people."""

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

PAIR = ("P001/portrait.jpg", "P002/portrait.jpg")
_SIDE_PX, _GAP_PX = 500, 24
_SMALL_PX = 110


def group(people: Path, photos: Sequence[str] = PAIR, small: bool = False) -> bytes:
    """A JPEG with room for two photos side by side; `small` with another one, of somebody too far away, at the left
    below.
    """
    whole = Image.new("RGB", (2 * _SIDE_PX + _GAP_PX, _SIDE_PX + (_SMALL_PX if small else 0)), (120, 130, 140))
    for number, name in enumerate(photos):
        whole.paste(_square(people / name, _SIDE_PX), (number * (_SIDE_PX + _GAP_PX), 0))
    if small:
        whole.paste(_square(people / PAIR[1], _SMALL_PX), (0, _SIDE_PX))
    buffer = io.BytesIO()
    whole.save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def _square(path: Path, side_px: int) -> Image.Image:
    picture = Image.open(path).convert("RGB")
    side = min(picture.size)
    return picture.crop((0, 0, side, side)).resize((side_px, side_px), Image.Resampling.LANCZOS)
