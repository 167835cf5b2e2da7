"""Results that are over, and files of nobody."""

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


def _made_s(path: str) -> float:
    return int(path.split("_")[1][:12], 16) / 1000
