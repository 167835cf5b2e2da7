"""What the trainer's surroundings do to it: store, database and tracker away, erasures and drains at bad moments."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors import held
from actors import trainer as trainer_module
from actors.leased_trainer import LeasedTrainer
from studiolo.errors import DatabaseError, DeviceMemoryError, StoreError
from studiolo.identities.artifacts import checkpoint_path, identity_folder
from studiolo.service.records import Kind, State
from studiolo.service.service import Service
from studiolo.storage.store import Store
from tests.actors.leased import (
    TENANT,
    album,
    endpoint_settings,
    identity_id,
    job_of,
    learned_alone,
    models,
    submit,
    trainer_of,
    untracked,
    version_of,
    wait_for,
    working,
)
from tests.pipelines.pupils import Silent

pytestmark = [pytest.mark.usefixtures("tiny_trainer"), pytest.mark.timeout(120)]


@pytest.fixture
def break_store(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[str], bool]], None]:
    """Have all reads and writes of stores fail of which `fails(path)` says so."""

    def broken(fails: Callable[[str], bool]) -> None:
        read, write = Store.read_bytes, Store.write_bytes

        def read_bytes(store: Store, path: str) -> bytes:
            if fails(path):
                raise StoreError("away")
            return read(store, path)

        def write_bytes(store: Store, path: str, content: bytes) -> None:
            if fails(path):
                raise StoreError("away")
            write(store, path, content)

        monkeypatch.setattr(Store, "read_bytes", read_bytes)
        monkeypatch.setattr(Store, "write_bytes", write_bytes)

    return broken


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that fails is asked again soon, and once."""
    monkeypatch.setattr(held, "RETRY_PAUSES_S", (0.01,))


def after_each_step(trainer: LeasedTrainer, look: Callable[[], object]) -> None:
    """Call `look` first when a step of the pack is done."""
    stepped = trainer._stepped

    def both() -> None:
        look()
        stepped()

    trainer._stepped = both  # type: ignore[method-assign]


