"""The job behind `python -m jobs base`."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from diffusers import StableDiffusionPipeline

from jobs.machine import versions
from studiolo.albums.decode import decode
from studiolo.errors import PhotoError, SettingsError
from studiolo.generation.base import load_base, save_pipeline
from studiolo.identities.captions import trigger_phrase
from studiolo.perception.regions import EmbeddedPersonMask
from studiolo.settings import PerceptionSettings, require_path
from studiolo.storage.store import Store
from studiolo.storage.tracking import MlflowTracker
from studiolo.training.autoencoder import AutoencoderSettings, AutoencoderTrainer, psnr_db
from studiolo.training.base import BaseSettings, BaseTrainer, encode_views, sample_sheet
from studiolo.training.checkpoints import Budget
from studiolo.training.faces import Face, read_faces, views_of
from studiolo.training.loop import train_until_spent
from studiolo.weights.fetch import pull

HELD_OUT = 64
"""Pictures the autoencoder never sees; its figure is measured on them."""

SEEING = PerceptionSettings(min_side_px=64, min_face_px=24)
"""How pictures to learn from are looked at: they are small."""
_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Run:
    """What the command was told; see `jobs.base`."""

    data: Path
    minutes: float
    out: Path
    init: Path | None = None
    captions: Path | None = None
    autoencoder_share: float = 0.0
    device: str = "cpu"
    seed: int = 0


def run(wanted: Run) -> None:
    """Train and package. Raises `SettingsError` before any work, `TrainingError` when the loss diverges."""
    check(wanted.data, wanted.init, wanted.captions, wanted.device)
    store = Store(wanted.out)
    with store.lock("base"):
        base = load_base(wanted.init or pull("embedded-base"))
        captions = wanted.captions or write_captions(wanted.data, wanted.out / "captions.jsonl")
        faces = read_faces(wanted.data, captions, EmbeddedPersonMask.open(pull("selfie-segmentation")))
        tracker = MlflowTracker.beside(store)
        params = {"data": wanted.data, "pictures": len(faces), "minutes": wanted.minutes, "seed": wanted.seed}
        with tracker.run(f"base {wanted.out.resolve()}", "base", {**params, **versions()}) as run_id:
            _train_autoencoder(wanted, base, faces, tracker, run_id)
            _train_denoiser(wanted, base, faces, tracker, run_id)


def check(data: Path, init: Path | None, captions: Path | None, device: str) -> None:
    """Raise `SettingsError` for a path or device that is not there."""
    found = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if device not in (*found, *(["cuda"] if len(found) > 1 else [])):
        raise SettingsError(f"device: got {device!r}, wanted one that torch finds: {', '.join(found)}")
    require_path(data, "data", "a folder of pictures", folder=True)
    if init is not None:
        require_path(init, "init", "the folder of a base", folder=True)
        require_path(init / "unet", "init", "the folder of a base, with its unet/", folder=True)
    if captions is not None:
        require_path(captions, "captions", "JSONL with file, trigger and tags")


def _train_autoencoder(
    wanted: Run, base: StableDiffusionPipeline, faces: Sequence[Face], tracker: MlflowTracker, run_id: str
) -> None:
    budget = Budget(minutes=wanted.minutes * wanted.autoencoder_share)
    pictures = [face.rgb_u8 for face in faces]
    trainer = AutoencoderTrainer(
        base.vae,
        pictures[:-HELD_OUT] or pictures,
        AutoencoderSettings(),
        budget,
        seed=wanted.seed,
        device=wanted.device,
    )
    train_until_spent(trainer, wanted.out / "autoencoder.pt")
    trainer.averaged()
    side_px = base.vae.config.sample_size
    held_out = [
        cv2.resize(picture, (side_px, side_px), interpolation=cv2.INTER_AREA) for picture in pictures[-HELD_OUT:]
    ]
    tracker.log_metrics(run_id, {"autoencoder_psnr_db": psnr_db(base.vae, held_out)})


def _train_denoiser(
    wanted: Run, base: StableDiffusionPipeline, faces: Sequence[Face], tracker: MlflowTracker, run_id: str
) -> None:
    settings = BaseSettings()
    rng = np.random.default_rng(wanted.seed)
    side_px = base.unet.config.sample_size * base.vae_scale_factor
    views = [view for face in faces for view in views_of(face, settings.views_per_face, side_px, rng)]
    latents = encode_views(base, views)
    budget = Budget(minutes=wanted.minutes * (1 - wanted.autoencoder_share))
    trainer = BaseTrainer(base, latents, settings, budget, seed=wanted.seed, device=wanted.device)
    curve: list[tuple[int, float]] = []

    def on_metric(step: int, loss: float) -> None:
        curve.append((step, loss))
        say(f"step {step}, loss {loss:.4f}, {100 * budget.progress:.0f}% of {wanted.minutes:g} minutes")

    def on_checkpoint(step: int) -> None:
        content = cv2.imencode(".png", sample_sheet(trainer.averaged())[..., ::-1])[1].tobytes()
        Store(wanted.out).write_bytes(f"sheets/{step:07d}.png", content)
        tracker.log_artifact(run_id, f"sheets/{step:07d}.png", content)
        tracker.log_metrics(run_id, {"loss": curve})
        save_pipeline(base, wanted.out / "base")

    train_until_spent(
        trainer,
        wanted.out / "denoiser.pt",
        settings.checkpoint_minutes,
        on_metric=on_metric,
        on_checkpoint=on_checkpoint,
    )


def say(line: str) -> None:
    """Tell whoever waits."""
    print(line, file=sys.stderr, flush=True)


def write_captions(data: Path, path: Path) -> Path:
    """Write trigger and tags of every picture of `data` in which a face is found, unless `path` is there."""
    if path.exists():
        return path
    from studiolo.perception.perceive import perceive_photo
    from studiolo.perception.suite import open_suite

    suite = open_suite("embedded")
    lines = []
    for picture in sorted(item for item in data.iterdir() if item.suffix.lower() in _SUFFIXES):
        try:
            faces = perceive_photo(suite, decode(picture.read_bytes(), SEEING), SEEING).faces
        except (OSError, PhotoError) as error:
            say(f"left out: {picture.name}: {error}")
            continue
        if faces:
            row = {"file": picture.name, "trigger": trigger_phrase([faces[0]["attributes"]]), "tags": faces[0]["tags"]}
            lines.append(json.dumps(row) + "\n")
    if not lines:
        raise SettingsError(f"data: got {data}, in which no face was found; wanted square pictures of one face each")
    Store(path.parent).write_bytes(path.name, "".join(lines).encode())
    return path
