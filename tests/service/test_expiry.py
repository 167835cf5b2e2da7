"""Results that are over, and files of nobody."""

import threading
from pathlib import Path

import pytest

from studiolo.errors import StoreError
from studiolo.service.database import Database, migrate
from studiolo.service.expiry import BINDING, Expiry
from studiolo.service.identities import album_folder
from studiolo.service.provenance import Provenance
from studiolo.service.queue import JobQueue
from studiolo.service.records import Kind, new_id, result_folder, template_path
from studiolo.storage.ledger import Ledger
from studiolo.storage.store import Store
from studiolo.storage.tracking import MlflowTracker
from tests.jobs.finished_job import empty_database
from tests.service.clock import Clock
from tests.service.rows import NOBODY_SIGNS, add_identity, portraits

PIXELS = "5" * 64
NOBODY = "id_" + "0" * 32


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    store.write_bytes("mlflow.db", empty_database())
    return store


@pytest.fixture
def expiry(queue: JobQueue, store: Store) -> Expiry:
    return Expiry(queue, store, MlflowTracker.beside(store))


def finished(queue: JobQueue, store: Store) -> str:
    """A job with a result; the id."""
    job = queue.submit("ten_a", portraits())
    (lease,) = queue.lease([Kind.PORTRAITS], "w", 10)
    store.write_bytes(f"{lease.folder}/000.png", b"kept")
    queue.complete(lease, {"n": 1}, within=Provenance(queue.database, NOBODY_SIGNS).remember(job.id, [PIXELS]))
    return job.id


def test_results_are_thrown_away_in_time_with_those_of_lost_attempts(
    queue: JobQueue, store: Store, expiry: Expiry, clock: Clock
):
    jobs = []
    for _ in range(2):
        jobs.append(queue.submit("ten_a", portraits()).id)
        (lost,) = queue.lease([Kind.PORTRAITS], "w", 10)
        store.write_bytes(f"{lost.folder}/000.png", b"lost")
        clock.move(11)
        (lease,) = queue.lease([Kind.PORTRAITS], "w", 10)
        store.write_bytes(f"{lease.folder}/000.png", b"kept")
        queue.complete(lease, {"path": f"{lease.folder}/000.png"})
        clock.move(86_400)
    clock.move(5 * 86_400 - 60)
    assert expiry.expire_results() == 0
    clock.move(86_400)
    assert (expiry.expire_results(), expiry.expire_results()) == (1, 0)
    assert {path.split("/")[1] for path in store.list("results")} == {jobs[1]}
    over, there = queue.get("ten_a", jobs[0]), queue.get("ten_a", jobs[1])
    assert over is not None
    assert there is not None
    assert (over.state, over.result, over.result_until) == ("succeeded", None, None)
    assert there.result is not None


def test_a_template_goes_with_its_job_and_as_an_orphan_without_one(
    queue: JobQueue, store: Store, expiry: Expiry, clock: Clock
):
    def begun() -> str:
        job_id = new_id("job")
        store.write_bytes(template_path(job_id), b"somebody")
        return job_id

    broken_off, waiting, ended = begun(), begun(), begun()
    for job_id in (waiting, ended):
        assert queue.submit("ten_a", portraits(id=job_id, deadline_s=30 * 86_400)).id == job_id
    queue.cancel("ten_a", ended)
    clock.move(3601)
    assert expiry.remove_orphans() == 1
    assert {path.split("/")[1] for path in store.list("results")} == {waiting, ended}
    assert store.list(f"results/{broken_off}") == []
    clock.move(7 * 86_400)
    assert expiry.expire_results() == 1
    assert store.list("results") == [template_path(waiting)]


def test_pixels_are_known_as_long_as_a_result_with_them(queue: JobQueue, store: Store, expiry: Expiry, clock: Clock):
    provenance = Provenance(queue.database, NOBODY_SIGNS)
    finished(queue, store)
    clock.move(86_400)
    finished(queue, store)  # the same picture again
    for days, known in ((5.5, True), (1, True), (1, False)):
        clock.move(days * 86_400)
        expiry.expire_results()
        assert provenance.known(PIXELS) is known, days
    assert expiry.expire_results() == 0


