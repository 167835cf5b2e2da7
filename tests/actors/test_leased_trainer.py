"""Jobs of identities, from the queue to a version or a reason, on the real perception and the tiny base."""

import hashlib
import io
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa
from PIL import Image

from actors.leased_trainer import SEED
from actors.perceiver import Perceiver
from studiolo.albums.records import Reason
from studiolo.albums.sources import INPUT_SCHEMA, list_albums
from studiolo.identities.artifacts import checkpoint_path, identity_folder, kohya_path
from studiolo.identities.learned import LearnedVersion
from studiolo.service.identities import album_folder
from studiolo.service.metrics import MemoryMeters
from studiolo.service.records import Job, JobReason, Kind, NewJob, State
from studiolo.service.service import Service
from studiolo.service.tables import SpeedRow
from studiolo.storage.store import Store
from studiolo.storage.tracking import CURVE_POINTS
from studiolo.training.kohya import kohya_bytes
from tests.actors.leased import (
    TENANT,
    TinyTrainer,
    album,
    company,
    endpoint_settings,
    identity_id,
    job_of,
    learned_alone,
    open_perceiver,
    opened_service,
    submit,
    trainer_of,
    version_of,
    wait_for,
    working,
)
from tests.pipelines.pupils import Silent
from tests.service.traces import traces

pytestmark = [pytest.mark.usefixtures("tiny_trainer"), pytest.mark.timeout(120)]


def test_an_album_becomes_what_the_bulk_job_makes_of_it(service: Service, people: Path, tmp_path: Path) -> None:
    words = b"\xff\xd8\xff\xe0these are words"
    photos = [*album(people, count=2), words]
    job = submit(service, 1, [*photos, photos[0]])
    meters = MemoryMeters()
    trainer = trainer_of(replace(service, meters=meters))
    trainer.work(once=True)
    trainer._report()

    ended, version = job_of(service, job), version_of(service, job)
    assert (ended.state, ended.attempts, ended.steps_done) == (State.SUCCEEDED, 1, 6)
    assert [(one.number, one.status, one.reason) for one in version.photos] == [
        *((number, "ok", "") for number in (1, 2)),
        (3, "failed", Reason.DAMAGED),
        (4, "dropped", Reason.DUPLICATE),
    ]
    assert version.photos[3].sentence == Reason.DUPLICATE.sentence()
    assert ended.result == {"photos": [one.model_dump(mode="json") for one in version.photos]}
    assert [step for step, _ in version.curve] == [1, 2, 3, 4, 5, 6]
    assert service.store.list(f"{identity_folder(identity_id(1))}/lora") == [version.lora_path]
    assert not service.store.exists(checkpoint_path(identity_id(1)))
    assert meters.total("studiolo_training_steps_total") == 6
    assert trainer.perceiver._kept == {}
    assert trainer.perceiver.decode.pid is None
    assert trainer.trainer.engine.forget([version.lora_sha256]) == {"adapters": 0, "prompts": 0}
    assert not any(leaf.any() for pair in trainer.training.pack._leaves.values() for leaf in pair)
    assert [one["stage"] for one in meters.series("studiolo_job_seconds")] == ["perceive", "train"]
    assert service.database.read(lambda session: session.scalars(sa.select(SpeedRow.steps_per_s)).one()) > 0

    albums = tmp_path / "albums"
    shutil.copytree(str(service.store.local_path("albums")), albums)
    bulk = Store(tmp_path / "bulk")
    perceiver = Perceiver(bulk, "embedded", trainer.settings.perception, trainer.settings.selection)
    perceiver.open()
    rows = [source.row() for source in list_albums(str(albums))]
    (perceived,) = perceiver(pa.Table.from_pylist(rows, INPUT_SCHEMA)).to_pylist()
    face_loras = TinyTrainer(bulk, "embedded-base", trainer.settings.face_lora, SEED, Silent(), "", versions=True)
    face_loras.open()
    found: list[dict[str, Any]] = []
    wanted = [face_loras.needed(perceived)]
    face_loras.work(lambda free: [wanted.pop()] if wanted else [], found.append)
    assert found[0]["sha256"] == version.lora_sha256
    assert LearnedVersion.of(perceived, found[0]) == version


