"""kill -9 of drivers and workers at any moment; the same command again gives the bytes of an undisturbed run."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slow.conftest import Calm
from tests.slow.running import Job, records, results

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

KILLS = 10
SEED = 1


def moments(seconds: dict[str, float]) -> Iterator[tuple[str, float]]:
    """(stage, seconds into it) of `KILLS` kills: a random moment in each part of a run that takes so long."""
    rng = random.Random(SEED)
    for kill in range(KILLS):
        moment = (kill + rng.random()) / KILLS * sum(seconds.values())
        for stage, stage_s in seconds.items():
            if moment < stage_s:
                yield stage, moment
                break
            moment -= stage_s


def test_a_driver_killed_ten_times_loses_nothing_and_does_nothing_twice(calm: Calm, tmp_path: Path) -> None:
    out, finished, kills = tmp_path / "out", {}, 0
    for stage, after_s in moments(calm.seconds):
        with Job(calm.albums, out, calm.config) as job:
            kills += job.kill_at(stage, after_s)
        assert finished.items() <= records(out).items()  # of units that were done none was done again
        finished = records(out)
    assert kills >= KILLS - 1  # the last moments may find the job at its end
    with Job(calm.albums, out, calm.config) as job:
        code, said = job.finish()
    assert code == 3, said
    assert finished.items() <= records(out).items()
    assert results(out) == calm.results


def test_killed_workers_change_nothing(calm: Calm, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with Job(calm.albums, out, calm.config) as job:
        # One a stage: a unit over which three die is given up, and on slow cores each of many kills may meet the same.
        killed = [job.kill_worker(stage, calm.seconds[stage] / 2) for stage in ("perceive", "train", "portraits")]
        code, said = job.finish()
    assert killed.count(True) > 1
    assert code == 3, said
    assert results(out) == calm.results
