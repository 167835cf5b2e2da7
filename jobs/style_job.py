"""The job behind `python -m jobs style`."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import typer
from numpy.typing import NDArray

from jobs.progress import Progress
from studiolo.albums.isolation import IsolatedDecoder
from studiolo.albums.records import Reason
from studiolo.albums.sources import is_junk, read_bytes
from studiolo.errors import PhotoError, SettingsError
from studiolo.generation.base import load_base
from studiolo.settings import FaceLoraSettings, PerceptionSettings, require_path
from studiolo.storage.store import Store
from studiolo.training.face_lora import lora_bytes
from studiolo.training.style_lora import train_style
from studiolo.weights.fetch import pull

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


@dataclass(frozen=True)
class Run:
    """What the command was told; see `jobs.style`."""

    pictures: Path
    words: str
    name: str
    out: Path
    base: str = "embedded-base"
    steps: int = 800
    rank: int = 16
    seed: int = 0


def run(wanted: Run, settings: FaceLoraSettings | None = None) -> Path:
    """Learn the style; the path of its LoRA. Raises `SettingsError` for a name that is none and without pictures.

    `settings` are the trainer's, of which steps and rank are the run's.
    """
    if not _NAME.fullmatch(wanted.name) or not wanted.words.strip():
        raise SettingsError(f"style {wanted.name!r}: wanted a name of a-z, 0-9 and -, and words for the look")
    own = {"steps": wanted.steps, "rank": wanted.rank, "alpha": float(wanted.rank)}
    settings = (settings or FaceLoraSettings()).model_copy(update=own)
    pictures = [*_pictures(wanted.pictures)]
    if not pictures:
        raise SettingsError(f"pictures: {wanted.pictures} holds none that can be read; name a folder of JPEG or PNG")
    base = load_base(pull(wanted.base))
    with Progress(["train"]) as progress:
        progress.stage("train", wanted.steps)
        lora = train_style(base, pictures, wanted.words, settings, wanted.seed, progress.advance)
    store, file = Store(wanted.out), f"{wanted.name}.safetensors"
    store.write_bytes(file, lora_bytes(lora.weights, lora.metadata))
    style = {"title": wanted.words, "add_prompt_style": wanted.words, "model_id": ".", "bin_file": file}
    store.write_bytes(f"{wanted.name}.json", json.dumps(style, ensure_ascii=False, indent=2).encode() + b"\n")
    return wanted.out / file


def _pictures(folder: Path) -> Iterator[NDArray[np.uint8]]:
    """Those in a folder that can be read, by name; of others it is said why not."""
    require_path(folder, "pictures", "a folder with pictures", folder=True)
    decode = IsolatedDecoder(PerceptionSettings())
    try:
        for path in sorted(path for path in folder.iterdir() if path.is_file() and not is_junk(path.name)):
            try:
                yield decode(read_bytes(str(path)))
            except PhotoError as error:
                typer.echo(f"{path.name}: {Reason(error.reason).sentence()}", err=True)
    finally:
        decode.close()
