"""The queue of jobs in SQL: leased by deadline, executed at least once, with exactly one result.

See docs/decisions/0011-sql-is-the-queue.md for states and leases. Each method is one short transaction and may be
called by any number of processes at once.
"""

import secrets
from collections.abc import Callable, Collection, Sequence
from functools import partial
from itertools import takewhile
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from studiolo.errors import ConflictError, LeaseLostError, NotFoundError, UnacceptableError
from studiolo.service.database import Database
from studiolo.service.metrics import NO_REASON, Meters, NoMeters
from studiolo.service.records import Backlog, Job, JobReason, Kind, Lease, NewJob, Page, State, is_id, new_id
from studiolo.service.settings import QueueSettings
from studiolo.service.tables import DeliveryRow, IdentityRow, JobRow

_SWEPT_AT_ONCE = 100

Check = Callable[[Session, float], None]
"""Is called with the transaction and the deadline before a job is inserted; raises `RefusedError` to refuse it."""


class JobQueue:
    """The queue in `database`; can be pickled, without the `meters` of its process.

    They are told how long each job waited, how each ended, and how long those took that succeeded.
    """

    def __init__(self, database: Database, settings: QueueSettings | None = None, meters: Meters | None = None) -> None:
        self.database = database
        self.settings = settings or QueueSettings()
        self.meters = meters or NoMeters()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.database, self.settings)

    def submit(self, tenant_id: str, new: NewJob, *, key_id: str | None = None, check: Check | None = None) -> Job:
        """Accept a job, durably; the same request under the same idempotency key is the same job.

        `check` runs in the same transaction, and not for a job that is there already. Raises `ConflictError` for
        another request under the key, `NotFoundError` for an identity that is not the tenant's, and what `check`
        raises.
        """
        insert = partial(self._submit, new.id or new_id("job"), tenant_id, new, key_id, check)
        try:
            return self.database.write(insert)
        except IntegrityError:  # another process was first with this idempotency key: now it is found
            return self.database.write(insert)

    def get(self, tenant_id: str, job_id: str) -> Job | None:
        """The tenant's job; None for one that is not there or another's."""

        def look(session: Session) -> Job | None:
            row = _row(session, tenant_id, job_id)
            return None if row is None else Job.of(row)

        return self.database.read(look)

    def page(
        self,
        tenant_id: str,
        *,
        kind: Kind | None = None,
        state: State | None = None,
        identity_id: str | None = None,
        limit: int = 20,
        before: str | None = None,
    ) -> Page[Job]:
        """The tenant's jobs, newest first; `before` is the `next` of the page before.

        Raises `UnacceptableError` for a `before` that is none.
        """
        if before is not None and not is_id(before):
            raise UnacceptableError("cursor", "The page asked for does not exist; begin anew without a cursor.")
        wanted = {"tenant_id": tenant_id, "kind": kind, "state": state, "identity_id": identity_id}
        query = sa.select(JobRow).filter_by(**{name: value for name, value in wanted.items() if value is not None})
        if before is not None:
            query = query.where(JobRow.id < before)
        query = query.order_by(JobRow.id.desc()).limit(limit + 1)
        jobs = self.database.read(lambda session: [Job.of(row) for row in session.scalars(query)])
        return Page(jobs[:limit], jobs[limit - 1].id if len(jobs) > limit else None)

    def position(self, tenant_id: str, job_id: str) -> int | None:
        """Which place the tenant's job has among the waiting ones of its kind, from 1; None when it does not wait."""

        def look(session: Session) -> int | None:
            row = _row(session, tenant_id, job_id)
            if row is None or row.state != State.QUEUED:
                return None
            ahead = sa.select(sa.func.count()).where(
                JobRow.state == State.QUEUED,
                JobRow.kind == row.kind,
                sa.tuple_(JobRow.deadline_at, JobRow.id) < sa.tuple_(sa.literal(row.deadline_at), sa.literal(row.id)),
            )
            return session.scalars(ahead).one() + 1

        return self.database.read(look)

    def cancel(self, tenant_id: str, job_id: str) -> Job | None:
        """End the tenant's job; one that has ended stays as it is. None for one that is not there or another's.

        A worker that holds it is told at its next `extend`, and its result is refused.
        """

        def cancel(session: Session) -> Job | None:
            row = _row(session, tenant_id, job_id, with_for_update=True)
            if row is None:
                return None
            if not State(row.state).final:
                self._end(session, row, State.CANCELLED, JobReason.CANCELLED, JobReason.CANCELLED.sentence())
            return Job.of(row)

        return self.database.write(cancel)

    def withdraw(self, session: Session, identity_id: str) -> float:
        """End all jobs of an identity that is being erased; until when workers may hold leases of them, 0 if none."""
        open_states = (State.QUEUED, State.RUNNING)
        query = sa.select(JobRow).where(JobRow.identity_id == identity_id, JobRow.state.in_(open_states))
        held_until = [0.0]
        for row in session.scalars(query.order_by(JobRow.id).with_for_update()):
            held_until.append(row.lease_until or 0.0)
            self._end(session, row, State.CANCELLED, JobReason.ERASED, JobReason.ERASED.sentence())
        return max(held_until)

    def lease(
        self, kinds: Collection[Kind], worker: str, for_s: float, count: int = 1, fresh: bool = False
    ) -> list[Lease]:
        """Begin an attempt at up to `count` jobs of `kinds`, earliest deadline first; empty when none waits.

        Nobody else gets them for `for_s`, see `extend`. Jobs of workers that let theirs run out are given back first.
        With `fresh` it ends before the first job that was begun before: who works on several at once takes such a one
        alone, since it may have ended its worker.
        """
        if not self.database.read(partial(self._something_to_do, kinds)):
            return []  # no turn as a writer is taken for nothing
        tokens = [secrets.token_hex(16) for _ in range(count)]
        return self.database.write(partial(self._lease, kinds, worker, for_s, tokens, fresh))

    def extend(
        self, lease: Lease, for_s: float, steps_done: int | None = None, curve: Sequence[tuple[int, float]] = ()
    ) -> Lease:
        """Hold the job for `for_s` from now, and say how far it is; `curve` is step and loss of a training.

        Raises `LeaseLostError` when it is no longer held: stop then.
        """

        def extend(session: Session) -> Lease:
            row = _held(session, lease)
            row.lease_until = self.database.now(session) + for_s
            if steps_done is not None:
                row.steps_done = min(steps_done, row.steps)
            if curve:
                row.curve = [*curve]
            return Lease(Job.of(row), lease.worker, lease.token, row.lease_until)

        return self.database.write(extend)

    def complete(self, lease: Lease, result: dict[str, Any], within: Callable[[Session], None] | None = None) -> bool:
        """Give the job its one result, durably, and do `within` in the same transaction.

        False, and nothing happens, when this attempt completed it before. Raises `LeaseLostError` when the job is no
        longer held; the result is then not kept.
        """

        def complete(session: Session) -> bool:
            row = session.get(JobRow, lease.job.id, with_for_update=True)
            if row is not None and row.state == State.SUCCEEDED and row.attempt_token == lease.token:
                return False
            row = _held(session, lease)
            row.result = result
            if within is not None:
                within(session)
            self._end(session, row, State.SUCCEEDED)
            return True

        return self.database.write(complete)

    def fail(self, lease: Lease, reason: str, sentence: str, result: dict[str, Any] | None = None) -> None:
        """End the job with a reason that another attempt would not change.

        `result` is what there is to say all the same, such as the verdicts on an album's photos. Raises
        `LeaseLostError`.
        """

        def fail(session: Session) -> None:
            row = _held(session, lease)
            row.result = result
            self._end(session, row, State.FAILED, reason, sentence)

        self.database.write(fail)

    def retry(self, lease: Lease, reason: str, sentence: str, after_s: float = 0.0) -> Job:
        """Give the job back after a fault that may pass; after the last attempt it fails with the reason.

        It is not leased again for `after_s`. Raises `LeaseLostError`.
        """

        def retry(session: Session) -> Job:
            row = _held(session, lease)
            if row.attempts >= self.settings.max_attempts:
                self._end(session, row, State.FAILED, reason, sentence)
            else:
                _give_back(row, self.database.now(session) + after_s)
            return Job.of(row)

        return self.database.write(retry)

    def release(self, lease: Lease, after_s: float = 0.0) -> None:
        """Give the job back untried, as a worker does that is drained; nothing happens when it is not held.

        It is not leased again for `after_s`.
        """

        def release(session: Session) -> None:
            try:
                row = _held(session, lease)
            except LeaseLostError:
                return
            row.attempts -= 1
            _give_back(row, self.database.now(session) + after_s)

        self.database.write(release)

    def sweep(self) -> int:
        """Give back, or fail, jobs whose lease ran out, and fail waiting ones that are too late; how many."""
        if not self.database.read(partial(self._something_to_do, ())):
            return 0
        return self.database.write(self._sweep)

    def backlog(self, kind: Kind) -> Backlog:
        """What of `kind` is still to be done."""

        def count(session: Session) -> Backlog:
            query = (
                sa.select(
                    JobRow.state,
                    sa.func.count(),
                    sa.func.sum(JobRow.steps - JobRow.steps_done),
                    sa.func.min(JobRow.created_at),
                )
                .where(JobRow.kind == kind, JobRow.state.in_((State.QUEUED, State.RUNNING)))
                .group_by(JobRow.state)
            )
            found = {state: (int(jobs), int(steps), first) for state, jobs, steps, first in session.execute(query)}
            now = self.database.now(session)
            queued, queued_steps, first = found.get(State.QUEUED, (0, 0, now))
            running, running_steps, _ = found.get(State.RUNNING, (0, 0, now))
            return Backlog(queued, queued_steps, running, running_steps, max(0.0, now - first))

        return self.database.read(count)

    def measure(self) -> None:
        """Tell the meters what is still to be done; one process that does so every few seconds is enough."""
        for kind in Kind:
            backlog = self.backlog(kind)
            for state, jobs, steps in (
                (State.QUEUED, backlog.queued, backlog.queued_steps),
                (State.RUNNING, backlog.running, backlog.running_steps),
            ):
                self.meters.gauge("studiolo_queue_jobs", jobs, kind=kind, state=state)
                self.meters.gauge("studiolo_queue_steps", steps, kind=kind, state=state)
            self.meters.gauge("studiolo_queue_oldest_wait_seconds", backlog.oldest_wait_s, kind=kind)

    def _submit(
        self, job_id: str, tenant_id: str, new: NewJob, key_id: str | None, check: Check | None, session: Session
    ) -> Job:
        now, sha256 = self.database.now(session), new.sha256()
        known = JobRow.id == job_id  # the answer to an earlier try was lost
        if new.idempotency_key is not None:
            known |= (JobRow.tenant_id == tenant_id) & (JobRow.idempotency_key == new.idempotency_key)
        earlier = session.scalars(sa.select(JobRow).where(known)).first()
        if earlier is not None:
            if earlier.request_sha256 != sha256:
                sentence = f"The idempotency key was used for another request, job {earlier.id}; take a new one."
                raise ConflictError("idempotency_key", sentence)
            return Job.of(earlier)
        if new.person is not None:
            fields = {"id": new.identity_id, "name": new.person.name, "consent": new.person.consent.model_dump()}
            session.add(IdentityRow(tenant_id=tenant_id, created_at=now, **fields))
        elif new.identity_id is not None:
            identity = session.get(IdentityRow, new.identity_id, with_for_update={"read": True})
            if identity is None or identity.tenant_id != tenant_id or identity.erasing is not None:
                raise NotFoundError("identity", f"There is no identity {new.identity_id}.")
        deadline_at = now + (new.deadline_s or self.settings.deadline_s(new.kind))
        if check is not None:
            check(session, deadline_at)
        fields = new.model_dump(mode="json", exclude={"id", "deadline_s", "person"})
        row = JobRow(id=job_id, tenant_id=tenant_id, key_id=key_id, request_sha256=sha256, **fields)
        row.state, row.reason, row.sentence, row.attempts, row.steps_done = State.QUEUED, "", "", 0, 0
        row.created_at, row.ready_at, row.deadline_at = now, now, deadline_at
        session.add(row)
        session.flush()
        return Job.of(row)

    def _lease(
        self, kinds: Collection[Kind], worker: str, for_s: float, tokens: list[str], fresh: bool, session: Session
    ) -> list[Lease]:
        rows = session.scalars(sa.select(JobRow).where(JobRow.attempt_token.in_(tokens))).all()
        if not rows:  # else the answer to an earlier try was lost
            self._sweep(session)
            now = self.database.now(session)
            query = sa.select(JobRow).where(self._ready(kinds, now)).order_by(JobRow.deadline_at, JobRow.id)
            rows = session.scalars(query.limit(len(tokens)).with_for_update(skip_locked=True)).all()
            rows = [*takewhile(lambda row: row.attempts == 0, rows)] if fresh else rows
            for row, token in zip(rows, tokens, strict=False):
                row.state, row.attempts, row.started_at = State.RUNNING, row.attempts + 1, now
                row.lease_owner, row.lease_until, row.attempt_token = worker, now + for_s, token
                self._tell_stage(session, row.kind, "queued", now - row.ready_at)
        return [Lease(Job.of(row), worker, row.attempt_token or "", row.lease_until or 0.0) for row in rows]

    def _sweep(self, session: Session) -> int:
        now = self.database.now(session)
        query = sa.select(JobRow).where(self._overdue(now)).order_by(JobRow.id).limit(_SWEPT_AT_ONCE)
        rows = session.scalars(query.with_for_update(skip_locked=True)).all()
        for row in rows:
            if row.deadline_at < now:
                self._end(session, row, State.FAILED, JobReason.DEADLINE, JobReason.DEADLINE.sentence())
            elif row.attempts >= self.settings.max_attempts:
                self._end(session, row, State.FAILED, JobReason.GAVE_UP, JobReason.GAVE_UP.sentence())
            else:
                _give_back(row, now)
        session.flush()
        return len(rows)

    def _something_to_do(self, kinds: Collection[Kind], session: Session) -> bool:
        now = self.database.now(session)
        wanted = sa.or_(self._ready(kinds, now), self._overdue(now))
        return session.scalars(sa.select(JobRow.id).where(wanted).limit(1)).first() is not None

    @staticmethod
    def _ready(kinds: Collection[Kind], now: float) -> sa.ColumnElement[bool]:
        return sa.and_(JobRow.state == State.QUEUED, JobRow.kind.in_(kinds), JobRow.ready_at <= now)

    @staticmethod
    def _overdue(now: float) -> sa.ColumnElement[bool]:
        """Leases that ran out, and jobs that wait in vain."""
        ran_out = sa.and_(JobRow.state == State.RUNNING, JobRow.lease_until < now)
        return sa.or_(ran_out, sa.and_(JobRow.state == State.QUEUED, JobRow.deadline_at < now))

    def _end(self, session: Session, row: JobRow, state: State, reason: str = "", sentence: str = "") -> None:
        """The only way into a final state."""
        now = self.database.now(session)
        row.state, row.reason, row.sentence, row.finished_at = state, reason, sentence, now
        row.lease_owner, row.lease_until, row.curve = None, None, None
        row.result_until = now + self.settings.result_days * 86_400
        if row.webhook_url is not None:
            body = {"id": row.id, "kind": row.kind, "state": state, "reason": reason, "sentence": sentence}
            delivery = DeliveryRow(id=new_id("hook"), job_id=row.id, url=row.webhook_url, attempts=0, error="")
            delivery.body = {**body, "finished_at": now, "request_id": row.request_id}
            delivery.next_at = now
            session.add(delivery)
        ended = {"kind": row.kind, "state": str(state), "reason": reason or NO_REASON}
        self.database.when_kept(session, lambda: self.meters.count("studiolo_jobs_ended_total", **ended))
        if state == State.SUCCEEDED:
            self._tell_stage(session, row.kind, "whole", now - row.created_at)

    def _tell_stage(self, session: Session, kind: str, stage: str, seconds: float) -> None:
        tell = partial(self.meters.observe, "studiolo_job_seconds", max(0.0, seconds), kind=kind, stage=stage)
        self.database.when_kept(session, tell)


def _row(session: Session, tenant_id: str, job_id: str, with_for_update: bool = False) -> JobRow | None:
    """The tenant's row; None for what is not there, another's, or no id at all."""
    row = session.get(JobRow, job_id, with_for_update=with_for_update) if is_id(job_id) else None
    return row if row is not None and row.tenant_id == tenant_id else None


def _held(session: Session, lease: Lease) -> JobRow:
    """The row of a job that the lease still holds, locked."""
    row = session.get(JobRow, lease.job.id, with_for_update=True)
    if row is None:
        raise LeaseLostError(lease.job.id, "erased")
    if row.state == State.CANCELLED:
        raise LeaseLostError(row.id, "cancelled")
    if State(row.state).final:
        raise LeaseLostError(row.id, "finished")
    if row.attempt_token != lease.token:
        raise LeaseLostError(row.id, "taken")
    return row


def _give_back(row: JobRow, ready_at: float) -> None:
    row.state, row.ready_at, row.steps_done, row.curve = State.QUEUED, ready_at, 0, None
    row.lease_owner, row.lease_until, row.attempt_token = None, None, None
