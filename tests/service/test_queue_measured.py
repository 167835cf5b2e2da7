"""What the queue tells of itself: who asked, what waits, and how jobs end."""

import pickle

import pytest
from sqlalchemy.orm import Session

from studiolo.service.database import Database
from studiolo.service.metrics import MemoryMeters
from studiolo.service.queue import JobQueue
from studiolo.service.records import Job, Lease
from studiolo.service.settings import QueueSettings
from tests.service.clock import Clock
from tests.service.test_queue import A, lease, submit


def test_the_request_that_made_a_job_stays_with_it(queue: JobQueue):
    job = submit(queue, idempotency_key="k", request_id="r-1")
    assert submit(queue, idempotency_key="k", request_id="r-2") == job
    assert (job.request_id, lease(queue).job.request_id) == ("r-1", "r-1")
    assert submit(queue).request_id is None


def measured(database: Database, **settings: float) -> tuple[JobQueue, MemoryMeters]:
    meters = MemoryMeters()
    return JobQueue(database, QueueSettings(**settings), meters), meters


def test_waits_and_ends_are_measured(database: Database, clock: Clock):
    queue, meters = measured(database, max_attempts=1)
    for _ in range(2):
        submit(queue, deadline_s=1000)
    clock.move(4)
    queue.complete(held := lease(queue), {"n": 1})
    queue.complete(held, {"n": 1})  # the answer to the first was lost
    assert meters.values("studiolo_job_seconds", kind="portraits", stage="queued") == [4]
    assert meters.values("studiolo_job_seconds", kind="portraits", stage="whole") == [4]
    lease(queue)
    clock.move(11)
    queue.sweep()
    queue.cancel(A, submit(queue).id)
    submit(queue, deadline_s=1)
    clock.move(2)
    queue.sweep()
    queue.fail(lease_of(queue, submit(queue)), "no_face", "No face.")
    ends = [(one["state"], one["reason"]) for one in meters.series("studiolo_jobs_ended_total")]
    assert ends == [
        ("succeeded", "none"),
        ("failed", "gave_up"),
        ("cancelled", "cancelled"),
        ("failed", "deadline"),
        ("failed", "no_face"),
    ]
    assert meters.total("studiolo_jobs_ended_total") == 5
    assert len(meters.values("studiolo_job_seconds", stage="whole")) == 1


def lease_of(queue: JobQueue, job: Job) -> Lease:
    held = lease(queue)
    assert held.job.id == job.id
    return held


def test_what_was_not_kept_was_not_measured(database: Database):
    queue, meters = measured(database)
    submit(queue)

    def broken(_session: Session) -> None:
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        queue.complete(held := lease(queue), {}, within=broken)
    assert meters.values("studiolo_jobs_ended_total") == []
    queue.complete(held, {})
    assert meters.total("studiolo_jobs_ended_total", state="succeeded") == 1


def test_the_backlog_is_told_by_kind_and_state(database: Database, clock: Clock):
    queue, meters = measured(database)
    queue.measure()
    assert set(meters.values("studiolo_queue_jobs")) == {0}
    for steps in (30, 50):
        submit(queue, steps=steps)
    lease(queue)
    clock.move(7)
    queue.measure()
    assert meters.values("studiolo_queue_jobs", kind="portraits", state="running")[-1] == 1
    steps = sorted(
        meters.values("studiolo_queue_steps", kind="portraits", state=state)[-1] for state in ("queued", "running")
    )
    assert steps == [30, 50]
    assert meters.values("studiolo_queue_oldest_wait_seconds", kind="portraits") == [0, 7]
    assert meters.values("studiolo_queue_oldest_wait_seconds", kind="identity") == [0, 0]


def test_the_meters_stay_with_their_process(database: Database):
    queue, meters = measured(database)
    submit(queue)
    pickle.loads(pickle.dumps(queue)).cancel(A, queue.page(A).items[0].id)
    assert meters.values("studiolo_jobs_ended_total") == []
