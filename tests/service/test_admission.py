"""What is accepted: rates, quotas, and deadlines that can be kept."""

import math
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studiolo.errors import BusyError, ConflictError, UnacceptableError, UnauthorisedError
from studiolo.service.admission import Admission, waiting_s
from studiolo.service.database import Database
from studiolo.service.keys import Caller, KeyLimits, Keys
from studiolo.service.queue import JobQueue
from studiolo.service.records import Kind
from studiolo.service.settings import AdmissionSettings, LimitSettings
from studiolo.service.speeds import moved
from tests.service.clock import Clock
from tests.service.rows import portraits

SETTINGS = AdmissionSettings(portrait_steps_per_s=10, max_portraits=8, max_deadline_s=1000)


@pytest.fixture
def admission(queue: JobQueue) -> Admission:
    return Admission(queue, SETTINGS, LimitSettings(requests_per_s=2, burst=3, portraits_per_day=10, open_jobs=4))


@pytest.fixture
def caller(database: Database) -> Caller:
    keys = Keys(database)
    return keys.authenticate(keys.create("a").token)


def refusal(call, *arguments: object) -> tuple[int, str, float | None]:
    with pytest.raises((BusyError, UnacceptableError)) as refused:
        call(*arguments)
    return refused.value.status, refused.value.reason, refused.value.retry_after_s


# -- rates


def test_a_key_has_a_burst_and_then_its_rate(admission: Admission, caller: Caller, clock: Clock):
    for _ in range(3):
        admission.knock(caller)
    assert refusal(admission.knock, caller) == (429, "rate_limit", 1)
    clock.move(0.5)
    admission.knock(caller)
    assert refusal(admission.knock, caller)[1] == "rate_limit"
    clock.move(1000)
    for _ in range(3):
        admission.knock(caller)
    assert refusal(admission.knock, caller)[1] == "rate_limit"
    clock.move(-50)  # another machine's clock is behind: no tokens are lost or won
    assert refusal(admission.knock, caller)[1] == "rate_limit"


def test_who_waits_as_told_gets_in(admission: Admission, database: Database, clock: Clock):
    keys = Keys(database)
    slow = keys.authenticate(keys.create("a", limits=KeyLimits(requests_per_s=0.1, burst=1)).token)
    admission.knock(slow)
    clock.move(3)
    status, _, wait_s = refusal(admission.knock, slow)
    assert (status, wait_s) == (429, 7)
    clock.move(7)
    admission.knock(slow)


def test_several_ingresses_share_the_bucket(admission: Admission, caller: Caller):
    def knock(_: int) -> int:
        try:
            admission.knock(caller)
        except BusyError:
            return 0
        return 1

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(knock, range(12))) == 3
    rows = Keys(admission.database).usage(caller.tenant_id, "2000-01-01")
    assert [(row["what"], row["amount"]) for row in rows] == [("requests", 3)]


# -- quotas


def test_a_days_quota_and_what_was_used(admission: Admission, caller: Caller, clock: Clock):
    first = admission.submit(caller, portraits(units=6, idempotency_key="k"))
    assert admission.submit(caller, portraits(units=6, idempotency_key="k")) == first  # not counted twice
    until_midnight_s = 86_400 - clock.now % 86_400
    assert refusal(admission.submit, caller, portraits(units=5)) == (429, "quota", until_midnight_s)
    admission.submit(caller, portraits(units=4))
    assert refusal(admission.submit, caller, portraits())[1] == "quota"
    admission.submit(caller, portraits(kind=Kind.IDENTITY, steps=800))
    clock.move(until_midnight_s)
    admission.submit(caller, portraits(units=8))
    usage = Keys(admission.database).usage(caller.tenant_id, "2000-01-01")
    days = sorted({row["day"] for row in usage})
    amounts = {(days.index(row["day"]), row["what"]): row["amount"] for row in usage}
    assert amounts == {
        (0, "portraits"): 10,
        (0, "identity"): 1,
        (0, "steps"): 860,
        (1, "portraits"): 8,
        (1, "steps"): 30,
    }
    assert Keys(admission.database).usage(caller.tenant_id, days[1]) == [row for row in usage if row["day"] == days[1]]
    assert Keys(admission.database).usage("ten_b", "2000-01-01") == []


def test_open_jobs_are_bounded_and_end(admission: Admission, caller: Caller):
    jobs = [admission.submit(caller, portraits()) for _ in range(4)]
    assert refusal(admission.submit, caller, portraits())[:2] == (429, "open_jobs")
    admission.queue.cancel(caller.tenant_id, jobs[0].id)
    admission.submit(caller, portraits())


def test_quotas_hold_among_many_at_once(admission: Admission, caller: Caller):
    def submit(_: int) -> int:
        try:
            admission.submit(caller, portraits(units=3))
        except BusyError:
            return 0
        return 1

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(submit, range(8))) == 3


def test_a_key_revoked_meanwhile_submits_nothing(admission: Admission, caller: Caller):
    keys = Keys(admission.database)
    keys.revoke(keys.all()[0].prefix)
    with pytest.raises(UnauthorisedError):
        admission.submit(caller, portraits())
    assert admission.queue.page(caller.tenant_id).items == []


def test_a_conflict_is_not_counted(admission: Admission, caller: Caller):
    admission.submit(caller, portraits(idempotency_key="k"))
    with pytest.raises(ConflictError):
        admission.submit(caller, portraits(idempotency_key="k", units=2))
    admission.submit(caller, portraits(units=8))


