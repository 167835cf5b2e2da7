"""What is accepted: rate limits, quotas, and deadlines that the backlog leaves room for.

A job is judged in the transaction that inserts it, so quotas are exact with any number of ingresses.
"""

import math
from collections.abc import Sequence
from functools import partial

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from studiolo.errors import BusyError, UnacceptableError, UnauthorisedError
from studiolo.service.keys import Caller
from studiolo.service.queue import JobQueue
from studiolo.service.records import Job, Kind, NewJob, State
from studiolo.service.settings import AdmissionSettings, LimitSettings
from studiolo.service.speeds import Speeds
from studiolo.service.tables import BucketRow, JobRow, KeyRow
from studiolo.service.usage import REQUESTS, STEPS, count, until_tomorrow_s, used

_UNITS = {Kind.IDENTITY: "trainings", Kind.PORTRAITS: "portraits"}
_TINY_S = 1e-6
Open = tuple[float, float]
"""Deadline (seconds since 1970) of an accepted job and the steps left of it."""


class Admission:
    """The door of the endpoint; can be pickled."""

    def __init__(
        self, queue: JobQueue, settings: AdmissionSettings | None = None, limits: LimitSettings | None = None
    ) -> None:
        self.queue, self.database = queue, queue.database
        self.settings = settings or AdmissionSettings()
        self.limits = limits or LimitSettings()
        self.speeds = Speeds(queue.database, self.settings)

    def knock(self, caller: Caller) -> None:
        """Count one request of the key. Raises `BusyError` when it sends them too fast."""
        limits = caller.limits.over(self.limits)

        def knock(session: Session) -> float:
            now = self.database.now(session)
            wait_s = take_token(session, caller.key_id, now, limits.requests_per_s, limits.burst)
            if wait_s == 0:
                count(session, caller.key_id, REQUESTS, 1, now)
            return wait_s

        wait_s = self.database.write(knock)
        if wait_s > 0:
            raise BusyError("rate_limit", f"More than {limits.requests_per_s:g} requests a second.", math.ceil(wait_s))

    def submit(self, caller: Caller, new: NewJob) -> Job:
        """Accept a job and count it against the key, or refuse it; one that was accepted before is only returned.

        Raises `UnacceptableError` (it asks for too much, or its deadline is too short for itself), `BusyError` (quota
        or backlog, with the time to wait), `ConflictError` and `NotFoundError` (see `JobQueue.submit`).
        """
        if new.kind == Kind.PORTRAITS and new.units > self.settings.max_portraits:
            sentence = f"{new.units} portraits are too many at once; at most {self.settings.max_portraits}."
            raise UnacceptableError("too_many_portraits", sentence)
        if new.deadline_s is not None and new.deadline_s > self.settings.max_deadline_s:
            sentence = f"The deadline is too far off; at most {self.settings.max_deadline_s:g} seconds."
            raise UnacceptableError("deadline_too_long", sentence)
        check = partial(self._check, caller, new)
        return self.queue.submit(caller.tenant_id, new, key_id=caller.key_id, check=check)

    def _check(self, caller: Caller, new: NewJob, session: Session, deadline_at: float) -> None:
        key = session.get(KeyRow, caller.key_id, with_for_update={"key_share": True})  # one job of a key at a time
        if key is None or key.revoked_at is not None:
            raise UnauthorisedError("revoked_key", "This API key was revoked.")
        now, limits = self.database.now(session), caller.limits.over(self.limits)
        if used(session, caller.key_id, new.kind, now) + new.units > limits.per_day(new.kind):
            sentence = f"The key's quota of {limits.per_day(new.kind)} {_UNITS[new.kind]} a day is used up."
            raise BusyError("quota", sentence, math.ceil(until_tomorrow_s(now)))
        unfinished = sa.select(sa.func.count()).where(JobRow.key_id == caller.key_id, _open())
        if session.scalars(unfinished).one() >= limits.open_jobs:
            raise BusyError("open_jobs", f"The key has {limits.open_jobs} jobs that are not finished.", 5)
        self._check_backlog(session, new, now, deadline_at)
        count(session, caller.key_id, new.kind, new.units, now)
        count(session, caller.key_id, STEPS, new.steps, now)

    def _check_backlog(self, session: Session, new: NewJob, now: float, deadline_at: float) -> None:
        query = sa.select(JobRow.deadline_at, JobRow.steps - JobRow.steps_done).where(JobRow.kind == new.kind, _open())
        accepted = [(float(at), float(steps)) for at, steps in session.execute(query)]
        speed = self.speeds.steps_per_s(session, new.kind)
        wait_s = waiting_s(accepted, (deadline_at, new.steps), now, speed)
        if wait_s == math.inf:
            needed_s = math.ceil(new.steps / speed)
            sentence = (
                f"The deadline is too short: this takes about {needed_s} s at present; allow more, or ask for less."
            )
            raise UnacceptableError("deadline_too_short", sentence)
        if wait_s > 0:
            sentence = "There is too much to do before this deadline; try again later."
            raise BusyError("backlog", sentence, min(math.ceil(wait_s), self.settings.longest_retry_s))


def waiting_s(accepted: Sequence[Open], new: Open, now: float, steps_per_s: float) -> float:
    """Seconds after which `new`, asked for again with as much time, fits; 0 when it fits now, infinite when never.

    It fits when, worked off earliest deadline first, it is on time and so are those `accepted` jobs that would be on
    time without it; who is late anyway does not keep others out.
    """
    own_s, deadline_s = new[1] / steps_per_s, new[0] - now
    if own_s > deadline_s + _TINY_S:
        return math.inf
    jobs, done_s = [], 0.0
    for other_at, steps in sorted(accepted):
        done_s += steps / steps_per_s
        jobs.append((other_at - now, done_s))
    wait_s = 0.0
    while (more_s := _missing_s(jobs, wait_s, deadline_s + wait_s, own_s)) > _TINY_S:
        wait_s += more_s
    return wait_s


def _missing_s(jobs: Sequence[tuple[float, float]], wait_s: float, deadline_s: float, own_s: float) -> float:
    """At least so much longer than `wait_s` one has to wait; `jobs` are (deadline, time when done), all from now."""
    begin_s, missing_s = wait_s, 0.0
    for other_s, done_s in jobs:
        if done_s <= wait_s:
            continue
        if other_s <= deadline_s + _TINY_S:
            begin_s = done_s
        elif done_s <= other_s < done_s + own_s - _TINY_S:  # late by us: until it is before us, or done
            missing_s = max(missing_s, min(other_s - deadline_s, done_s - wait_s))
    return max(missing_s, begin_s + own_s - deadline_s)


def take_token(session: Session, key_id: str, now: float, per_s: float, burst: int) -> float:
    """0 when a token was taken from the key's bucket (`burst` tokens, `per_s` new ones); else the seconds to wait."""
    row = session.get(BucketRow, key_id, with_for_update=True)
    if row is None:
        dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
        full = dialect.insert(BucketRow).values(key_id=key_id, tokens=burst, filled_at=now)
        session.execute(full.on_conflict_do_nothing())  # another ingress may be first
        row = session.get_one(BucketRow, key_id, with_for_update=True)
    tokens = min(burst, row.tokens + max(0.0, now - row.filled_at) * per_s)
    if tokens < 1:
        return (1 - tokens) / per_s
    row.tokens, row.filled_at = tokens - 1, max(now, row.filled_at)
    return 0.0


def _open() -> sa.ColumnElement[bool]:
    return JobRow.state.in_((State.QUEUED, State.RUNNING))
