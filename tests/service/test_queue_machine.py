"""The queue against a model of it in a few dictionaries, through random histories."""

import tempfile
from pathlib import Path

import sqlalchemy as sa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

from studiolo.errors import LeaseLostError
from studiolo.service.database import Database, migrate
from studiolo.service.queue import JobQueue
from studiolo.service.records import Job, Kind, Lease, State
from studiolo.service.settings import QueueSettings
from studiolo.service.tables import JobRow
from tests.service.clock import Clock
from tests.service.rows import add_tenant, portraits

MAX_ATTEMPTS = 2


class Expected:
    """What a job should look like."""

    def __init__(self, job: Job) -> None:
        self.state, self.attempts, self.deadline_at = State.QUEUED, 0, job.deadline_at
        self.token, self.until, self.ready_at, self.result = "", 0.0, job.created_at, None

    def sweep(self, now: float) -> None:
        if self.state == State.RUNNING and self.until < now:
            if self.deadline_at < now or self.attempts >= MAX_ATTEMPTS:
                self.state = State.FAILED
            else:
                self.state, self.ready_at, self.token = State.QUEUED, now, ""
        elif self.state == State.QUEUED and self.deadline_at < now:
            self.state = State.FAILED

    def held_by(self, lease: Lease) -> bool:
        return self.state == State.RUNNING and self.token == lease.token


class QueueMachine(RuleBasedStateMachine):
    """Any order of calls, by workers that may have lost their leases long ago."""

    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.database = Database(URL, self.clock)
        self.database.write(lambda session: session.execute(sa.delete(JobRow)))
        self.queue = JobQueue(self.database, QueueSettings(max_attempts=MAX_ATTEMPTS))
        self.jobs: dict[str, Expected] = {}

    def teardown(self) -> None:
        self.database.close()

    @rule(deadline_s=st.integers(1, 60))
    def submit(self, deadline_s: int) -> None:
        job = self.queue.submit("ten_a", portraits(deadline_s=deadline_s))
        self.jobs[job.id] = Expected(job)

    @rule(seconds=st.integers(1, 15))
    def time_passes(self, seconds: int) -> None:
        self.clock.move(seconds)

    @rule()
    def sweep(self) -> None:
        self.queue.sweep()
        for job in self.jobs.values():
            job.sweep(self.clock.now)

    @precondition(lambda self: self.jobs)
    @rule(target=leases, for_s=st.integers(1, 20))
    def lease(self, for_s: int) -> Lease | None:
        got, now = self.queue.lease([Kind.PORTRAITS], "w", for_s), self.clock.now
        for job in self.jobs.values():
            job.sweep(now)
        ready = [job_id for job_id, job in self.jobs.items() if job.state == State.QUEUED and job.ready_at <= now]
        if not ready:
            assert got == []
            return None
        (lease,) = got
        assert lease.job.id == min(ready, key=lambda job_id: (self.jobs[job_id].deadline_at, job_id))
        job = self.jobs[lease.job.id]
        job.state, job.token, job.until, job.attempts = State.RUNNING, lease.token, now + for_s, job.attempts + 1
        return lease

    @rule(lease=leases)
    def extend(self, lease: Lease | None) -> None:
        if lease and self._done(lease, lambda: self.queue.extend(lease, 5)):
            self.jobs[lease.job.id].until = self.clock.now + 5

    @rule(lease=leases, number=st.integers())
    def complete(self, lease: Lease | None, number: int) -> None:
        if lease is None:
            return
        job = self.jobs[lease.job.id]
        if job.state == State.SUCCEEDED and job.token == lease.token:
            assert not self.queue.complete(lease, {"n": number})
        elif self._done(lease, lambda: self.queue.complete(lease, {"n": number})):
            job.state, job.result = State.SUCCEEDED, {"n": number}

    @rule(lease=leases)
    def fail(self, lease: Lease | None) -> None:
        if lease and self._done(lease, lambda: self.queue.fail(lease, "no_face", "No face.")):
            self.jobs[lease.job.id].state = State.FAILED

    @rule(lease=leases, after_s=st.integers(0, 9))
    def retry(self, lease: Lease | None, after_s: int) -> None:
        if lease and self._done(lease, lambda: self.queue.retry(lease, "store", "Away.", after_s)):
            job = self.jobs[lease.job.id]
            if job.attempts >= MAX_ATTEMPTS:
                job.state = State.FAILED
            else:
                job.state, job.ready_at, job.token = State.QUEUED, self.clock.now + after_s, ""

    @rule(lease=leases)
    def release(self, lease: Lease | None) -> None:
        if lease is None:
            return
        self.queue.release(lease)
        job = self.jobs[lease.job.id]
        if job.held_by(lease):
            job.state, job.ready_at, job.token, job.attempts = State.QUEUED, self.clock.now, "", job.attempts - 1

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.jobs)))
        self.queue.cancel("ten_a", job_id)
        if not self.jobs[job_id].state.final:
            self.jobs[job_id].state = State.CANCELLED

    @invariant()
    def agrees(self) -> None:
        found = {job.id: (job.state, job.attempts, job.result) for job in self.queue.page("ten_a", limit=1000).items}
        assert found == {job_id: (job.state, job.attempts, job.result) for job_id, job in self.jobs.items()}

    def _done(self, lease: Lease, call) -> bool:
        """Whether the call was accepted, as it has to be exactly when the lease holds."""
        held = self.jobs[lease.job.id].held_by(lease)
        try:
            call()
        except LeaseLostError:
            assert not held
            return False
        assert held
        return True


_folder = tempfile.TemporaryDirectory()
URL = f"sqlite:///{Path(_folder.name)}/service.db"


def setup_module() -> None:
    migrate(URL)
    add_tenant(Database(URL), "a")


def teardown_module() -> None:
    _folder.cleanup()


TestQueue = QueueMachine.TestCase
TestQueue.settings = settings(max_examples=40, stateful_step_count=30, deadline=None, derandomize=True, database=None)
