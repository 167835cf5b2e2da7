"""What is found done and what is trained again; training is stood in for, the ledger and the files are real."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from actors.perceiver import png_bytes
from actors.trainer import Trainer
from studiolo.albums.records import IDENTITY_SCHEMA
from studiolo.identities.artifacts import checkpoint_path, lora_path
from studiolo.settings import FaceLoraSettings
from studiolo.storage.ledger import Ledger
from studiolo.storage.store import Store


class Runs:
    """A tracker that remembers, by key and parent as the real one does."""

    def __init__(self) -> None:
        self.closed: dict[str, bool] = {}
        self.metrics: dict[str, dict[str, Any]] = {}

    def start(self, key: str, name: str, params: Any, parent: str | None = None) -> str:
        return f"{parent}/{name}/{key[:8]}"

    def log_metrics(self, run: str, metrics: Any) -> None:
        self.metrics.setdefault(run, {}).update(metrics)

    def log_artifact(self, run: str, path: str, content: bytes) -> None: ...

    def finish(self, run: str, ok: bool) -> None:
        self.closed[run] = ok


class Pupil(Trainer):
    """Writes its seed where the real one trains."""

    def __init__(self, store: Store, seed: int, runs: Runs, parent: str = "job") -> None:
        super().__init__(store, "embedded-base", FaceLoraSettings(), seed, runs, parent)
        self.ledger = Ledger(store)
        self.trained = 0

    def _train(self, identity: dict[str, Any], photos: Any, run: str, checkpoint: Any) -> dict[str, Any]:
        self.trained += 1
        checkpoint.save({"steps": 2})
        content, path = f"weights of seed {self.seed}".encode(), lora_path(identity["identity_id"])
        self.store.write_bytes(path, content)
        row = {"identity_id": identity["identity_id"], "status": "ok", "reason": "", "detail": "", "path": path}
        sha256 = hashlib.sha256(content).hexdigest()
        self.tracker.log_metrics(run, {"final_loss": 0.5})
        return row | {"sha256": sha256, "steps": 3, "final_loss": 0.5, "seconds": 1.0, "resumed": False}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    store.write_bytes("crop.png", png_bytes(np.zeros((8, 8, 3), np.uint8)))
    store.write_bytes("mask.png", png_bytes(np.zeros((8, 8), np.uint8)))
    return store


def train(pupil: Trainer) -> dict[str, Any]:
    reference = {"crop_path": "crop.png", "mask_path": "mask.png", "caption": "a woman"}
    row = {"identity_id": "anna", "trigger": "a woman", "references": [reference]}
    result: dict[str, Any] = pupil(pa.Table.from_pylist([row], IDENTITY_SCHEMA)).to_pylist()[0]
    return result


def lora_sha256(store: Store) -> str:
    return hashlib.sha256(store.read_bytes(lora_path("anna"))).hexdigest()


def test_the_row_speaks_of_the_weights_that_lie_there_whatever_ran_between(store: Store):
    first = train(Pupil(store, 0, Runs()))
    assert train(Pupil(store, 0, Runs())) == {**first, "resumed": True}
    train(Pupil(store, 1, Runs()))
    again = train(Pupil(store, 0, Runs()))
    assert not again["resumed"]
    assert again["sha256"] == first["sha256"] == lora_sha256(store)


@pytest.mark.parametrize("content", [None, b"half of it"])
def test_weights_that_are_gone_or_others_are_trained_again(store: Store, content: bytes | None):
    first = train(Pupil(store, 0, Runs()))
    store.remove(lora_path("anna"))
    if content is not None:
        store.write_bytes(lora_path("anna"), content)
    pupil = Pupil(store, 0, Runs())
    assert train(pupil)["sha256"] == first["sha256"] == lora_sha256(store)
    assert pupil.trained == 1


def test_an_identity_found_done_has_a_finished_run_in_the_new_job(store: Store):
    runs = Runs()
    train(Pupil(store, 0, runs, "first job"))
    assert train(Pupil(store, 0, runs, "second job"))["resumed"]
    assert len(runs.closed) == 2
    assert all(runs.closed.values())
    assert [metrics["final_loss"] for metrics in runs.metrics.values()] == [0.5, 0.5]


def test_no_checkpoint_is_left_of_an_identity_that_is_done(store: Store):
    train(Pupil(store, 0, Runs()))
    assert not store.exists(checkpoint_path("anna"))
    store.write_bytes(checkpoint_path("anna"), b"killed between the record and the end of its checkpoint")
    assert train(Pupil(store, 0, Runs()))["resumed"]
    assert not store.exists(checkpoint_path("anna"))


def test_an_identity_that_ended_its_workers_is_a_failed_row(tmp_path: Path):
    pupil = Pupil(Store(tmp_path), 0, Runs())
    identity = dict.fromkeys(IDENTITY_SCHEMA.names) | {"identity_id": "anna", "references": []}
    (row,) = pupil.crashed(identity, "2 attempts").to_pylist()
    assert (row["identity_id"], row["status"], row["reason"], row["detail"]) == (
        "anna",
        "failed",
        "crashed_worker",
        "2 attempts",
    )
    assert pupil.unit(identity) != Pupil(Store(tmp_path), 1, Runs()).unit(identity)  # another seed is another attempt