@pytest.mark.usefixtures("hasty")
def test_a_store_that_fails_now_and_then_costs_no_attempt(
    service: Service, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = [path.read_bytes() for path in sorted((people / "P001").glob("*.jpg"))[:6]]
    job = submit(service, 1, photos)
    trainer, write, writes = trainer_of(service, trainer={"lease_s": 3.0}), Store.write_bytes, [0]

    def every_tenth_fails(store: Store, path: str, content: bytes) -> None:
        writes[0] += 1
        if writes[0] % 10 == 0:
            raise StoreError("away")
        write(store, path, content)

    monkeypatch.setattr(Store, "write_bytes", every_tenth_fails)
    trainer.work(once=True)
    assert writes[0] >= 10
    assert (job_of(service, job).state, job_of(service, job).attempts) == (State.SUCCEEDED, 1)


@pytest.mark.usefixtures("hasty")
def test_a_store_that_is_away_fails_no_job(
    people: Path, tmp_path: Path, break_store: Callable[[Callable[[str], bool]], None]
) -> None:
    service = untracked(endpoint_settings(tmp_path, lease_s=1.0))
    jobs = [submit(service, number, album(people)) for number in (1, 2)]
    failed: list[str] = []
    break_store(lambda path: len(failed) < 12 and (failed.append(path) or True))  # type: ignore[func-returns-value]
    trainer_of(service).work(once=True)
    assert len(failed) == 12
    assert [job_of(service, job).attempts for job in jobs] == [1, 1]
    assert all(version_of(service, job) for job in jobs)
    service.close()


@pytest.mark.slow
def test_a_photo_that_is_not_there_fails_its_job_alone(people: Path, tmp_path: Path) -> None:
    service = untracked(endpoint_settings(tmp_path, lease_s=0.1))
    bad, good = submit(service, 1, album(people)), submit(service, 2, album(people))
    for path in service.store.list("albums"):
        if identity_id(1) in path:
            service.store.remove(path)
    trainer_of(service).work(once=True)
    assert (job_of(service, bad).state, job_of(service, bad).attempts) == (State.FAILED, 3)
    assert version_of(service, good)
    service.close()


def test_drained_over_a_store_that_is_away_it_gives_back_untried(
    service: Service, people: Path, break_store: Callable[[Callable[[str], bool]], None]
) -> None:
    job, trainer = submit(service, 1, album(people)), trainer_of(service)
    break_store(lambda path: trainer._draining)
    after_each_step(trainer, trainer.drain)
    trainer.work()
    assert (job_of(service, job).state, job_of(service, job).attempts) == (State.QUEUED, 0)


def test_no_memory_for_the_pack_is_no_jobs_fault(service: Service, people: Path) -> None:
    job, trainer = submit(service, 1, album(people)), trainer_of(service)

    def too_much() -> None:
        raise DeviceMemoryError("too little")

    after_each_step(trainer, too_much)
    with pytest.raises(DeviceMemoryError):
        trainer.work()
    assert (job_of(service, job).state, job_of(service, job).attempts) == (State.QUEUED, 0)


def test_drained_at_a_validation_it_comes_to_the_bytes_of_a_calm_run(
    people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer_module, "open_suite", lambda suite: models().suite)
    face_lora = {"steps": 2, "validate_every": 1}
    wanted = learned_alone(tmp_path / "calm", album(people), 1, **face_lora)
    service = untracked(endpoint_settings(tmp_path / "drained", **face_lora))
    job, drained = submit(service, 1, album(people)), trainer_of(service)
    after_each_step(drained, drained.drain)
    drained.work()
    assert (job_of(service, job).state, job_of(service, job).attempts) == (State.QUEUED, 0)
    assert service.store.exists(checkpoint_path(identity_id(1)))
    trainer_of(service).work(once=True)
    assert version_of(service, job).lora_sha256 == wanted
    service.close()


def test_what_is_finished_when_it_is_drained_is_ended(service: Service, people: Path) -> None:
    job, trainer = submit(service, 1, album(people)), trainer_of(service, face_lora={"steps": 1})
    after_each_step(trainer, trainer.drain)
    trainer.work()
    assert version_of(service, job)


class Hanging(Silent):
    """A tracker in which the first curve takes as long as `meanwhile`; runs cannot be erased."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        self.meanwhile = meanwhile

    def log_metrics(self, run: str, metrics: Any) -> None:
        self.meanwhile()

    def runs_of(self, albums: Any) -> dict[str, list[str]]:
        return {}

    def erase(self, runs: Any) -> None:
        raise StoreError("away")


@pytest.mark.parametrize("place", ["a photo", "the end"])
def test_after_an_erasure_nothing_more_is_written(
    people: Path, tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = untracked(endpoint_settings(tmp_path, lease_s=0.4))
    job, written = submit(service, 1, album(people)), list[str]()
    write = Store.write_bytes

    def erase() -> None:
        def receipt() -> object:
            erased = service.erasure.erase(TENANT, identity_id(1), lambda _: {})
            return erased is not None and erased.receipt

        wait_for(receipt)
        monkeypatch.setattr(Store, "write_bytes", lambda store, path, content: written.append(path))

    tracker = Hanging(erase if place == "the end" else lambda: None)
    trainer = trainer_of(replace(service, tracker=tracker))  # type: ignore[arg-type]
    if place == "a photo":
        see = trainer.perceiver._see

        def cut_off(row: dict[str, Any], rgb_u8: Any) -> None:
            see(row, rgb_u8)
            erase()

        trainer.perceiver._see = cut_off  # type: ignore[method-assign]
        trainer._report = lambda: None  # type: ignore[method-assign]
        trainer._tend = lambda: None  # type: ignore[method-assign]
    trainer.work(once=True)
    assert written == []
    assert service.store.list(identity_folder(identity_id(1))) == []
    assert service.queue.get(TENANT, job.id) is None or job_of(service, job).state == State.CANCELLED
    monkeypatch.setattr(Store, "write_bytes", write)
    service.close()


def test_it_takes_no_job_from_itself_after_an_outage(service: Service, people: Path) -> None:
    first, second = (submit(service, number, album(people)) for number in (1, 2))
    trainer = trainer_of(service)
    own = trainer._take()
    assert own is not None
    service.database.clock = lambda: time.time() + 60  # a lease is 30 s
    own.until_s = 0.0
    trainer._tend()
    assert (job_of(service, first).state, own.sure) == (State.RUNNING, True)
    service.database.clock = lambda: time.time() + 120
    own.until_s = 0.0
    other = trainer._take()
    assert other is not None
    assert (other.lease.job.id, own.sure) == (second.id, True)
    assert [job_of(service, job).attempts for job in (first, second)] == [1, 1]


def test_a_database_that_is_away_is_waited_for(service: Service, people: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job, trainer = submit(service, 1, album(people)), trainer_of(service)
    away = dict.fromkeys(("lease", "extend", "complete"), 0)

    def twice_away(name: str, ask: Callable[..., Any]) -> Callable[..., Any]:
        def asked(*arguments: Any, **more: Any) -> Any:
            away[name] += 1
            if away[name] < 3:
                raise DatabaseError("away")
            return ask(*arguments, **more)

        return asked

    for name in away:
        monkeypatch.setattr(service.queue, name, twice_away(name, getattr(service.queue, name)))
    see = trainer.perceiver._see

    def long_since(row: dict[str, Any], rgb_u8: Any) -> None:
        assert trainer._held is not None
        trainer._held.until_s = 0.0  # the next part of the album asks for it
        see(row, rgb_u8)

    trainer.perceiver._see = long_since  # type: ignore[method-assign]
    trainer.work(once=True)
    assert min(away.values()) >= 3
    assert (job_of(service, job).attempts, service.queue.backlog(Kind.IDENTITY).queued) == (1, 0)
    assert version_of(service, job)


def test_leases_outlive_a_database_that_is_away_for_a_while(people: Path, tmp_path: Path) -> None:
    service = untracked(endpoint_settings(tmp_path, lease_s=1.0, steps=100_000))
    job, trainer, away = submit(service, 1, album(people), steps=100_000), trainer_of(service), [False]
    for name in ("read", "write"):
        ask = getattr(service.database, name)

        def asked(work: Any, ask: Any = ask) -> Any:
            if away[0]:
                raise DatabaseError("away")
            return ask(work)

        setattr(service.database, name, asked)
    with working(trainer):
        wait_for(lambda: job_of(service, job).steps_done > 0)
        (own,) = trainer.keeper.held
        away[0] = True
        wait_for(lambda: not own.sure)
        before = own.steps_done
        wait_for(lambda: own.steps_done > before)
        away[0] = False
        wait_for(lambda: own.sure)
        wait_for(lambda: job_of(service, job).steps_done > before)
        assert trainer.keeper.held == [own]
        assert job_of(service, job).attempts == 1
    service.close()
