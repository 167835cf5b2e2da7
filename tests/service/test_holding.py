"""Leases in one worker's hands."""

import math
import time

import pytest

from studiolo.errors import DatabaseError, LeaseLostError
from studiolo.service.holding import LeaseKeeper
from studiolo.service.queue import JobQueue
from studiolo.service.records import Kind
from studiolo.service.tables import JobRow
from tests.service.clock import Clock
from tests.service.rows import portraits

A = "ten_a"


@pytest.fixture
def keeper(queue: JobQueue) -> LeaseKeeper:
    return LeaseKeeper(queue, "w", 10.0)


def test_what_is_held_is_extended_with_its_steps_until_it_is_dropped(
    queue: JobQueue, keeper: LeaseKeeper, clock: Clock
):
    assert keeper.take([Kind.PORTRAITS]) is None
    kept, dropped = (queue.submit(A, portraits()) for _ in range(2))
    held = keeper.take([Kind.PORTRAITS])
    other = keeper.take([Kind.PORTRAITS])
    assert held is not None
    assert other is not None
    assert (held.lease.job.id, other.lease.job.id, held.sure) == (kept.id, dropped.id, True)
    held.steps_done, held.losses = 7, [0.5, 0.25, math.nan]
    keeper.drop(other)
    for _ in range(3):
        clock.move(8)
        keeper.extend_all()
    queue.sweep()
    jobs = [queue.get(A, job.id) for job in (kept, dropped)]
    told = [(job.state, job.steps_done, job.curve) for job in jobs if job]
    assert told == [("running", 7, [[1, 0.5], [2, 0.25]]), ("queued", 0, None)]


def test_whose_lease_is_lost_knows_why_and_the_others_are_extended(queue: JobQueue, keeper: LeaseKeeper, clock: Clock):
    lost, stays = (queue.submit(A, portraits()) for _ in range(2))
    first, second = keeper.take([Kind.PORTRAITS]), keeper.take([Kind.PORTRAITS])
    assert first is not None
    assert second is not None
    queue.cancel(A, lost.id)
    clock.move(9)
    keeper.extend_all()
    clock.move(9)
    keeper.extend_all()
    assert (first.lost, first.sure, second.lost, second.sure) == ("cancelled", False, "", True)
    with pytest.raises(LeaseLostError):
        keeper.extend(first)
    queue.complete(second.lease, {})
    assert queue.get(A, stays.id).state == "succeeded"  # type: ignore[union-attr]


def test_what_runs_out_soon_is_secured_before_it_is_swept(queue: JobQueue, keeper: LeaseKeeper, clock: Clock):
    job = queue.submit(A, portraits())
    held = keeper.take([Kind.PORTRAITS])
    assert held is not None
    keeper.secure()
    assert held.lease.until == queue.database.read(lambda session: session.get_one(JobRow, job.id).lease_until)
    clock.move(60)
    held.until_s = time.monotonic() + 3.0  # of ten
    keeper.secure()
    assert queue.sweep() == 0
    assert held.until_s > time.monotonic() + 5


def test_without_a_database_it_is_neither_sure_nor_lost(queue: JobQueue, monkeypatch: pytest.MonkeyPatch):
    queue.submit(A, portraits())
    keeper = LeaseKeeper(queue, "w", 0.05)
    held = keeper.take([Kind.PORTRAITS])
    assert held is not None

    def away(*_: object) -> None:
        raise DatabaseError("away")

    with monkeypatch.context() as patch:
        patch.setattr(queue, "extend", away)
        time.sleep(0.06)
        with pytest.raises(DatabaseError):
            keeper.extend_all()
    assert (held.sure, held.lost) == (False, "")
    keeper.for_s = 60
    keeper.extend_all()
    assert held.sure


def test_a_fresh_lease_stops_before_a_job_that_was_begun_before(queue: JobQueue, clock: Clock):
    first, begun, last = (queue.submit(A, portraits(deadline_s=seconds)) for seconds in (70, 80, 90))
    queue.submit(A, portraits(deadline_s=60))
    (drained,) = queue.lease([Kind.PORTRAITS], "w", 10)
    queue.release(drained)  # given back untried it is as fresh as before
    early, crashed = queue.lease([Kind.PORTRAITS], "w", 1, 2)
    assert (early.job.id, crashed.job.id) == (drained.job.id, first.id)
    queue.complete(early, {})
    clock.move(2)
    assert queue.lease([Kind.PORTRAITS], "w", 10, 3, fresh=True) == []
    (again,) = queue.lease([Kind.PORTRAITS], "w", 10)
    assert (again.job.id, again.attempt) == (first.id, 2)
    fresh = queue.lease([Kind.PORTRAITS], "w", 10, 3, fresh=True)
    assert [one.job.id for one in fresh] == [begun.id, last.id]
