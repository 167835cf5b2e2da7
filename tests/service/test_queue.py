"""The queue by one caller after another: states, leases, order, idempotency, tenants."""

import pickle

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from studiolo.errors import BusyError, ConflictError, LeaseLostError, NotFoundError, UnacceptableError
from studiolo.service.database import Database
from studiolo.service.queue import JobQueue
from studiolo.service.records import Job, Kind, Lease, State
from studiolo.service.settings import QueueSettings
from studiolo.service.tables import DeliveryRow, JobRow, TenantRow
from tests.service.clock import Clock
from tests.service.rows import add_identity, portraits

A, B = "ten_a", "ten_b"


def submit(queue: JobQueue, tenant: str = A, **fields: object) -> Job:
    return queue.submit(tenant, portraits(**fields))


def lease(queue: JobQueue, for_s: float = 10.0, worker: str = "w") -> Lease:
    (one,) = queue.lease([Kind.PORTRAITS], worker, for_s)
    return one


def state(queue: JobQueue, job: Job) -> tuple[State, str]:
    now = queue.get(job.tenant_id, job.id)
    assert now is not None
    return now.state, now.reason


def test_a_job_from_acceptance_to_result(queue: JobQueue, clock: Clock):
    job = submit(queue, units=4, deadline_s=60)
    assert (job.state, job.attempts, job.deadline_at) == (State.QUEUED, 0, clock.now + 60)
    assert queue.get(A, job.id) == job
    clock.move(2)
    held = lease(queue)
    assert (held.job.state, held.attempt, held.job.started_at) == (State.RUNNING, 1, clock.now)
    assert held.folder == f"results/{job.id}/1"
    assert queue.lease([Kind.PORTRAITS], "other", 10) == []
    clock.move(2)
    assert queue.complete(held, {"portraits": ["ä"]})
    done = queue.get(A, job.id)
    assert done is not None
    assert (done.state, done.result, done.finished_at) == (State.SUCCEEDED, {"portraits": ["ä"]}, clock.now)
    assert done.result_until == clock.now + 7 * 86_400
    assert queue.lease([Kind.PORTRAITS], "other", 10) == []


def test_the_kinds_have_their_deadlines(queue: JobQueue, clock: Clock):
    training = submit(queue, kind=Kind.IDENTITY)
    assert training.deadline_at == clock.now + 86_400
    assert submit(queue).deadline_at == clock.now + 3600
    assert [held.job.id for held in queue.lease([Kind.IDENTITY], "trainer", 10, count=5)] == [training.id]


# -- same question, same answer


def test_the_same_request_under_a_key_is_the_same_job(queue: JobQueue, clock: Clock):
    first = submit(queue, idempotency_key="k", deadline_s=60)
    clock.move(1)
    again = submit(queue, idempotency_key="k", deadline_s=5, webhook_url="https://x.org/hook")
    assert again == first
    queue.complete(lease(queue), {"n": 1})
    assert submit(queue, idempotency_key="k").result == {"n": 1}
    assert submit(queue, B, idempotency_key="k").id != first.id  # keys are a tenant's own
    assert submit(queue).id != submit(queue).id


@pytest.mark.parametrize(
    "other", [{"request": {"style": "sepia"}}, {"steps": 31}, {"units": 2}, {"kind": Kind.IDENTITY}], ids=str
)
def test_another_request_under_a_key_is_refused(queue: JobQueue, other: dict):
    job = submit(queue, idempotency_key="k")
    with pytest.raises(ConflictError, match=job.id) as refused:
        submit(queue, idempotency_key="k", **other)
    assert (refused.value.status, refused.value.reason) == (409, "idempotency_key")


@pytest.mark.parametrize("key", ["", "a b", "ä", "\0", "k" * 256])
def test_keys_that_are_none_are_refused(key: str):
    with pytest.raises(ValueError, match="idempotency_key"):
        portraits(idempotency_key=key)


def test_a_refused_job_leaves_nothing(queue: JobQueue, database: Database):
    seen = []

    def check(session: Session, deadline_at: float) -> None:
        seen.append(deadline_at)
        session.add(TenantRow(id="charged", name="charged", webhook_secret="", created_at=0.0))
        session.flush()
        raise BusyError("backlog", "Too much.", 3)

    with pytest.raises(BusyError):
        queue.submit(A, portraits(idempotency_key="k"), check=check)
    assert queue.page(A).items == []
    assert database.read(lambda session: session.get(TenantRow, "charged")) is None
    first = submit(queue, idempotency_key="k")
    assert queue.submit(A, portraits(idempotency_key="k"), check=check) == first  # it was accepted: no check
    assert len(seen) == 1