def test_what_asks_for_too_much_is_told_so(admission: Admission, caller: Caller):
    assert refusal(admission.submit, caller, portraits(units=9)) == (422, "too_many_portraits", None)
    assert refusal(admission.submit, caller, portraits(deadline_s=1001)) == (422, "deadline_too_long", None)
    assert refusal(admission.submit, caller, portraits(steps=50, deadline_s=4.9)) == (422, "deadline_too_short", None)


# -- deadlines


def test_a_deadline_that_the_backlog_cannot_keep(admission: Admission, caller: Caller, clock: Clock):
    admission.submit(caller, portraits(steps=100, deadline_s=10))
    assert refusal(admission.submit, caller, portraits(steps=50, deadline_s=11)) == (429, "backlog", 4)
    later = admission.submit(caller, portraits(steps=50, deadline_s=15))
    assert refusal(admission.submit, caller, portraits(steps=1, deadline_s=1))[1] == "backlog"  # they would be late
    admission.queue.cancel(caller.tenant_id, later.id)
    (lease,) = admission.queue.lease([Kind.PORTRAITS], "w", 60)
    clock.move(4)
    admission.queue.extend(lease, 60, steps_done=40)
    admission.submit(caller, portraits(steps=50, deadline_s=11))


def test_deadlines_follow_the_measured_speed(admission: Admission, caller: Caller, clock: Clock):
    speeds, new = admission.speeds, portraits(steps=50, deadline_s=2)
    assert refusal(admission.submit, caller, new)[1] == "deadline_too_short"  # 10 steps a second, say the settings
    speeds.report("a", Kind.PORTRAITS, 0, 0)
    assert refusal(admission.submit, caller, new)[1] == "deadline_too_short"
    speeds.report("a", Kind.PORTRAITS, 200, 10)
    speeds.report("trainer", Kind.IDENTITY, 9000, 10)
    assert refusal(admission.submit, caller, new)[1] == "deadline_too_short"  # 20
    speeds.report("b", Kind.PORTRAITS, 0, 0)  # as fast as the other one, it is assumed
    admission.submit(caller, new)
    clock.move(100)
    speeds.report("b", Kind.PORTRAITS, 300, 10)
    assert admission.database.read(lambda session: speeds.steps_per_s(session, Kind.PORTRAITS)) == 30
    speeds.leave("b")  # nobody is there: one like the last will be
    assert admission.database.read(lambda session: speeds.steps_per_s(session, Kind.PORTRAITS)) == 30
    clock.move(2 * 86_400)
    speeds.report("c", Kind.PORTRAITS, 0, 0)
    assert admission.database.read(lambda session: speeds.steps_per_s(session, Kind.PORTRAITS)) == 10


@given(st.lists(st.integers(1, 30), min_size=1, max_size=9), st.integers(1, 50))
def test_a_moving_speed_does_not_depend_on_how_often_it_is_reported(parts: list[int], speed: int):
    often = 5.0
    for busy_s in parts:
        often = moved(often, speed * busy_s, busy_s)
    assert often == pytest.approx(moved(5.0, speed * sum(parts), sum(parts)))
    assert moved(5.0, speed * 1000, 1000) == pytest.approx(speed, rel=1e-3)  # after long work only the present counts
    assert moved(None, speed * 3, 3) == speed


Jobs = list[tuple[float, float]]


def late(jobs: Jobs, extra: tuple[float, float] | None, begin_s: float) -> set[tuple[float, float]]:
    """Which jobs are late when all are worked off at one step a second from `begin_s` on, earliest deadline first."""
    done_s, found = begin_s, set()
    for job in sorted([*jobs, *([extra] if extra else [])], key=lambda job: job[0]):
        done_s += job[1]
        if done_s > job[0] + 1e-4:
            found.add(job)
    return found


def left_after(jobs: Jobs, wait_s: float) -> Jobs:
    """What is left of the jobs after so long."""
    left = []
    for deadline_s, steps in sorted(jobs):
        done = min(steps, wait_s)
        wait_s -= done
        if steps - done > 1e-9:
            left.append((deadline_s, steps - done))
    return left


def fits(jobs: Jobs, new: tuple[float, float], wait_s: float) -> bool:
    left = left_after(jobs, wait_s)
    joined = (new[0] + wait_s, new[1])
    return late(left, joined, wait_s) <= late(left, None, wait_s)


@settings(max_examples=300, derandomize=True)
@given(
    st.lists(
        st.tuples(st.integers(1, 40).map(lambda n: n + 0.5), st.integers(1, 12).map(float)),
        max_size=7,
        unique_by=lambda job: job[0],
    ),
    st.integers(1, 40),
    st.integers(1, 20),
)
def test_waiting_as_told_is_enough_and_not_too_long(jobs: Jobs, deadline_s: int, steps: int):
    """Against a simulation of the work, second by second."""
    new = (float(deadline_s), float(steps))
    wait_s = waiting_s([(deadline_s + 1e9, steps) for deadline_s, steps in jobs], (new[0] + 1e9, new[1]), 1e9, 1.0)
    assert (wait_s == math.inf) is (steps > deadline_s)
    if wait_s < math.inf:
        assert fits(jobs, new, wait_s)
        sooner = [early_s for early_s in (0.0, wait_s / 2, wait_s - 0.01) if 0 <= early_s < wait_s - 0.005]
        assert not any(fits(jobs, new, early_s) for early_s in sooner)