def test_a_further_training_leaves_the_earlier_version_to_who_draws_with_it(service: Service, people: Path) -> None:
    first = submit(service, 1, album(people))
    trainer_of(service).work(once=True)
    again = NewJob(kind=Kind.IDENTITY, request=first.request, steps=4, identity_id=identity_id(1))
    service.queue.submit(TENANT, again)
    trainer_of(service, face_lora={"steps": 4, "kohya_file": True}).work(once=True)
    identity = service.identities.get(TENANT, identity_id(1))
    assert identity is not None
    versions = [LearnedVersion.model_validate(one.record) for one in identity.versions]
    assert [one.steps for one in versions] == [6, 4]
    files = [service.store.read_bytes(one.lora_path) for one in versions]
    assert [hashlib.sha256(content).hexdigest() for content in files] == [one.lora_sha256 for one in versions]
    kohya = kohya_path(identity_id(1), versions[1].lora_sha256)
    lie = service.store.list(f"{identity_folder(identity_id(1))}/lora")
    assert lie == sorted([*(one.lora_path for one in versions), kohya])
    assert service.store.read_bytes(kohya) == kohya_bytes(files[1])


def test_of_an_album_that_shows_nobody_each_photo_has_its_reason(
    service: Service, people: Path, tmp_path: Path
) -> None:
    wall = io.BytesIO()
    Image.new("RGB", (320, 240), (90, 120, 90)).save(wall, "JPEG")
    nothing = [b"\xff\xd8\xff\xe0these are words", wall.getvalue(), b""]
    bad, good = submit(service, 1, nothing), submit(service, 2, album(people))
    trainer_of(service).work(once=True)
    ended = job_of(service, bad)
    assert (ended.state, ended.reason) == (State.FAILED, Reason.NOTHING_USABLE)
    assert ended.sentence == Reason.NOTHING_USABLE.sentence()
    assert ended.result is not None
    assert [(photo["number"], photo["status"], photo["reason"]) for photo in ended.result["photos"]] == [
        (1, "failed", Reason.DAMAGED),
        (2, "dropped", Reason.NO_FACE),
        (3, "failed", Reason.EMPTY_FILE),
    ]
    assert all(photo["sentence"] == Reason(photo["reason"]).sentence() for photo in ended.result["photos"])
    assert service.store.list(identity_folder(identity_id(1))) == []
    assert service.store.list(album_folder(identity_id(1)))  # until its identity is erased
    assert version_of(service, good).photos


@pytest.mark.parametrize("limit", [{"perception": {"decode_seconds": 1e-4}}, {"trainer": {"album_s": 1e-9}}])
def test_a_photo_that_takes_too_long_is_a_verdict(service: Service, people: Path, limit: dict[str, Any]) -> None:
    job = submit(service, 1, album(people))
    trainer_of(service, **limit).work(once=True)
    ended = job_of(service, job)
    assert (ended.state, ended.reason, ended.attempts) == (State.FAILED, Reason.NOTHING_USABLE, 1)
    assert ended.result is not None
    assert [photo["reason"] for photo in ended.result["photos"]] == [Reason.TOO_SLOW]


def test_apparent_minors_are_refused_where_the_settings_say_so(service: Service, people: Path) -> None:
    job = submit(service, 1, album(people))
    trainer_of(service, selection={"minors": "refuse", "adult_age": 80.0}).work(once=True)
    ended = job_of(service, job)
    assert (ended.state, ended.reason) == (State.FAILED, Reason.APPARENT_MINOR)


def test_a_training_that_diverges_fails_its_job_alone(service: Service, people: Path) -> None:
    job = submit(service, 1, album(people))
    trainer_of(service, face_lora={"learning_rate": 1e30}).work(once=True)
    ended = job_of(service, job)
    assert (ended.state, ended.reason) == (State.FAILED, Reason.TRAINING_FAILED)
    assert ended.result is not None
    assert len(ended.result["photos"]) == 1
    assert service.store.list(identity_folder(identity_id(1))) == []


