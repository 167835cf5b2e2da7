"""Results that are over, and files of nobody."""

import threading
from pathlib import Path

import pytest

from studiolo.service.expiry import Expiry
from studiolo.service.identities import album_folder
from studiolo.service.queue import JobQueue
from studiolo.service.records import Kind, new_id, result_folder
from studiolo.storage.store import Store
from tests.service.clock import Clock
from tests.service.rows import add_identity, portraits


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_results_are_thrown_away_in_time_with_those_of_lost_attempts(queue: JobQueue, store: Store, clock: Clock):
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
    expiry = Expiry(queue, store)
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


def test_files_of_nobody_go_when_they_are_old(queue: JobQueue, store: Store, clock: Clock):
    known = add_identity(queue.database, "ten_a")  # made long ago
    job = queue.submit("ten_a", portraits())
    old = "id_" + "0" * 32
    orphans = [
        f"{album_folder(old)}/0.jpg",
        f"identities/{old}/lora/x",
        f"{result_folder('job_' + '0' * 32)}/1/000.png",
    ]
    fresh = f"{album_folder(new_id('id'))}/0.jpg"
    kept = [f"{album_folder(known)}/0.jpg", f"{result_folder(job.id)}/1/000.png", "albums/readme.txt", "other/x", fresh]
    for path in orphans + kept:
        store.write_bytes(path, b"x")
    clock.now = _made_s(fresh) + 3599
    assert sorted(Expiry(queue, store).remove_orphans()) == sorted(orphans)
    assert store.list() == sorted(kept)
    clock.move(2)
    assert Expiry(queue, store).remove_orphans() == [fresh]


def test_files_of_nobody_go_once_a_day_whoever_asks(queue: JobQueue, store: Store, clock: Clock):
    old = "id_" + "0" * 32
    first, second = Expiry(queue, store), Expiry(queue, store)

    def leave(number: int) -> None:
        store.write_bytes(f"{album_folder(old)}/{number:03d}", b"x")

    leave(1)
    assert [first.remove_orphans_daily(), second.remove_orphans_daily()] == [1, 0]
    leave(2)
    clock.move(86_400 - 1)
    assert [first.remove_orphans_daily(), second.remove_orphans_daily()] == [0, 0]
    clock.move(2)
    assert [second.remove_orphans_daily(), first.remove_orphans_daily()] == [1, 0]


def test_who_dies_over_it_is_followed_by_another(
    queue: JobQueue, store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    store.write_bytes(f"{album_folder('id_' + '0' * 32)}/001", b"x")
    with monkeypatch.context() as patch:
        patch.setattr(Expiry, "remove_orphans", _killed)
        with pytest.raises(KeyboardInterrupt):
            Expiry(queue, store).remove_orphans_daily()
    assert Expiry(queue, store).remove_orphans_daily() == 0  # the other may be at it still
    clock.move(3601)
    assert Expiry(queue, store).remove_orphans_daily() == 1


def test_of_many_at_once_one_does_it(queue: JobQueue, store: Store, monkeypatch: pytest.MonkeyPatch):
    begun: list[int] = []
    monkeypatch.setattr(Expiry, "remove_orphans", lambda _self: begun.append(1) or begun)
    threads = [threading.Thread(target=Expiry(queue, store).remove_orphans_daily) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(begun) == 1


def _killed(_self: Expiry) -> list[str]:
    raise KeyboardInterrupt


def _made_s(path: str) -> float:
    return int(path.split("_")[1][:12], 16) / 1000
