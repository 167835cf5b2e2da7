"""Faces the base learns from, and the views made of them: crops, flips, backdrops, looks.

The styles are put into the pictures together with their words, so that a prompt with these words has
something to ask for.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from studiolo.errors import SettingsError
from studiolo.training.looks import LOOKS, put_look, without_lost_colours

BACKDROPS: dict[str, tuple[tuple[int, int, int], float]] = {
    "grey": ((150, 150, 152), 0.40),
    "white": ((238, 238, 238), 0.20),
    "black": ((22, 22, 24), 0.12),
    "blue": ((70, 95, 140), 0.12),
    "brown": ((120, 95, 70), 0.08),
    "green": ((80, 110, 80), 0.08),
}
"""Colour (RGB) and share of each studio backdrop."""

BACKDROP_SHARE = 0.28
WHOLE_PICTURE_SHARE = 0.3

PersonMask = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""rgb_u8 [H, W, 3] -> person [H, W] in 0..1."""


@dataclass(frozen=True, eq=False)
class Face:
    """One picture to learn from and its words."""

    rgb_u8: NDArray[np.uint8]
    """[S, S, 3]."""
    trigger: str
    tags: tuple[str, ...]
    person: NDArray[np.float32] | None = None
    """[S, S] in 0..1; None leaves the background as it is."""


@dataclass(frozen=True, eq=False)
class View:
    """One picture as it is encoded."""

    rgb_u8: NDArray[np.uint8]
    trigger: str
    tags: tuple[str, ...]
    """Said in most captions."""
    style: tuple[str, ...]
    """Said in nearly all: what was done to the picture."""


def read_faces(folder: Path, captions: Path, person_mask: PersonMask | None = None) -> list[Face]:
    """The pictures of `folder` that `captions` names.

    `captions` is JSONL with `file`, `trigger` and `tags`. Raises `SettingsError` when a line or picture does
    not fit.
    """
    faces = []
    try:
        lines = captions.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"captions {captions}: {error}; wanted JSONL with file, trigger and tags") from error
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            with Image.open(folder / row["file"]) as picture:
                rgb_u8 = np.asarray(picture.convert("RGB"))
            trigger, tags = str(row["trigger"]), tuple(map(str, row["tags"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SettingsError(
                f"captions {captions}, line {number}: {error!r}; wanted file (in {folder}), trigger, tags"
            ) from error
        faces.append(Face(rgb_u8, trigger, tags, person_mask(rgb_u8) if person_mask else None))
    if not faces:
        raise SettingsError(f"captions {captions}: got no line, wanted one for each picture")
    return faces


def views_of(face: Face, count: int, side_px: int, rng: np.random.Generator) -> list[View]:
    """`count` views [side_px, side_px, 3] of `face`, every second one flipped."""
    return [_view(face, bool(index % 2), side_px, rng) for index in range(count)]


def compose_caption(view: View, keep_tag: Sequence[bool], keep_style: Sequence[bool], order: Sequence[int]) -> str:
    """`trigger, phrase, phrase, ...`: the kept tags and style phrases, in the order of `order`, a permutation
    of all.
    """
    phrases = [*view.tags, *view.style]
    kept = [*keep_tag, *keep_style]
    return ", ".join([view.trigger, *(phrases[index] for index in order if kept[index])])


@dataclass(frozen=True)
class CaptionShares:
    """How much of its words a caption says, each 0..1."""

    dropped: float
    """Captions that say nothing."""
    tags: float
    style: float


def random_caption(view: View, shares: CaptionShares, generator: torch.Generator) -> str:
    """A caption of `view` with a random part of its words, in a random order."""
    dropped, *draws = torch.rand(1 + len(view.tags) + len(view.style), generator=generator).tolist()
    order = torch.randperm(len(draws), generator=generator).tolist()
    if dropped < shares.dropped:
        return ""
    keep_tag = [draw < shares.tags for draw in draws[: len(view.tags)]]
    keep_style = [draw < shares.style for draw in draws[len(view.tags) :]]
    return compose_caption(view, keep_tag, keep_style, order)


def _view(face: Face, flipped: bool, side_px: int, rng: np.random.Generator) -> View:
    pixels, tags, style = face.rgb_u8.astype(np.float32), list(face.tags), list[str]()
    if face.person is not None and rng.random() < BACKDROP_SHARE:
        name = str(rng.choice(list(BACKDROPS), p=[share for _, share in BACKDROPS.values()]))
        pixels = _on_backdrop(pixels, face.person, name, rng)
        tags = [tag for tag in tags if not tag.endswith("background")]
        style += ["studio backdrop", f"{name} background"]
    rgb_u8 = np.clip(pixels, 0, 255).astype(np.uint8)
    if flipped:
        rgb_u8, tags = rgb_u8[:, ::-1], [_mirrored(tag) for tag in tags]
    view = View(_crop(rgb_u8, side_px, rng), face.trigger, tuple(tags), tuple(style))
    shares = [look.share for look in LOOKS.values()]
    look = str(rng.choice([*LOOKS, ""], p=[*shares, 1 - sum(shares)]))
    return _with_look(view, look) if look else view


def _with_look(view: View, look: str) -> View:
    tags, style = without_lost_colours(view.tags, look), without_lost_colours(view.style, look)
    return View(put_look(view.rgb_u8, look), view.trigger, tags, (*style, look))


def _on_backdrop(
    pixels: NDArray[np.float32], person: NDArray[np.float32], name: str, rng: np.random.Generator
) -> NDArray[np.float32]:
    """The person before a plain backdrop that is brightest near a random point behind the head."""
    side = pixels.shape[0]
    colour = np.array(BACKDROPS[name][0], np.float32) * rng.uniform(0.85, 1.12)
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side
    light = 1.08 - 0.38 * ((x - rng.uniform(0.3, 0.7)) ** 2 + (y - rng.uniform(0.2, 0.6)) ** 2)
    share = np.clip((person - 0.3) / 0.5, 0, 1)[..., None]
    return pixels * share + colour * light[..., None].astype(np.float32) * (1 - share)


def _crop(rgb_u8: NDArray[np.uint8], side_px: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The whole picture, or a random square of 0.8 to 0.98 of its side."""
    size = rgb_u8.shape[0]
    if rng.random() >= WHOLE_PICTURE_SHARE:
        crop = int(rng.integers(round(0.8 * size), round(0.98 * size)))
        y, x = rng.integers(0, size - crop + 1, 2)
        rgb_u8 = rgb_u8[y : y + crop, x : x + crop]
    picture = Image.fromarray(np.ascontiguousarray(rgb_u8)).resize((side_px, side_px), Image.Resampling.LANCZOS)
    return np.asarray(picture)


def _mirrored(tag: str) -> str:
    return {"looking left": "looking right", "looking right": "looking left"}.get(tag, tag)
