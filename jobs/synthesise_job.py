"""The job behind `python -m jobs synthesise`."""

from dataclasses import dataclass
from pathlib import Path

import cv2

from jobs.progress import Progress
from studiolo.errors import SettingsError
from studiolo.storage.store import Store
from studiolo.training.synthesis import CARD, FaceSynthesiser
from studiolo.weights.cards import load_card
from studiolo.weights.fetch import pull

JPEG_QUALITY = 90
RECIPE = "faces.json"
"""How the faces of a folder were made; one folder holds one kind."""


@dataclass(frozen=True)
class Run:
    """What the command was told; see `jobs.synthesise`."""

    count: int
    out: Path
    seed_start: int = 0
    side_px: int = 160


def run(wanted: Run) -> None:
    """Make the faces that are missing. Raises `SettingsError` when the folder holds faces of another kind.

    Several runs may share a folder: a face is the same whoever makes it, and its file comes whole.
    """
    store = Store(wanted.out)
    _check(store, wanted)
    numbers = range(wanted.seed_start, wanted.seed_start + wanted.count)
    missing = [number for number in numbers if not store.exists(face_file(number))]
    with Progress(["synthesise"]) as progress:
        progress.stage("synthesise", wanted.count)
        progress.advance(wanted.count - len(missing))
        if missing:
            synthesiser = FaceSynthesiser.open(pull(CARD))
        for number in missing:
            rgb_u8 = synthesiser(number, wanted.side_px)
            jpeg = cv2.imencode(".jpg", rgb_u8[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
            store.write_bytes(face_file(number), jpeg.tobytes())
            progress.advance()


def face_file(number: int) -> str:
    """Name of a face's file."""
    return f"{number:05d}.jpg"


def _check(store: Store, wanted: Run) -> None:
    recipe = {"model": load_card(CARD).source, "side_px": wanted.side_px, "jpeg_quality": JPEG_QUALITY}
    if not store.exists(RECIPE):
        store.write_json(RECIPE, recipe)
    elif (found := store.read_json(RECIPE)) != recipe:
        raise SettingsError(f"out: {wanted.out} holds faces made with {found}, wanted {recipe}; name another folder")
