"""The training actor: the references of one identity in, its face-LoRA in the store."""

import hashlib
import io
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from studiolo.albums.records import FACE_LORA_SCHEMA, Reason, Status
from studiolo.errors import TrainingError
from studiolo.generation.base import load_base
from studiolo.generation.engine import Engine, Order, Portrait
from studiolo.identities.artifacts import checkpoint_path, lora_path
from studiolo.identities.references import calmest
from studiolo.keys import unit_key
from studiolo.perception.regions import head_mask
from studiolo.portraits.sheets import square
from studiolo.settings import FaceLoraSettings
from studiolo.storage.ledger import Ledger
from studiolo.storage.store import Store
from studiolo.storage.tracking import Tracker, thinned
from studiolo.training.cache import TrainingPhoto
from studiolo.training.checkpoints import UnitCheckpoint
from studiolo.training.face_lora import train_face_lora
from studiolo.weights.cards import weights_sha256
from studiolo.weights.fetch import pull

Row = dict[str, Any]

_SAMPLES = 4
_SHEET_TILE_PX = 128


class Trainer:
    """Rows of `IDENTITY_SCHEMA` in, rows of `FACE_LORA_SCHEMA` out; weights go to the store, curves
    and two small sheets to the tracker.

    An identity that the ledger calls done is not trained again; in a new job it gets a run of its own all the same.
    An interrupted training goes on from its checkpoint, to the same weights.
    Training that fails is a row with the reason.
    """

    def __init__(
        self,
        store: Store,
        base: str,
        settings: FaceLoraSettings,
        seed: int,
        tracker: Tracker,
        parent_run: str,
    ) -> None:
        self.store = store
        self.base = base
        self.settings = settings
        self.seed = seed
        self.tracker = tracker
        self.parent_run = parent_run

    def open(self, device: str = "cpu") -> None:
        """Load the frozen base."""
        self.pipeline = load_base(pull(self.base), device=device)
        self.engine = Engine(self.pipeline, slots=_SAMPLES)
        self.ledger = Ledger(self.store)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Train every identity of `batch`."""
        return pa.Table.from_pylist([self._identity(row) for row in batch.to_pylist()], FACE_LORA_SCHEMA)

    def unit(self, row: Row) -> str:
        """Key of the identity as its row describes it."""
        return unit_key("identity", [row], {"face_lora": self.settings}, {}, self.seed)

    def crashed(self, row: Row, detail: str) -> pa.Table:
        """An identity that ended its workers: no face-LoRA."""
        failure = {"status": Status.FAILED.value, "reason": Reason.CRASHED_WORKER.value, "detail": detail}
        return pa.Table.from_pylist(
            [{"identity_id": row["identity_id"], **failure, "resumed": False}], FACE_LORA_SCHEMA
        )

    def key(self, identity: Row, photos: list[TrainingPhoto]) -> str:
        """Key of the unit "this identity's face-LoRA": all the trainer reads."""
        inputs = [identity["identity_id"], identity["trigger"], *(photo.sha256 for photo in photos)]
        return unit_key("identity", inputs, {"face_lora": self.settings}, weights_sha256([self.base]), self.seed)

    def _identity(self, identity: Row) -> Row:
        photos = [self._photo(reference) for reference in calmest(identity["references"], self.settings.max_photos)]
        key = self.key(identity, photos)
        record = self.ledger.done("identity", key)
        path = checkpoint_path(identity["identity_id"])
        checkpoint = UnitCheckpoint(self.store, path, key, self.settings.checkpoint_seconds)
        run = self.tracker.start(
            key,
            identity["identity_id"],
            {**self.settings.model_dump(), "photos": len(photos)},
            self.parent_run,
        )
        row = self._train(identity, photos, run, checkpoint) if record is None else {**record, "resumed": True}
        if record is not None:
            self.tracker.log_metrics(run, {"final_loss": row["final_loss"], "seconds": row["seconds"]})
        self.tracker.finish(run, ok=row["status"] == Status.OK)
        if record is None and row["status"] == Status.OK:
            self.ledger.complete("identity", key, row, [row["path"]])
        elif record is None:
            self.ledger.fail("identity", key, row["reason"], row["detail"])
        checkpoint.remove()
        return row

    def _photo(self, reference: Row) -> TrainingPhoto:
        crop = np.asarray(Image.open(io.BytesIO(self.store.read_bytes(reference["crop_path"]))))
        regions = np.asarray(Image.open(io.BytesIO(self.store.read_bytes(reference["mask_path"]))))
        return TrainingPhoto(rgb_u8=crop, mask=head_mask(regions), caption=reference["caption"])

    def _train(self, identity: Row, photos: list[TrainingPhoto], run: str, checkpoint: UnitCheckpoint) -> Row:
        started = time.monotonic()
        curve: list[tuple[int, float]] = []
        row: Row = {"identity_id": identity["identity_id"], "reason": "", "detail": "", "resumed": False}
        try:
            lora = train_face_lora(
                self.pipeline,
                photos,
                self.settings,
                identity_id=identity["identity_id"],
                trigger=identity["trigger"],
                seed=self.seed,
                on_metric=lambda step, loss: curve.append((step, loss)),
                checkpoint=checkpoint,
            )
        except TrainingError as error:
            return {
                **row,
                "status": Status.FAILED.value,
                "reason": Reason.TRAINING_FAILED.value,
                "detail": str(error),
            }
        with tempfile.TemporaryDirectory() as folder:
            file = lora.save(Path(folder))
            content = file.read_bytes()
            samples = self._samples(identity, str(file))
        path = lora_path(identity["identity_id"])
        self.store.write_bytes(path, content)
        row.update(status=Status.OK.value, path=path, sha256=hashlib.sha256(content).hexdigest())
        row.update(steps=self.settings.steps, final_loss=lora.final_loss, seconds=time.monotonic() - started)
        finals = {"final_loss": row["final_loss"], "seconds": row["seconds"]}
        self.tracker.log_metrics(run, {"loss": thinned(curve), **finals})
        self.tracker.log_artifact(run, "references.jpg", _sheet([photo.rgb_u8 for photo in photos]))
        self.tracker.log_artifact(run, "samples.jpg", _sheet(samples))
        return row

    def _samples(self, identity: Row, lora_file: str) -> list[NDArray[np.uint8]]:
        """Pictures of a fixed prompt and fixed seeds, to compare identities and runs by eye."""
        order = Order(
            identity_id=identity["identity_id"],
            prompt=identity["trigger"],
            seed=self.seed,
            count=_SAMPLES,
            eta=1.0,
            face_lora=(lora_file, 1.0),
        )
        return [event.rgb_u8 for event in self.engine.submit(order) if isinstance(event, Portrait)]


def _sheet(pictures: list[NDArray[np.uint8]], columns: int = 5) -> bytes:
    """JPEG of pictures in rows, small: the tracker keeps one of every identity."""
    side = _SHEET_TILE_PX
    sheet = Image.new("RGB", (side * min(columns, len(pictures)), side * -(-len(pictures) // columns)), "white")
    for index, picture in enumerate(pictures):
        sheet.paste(square(picture, side), (index % columns * side, index // columns * side))
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