def test_a_job_needs_an_identity_of_its_tenant(queue: JobQueue, database: Database):
    identity = add_identity(database, A)
    assert submit(queue, identity_id=identity).identity_id == identity
    for tenant, wanted in ((B, identity), (A, "id_gone")):
        with pytest.raises(NotFoundError) as refused:
            submit(queue, tenant, identity_id=wanted)
        assert str(refused.value) == f"There is no identity {wanted}."


# -- order


def test_the_earliest_deadline_is_first(queue: JobQueue, clock: Clock):
    late, soon, later = (submit(queue, deadline_s=seconds) for seconds in (50, 10, 90))
    clock.move(1)
    between = submit(queue, B, deadline_s=19)
    order = [soon, between, late, later]
    assert [queue.position(job.tenant_id, job.id) for job in order] == [1, 2, 3, 4]
    assert queue.position(B, soon.id) is None
    taken = queue.lease([Kind.PORTRAITS], "w", 10, count=3)
    assert [held.job.id for held in taken] == [job.id for job in order[:3]]
    assert len({held.token for held in taken}) == 3
    assert queue.position(A, later.id) == 1
    assert queue.position(A, soon.id) is None
    assert lease(queue).job.id == later.id


def test_backlog(queue: JobQueue, clock: Clock):
    for steps in (10, 20, 30):
        submit(queue, steps=steps, deadline_s=steps)
        clock.move(1)
    submit(queue, kind=Kind.IDENTITY, steps=1000)
    lease(queue)
    backlog = queue.backlog(Kind.PORTRAITS)
    assert (backlog.queued, backlog.queued_steps, backlog.running, backlog.running_steps) == (2, 50, 1, 10)
    assert backlog.oldest_wait_s == 2
    assert queue.backlog(Kind.IDENTITY).queued_steps == 1000
    queue.cancel(A, queue.page(A, kind=Kind.IDENTITY).items[0].id)
    empty = queue.backlog(Kind.IDENTITY)
    assert (empty.queued, empty.queued_steps, empty.running, empty.oldest_wait_s) == (0, 0, 0, 0)


# -- leases


def test_an_extended_lease_is_not_given_away(queue: JobQueue, clock: Clock):
    submit(queue)
    held = lease(queue, for_s=10)
    clock.move(8)
    held = queue.extend(held, 10)
    assert held.until == clock.now + 10
    clock.move(8)
    assert queue.lease([Kind.PORTRAITS], "other", 10) == []
    assert queue.sweep() == 0


def test_a_lease_that_ran_out_is_given_away_and_the_attempt_counts(queue: JobQueue, clock: Clock):
    job = submit(queue)
    slow = lease(queue, for_s=10)
    clock.move(11)
    quick = lease(queue, worker="other")
    assert (quick.job.id, quick.attempt, quick.folder) == (job.id, 2, f"results/{job.id}/2")
    for call in (
        lambda: queue.extend(slow, 10),
        lambda: queue.complete(slow, {"by": "slow"}),
        lambda: queue.fail(slow, "no_face", "No face."),
        lambda: queue.retry(slow, "no_face", "No face."),
    ):
        with pytest.raises(LeaseLostError) as lost:
            call()
        assert lost.value.reason == "taken"
    queue.release(slow)
    assert queue.complete(quick, {"by": "quick"})
    with pytest.raises(LeaseLostError) as lost:
        queue.complete(slow, {"by": "slow"})
    assert lost.value.reason == "finished"
    assert queue.submit(A, portraits()).id != job.id
    done = queue.get(A, job.id)
    assert done is not None
    assert done.result == {"by": "quick"}


def test_who_is_slow_and_not_replaced_may_still_deliver(queue: JobQueue, clock: Clock):
    job = submit(queue)
    slow = lease(queue, for_s=10)
    clock.move(500)
    assert queue.complete(slow, {})
    assert state(queue, job) == (State.SUCCEEDED, "")


def test_a_second_completion_says_so_and_changes_nothing(queue: JobQueue, clock: Clock):
    job = submit(queue, webhook_url="https://x.org/hook")
    held, done = lease(queue), []
    assert queue.complete(held, {"n": 1}, within=lambda session: done.append(1))
    first = queue.get(A, job.id)
    clock.move(5)
    assert not queue.complete(held, {"n": 2}, within=lambda session: done.append(2))
    assert queue.get(A, job.id) == first
    assert done == [1]


