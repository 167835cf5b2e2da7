"""The training actor: the references of identities in, their face-LoRAs in the store, a pack of them at a time."""

import hashlib
import io
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray
from PIL import Image

from actors.finisher import SEEING
from studiolo.albums.records import FACE_LORA_SCHEMA, Reason, Status
from studiolo.errors import TrainingError
from studiolo.generation.base import load_base
from studiolo.generation.engine import Engine, Order, Portrait
from studiolo.identities.artifacts import checkpoint_path, kohya_path, lora_path
from studiolo.identities.references import calmest
from studiolo.keys import unit_key
from studiolo.perception.perceive import perceive_photo
from studiolo.perception.regions import head_mask
from studiolo.perception.similarity import Similarity
from studiolo.perception.suite import PERCEPTION_CARDS, open_suite
from studiolo.portraits.sheets import square
from studiolo.settings import FaceLoraSettings
from studiolo.storage.ledger import Ledger
from studiolo.storage.store import Store
from studiolo.storage.tracking import Curve, Tracker, thinned
from studiolo.training.cache import TrainingPhoto
from studiolo.training.checkpoints import UnitCheckpoint
from studiolo.training.kohya import kohya_bytes
from studiolo.training.learner import Learner
from studiolo.training.pack import Pack, keep, resume
from studiolo.training.validation import Embedding, Score, mean_distance, score, split
from studiolo.weights.cards import weights_sha256
from studiolo.weights.fetch import pull, sha256_of

Row = dict[str, Any]

_SAMPLES = 4
_SHEET_TILE_PX = 128


@dataclass(frozen=True, eq=False)
class Work:
    """An identity and what belongs to its training."""

    identity: Row
    photos: list[TrainingPhoto]
    """What it is learned from."""
    held_out: list[Embedding]
    """Embeddings of the photos that it is validated by."""
    reference_diversity: float | None
    """Mean distance of the embeddings of all its references; None without validation, and with fewer than two."""
    key: str
    run: str
    """Of the tracker."""
    checkpoint: UnitCheckpoint
    started_s: float