@pytest.fixture
def long(tmp_path: Path) -> Iterator[Service]:
    """An endpoint whose trainings do not end by themselves, with short leases."""
    service = opened_service(endpoint_settings(tmp_path, lease_s=1.0, steps=100_000, checkpoint_seconds=0.1))
    yield service
    service.close()


def running(service: Service, job: Job) -> Callable[[], bool]:
    """Whether the job's steps have been heard of."""
    return lambda: job_of(service, job).steps_done > 0


def test_who_is_cancelled_leaves_the_pack_and_nothing_behind(long: Service, people: Path) -> None:
    first = submit(long, 1, album(people), steps=100_000)
    trainer = trainer_of(long)
    with working(trainer):
        wait_for(running(long, first))
        second = submit(long, 2, album(people, "P002"), steps=100_000)  # joins beside it
        wait_for(running(long, second))
        assert len(trainer.training.works) == 2
        long.queue.cancel(TENANT, first.id)
        wait_for(lambda: len(trainer.training.works) == 1)
        wait_for(lambda: not long.store.list(identity_folder(identity_id(1))))
        before = job_of(long, second).steps_done
        wait_for(lambda: job_of(long, second).steps_done > before)
        assert long.store.exists(checkpoint_path(identity_id(2)))
        steps, losses = zip(*job_of(long, second).curve or [], strict=True)
        assert [*steps] == sorted(steps)
        assert 1 <= len(losses) <= CURVE_POINTS
    assert (job_of(long, first).state, job_of(long, second).state) == (State.CANCELLED, State.QUEUED)


@pytest.mark.slow
def test_who_is_erased_in_training_is_gone_for_good(long: Service, people: Path, tmp_path: Path) -> None:
    job = submit(long, 1, album(people), steps=100_000)
    with working(trainer_of(long)):
        wait_for(running(long, job))
        erased = long.erasure.erase(TENANT, identity_id(1))
        assert erased is not None
        assert erased.receipt is None
        wait_for(lambda: long.erasure.erase(TENANT, identity_id(1), lambda _: {}).receipt)  # type: ignore[union-attr]
    assert traces(tmp_path / "store", identity_id(1)) == []


@pytest.mark.slow
def test_drained_it_gives_back_what_another_finishes_to_the_same_bytes(people: Path, tmp_path: Path) -> None:
    steps = 150
    wanted = learned_alone(tmp_path / "calm", album(people), 1, steps=steps)
    service = opened_service(endpoint_settings(tmp_path / "drained", lease_s=1.0, steps=steps))
    job = submit(service, 1, album(people), steps=steps)
    with working(trainer_of(service)):
        wait_for(running(service, job))
    back = job_of(service, job)
    assert (back.state, back.attempts) == (State.QUEUED, 0)
    assert service.store.exists(checkpoint_path(identity_id(1)))
    trainer = trainer_of(service)
    begun: list[int] = []
    begin = trainer.training.begin
    trainer.training.begin = lambda row: begun.append(len((made := begin(row)).losses)) or made  # type: ignore
    trainer.work(once=True)
    assert begun[0] > 0
    assert version_of(service, job).lora_sha256 == wanted
    service.close()


def test_drained_over_an_album_it_gives_it_back(service: Service, people: Path) -> None:
    job = submit(service, 1, album(people))
    trainer = trainer_of(service)
    fetch = trainer.perceiver.fetch
    trainer.perceiver.fetch = lambda place: trainer.drain() or fetch(place)  # type: ignore
    trainer.work()
    assert (job_of(service, job).state, job_of(service, job).attempts) == (State.QUEUED, 0)


