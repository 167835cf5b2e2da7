"""The queue by many processes and threads at once, on the real clock: each job is done once, whoever is killed."""

import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from studiolo.errors import LeaseLostError
from studiolo.service.database import Database, migrate
from studiolo.service.queue import JobQueue
from studiolo.service.records import Kind, Lease, State
from tests.processes import ROOT, started
from tests.service.rows import add_tenant, portraits

WORKERS, JOBS = 3, 40


@pytest.fixture
def queue(url: str) -> JobQueue:
    migrate(url)
    database = Database(url, patience_s=60)
    add_tenant(database, "a")
    return JobQueue(database)


def words(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()]


def wait_for(condition: Callable[[], object], limit_s: float = 60) -> None:
    until_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.02)


def test_each_job_is_done_once_though_a_worker_is_killed(queue: JobQueue, tmp_path: Path):
    jobs = [queue.submit("ten_a", portraits()).id for _ in range(JOBS)]
    url = queue.database.url

    def command(name: str, *more: str) -> list[str]:
        return [sys.executable, "-m", "tests.service.worker", url, name, *more]

    with ExitStack() as stack:
        said = {name: tmp_path / name for name in ("stuck", *map(str, range(WORKERS)))}
        files = {name: stack.enter_context(path.open("w")) for name, path in said.items()}
        stuck = stack.enter_context(started(command("stuck", "stuck"), cwd=ROOT, stdout=files["stuck"]))
        wait_for(lambda: words(said["stuck"]))
        stuck.send_signal(signal.SIGKILL)
        others = [
            stack.enter_context(started(command(str(number)), cwd=ROOT, stdout=files[str(number)]))
            for number in range(WORKERS)
        ]
        assert [process.wait(120) for process in others] == [0] * WORKERS
    ((_, orphan, _),) = words(said["stuck"])
    lines = [line for name in map(str, range(WORKERS)) for line in words(said[name])]
    assert Counter(line[1] for line in lines if line[0] == "done") == Counter(jobs)
    assert Counter(line[1] for line in lines if line[0] == "took") == Counter(jobs)
    assert {line[2] for line in lines if line[0] == "took" and line[1] != orphan} == {"1"}
    for job_id in jobs:
        job = queue.get("ten_a", job_id)
        assert job is not None
        assert (job.state, job.attempts) == (State.SUCCEEDED, 2 if job_id == orphan else 1)
        assert job.result is not None
        assert job.result["attempt"] == job.attempts


def test_one_key_at_once_is_one_job(queue: JobQueue):
    gate = threading.Barrier(8)

    def ask(number: int) -> str:
        gate.wait(30)
        return queue.submit("ten_a", portraits(idempotency_key=f"k{number % 2}")).id

    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(ask, range(8)))
    assert len(set(ids)) == 2
    assert len(queue.page("ten_a").items) == 2


def test_one_result_though_everybody_believes_to_hold_the_job(queue: JobQueue):
    """Leases so short that each attempt is taken over by the next one while it completes."""
    queue = JobQueue(queue.database, queue.settings.model_copy(update={"max_attempts": 1000}))
    jobs = [queue.submit("ten_a", portraits()).id for _ in range(5)]
    recorded: list[tuple[str, str]] = []
    lost: list[Lease] = []

    def attempts(job_id: str) -> int:
        job = queue.get("ten_a", job_id)
        assert job is not None
        return job.attempts

    def work(name: str) -> None:
        until_s = time.monotonic() + 60
        while len(recorded) < len(jobs) and time.monotonic() < until_s:
            for lease in queue.lease([Kind.PORTRAITS], name, for_s=0.0005):
                time.sleep(0.002)
                while lease.attempt == 1 and attempts(lease.job.id) == 1 and time.monotonic() < until_s:
                    time.sleep(0.001)  # the first attempt at each is surely taken over
                try:
                    if queue.complete(lease, {"token": lease.token}):
                        recorded.append((lease.job.id, lease.token))
                except LeaseLostError:
                    lost.append(lease)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, map(str, range(6))))
    assert sorted(job_id for job_id, _ in recorded) == sorted(jobs)
    assert {lease.job.id for lease in lost} == set(jobs)
    for job_id, token in recorded:
        job = queue.get("ten_a", job_id)
        assert job is not None
        assert job.result == {"token": token}