def test_what_belongs_to_a_result_comes_with_it_or_not_at_all(queue: JobQueue, database: Database):
    job = submit(queue)
    held = lease(queue)

    def half(session: Session) -> None:
        session.add(TenantRow(id="x", name="x", webhook_secret="", created_at=0.0))
        session.flush()
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError):
        queue.complete(held, {}, within=half)
    assert state(queue, job) == (State.RUNNING, "")
    assert database.read(lambda session: session.get(TenantRow, "x")) is None
    assert queue.complete(held, {})


def test_after_the_last_attempt_the_job_fails(queue: JobQueue, clock: Clock):
    job = submit(queue)
    for attempt in (1, 2, 3):
        assert lease(queue, for_s=10).attempt == attempt
        clock.move(11)
    assert queue.lease([Kind.PORTRAITS], "w", 10) == []
    assert state(queue, job) == (State.FAILED, "gave_up")
    ended = queue.get(A, job.id)
    assert ended is not None
    assert "given up" in ended.sentence


def test_a_fault_that_may_pass_is_tried_again_later(database: Database, clock: Clock):
    queue = JobQueue(database, QueueSettings(max_attempts=2))
    job = submit(queue)
    assert queue.retry(lease(queue), "store", "The store is away.", after_s=5).state == State.QUEUED
    assert queue.lease([Kind.PORTRAITS], "w", 10) == []
    clock.move(5)
    ended = queue.retry(lease(queue), "store", "The store is away.", after_s=5)
    assert (ended.state, ended.reason, ended.sentence) == (State.FAILED, "store", "The store is away.")
    assert state(queue, job) == (State.FAILED, "store")


def test_a_drained_worker_costs_no_attempt(queue: JobQueue, clock: Clock):
    job = submit(queue)
    for _ in range(5):
        held = lease(queue)
        assert held.attempt == 1
        queue.release(held)
        queue.release(held)
    assert state(queue, job) == (State.QUEUED, "")
    queue.release(lease(queue), after_s=5)
    assert queue.lease([Kind.PORTRAITS], "w", 10) == []
    clock.move(5)
    assert lease(queue).attempt == 1


def test_a_failed_job_says_why(queue: JobQueue):
    job = submit(queue)
    held = lease(queue)
    queue.fail(held, "none_accepted", "No portrait reached the likeness we require.")
    assert state(queue, job) == (State.FAILED, "none_accepted")
    with pytest.raises(LeaseLostError) as lost:
        queue.complete(held, {})
    assert lost.value.reason == "finished"


def test_who_waits_too_long_fails_and_who_runs_may_finish(queue: JobQueue, clock: Clock):
    running, waiting, later = (submit(queue, deadline_s=seconds) for seconds in (10, 20, 99))
    held = lease(queue, for_s=60)
    clock.move(30)
    assert lease(queue).job.id == later.id
    assert state(queue, waiting) == (State.FAILED, "deadline")
    assert queue.complete(held, {})
    assert state(queue, running) == (State.SUCCEEDED, "")


def test_who_ran_out_after_the_deadline_is_not_tried_again(queue: JobQueue, clock: Clock):
    job = submit(queue, deadline_s=10)
    lease(queue, for_s=60)
    clock.move(61)
    assert queue.sweep() == 1
    assert state(queue, job) == (State.FAILED, "deadline")


def test_a_sweep_needs_no_worker(queue: JobQueue, clock: Clock):
    jobs = [submit(queue, deadline_s=10) for _ in range(3)]
    clock.move(11)
    assert queue.sweep() == 3
    assert {state(queue, job) for job in jobs} == {(State.FAILED, "deadline")}


# -- tenants


def test_a_cancelled_job_ends_at_once_and_its_worker_hears_of_it(queue: JobQueue):
    waiting, running = submit(queue, deadline_s=90), submit(queue, deadline_s=10)
    held = lease(queue)
    assert held.job.id == running.id
    for job in (waiting, running):
        cancelled = queue.cancel(A, job.id)
        assert cancelled is not None
        assert (cancelled.state, cancelled.sentence) == (State.CANCELLED, "It was cancelled.")
        assert queue.cancel(A, job.id) == cancelled
    for call in (lambda: queue.extend(held, 10), lambda: queue.complete(held, {})):
        with pytest.raises(LeaseLostError) as lost:
            call()
        assert lost.value.reason == "cancelled"
    assert queue.lease([Kind.PORTRAITS], "w", 10) == []


def test_a_finished_job_cannot_be_cancelled(queue: JobQueue):
    job = submit(queue)
    queue.complete(lease(queue), {"n": 1})
    ended = queue.cancel(A, job.id)
    assert ended is not None
    assert (ended.state, ended.result) == (State.SUCCEEDED, {"n": 1})


