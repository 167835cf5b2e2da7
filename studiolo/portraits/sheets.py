"""Contact sheets: labelled rows of pictures in one image, for the README and for tracked samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

_PAPER, _INK, _FAINT, _EMPTY = (250, 248, 245), (38, 35, 31), (122, 114, 104), (236, 231, 224)


@dataclass(frozen=True)
class Tile:
    """One picture, `rgb_u8` [H, W, 3], and the words below it, on as many lines as they have."""

    rgb_u8: npt.NDArray[np.uint8]
    caption: str = ""


@dataclass(frozen=True)
class SheetRow:
    """A row: usually a person, with one tile a column; None leaves a place empty."""

    label: str
    tiles: Sequence[Tile | None]


def contact_sheet(rows: Sequence[SheetRow], columns: Sequence[str] = (), tile_px: int = 192) -> npt.NDArray[np.uint8]:
    """`rows` under `columns` headings as one picture, `rgb_u8` [H, W, 3].

    Pictures are scaled to `tile_px` and cut square; labels too long for their place end in `…`. The same
    input gives the same bytes. Raises `ValueError` without rows or without tiles.
    """
    width_tiles = max((len(row.tiles) for row in rows), default=0)
    if width_tiles == 0:
        raise ValueError("contact_sheet: got no pictures, wanted at least one row with one tile")
    gap, text = max(tile_px // 16, 4), max(tile_px // 12, 11)
    label_px = round(tile_px * 0.7) if any(row.label for row in rows) else 0
    lines = max((len(tile.caption.splitlines()) for row in rows for tile in row.tiles if tile), default=0)
    caption_px = round(text * (0.6 + 1.3 * lines)) if lines else 0
    head_px = text * 2 if any(columns) else 0
    step_x, step_y = tile_px + gap, tile_px + caption_px + gap
    size = (gap + label_px + step_x * width_tiles, gap + head_px + step_y * len(rows))
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    for j, heading in enumerate(columns[:width_tiles]):
        centre = (gap + label_px + j * step_x + tile_px // 2, gap + head_px // 2 - gap // 2)
        draw.text(centre, _fit(heading, tile_px, text), _INK, _font(text), anchor="mm")
    for i, row in enumerate(rows):
        top = gap + head_px + i * step_y
        draw.text((gap, top + tile_px // 2), _fit(row.label, label_px - gap, text), _INK, _font(text), anchor="lm")
        for j in range(width_tiles):
            tile = row.tiles[j] if j < len(row.tiles) else None
            _place(sheet, draw, tile, (gap + label_px + j * step_x, top), tile_px, text)
    return np.asarray(sheet)


def _place(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    tile: Tile | None,
    at: tuple[int, int],
    tile_px: int,
    text: int,
) -> None:
    left, top = at
    if tile is None:
        draw.rectangle((left, top, left + tile_px - 1, top + tile_px - 1), _EMPTY)
        return
    sheet.paste(square(tile.rgb_u8, tile_px), at)
    for number, line in enumerate(tile.caption.splitlines()):
        centre = (left + tile_px // 2, top + tile_px + round(text * (1 + 1.3 * number)))
        draw.text(centre, _fit(line, tile_px, text), _FAINT, _font(text), anchor="mm")


def square(rgb_u8: npt.NDArray[np.uint8], side_px: int, face_xy: Sequence[float] | None = None) -> Image.Image:
    """A picture's middle as a square; of an upright one a little above the middle, where faces are. With `face_xy`, in
    shares of width and height, that point is in the middle as far as the picture's edges let it.
    """
    height, width, _ = rgb_u8.shape
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 3
    if face_xy is not None:
        left = min(max(round(face_xy[0] * width - side / 2), 0), width - side)
        top = min(max(round(face_xy[1] * height - side / 2), 0), height - side)
    image = Image.fromarray(np.ascontiguousarray(rgb_u8[top : top + side, left : left + side]))
    return image.resize((side_px, side_px), Image.Resampling.LANCZOS)


def _fit(label: str, width_px: int, size_px: int) -> str:
    """`label` cut so that it is at most `width_px` wide."""
    label = " ".join(label.split())
    if _font(size_px).getlength(label) <= width_px:
        return label
    while label and _font(size_px).getlength(label + "…") > width_px:
        label = label[:-1]
    return label + "…"


@lru_cache(maxsize=8)
def _font(size_px: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans out of matplotlib's own files: the same letters on every machine, most alphabets in it."""
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(path), size_px)
