"""What is trained, found done and trained again, on the tiny base."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from actors.trainer import Work
from studiolo.albums.records import IDENTITY_SCHEMA
from studiolo.identities.artifacts import checkpoint_path, kohya_path, lora_path
from studiolo.perception import similarity
from studiolo.perception.suite import PERCEPTION_CARDS
from studiolo.storage.store import Store
from studiolo.training.kohya import kohya_bytes
from studiolo.training.learner import Learner
from studiolo.training.pack import Pack
from studiolo.training.validation import Score, contenders
from tests.pipelines.pupils import SETTINGS, Pupils, identities


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


def pupils(store: Store, seed: int = 0, parent: str = "job", **changes: Any) -> Pupils:
    actor = Pupils(store, SETTINGS.model_copy(update={"steps": 2, **changes}))
    actor.seed, actor.tracker, actor.parent_run = seed, Runs(), parent
    actor.open()
    return actor


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def train(actor: Pupils, count: int = 1) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = actor(identities(actor.store, count)).to_pylist()
    return sorted(rows, key=lambda row: str(row["identity_id"]))


def trained(store: Store) -> int:
    return len(store.list("finished"))


def lora_sha256(store: Store) -> str:
    return hashlib.sha256(store.read_bytes(lora_path("p0"))).hexdigest()


def test_the_row_speaks_of_the_weights_that_lie_there_whatever_ran_between(store: Store) -> None:
    (first,) = train(pupils(store))
    assert train(pupils(store)) == [{**first, "resumed": True}]
    assert trained(store) == 1
    train(pupils(store, seed=1))
    (again,) = train(pupils(store))
    assert not again["resumed"]
    assert again["sha256"] == first["sha256"] == lora_sha256(store)


def test_after_each_step_it_says_how_far_each_identity_is(store: Store) -> None:
    waiting = identities(store, 2).to_pylist()
    told: list[dict[str, float]] = []
    pupils(store).work(lambda free: [waiting.pop(0)] if waiting else [], lambda row: None, told.append)
    assert [shares.get("p0") for shares in told][:2] == [0.5, 1.0]
    assert {share for shares in told for share in shares.values()} == {0.5, 1.0}
    assert {name for shares in told for name in shares} == {"p0", "p1"}


@pytest.mark.parametrize("content", [None, b"half of it"])
def test_weights_that_are_gone_or_others_are_trained_again(store: Store, content: bytes | None) -> None:
    (first,) = train(pupils(store))
    store.remove(lora_path("p0"))
    if content is not None:
        store.write_bytes(lora_path("p0"), content)
    assert train(pupils(store))[0]["sha256"] == first["sha256"] == lora_sha256(store)
    assert trained(store) == 2


def test_an_identity_found_done_has_a_finished_run_in_the_new_job(store: Store) -> None:
    train(pupils(store, parent="first job"))
    second = pupils(store, parent="second job")
    assert train(second)[0]["resumed"]
    assert [*second.tracker.closed.values()] == [True]
    assert [run.split("/")[0] for run in second.tracker.closed] == ["second job"]
    assert all("final_loss" in metrics for metrics in second.tracker.metrics.values())


def test_no_checkpoint_is_left_of_an_identity_that_is_done(store: Store) -> None:
    train(pupils(store))
    assert not store.exists(checkpoint_path("p0"))
    store.write_bytes(checkpoint_path("p0"), b"killed between the record and the end of its checkpoint")
    assert train(pupils(store))[0]["resumed"]
    assert not store.exists(checkpoint_path("p0"))


def test_more_identities_than_slots_each_get_their_row_and_curve(store: Store) -> None:
    actor = pupils(store, slots=2)
    rows = train(actor, 3)
    assert [(row["identity_id"], row["status"], row["steps"]) for row in rows] == [
        (f"p{number}", "ok", 2) for number in range(3)
    ]
    assert [[step for step, _ in metrics["loss"]] for metrics in actor.tracker.metrics.values()] == [[1, 2]] * 3
    assert len({row["sha256"] for row in rows}) == 3


def test_without_references_and_without_end_a_row_says_why(store: Store) -> None:
    actor = pupils(store, learning_rate=1e30, steps=4)
    (row,) = train(actor)
    assert (row["status"], row["reason"]) == ("failed", "training_failed")
    assert "'p0': got a loss of" in row["detail"]
    nobody = {"identity_id": "nobody", "trigger": "a woman", "references": []}
    (row,) = actor(pa.Table.from_pylist([nobody], IDENTITY_SCHEMA)).to_pylist()
    assert (row["status"], row["reason"]) == ("failed", "training_failed")
    assert "'nobody': got no photos" in row["detail"]
    assert set(actor.tracker.closed.values()) == {False}


def test_the_number_of_slots_is_part_of_the_key(store: Store) -> None:
    train(pupils(store))
    assert not train(pupils(store, slots=2))[0]["resumed"]


def test_what_a_validation_compares_with_is_part_of_the_key(store: Store) -> None:
    (row,) = identities(store, 1).to_pylist()
    (reference,) = row["references"]
    other = {**row, "references": [{**reference, "embedding": [0.2] * 128}]}
    for validated, changes in ((False, {}), (True, {"validate_every": 1})):
        actor = Pupils(store, SETTINGS.model_copy(update=changes))
        keys = {actor.key(each, actor._photos(each)) for each in (row, other)}
        assert len(keys) == 1 + validated
        assert {actor.key(needed, actor._photos(needed)) for needed in map(actor.needed, (row, other))} == keys


def test_what_a_validation_judges_with_is_part_of_the_key(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (row,) = identities(store, 1).to_pylist()
    constants = json.loads((similarity.FOLDER / "embedded.json").read_text())
    monkeypatch.setattr(similarity, "FOLDER", tmp_path)

    def key(even: float, cards: tuple[str, ...], changes: dict[str, Any]) -> str:
        (tmp_path / "another.json").write_text(json.dumps({**constants, "even": even}))
        monkeypatch.setitem(PERCEPTION_CARDS, "another", cards)
        actor = Pupils(store, SETTINGS.model_copy(update=changes))
        actor.suite = "another"
        return actor.key(row, actor._photos(row))

    for judged, changes in ((False, {}), (True, {"validate_every": 1})):
        keys = {key(*by, changes) for by in ((0.5, ("yunet",)), (0.6, ("yunet",)), (0.5, ("dlib-face",)))}
        assert len(keys) == (3 if judged else 1)


def test_a_second_format_is_of_the_same_weights_or_not_there(store: Store) -> None:
    train(pupils(store))
    assert not store.exists(kohya_path("p0"))
    assert train(pupils(store, kohya_file=True))[0]["resumed"]  # asked for later, and made without training again
    assert store.read_bytes(kohya_path("p0")) == kohya_bytes(store.read_bytes(lora_path("p0")))
    train(pupils(store, seed=1, kohya_file=True))
    assert store.read_bytes(kohya_path("p0")) == kohya_bytes(store.read_bytes(lora_path("p0")))
    train(pupils(store, seed=2))
    assert not store.exists(kohya_path("p0"))


def test_an_identity_that_ended_its_workers_is_a_failed_row(store: Store) -> None:
    actor = pupils(store)
    (identity,) = identities(store, 1).to_pylist()
    (row,) = actor.crashed(identity, "2 attempts").to_pylist()
    assert (row["identity_id"], row["status"], row["reason"], row["detail"]) == (
        "p0",
        "failed",
        "crashed_worker",
        "2 attempts",
    )
    assert actor.unit(identity) != pupils(store, seed=1).unit(identity)  # another seed is another attempt


class Judged(Pupils):
    """Its samples come to show one person, and so to differ less; the power fails at the given step."""

    fails_at = 0

    def _validate(self, pack: Pack, learner: Learner, work: Work) -> Score:
        step = len(learner.losses)
        if step == self.fails_at:
            raise InterruptedError
        return {2: Score(0.1, 0.8), 4: Score(0.4, 0.39), 6: Score(0.6, 0.37), 8: Score(0.7, 0.36)}[step]


def judged(store: Store) -> Judged:
    actor = Judged(store, SETTINGS.model_copy(update={"steps": 8, "validate_every": 2, "validation_patience": 2}))
    actor.tracker = Runs()
    actor.open()
    return actor


@pytest.mark.usefixtures("weights")
@pytest.mark.parametrize(("apart", "chosen", "last"), [(0.45, 8, 8), (0.9, 2, 6)])
def test_collapse_is_measured_against_the_persons_photos_also_after_an_interruption(
    tmp_path: Path, apart: float, chosen: int, last: int
) -> None:
    hashes = set()
    for fails_at in (0, 4, 6):
        store = Store(tmp_path / str(fails_at))
        (row,) = identities(store, 1).to_pylist()
        corners = np.eye(3, 128, dtype=np.float32) * apart / np.sqrt(2)  # all as far from each other
        row["references"] = [{**row["references"][0], "embedding": corner.tolist()} for corner in corners]
        people = pa.Table.from_pylist([row], IDENTITY_SCHEMA)
        if fails_at:
            broken = judged(store)
            broken.fails_at = fails_at
            with pytest.raises(InterruptedError):
                broken(people)
            assert store.exists(checkpoint_path("p0"))
        actor = judged(store)
        (trained_row,) = actor(people).to_pylist()
        ((_, metrics),) = actor.tracker.metrics.items()
        assert (trained_row["steps"], metrics["likeness"][-1][0]) == (chosen, last)
        hashes.add(trained_row["sha256"])
    assert len(hashes) == 1


@pytest.mark.usefixtures("weights")
def test_a_validated_training_has_its_curve_and_its_best_step(store: Store) -> None:
    actor = pupils(store, validate_every=1, validation_patience=9)
    (row,) = train(actor)
    ((_, metrics),) = actor.tracker.metrics.items()
    assert [step for step, _ in metrics["likeness"]] == [step for step, _ in metrics["diversity"]] == [1, 2]
    assert all(0 <= value <= 1 for _, value in metrics["likeness"])
    curve = [(step, value, metrics["diversity"][at][1]) for at, (step, value) in enumerate(metrics["likeness"])]
    assert row["steps"] == metrics["chosen_step"] == contenders(curve)[0]
    assert row["status"] == "ok"