def test_a_result_that_cannot_be_removed_holds_up_no_other(
    queue: JobQueue, store: Store, expiry: Expiry, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    bad = finished(queue, store)
    clock.move(1)
    good = finished(queue, store)
    clock.move(8 * 86_400)
    remove = Store.remove

    def broken(self: Store, path: str) -> None:
        if bad in path:
            raise StoreError("a fault")
        remove(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "remove", broken)
        assert expiry.expire_results(count=1) == 0
        assert expiry.expire_results(count=1) == 1
        assert expiry.expire_results() == 0
    assert {path.split("/")[1] for path in store.list("results")} == {bad}
    kept, gone = queue.get("ten_a", bad), queue.get("ten_a", good)
    assert kept is not None
    assert gone is not None
    assert (kept.result, gone.result) == ({"n": 1}, None)
    clock.move(3601)
    assert expiry.expire_results() == 1
    assert store.list("results") == []


def test_files_of_nobody_go_when_they_are_old(queue: JobQueue, store: Store, expiry: Expiry, clock: Clock):
    known = add_identity(queue.database, "ten_a")  # made long ago
    job = queue.submit("ten_a", portraits())
    orphans = [
        f"{album_folder(NOBODY)}/0.jpg",
        f"identities/{NOBODY}/lora/x",
        f"{result_folder('job_' + '0' * 32)}/1/000.png",
    ]
    fresh = f"{album_folder(new_id('id'))}/0.jpg"
    kept = [f"{album_folder(known)}/0.jpg", f"{result_folder(job.id)}/1/000.png", "albums/readme.txt", "other/x", fresh]
    for path in orphans + kept:
        store.write_bytes(path, b"x")
    clock.now = _made_s(fresh) + 3599
    assert expiry.remove_orphans() == 3
    assert store.list() == sorted([*kept, "mlflow.db"])
    clock.move(2)
    assert expiry.remove_orphans() == 1
    assert not store.exists(fresh)


def test_records_and_runs_of_nobody_go_and_those_of_others_stay(queue: JobQueue, store: Store, expiry: Expiry):
    """A worker that was late wrote them after an erasure."""
    known = add_identity(queue.database, "ten_a")
    ledger, tracker = Ledger(store), expiry.tracker
    parent = tracker.start("endpoint", "endpoint", {})
    for number, identity_id in enumerate((NOBODY, known)):
        ledger.complete("album", f"{number:064x}", {"identity_id": identity_id, "embedding": [0.5]})
        ledger.fail("identity", f"{number:064x}", "crashed_worker", f"the training of {identity_id!r}")
        tracker.start(f"run {number}", identity_id, {}, parent=parent)
    assert expiry.remove_orphans() == 3
    assert store.list("ledger") == [f"ledger/done/album/{1:064x}.json", f"ledger/failed/identity/{1:064x}.json"]
    assert list(tracker.runs_of()) == [known]
    assert expiry.remove_orphans() == 0


def test_a_database_that_knows_too_little_removes_nothing(queue: JobQueue, store: Store, expiry: Expiry):
    known = [add_identity(queue.database, "ten_a", number) for number in range(1, 21)]
    for identity_id in [*known, *(f"id_{number:032x}" for number in range(100, 121))]:
        store.write_bytes(f"{album_folder(identity_id)}/0.jpg", b"x")
    files = store.list()
    with pytest.raises(StoreError, match="21 of the 41"):
        expiry.remove_orphans()
    assert store.list() == files
    store.remove(f"{album_folder('id_' + f'{100:032x}')}/0.jpg")
    assert expiry.remove_orphans() == 20
    assert len(store.list("albums")) == 20


def test_a_new_database_beside_a_full_store_removes_nothing(
    queue: JobQueue, store: Store, expiry: Expiry, clock: Clock, tmp_path: Path
):
    identity_id = add_identity(queue.database, "ten_a")
    store.write_bytes(f"{album_folder(identity_id)}/0.jpg", b"x")
    assert expiry.remove_orphans_daily() == 0
    clock.move(86_401)
    assert expiry.remove_orphans_daily() == 0
    url = f"sqlite:///{tmp_path}/fresh.db"  # the old one is lost
    migrate(url)
    fresh = Database(url, clock)
    lost = Expiry(JobQueue(fresh), store, expiry.tracker)
    for pause_s in (0, 86_401, 3601):
        clock.move(pause_s)
        with pytest.raises(StoreError, match="another database"):
            lost.remove_orphans_daily()
        assert lost.remove_orphans_daily() == 0  # not at once again
    assert store.exists(f"{album_folder(identity_id)}/0.jpg")
    store.remove(BINDING)
    clock.move(3601)
    assert lost.remove_orphans_daily() == 1  # as it was told
    fresh.close()


def test_files_of_nobody_go_once_a_day_whoever_asks(queue: JobQueue, store: Store, expiry: Expiry, clock: Clock):
    first, second = expiry, Expiry(queue, store, expiry.tracker)

    def leave(number: int) -> None:
        store.write_bytes(f"{album_folder(NOBODY)}/{number:03d}", b"x")

    leave(1)
    assert [first.remove_orphans_daily(), second.remove_orphans_daily()] == [0, 0]  # the database may be a wrong one
    clock.move(86_401)
    assert [first.remove_orphans_daily(), second.remove_orphans_daily()] == [1, 0]
    leave(2)
    clock.move(86_400 - 1)
    assert [first.remove_orphans_daily(), second.remove_orphans_daily()] == [0, 0]
    clock.move(2)
    assert [second.remove_orphans_daily(), first.remove_orphans_daily()] == [1, 0]


def test_who_dies_over_it_is_followed_by_another(
    store: Store, expiry: Expiry, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    store.write_bytes(f"{album_folder(NOBODY)}/001", b"x")
    expiry.remove_orphans_daily()
    clock.move(86_401)
    with monkeypatch.context() as patch:
        patch.setattr(Expiry, "remove_orphans", _killed)
        with pytest.raises(KeyboardInterrupt):
            expiry.remove_orphans_daily()
    assert expiry.remove_orphans_daily() == 0  # the other may be at it still
    clock.move(3601)
    assert expiry.remove_orphans_daily() == 1


def test_of_many_at_once_one_does_it(expiry: Expiry, clock: Clock, monkeypatch: pytest.MonkeyPatch):
    begun: list[int] = []
    monkeypatch.setattr(Expiry, "remove_orphans", lambda _self: begun.append(1) or 1)
    for wanted in (0, 1):
        threads = [threading.Thread(target=expiry.remove_orphans_daily) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(begun) == wanted
        clock.move(86_401)


def _killed(_self: Expiry) -> int:
    raise KeyboardInterrupt


def _made_s(path: str) -> float:
    return int(path.split("_")[1][:12], 16) / 1000
