"""Rows and pictures of a small job, drawn by formula: everything the gallery shows, without a model."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from studiolo.albums.records import Reason, Status, photo_id
from studiolo.identities.artifacts import album_of, part_of_album
from studiolo.portraits.files import encode_portrait
from studiolo.portraits.orders import portrait_id, portrait_path
from studiolo.portraits.thumbs import GalleryFiles

ODD_NAME = 'Zoë <b onclick="alert(1)">& "Ö" #1 %41?'


def picture(seed: int, side_px: int = 96) -> np.ndarray:
    """A smooth colour field [side, side, 3] that differs with the seed."""
    y, x = np.mgrid[0:side_px, 0:side_px] / side_px
    phase = np.random.default_rng(seed).uniform(0, 6, size=3)
    field = np.stack([np.sin(3 * x + p) * np.cos(2 * y - p) for p in phase], axis=-1)
    return ((field + 1) * 110 + 15).astype(np.uint8)


def png(rgb_u8: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb_u8).save(buffer, "PNG")
    return buffer.getvalue()


class Job:
    """Output files in a dict, and the rows that belong to them."""

    def __init__(self, picture: Callable[[int], np.ndarray] = picture) -> None:
        self.files: dict[str, bytes] = {}
        self.photos: dict[tuple[str, str], bytes] = {}
        self.people: list[tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]] = []
        self._picture = picture
        self._drawn = 0

    @property
    def access(self) -> GalleryFiles:
        return GalleryFiles(self.files.__getitem__, self.files.__setitem__, self._read_photo)

    def _read_photo(self, album_id: str, uri: str) -> bytes:
        return self.photos[album_id, uri]

    def draw(self) -> np.ndarray:
        self._drawn += 1
        return self._picture(self._drawn)

    def add(self, name: str, styles: tuple[str, ...] = ("studio",), accepted: int = 2, failed: bool = False) -> None:
        """A person with two references, one dropped and one unreadable photo; `failed`: no reference at
        all. One of a name such as `anna/other-1` is another of anna's album.
        """
        album, prefix = album_of(name), part_of_album(name).removeprefix("/")
        uris = [("selfie.jpg", Reason.NONE), ("beach & sun.jpg", Reason.NONE)] if not failed else []
        uris += [("blurred <img>.jpg", Reason.LOW_QUALITY), ("notes.txt", Reason.NOT_AN_IMAGE)]
        photos = [self._photo(album, prefix + uri, reason) for uri, reason in uris]
        references = [self._reference(name, i, row) for i, row in enumerate(photos) if row["status"] == Status.OK]
        identity = {
            "identity_id": name,
            "album_id": album,
            "status": Status.FAILED if failed else Status.OK,
            "stage": "select",
            "reason": Reason.NOTHING_USABLE if failed else Reason.NONE,
            "detail": "0 of 2 pictures usable" if failed else "",
            "trigger": "a beautiful woman",
            "common_tags": [],
            "references": references,
        }
        rows = [] if failed else [row for style in styles for row in self._portraits(name, style, accepted)]
        self.people.append((identity, {"album_id": album, "album_uri": album, "photos": photos}, rows))

    def _photo(self, name: str, uri: str, reason: Reason) -> dict[str, Any]:
        self.photos[name, uri] = b"no picture" if reason == Reason.NOT_AN_IMAGE else png(self.draw())
        status = {Reason.NONE: Status.OK, Reason.NOT_AN_IMAGE: Status.FAILED}.get(reason, Status.DROPPED)
        detail = "quality 0.12, wanted at least 0.25" if status == Status.DROPPED else ""
        return {
            "photo_id": photo_id(name, uri),
            "uri": uri,
            "status": status,
            "stage": "perceive",
            "reason": reason,
            "detail": detail,
            "rotation_deg": 0,
        }

    def _reference(self, name: str, index: int, photo: dict[str, Any]) -> dict[str, Any]:
        path = f"identities/{len(self.people)}/references/{index}.png"
        self.files[path] = png(self.draw())
        return {
            "identity_id": name,
            "album_id": album_of(name),
            "photo_id": photo["photo_id"],
            "crop_path": path,
            "caption": "a beautiful woman, smile",
            "quality_score": 0.81,
            "verdict": "unsure" if index else "same",
        }

    def _portraits(self, name: str, style: str, accepted: int) -> list[dict[str, Any]]:
        reasons = [Reason.NONE] * accepted + [Reason.LOW_SIMILARITY, Reason.NOT_ONE_FACE, Reason.SURPLUS]
        rows = []
        for index, reason in enumerate(reasons):
            path = portrait_path(name, style, index)
            self.files[path] = encode_portrait(self.draw(), {"seed": index})
            rows.append(
                {
                    "portrait_id": portrait_id(name, style, index),
                    "identity_id": name,
                    "style": style,
                    "index": index,
                    "seed": 1000 + index,
                    "prompt": "a beautiful woman",
                    "status": Status.DROPPED if reason else Status.OK,
                    "reason": reason,
                    "rank": 0 if reason else index + 1,
                    "similarity": 0.93 - 0.07 * index,
                    "similarity_unfused": 0.43 - 0.07 * index,
                    "fusion": "no_template" if index == 1 else "done",
                    "verdict": "unsure" if index == 1 else "same",
                    "quality_score": 0.7,
                    "path": path,
                }
            )
        return rows
