"""Sample albums: the synthetic people of the openpeople package as customers' albums, with ground truth.

    OUT/P001/               portrait, selfie, full-body-studio, full-body-outdoors, 16 expressions
    OUT/nothing-usable/     eight files of which none can become a reference
    OUT/ground-truth.json   by album: who it is, and what each photo shows

The first album also holds what real albums hold: a copy, a sideways photo, a friend, a photo without people.
Everything is cut from the pictures of one verified package, so the same files come out everywhere.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from studiolo.errors import SettingsError, WeightsError
from studiolo.weights import fetch

RgbU8 = npt.NDArray[np.uint8]

PEOPLE = tuple(f"P{number:03d}" for number in range(1, 11))
"""Ids of the people there are."""

EXPRESSIONS = (
    *("neutral", "happy", "sad", "angry"),
    *("surprised", "disgusted", "scared", "confused"),
    *("smug", "flirty", "thoughtful", "pensive"),
    *("exhausted", "shocked", "playful", "determined"),
)
"""Cells of the expressions sheet, row by row."""

NOTHING_USABLE = "nothing-usable"
"""Album id of the album that must fail."""

GROUND_TRUTH = "ground-truth.json"

_WHOLE_PHOTOS = {
    "portrait.jpg": "studio_portrait.jpg",
    "selfie.jpg": "amateur_selfie.jpg",
    "full-body-studio.jpg": "studio_posture.jpg",
    "full-body-outdoors.jpg": "amateur_posture.jpg",
}
_ROWS = _COLUMNS = 4
_FRAME_LEVEL_U8 = 215  # the sheets' frames are white, the grey behind the faces is near 140
_INSET_PX = 8  # steps over the frame's soft edge
_EXIF_ORIENTATION = 0x0112
_ROTATE_270_TO_SHOW = 6  # EXIF: the stored picture is turned 90 degrees anticlockwise from upright


@dataclass
class _Album:
    """One album being written, and what is true of it."""

    folder: Path
    truth: dict[str, Any]
    photos: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, name: str, data: bytes, kind: str, person_id: str | None, **more: str) -> None:
        """Writes one file and notes what it shows; `person_id` is None where nobody can be recognised."""
        (self.folder / name).write_bytes(data)
        self.photos[name] = {"kind": kind, "person_id": person_id, **more}

    def add_image(self, name: str, image: Image.Image, kind: str, person_id: str | None, **more: Any) -> None:
        """Writes one picture as a phone would: JPEG, quality 95."""
        path = self.folder / name
        image.save(path, quality=95, subsampling=0, exif=more.pop("exif", b""))
        self.photos[name] = {"kind": kind, "person_id": person_id, **more}

    def close(self) -> Path:
        """Adds the album to the ground truth and gives its folder."""
        path = self.folder.parent / GROUND_TRUTH
        albums = json.loads(path.read_text(encoding="utf-8"))["albums"] if path.exists() else {}
        albums[self.folder.name] = {**self.truth, "photos": dict(sorted(self.photos.items()))}
        text = json.dumps({"albums": dict(sorted(albums.items()))}, indent=1, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")
        return self.folder


def extract_people(out: Path, count: int = 3) -> list[Path]:
    """Writes the albums of the first `count` people (1 to 10) below `out`; returns their folders.

    An album holds 20 photos of its person; the first one also the four spoilers. Raises `SettingsError` for a
    count out of range, `WeightsError` when the sample package cannot be had.
    """
    if not 1 <= count <= len(PEOPLE):
        raise SettingsError(f"samples: got {count} people, wanted 1 to {len(PEOPLE)}")
    source = fetch.pull("openpeople")
    folders = []
    for person_id in PEOPLE[:count]:
        album = _open_album(out, person_id, ground_truth(source, person_id))
        for name, asset in _WHOLE_PHOTOS.items():
            album.add(name, (source / person_id / asset).read_bytes(), name.removesuffix(".jpg"), person_id)
        for number, (expression, cell) in enumerate(
            zip(EXPRESSIONS, cut_sheet(_read_rgb(source / person_id / "emotions_sheet.jpg")), strict=True),
            start=1,
        ):
            name = f"expression-{number:02d}-{expression}.jpg"
            album.add_image(name, Image.fromarray(cell), "expression", person_id, expression=expression)
        if person_id == PEOPLE[0]:
            _add_spoilers(album, source, person_id)
        folders.append(album.close())
    return folders


def extract_nothing_usable(out: Path) -> Path:
    """Writes the album in which no photo can become a reference; returns its folder."""
    source = fetch.pull("openpeople")
    album = _open_album(out, NOTHING_USABLE, {"person_id": None})
    portrait = Image.open(source / PEOPLE[8] / "studio_portrait.jpg").convert("RGB")
    whole = (source / PEOPLE[8] / "amateur_selfie.jpg").read_bytes()
    album.add_image("park.jpg", _without_people(source, PEOPLE[3]), "no-face", None)
    album.add_image("garden.jpg", _without_people(source, PEOPLE[5]), "no-face", None)
    album.add_image("sky.jpg", Image.fromarray(_gradient(480, 640)), "no-face", None)
    album.add_image("blurred.jpg", portrait.resize((1024, 1024)).filter(ImageFilter.GaussianBlur(28)), "blurred", None)
    album.add_image("thumbnail.jpg", portrait.resize((40, 40)), "too-small", None)
    album.add("cut-short.jpg", whole[: len(whole) // 3], "damaged", None)
    album.add("notes.jpg", b"Appointment on Tuesday at three, bring the blue dress.\n", "not-an-image", None)
    album.add("empty.jpg", b"", "empty", None)
    return album.close()


def cut_sheet(sheet_rgb_u8: RgbU8) -> list[RgbU8]:
    """The 16 pictures inside the white frames of an expressions sheet [H, W, 3], row by row.

    A cell is a connected area without white of plausible size, widened to the span of its column and row
    because a white shirt may touch the frame. Raises `WeightsError` when the sheet does not show 4 x 4
    frames.
    """
    height, width = sheet_rgb_u8.shape[:2]
    inside = (sheet_rgb_u8.min(axis=2) <= _FRAME_LEVEL_U8).astype(np.uint8)
    _, _, stats, _ = cv2.connectedComponentsWithStats(inside, connectivity=4)
    fits = (stats[:, 2] > 0.1 * width) & (stats[:, 2] < 0.4 * width) & (stats[:, 3] > 0.1 * height)
    fits &= stats[:, 3] < 0.4 * height
    boxes_xywh = stats[fits][:, :4]
    if len(boxes_xywh) != _ROWS * _COLUMNS:
        raise WeightsError(
            f"samples: found {len(boxes_xywh)} frames on an expressions sheet, wanted {_ROWS * _COLUMNS}; "
            "run `python -m jobs models verify openpeople`"
        )
    by_row = boxes_xywh[np.argsort(boxes_xywh[:, 1], kind="stable")].reshape(_ROWS, _COLUMNS, 4)
    grid = np.stack([row[np.argsort(row[:, 0])] for row in by_row])
    x0, x1 = grid[..., 0].min(axis=0) + _INSET_PX, (grid[..., 0] + grid[..., 2]).max(axis=0) - _INSET_PX
    y0, y1 = grid[..., 1].min(axis=1) + _INSET_PX, (grid[..., 1] + grid[..., 3]).max(axis=1) - _INSET_PX
    return [sheet_rgb_u8[y0[r] : y1[r], x0[c] : x1[c]].copy() for r in range(_ROWS) for c in range(_COLUMNS)]


def ground_truth(source: Path, person_id: str) -> dict[str, Any]:
    """What the package states about a person: age range in years, sex, hair, skin tone."""
    details = json.loads((source / person_id / "metadata.json").read_text(encoding="utf-8"))["character_details"]
    demographics = details["demographics"]
    youngest, oldest = (int(years) for years in demographics["age_range"].split("-"))
    return {
        "person_id": person_id,
        "age_range_years": [youngest, oldest],
        "sex": demographics["sex"],
        "hair": details["visible_traits"]["hair"]["description"],
        "skin_tone": demographics["skin_tone"],
    }


def _open_album(out: Path, album_id: str, truth: dict[str, Any]) -> _Album:
    folder = out / album_id
    folder.mkdir(parents=True, exist_ok=True)
    return _Album(folder, truth)


def _add_spoilers(album: _Album, source: Path, person_id: str) -> None:
    """What every real album holds too."""
    selfie = Image.open(source / person_id / "amateur_selfie.jpg").convert("RGB")
    exif = Image.Exif()
    exif[_EXIF_ORIENTATION] = _ROTATE_270_TO_SHOW
    turned = selfie.crop((0, 0, selfie.width, selfie.width)).transpose(Image.Transpose.ROTATE_90)
    portrait = album.folder / "portrait.jpg"
    friend = PEOPLE[4]
    album.add("portrait (1).jpg", portrait.read_bytes(), "duplicate", person_id, duplicate_of=portrait.name)
    album.add_image("selfie-sideways.jpg", turned, "exif-rotated", person_id, exif=exif)
    album.add("friend.jpg", (source / friend / "amateur_selfie.jpg").read_bytes(), "other-person", friend)
    album.add_image("garden.jpg", _without_people(source, friend), "no-face", None)


def _without_people(source: Path, person_id: str) -> Image.Image:
    """Left edge of an outdoor photo; its person stands in the middle."""
    photo = Image.open(source / person_id / "amateur_posture.jpg").convert("RGB")
    return photo.crop((0, 0, photo.width // 4, photo.height // 3))


def _gradient(height_px: int, width_px: int) -> RgbU8:
    rows = np.linspace(0, 1, height_px)[:, None, None]
    top, bottom = np.array([70, 130, 200]), np.array([235, 240, 245])
    return np.broadcast_to(top + rows * (bottom - top), (height_px, width_px, 3)).astype(np.uint8)


def _read_rgb(path: Path) -> RgbU8:
    return np.asarray(Image.open(path).convert("RGB"))


def sample_albums(out: Path, people: int = 3) -> Sequence[Path]:
    """`people` albums and the one in which nothing is usable."""
    return [*extract_people(out, people), extract_nothing_usable(out)]