@pytest.mark.parametrize("wanted", ["another's", "job_" + "0" * 32, "", "x\0", "' or 1=1 --", "j" * 100_000, "\ud800"])
def test_what_is_anothers_is_not_there(queue: JobQueue, wanted: str):
    job = submit(queue)
    wanted = job.id if wanted == "another's" else wanted
    assert queue.get(B, wanted) is queue.position(B, wanted) is queue.cancel(B, wanted) is None
    assert state(queue, job) == (State.QUEUED, "")
    assert queue.page(B).items == []


def test_pages(queue: JobQueue, database: Database):
    identity = add_identity(database, A)
    jobs = [submit(queue, identity_id=identity if number == 1 else None) for number in range(7)]
    submit(queue, B)
    newest = sorted((job.id for job in jobs), reverse=True)
    seen, before, pages = [], None, 0
    while pages == 0 or before is not None:
        page = queue.page(A, limit=3, before=before)
        seen += [job.id for job in page.items]
        before, pages = page.next, pages + 1
    assert (seen, pages) == (newest, 3)
    assert queue.page(A, limit=7).next is None
    queue.cancel(A, jobs[0].id)
    assert [job.id for job in queue.page(A, state=State.CANCELLED).items] == [jobs[0].id]
    assert [job.id for job in queue.page(A, identity_id=identity).items] == [jobs[1].id]
    assert queue.page(A, kind=Kind.IDENTITY).items == []
    with pytest.raises(UnacceptableError):
        queue.page(A, before="x\0")


# -- the rest


@pytest.mark.parametrize("end", ["complete", "fail", "cancel", "deadline"])
def test_every_end_leaves_one_webhook_to_send(queue: JobQueue, database: Database, clock: Clock, end: str):
    job = submit(queue, webhook_url="https://x.org/hook", deadline_s=20, request_id="r-1")
    submit(queue)
    held = lease(queue)
    if end == "complete":
        queue.complete(held, {})
    elif end == "fail":
        queue.fail(held, "no_face", "No face.")
    elif end == "cancel":
        queue.cancel(A, job.id)
        queue.cancel(A, job.id)
    else:
        clock.move(30)
        queue.sweep()
    ended = queue.get(A, job.id)
    assert ended is not None
    (row,) = database.read(lambda session: list(session.scalars(sa.select(DeliveryRow))))
    assert (row.job_id, row.url, row.next_at, row.attempts) == (job.id, "https://x.org/hook", clock.now, 0)
    assert row.body == {
        "id": job.id,
        "kind": "portraits",
        "state": ended.state.value,
        "reason": ended.reason,
        "sentence": ended.sentence,
        "finished_at": clock.now,
        "request_id": "r-1",
    }


def test_a_lost_answer_changes_nothing(queue: JobQueue, database: Database, monkeypatch: pytest.MonkeyPatch):
    """Each transaction is done twice, as when the answer to the first commit did not arrive."""
    write = database.write

    def twice(work):
        write(work)
        return write(work)

    monkeypatch.setattr(database, "write", twice)
    job = submit(queue, webhook_url="https://x.org/hook")
    assert [found.id for found in queue.page(A).items] == [job.id]
    held = lease(queue)
    assert held.attempt == 1
    queue.extend(held, 10)
    queue.release(held)
    held = lease(queue)
    assert held.attempt == 1
    assert not queue.complete(held, {"n": 1})
    rows = database.read(lambda session: session.scalars(sa.select(sa.func.count()).select_from(DeliveryRow)).one())
    assert rows == 1


def test_requests_are_kept_as_ascii_on_every_database(queue: JobQueue, database: Database):
    job = submit(queue, request={"prompt": "Ä \0 \U0001f600", "n": [1, 2.5, None, True]})
    assert job.request == {"prompt": "Ä \0 \U0001f600", "n": [1, 2.5, None, True]}
    text = database.read(lambda session: session.scalars(sa.select(sa.type_coerce(JobRow.request, sa.Text))).one())
    assert text == '{"n":[1,2.5,null,true],"prompt":"\\u00c4 \\u0000 \\ud83d\\ude00"}'


def test_a_queue_and_its_errors_can_be_pickled(queue: JobQueue):
    job = submit(queue)
    other = pickle.loads(pickle.dumps(queue))
    assert other.get(A, job.id) == job
    for error in (LeaseLostError("job_1", "taken"), BusyError("backlog", "Too much.", 3.0)):
        copy = pickle.loads(pickle.dumps(error))
        assert (str(copy), vars(copy)) == (str(error), vars(error))