class Trainer:
    """Rows of `IDENTITY_SCHEMA` in, rows of `FACE_LORA_SCHEMA` with the curve of the loss out; weights go to the store,
    curves and two small sheets to the tracker.

    `settings.slots` must be a number. An identity that the ledger calls done is not trained again; in a new job it gets
    a run of its own all the same. An interrupted training goes on from its checkpoint, to the same weights. Training
    that fails is a row with the reason.
    """

    def __init__(
        self,
        store: Store,
        base: str,
        settings: FaceLoraSettings,
        seed: int,
        tracker: Tracker,
        parent_run: str,
        suite: str = "embedded",
        versions: bool = False,
    ) -> None:
        """With `versions` a face-LoRA's files are never written over by those of a further training."""
        self.store = store
        self.base = base
        self.settings = settings
        self.seed = seed
        self.tracker = tracker
        self.parent_run = parent_run
        self.suite = suite
        self.versions = versions
        self.ledger = Ledger(store)

    def open(self, device: str = "cpu") -> None:
        """Load the frozen base."""
        self.pipeline = self._load(device)
        self.engine = Engine(self.pipeline, slots=_SAMPLES, rank_budget=self.settings.rank)
        if self.settings.validate_every:
            self.perception, self.similarity = open_suite(self.suite), Similarity.load(self.suite)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Train every identity of `batch`."""
        rows = batch.to_pylist()
        results = [row for row in map(self.done, rows) if row is not None]
        done = {row["identity_id"] for row in results}
        waiting = [row for row in rows if row["identity_id"] not in done]
        self.work(lambda free: [waiting.pop(0) for _ in range(min(free, len(waiting)))], results.append)
        return pa.Table.from_pylist(results, FACE_LORA_SCHEMA)

    def unit(self, row: Row) -> str:
        """Key of the identity as its row describes it."""
        return unit_key("identity", [row], {"face_lora": self.settings}, {}, self.seed)

    def crashed(self, row: Row, detail: str) -> pa.Table:
        """An identity that ended its workers: no face-LoRA."""
        return pa.Table.from_pylist([self._failed(row, Reason.CRASHED_WORKER, detail)], FACE_LORA_SCHEMA)

    def key(self, identity: Row, photos: list[TrainingPhoto]) -> str:
        """Key of the unit "this identity's face-LoRA": all the trainer reads."""
        inputs: list[Any] = [identity["identity_id"], identity["trigger"], *(photo.sha256 for photo in photos)]
        weights = weights_sha256([self.base])
        if self.settings.validate_every:  # which step is the result follows from them
            inputs += [
                reference["embedding"] for reference in calmest(identity["references"], self.settings.max_photos)
            ]
            weights |= weights_sha256(PERCEPTION_CARDS[self.suite])
            weights |= {"similarity": Similarity.load(self.suite).sha256}
        if self.settings.start:
            weights |= {"start": sha256_of(Path(self.settings.start))}
        settings = self.settings.model_copy(update={"start": None})  # what lies there counts, not where
        return unit_key("identity", inputs, {"face_lora": settings}, weights, self.seed)

    def needed(self, identity: Row) -> Row:
        """What of a row the training reads: those of ten thousand people wait in one queue."""
        names = ["crop_path", "mask_path", "caption", "expression_l2"]
        names += ["embedding"] if self.settings.validate_every else []
        references = calmest(identity["references"], self.settings.max_photos)
        return {
            "identity_id": identity["identity_id"],
            "trigger": identity["trigger"],
            "references": [{name: reference[name] for name in names} for reference in references],
        }

    def done(self, identity: Row) -> Row | None:
        """The row of an identity that an earlier run finished, None for any other. Needs no weights."""
        photos = self._photos(identity)
        return self._done(identity, photos, self.key(identity, photos))

    def work(
        self,
        take: Callable[[int], list[Row]],
        finished: Callable[[Row], None],
        tick: Callable[[Mapping[str, float]], None] = lambda shares: None,
    ) -> None:
        """Train the identities that `take(free)` gives, at most `free` at a time, until it gives none and all are done.

        `finished` gets the row of each, in whatever order they end; `tick` is called after each step of the pack with
        the share of its steps that each identity in it has done.
        """
        training = Training(self)

        def join(free: int) -> Iterator[Learner]:
            while free and (rows := take(free)):
                for row in rows:
                    begun = training.begin(row)
                    if isinstance(begun, Learner):
                        free -= 1
                        yield begun
                    else:
                        finished(begun)

        def step_done() -> None:
            for learner in training.works:
                training.stepped(learner)
            tick({learner.identity_id: len(learner.losses) / self.settings.steps for learner in training.works})

        training.pack.run(join, lambda learner: finished(training.end(learner)), step_done)

    def _load(self, device: str) -> StableDiffusionPipeline:
        return load_base(pull(self.base), device=device)

    @property
    def _slots(self) -> int:
        assert self.settings.slots is not None, "resolve_slots comes before"
        return self.settings.slots

    def _done(self, identity: Row, photos: list[TrainingPhoto], key: str) -> Row | None:
        record = self.ledger.done("identity", key)
        return None if record is None else self._close(self._work(identity, photos, key), {**record, "resumed": True})

    def _photos(self, identity: Row) -> list[TrainingPhoto]:
        return [self._photo(reference) for reference in calmest(identity["references"], self.settings.max_photos)]

    def _photo(self, reference: Row) -> TrainingPhoto:
        crop = np.asarray(Image.open(io.BytesIO(self.store.read_bytes(reference["crop_path"]))))
        regions = np.asarray(Image.open(io.BytesIO(self.store.read_bytes(reference["mask_path"]))))
        return TrainingPhoto(rgb_u8=crop, mask=head_mask(regions), caption=reference["caption"])

    def _work(self, identity: Row, photos: list[TrainingPhoto], key: str) -> Work:
        """Its run is open from here on."""
        name = identity["identity_id"]
        embeddings: list[Embedding] = []
        params: Row = {**self.settings.model_dump(), "photos": len(photos)}
        if self.settings.validate_every and photos:
            photos, _, params["validated_in_sample"] = split(photos)
            references = calmest(identity["references"], self.settings.max_photos)
            embeddings = [np.asarray(reference["embedding"], np.float32) for reference in references]
        run = self.tracker.start(key, name, params, self.parent_run)
        checkpoint = UnitCheckpoint(self.store, checkpoint_path(name), key, self.settings.checkpoint_seconds)
        held_out = split(embeddings)[1]
        return Work(identity, photos, held_out, mean_distance(embeddings), key, run, checkpoint, time.monotonic())

    def _result(self, pack: Pack, learner: Learner, work: Work) -> Row:
        """The row of an identity that is finished, or has failed; its files are in the store."""
        if learner.error is not None:
            return self._failed(work.identity, Reason.TRAINING_FAILED, str(learner.error))
        name, trigger = work.identity["identity_id"], work.identity["trigger"]
        chosen = learner.choose()
        lora = pack.face_lora(learner, trigger=trigger, photos=len(work.photos), seed=self.seed)
        with tempfile.TemporaryDirectory() as folder:
            file = lora.save(Path(folder))
            content = file.read_bytes()
            samples = self._samples(work.identity, str(file))
        sha256 = hashlib.sha256(content).hexdigest()
        path = lora_path(name, sha256 if self.versions else "")
        self.store.write_bytes(path, content)
        losses = thinned([*enumerate(learner.losses, 1)])
        row: Row = {
            "identity_id": name,
            "status": Status.OK.value,
            "reason": "",
            "detail": "",
            "path": path,
            "sha256": sha256,
            "steps": chosen,
            "final_loss": lora.final_loss,
            "seconds": time.monotonic() - work.started_s,
            "resumed": False,
            "curve": losses,
        }
        metrics: dict[str, float | Curve] = {"loss": losses, **_finals(row)}
        if learner.curve:
            metrics["likeness"] = [(step, value) for step, value, _ in learner.curve]
            metrics["diversity"] = [(step, value) for step, _, value in learner.curve]
            metrics["chosen_step"] = float(chosen)
        self.tracker.log_metrics(work.run, metrics)
        self.tracker.log_artifact(work.run, "references.jpg", _sheet([photo.rgb_u8 for photo in work.photos]))
        self.tracker.log_artifact(work.run, "samples.jpg", _sheet(samples))
        return row

    def _close(self, work: Work, row: Row) -> Row:
        """Close its run and write its record, the last of all it leaves."""
        ok = row["status"] == Status.OK
        if ok:
            self._for_kohya(row)
        if row["resumed"]:
            self.tracker.log_metrics(work.run, _finals(row))
        self.tracker.finish(work.run, ok=ok)
        if ok and not row["resumed"]:
            self.ledger.complete("identity", work.key, row, [row["path"]])
        elif not ok:
            self.ledger.fail("identity", work.key, row["reason"], row["detail"])
        work.checkpoint.remove()
        return row

    def _for_kohya(self, row: Row) -> None:
        """The face-LoRA a second time, where it is asked for; where not, none of other weights stays beside it."""
        path = kohya_path(row["identity_id"], row["sha256"] if self.versions else "")
        if self.settings.kohya_file and not (row["resumed"] and self.store.exists(path)):
            self.store.write_bytes(path, kohya_bytes(self.store.read_bytes(row["path"])))
        elif not self.settings.kohya_file and not row["resumed"]:
            self.store.remove(path)

    def _failed(self, identity: Row, reason: Reason, detail: str) -> Row:
        failure = {"status": Status.FAILED.value, "reason": reason.value, "detail": detail, "resumed": False}
        return dict.fromkeys(FACE_LORA_SCHEMA.names) | {"identity_id": identity["identity_id"], **failure}

    def _validate(self, pack: Pack, learner: Learner, work: Work) -> Score:
        """Likeness and diversity of the samples as they are now."""
        lora = pack.face_lora(learner, trigger=work.identity["trigger"], photos=len(work.photos), seed=self.seed)
        with tempfile.TemporaryDirectory() as folder:
            pictures = self._samples(work.identity, str(lora.save(Path(folder))))
        return score([self._embedding(picture) for picture in pictures], work.held_out, self.similarity.score)

    def _embedding(self, rgb_u8: NDArray[np.uint8]) -> Embedding | None:
        """Of the largest face, if there is one."""
        faces = perceive_photo(self.perception, rgb_u8, SEEING).faces
        return np.asarray(faces[0]["embedding"], np.float32) if faces else None

    def _samples(self, identity: Row, lora_file: str) -> list[NDArray[np.uint8]]:
        """Pictures of a fixed prompt and fixed seeds, to compare identities and runs by eye; of the person the engine
        keeps nothing."""
        order = Order(
            identity_id=identity["identity_id"],
            prompt=identity["trigger"],
            seed=self.seed,
            count=_SAMPLES,
            eta=1.0,
            face_lora=(lora_file, 1.0),
        )
        try:
            return [event.rgb_u8 for event in self.engine.submit(order) if isinstance(event, Portrait)]
        finally:
            self.engine.forget([sha256_of(Path(lora_file))])


class Training:
    """One pack of a trainer, and the work of each identity in it."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.pack = Pack(trainer.pipeline, trainer.settings, trainer._slots)
        self.works: dict[Learner, Work] = {}

    def begin(self, identity: Row) -> Learner | Row:
        """The learner of a row of `IDENTITY_SCHEMA`, on from its checkpoint; at once its result's row when an earlier
        run finished it, or nothing can be learned from it."""
        trainer = self.trainer
        photos = trainer._photos(identity)
        key = trainer.key(identity, photos)
        if found := trainer._done(identity, photos, key):  # its worker died before it could say so
            return found
        work = trainer._work(identity, photos, key)
        name, trigger = identity["identity_id"], identity["trigger"]
        try:
            learner = self.pack.learner(name, work.photos, trainer.seed, trigger, work.reference_diversity)
        except TrainingError as error:
            return trainer._close(work, trainer._failed(identity, Reason.TRAINING_FAILED, str(error)))
        resume(learner, work.checkpoint)
        self.works[learner] = work
        return learner

    def stepped(self, learner: Learner, writes: bool = True) -> None:
        """After a step of the pack: the learner's validation and, if it `writes`, its checkpoint, when they are due."""
        work = self.works[learner]
        if learner.due:
            learner.judge(self.trainer._validate(self.pack, learner, work))
        if writes:
            keep(learner, work.checkpoint)

    def save(self, learner: Learner) -> None:
        """Make a checkpoint now, unless it has failed."""
        if learner.error is None:
            self.works[learner].checkpoint.save(learner.state_dict())

    def abandon(self, learner: Learner) -> None:
        """Let one go that is not finished; its run has failed, if nobody takes it up again."""
        self.trainer.tracker.finish(self.works.pop(learner).run, ok=False)

    def end(self, learner: Learner) -> Row:
        """The row of one that is finished or has failed; all it leaves is in the store."""
        work = self.works[learner]
        row = self.trainer._close(work, self.trainer._result(self.pack, learner, work))
        del self.works[learner]
        return row


def _finals(row: Row) -> dict[str, float | Curve]:
    return {"final_loss": row["final_loss"], "seconds": row["seconds"]}


def _sheet(pictures: list[NDArray[np.uint8]], columns: int = 5) -> bytes:
    """JPEG of pictures in rows, small: the tracker keeps one of every identity."""
    side = _SHEET_TILE_PX
    sheet = Image.new("RGB", (side * min(columns, len(pictures)), side * -(-len(pictures) // columns)), "white")
    for index, picture in enumerate(pictures):
        sheet.paste(square(picture, side), (index % columns * side, index // columns * side))
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