def test_what_may_have_ended_a_trainer_is_learned_alone(service: Service, people: Path) -> None:
    jobs = [submit(service, number, album(people)) for number in (1, 2, 3)]
    service.queue.lease([Kind.IDENTITY], "killed", 1e-6)
    trainer = trainer_of(service)
    seen = company(trainer)
    trainer.work(once=True)
    assert [job_of(service, job).attempts for job in jobs] == [2, 1, 1]
    assert {job_of(service, job).state for job in jobs} == {State.SUCCEEDED}
    assert {len(together) for together in seen if jobs[0].id in together} == {1}
    assert max(map(len, seen)) == 2


@pytest.mark.slow
def test_a_suspect_waits_until_it_can_be_alone_and_nobody_passes_it(service: Service, people: Path) -> None:
    first, suspect, later = (submit(service, number, album(people)) for number in (1, 2, 3))
    service.queue.lease([Kind.IDENTITY], "killed", 1e-6, 2)
    service.queue.sweep()
    leases = service.queue.lease([Kind.IDENTITY], "untried", 60, 2)
    service.queue.release(next(lease for lease in leases if lease.job.id == suspect.id))
    service.queue.complete(next(lease for lease in leases if lease.job.id == first.id), {})
    fresh = submit(service, 4, album(people))
    trainer = trainer_of(service)
    seen = company(trainer)
    trainer.work(once=True)
    order = [next(iter(together)) for together in seen if len(together) == 1]
    assert order[0] == suspect.id
    assert {later.id, fresh.id} in seen


@pytest.mark.slow
def test_a_job_that_goes_wrong_each_time_fails_and_the_next_one_does_not(people: Path, tmp_path: Path) -> None:
    service = opened_service(endpoint_settings(tmp_path, lease_s=0.1))
    bad, good = submit(service, 1, album(people, "P002")), submit(service, 2, album(people))
    trainer = trainer_of(service)
    see = trainer.perceiver._see

    def fault(row: dict[str, Any], rgb_u8: Any) -> None:
        if trainer._held and trainer._held.lease.job.id == bad.id:
            raise ZeroDivisionError("a bug of ours")
        see(row, rgb_u8)

    trainer.perceiver._see = fault  # type: ignore[method-assign]
    trainer.work(once=True)
    ended = job_of(service, bad)
    assert (ended.state, ended.reason, ended.attempts) == (State.FAILED, JobReason.GAVE_UP, 3)
    assert version_of(service, good)
    service.close()


@pytest.mark.slow
def test_killed_between_the_face_lora_and_its_row_it_is_not_learned_again(people: Path, tmp_path: Path) -> None:
    service = opened_service(endpoint_settings(tmp_path, lease_s=0.1))
    job = submit(service, 1, album(people))
    trainer = trainer_of(service)
    trainer._settle = lambda *_: 1 / 0  # type: ignore
    first = threading.Thread(target=trainer.work, daemon=True)
    first.start()
    wait_for(lambda: service.store.exists(f"{identity_folder(identity_id(1))}/lora"))
    trainer.drain()
    first.join(60)
    assert not first.is_alive()
    again = trainer_of(service)
    steps = company(again)
    again.work(once=True)
    version = version_of(service, job)
    assert steps == []
    assert len(version.curve) == 6
    service.close()


@pytest.mark.slow
def test_two_trainers_share_the_queue_and_do_nothing_twice(people: Path, tmp_path: Path) -> None:
    service = opened_service(endpoint_settings(tmp_path, steps=30))
    jobs = [submit(service, number, album(people), steps=30) for number in range(1, 6)]
    trainers = [trainer_of(service), trainer_of(service)]
    open_perceiver(trainers[1].perceiver)  # models are not for two threads
    seen = [company(trainer) for trainer in trainers]
    with working(trainers[0]), working(trainers[1]):
        wait_for(lambda: all(job_of(service, job).state == State.SUCCEEDED for job in jobs))
    assert [job_of(service, job).attempts for job in jobs] == [1] * 5
    of_each = [set().union(*steps) for steps in seen]
    assert of_each[0]
    assert of_each[1]
    assert not of_each[0] & of_each[1]
    assert of_each[0] | of_each[1] == {job.id for job in jobs}
    service.close()
