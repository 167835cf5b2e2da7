"""The real trainer on the tiny base, with identities that do things to their worker."""

import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from diffusers import StableDiffusionPipeline

from actors.perceiver import png_bytes
from actors.trainer import Trainer, Work
from studiolo.albums.records import IDENTITY_SCHEMA
from studiolo.generation.tiny import tiny_base
from studiolo.settings import FaceLoraSettings
from studiolo.storage.store import Store
from studiolo.training.learner import Learner
from tests.pipelines.poisoned import suffer as do

Row = dict[str, Any]

SETTINGS = FaceLoraSettings(
    rank=2, alpha=2.0, steps=6, batch_size=2, views_per_photo=1, slots=3, checkpoint_seconds=1e-9, precision="float32"
)


class Silent:
    """A tracker that keeps nothing."""

    def start(self, key: str, name: str, params: Any, parent: str | None = None) -> str:
        return name

    def log_metrics(self, run: str, metrics: Any) -> None: ...

    def log_artifact(self, run: str, path: str, content: bytes) -> None: ...

    def finish(self, run: str, ok: bool) -> None: ...


class Pupils(Trainer):
    """Leaves a trace of each identity that begins and of each that is finished, once for each time."""

    def __init__(self, store: Store, settings: FaceLoraSettings = SETTINGS, **deeds: str) -> None:
        super().__init__(store, "embedded-base", settings, 0, Silent(), "")
        self.deeds = deeds
        """What an identity does to its worker in its third step."""

    def open(self, device: str = "cpu") -> None:
        super().open(device)
        update = Learner.update
        store, deeds = self.store, self.deeds

        def update_and_suffer(learner: Learner, loss: float) -> None:
            update(learner, loss)
            if len(learner.losses) == 3 and (deed := deeds.get(learner.identity_id)):
                store.write_bytes(f"deaths/{learner.identity_id}/{uuid.uuid4().hex}", b"")
                do(deed)

        Learner.update = update_and_suffer  # type: ignore[method-assign]

    def _load(self, device: str) -> StableDiffusionPipeline:
        return tiny_base()

    def _close(self, work: Work, row: Row) -> Row:
        closed = super()._close(work, row)
        if row["status"] == "ok" and not row["resumed"]:
            self.store.write_bytes(f"finished/{row['identity_id']}/{uuid.uuid4().hex}", b"")
        return closed


def identities(store: Store, count: int) -> pa.Table:
    """Rows of people with one photo each; their files are in the store."""
    rows = []
    for number in range(count):
        rng = np.random.default_rng(number)
        coarse = rng.integers(0, 256, (8, 8, 3), np.uint8)
        store.write_bytes(f"crops/{number}.png", png_bytes(coarse.repeat(32, 0).repeat(32, 1)))
        store.write_bytes(f"masks/{number}.png", png_bytes(np.zeros((256, 256), np.uint8)))
        reference: Row = {"crop_path": f"crops/{number}.png", "mask_path": f"masks/{number}.png", "caption": "a woman"}
        reference["embedding"] = [0.1] * 128
        rows.append({"identity_id": f"p{number}", "trigger": "a woman", "references": [reference]})
    return pa.Table.from_pylist(rows, IDENTITY_SCHEMA)


def loras(folder: Path) -> dict[str, bytes]:
    """The face-LoRAs' bytes by their path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.safetensors"))}
