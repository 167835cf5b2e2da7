"""Pictures of several people."""

import io
from pathlib import Path

from PIL import Image

_SIDE_PX = 500
_SMALL_PX = 110


def group(people: Path, shown: int = 2, small: bool = False) -> bytes:
    """A JPEG with so many people side by side, from the left; `small` with another one, too far away, at the left
    below.
    """
    whole = Image.new("RGB", (2 * _SIDE_PX + 200, _SIDE_PX + 120), (120, 130, 140))
    for number, person in enumerate(("P001", "P002")[:shown]):
        whole.paste(_square(people / person / "portrait.jpg", _SIDE_PX), (number * (_SIDE_PX + 200), 0))
    if small:
        whole.paste(_square(people / "P002" / "portrait.jpg", _SMALL_PX), (0, _SIDE_PX + 5))
    buffer = io.BytesIO()
    whole.save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def _square(path: Path, side_px: int) -> Image.Image:
    picture = Image.open(path).convert("RGB")
    side = min(picture.size)
    return picture.crop((0, 0, side, side)).resize((side_px, side_px), Image.Resampling.LANCZOS)
