"""The training group on a real cluster: every identity comes out once, whatever the workers suffer."""

import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import PlacementGroupID
from ray._private.state import actors
from ray.exceptions import RayActorError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError
from ray.util.placement_group import PlacementGroup, placement_group_table, remove_placement_group

from pipelines.guard import NO_PROGRESS_S, OPENINGS
from pipelines.leases import Leases
from pipelines.train import Group, _Blame, _rows, fit_group, train
from studiolo.errors import PlanError, StudioloError
from studiolo.storage.attempts import Attempts
from studiolo.storage.store import Store
from tests.pipelines.pupils import SETTINGS, Pupils, identities

LIMIT_S = 600
"""Longer than `pipelines.train.LOCAL_START_S`, after which a group says why it has not begun. It takes 20 s to be at
work, for ten processes start one after the other, and has taken three minutes on crowded cores.
"""
pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(LIMIT_S)]


def group(most: int = 1, **changes: Any) -> Group:
    settings = SETTINGS.model_copy(update={"workers": (1, most), **changes})
    return fit_group(settings, 2, 100)


def run(actor: Pupils, count: int, how: Group) -> dict[str, dict[str, Any]]:
    """Rows by name, each of which came out once."""
    under_way: list[float] = []
    rows = list(train(identities(actor.store, count).to_pylist(), actor, how, under_way.append))
    assert all(0 <= units <= how.most * (SETTINGS.slots or 0) for units in under_way)
    names = [row["identity_id"] for row in rows]
    assert Counter(names) == Counter(f"p{number}" for number in range(count))
    return dict(zip(names, rows, strict=True))


def finished(store: Store) -> Counter[str]:
    return Counter(path.split("/")[1] for path in store.list("finished"))


def test_all_are_trained_once_and_found_done_by_the_next_run(tmp_path: Path) -> None:
    actor = Pupils(Store(tmp_path))
    rows = run(actor, 5, group(2))
    assert {row["status"] for row in rows.values()} == {"ok"}
    assert finished(actor.store) == Counter(rows.keys())
    assert actor.store.list("attempts") == []
    again = run(actor, 5, group(2))
    assert all(row["resumed"] for row in again.values())
    assert finished(actor.store) == Counter(rows.keys())


@pytest.mark.parametrize(
    ("deed", "told", "limits"),
    [
        ("abort", "3 attempts, the last: the worker ended without a word", {}),
        pytest.param(
            "hang", "3 attempts, the last: took longer than 8 s", {"time_limit_s": 8.0}, marks=pytest.mark.slow
        ),
    ],
)
def test_an_identity_that_ends_its_worker_fails_alone(
    tmp_path: Path, deed: str, told: str, limits: dict[str, float]
) -> None:
    actor = Pupils(Store(tmp_path), p1=deed)
    rows = run(actor, 3, group(**limits))
    assert (rows["p1"]["status"], rows["p1"]["reason"], rows["p1"]["detail"]) == ("failed", "crashed_worker", told)
    assert rows["p0"]["status"] == rows["p2"]["status"] == "ok"
    assert finished(actor.store) == Counter(["p0", "p2"])
    assert len(actor.store.list("deaths")) == 3  # once in company, twice alone
    assert actor.store.list("attempts") == []


def test_an_exception_ends_the_job_and_is_told(tmp_path: Path) -> None:
    with pytest.raises(StudioloError, match="stage 'face_lora': a worker failed: RuntimeError: a bug of ours"):
        run(Pupils(Store(tmp_path), p0="raise"), 2, group())


def test_no_more_workers_than_fit_and_are_of_use() -> None:
    settings = SETTINGS.model_copy(update={"workers": (1, 8), "slots": 4})
    assert fit_group(settings, 2.0, 100).num_workers == (1, 2)
    assert fit_group(settings, 64.0, 5).num_workers == (1, 2)
    assert fit_group(settings, 64.0, 4).num_workers == 1
    assert fit_group(settings.model_copy(update={"workers": (2, 8)}), 64.0, 4).num_workers == 1
    with pytest.raises(PlanError, match=r"2 workers x 2 CPUs = 4, and the cluster has 3; lower face_lora.workers"):
        fit_group(settings.model_copy(update={"workers": (2, 8), "cpus_per_worker": 2}), 3.0, 100)


def test_an_accelerator_each_or_a_refusal_and_no_wait() -> None:
    settings = SETTINGS.model_copy(update={"workers": (2, 8), "slots": 4, "accelerator": True})
    assert fit_group(settings, 64.0, 100, gpus=3.0).num_workers == (2, 3)
    with pytest.raises(PlanError, match=r"2 workers with a GPU each, and the cluster has 1; lower face_lora.workers"):
        fit_group(settings, 64.0, 100, gpus=1.0)
    assert fit_group(settings.model_copy(update={"accelerator": False}), 64.0, 100, gpus=0.0).most == 8


@pytest.mark.parametrize(
    ("begins", "told"),
    [
        (
            False,
            r"not at work after 0.5 s: it wants 1 to 2 workers of 1 CPUs each, and \S+ of the cluster's 2 CPUs are",
        ),
        (True, r"no identity was finished in 1.5 s"),
    ],
    ids=["it does not begin", "it does nothing"],
)
def test_a_group_that_does_not_begin_or_does_nothing_ends_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begins: bool, told: str
) -> None:
    monkeypatch.setattr("pipelines.train.LOCAL_START_S", 0.5)
    attempts = Attempts(Store(tmp_path), "face_lora", "run")
    queue = ray.remote(num_cpus=0)(Leases).remote([("key", {"identity_id": "p0"})], attempts)
    fitted = ray.remote(num_cpus=0)(lambda: time.sleep(LIMIT_S)).remote()
    if begins:
        monkeypatch.setattr("pipelines.train.NO_PROGRESS_S", 1.2)
        assert ray.get(queue.met.remote(ray.get(queue.begin.remote())))
    with pytest.raises(StudioloError, match=told):
        next(_rows(queue, fitted, 1, group(2, time_limit_s=0.1), lambda under_way: None))
    ray.cancel(fitted, force=True)
    ray.kill(queue)


def test_workers_that_find_no_place_end_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.train.LOCAL_START_S", 5.0)
    monkeypatch.setattr("pipelines.train.END_S", 1.0)
    other = ray.remote(num_cpus=1.5)(Counter).remote()
    ray.get(other.total.remote())
    try:
        with pytest.raises(
            StudioloError, match=r"not at work after 5 s: it wants 1 to 2 workers of 1 CPUs each, and 0\.5 of"
        ):
            run(Pupils(Store(tmp_path)), 5, group(2))
    finally:
        remove_placement_groups()
        ray.kill(other)


def remove_placement_groups() -> None:
    """Those of a controller that was killed, see decision 0009; until it is dead it may ask for another one."""
    deadline_s = time.monotonic() + 60
    while any(one["ActorClassName"] == "TrainController" and one["State"] != "DEAD" for one in actors().values()):
        assert time.monotonic() < deadline_s
        time.sleep(0.2)
    for name, found in placement_group_table().items():
        if found["state"] != "REMOVED":
            remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(name))))


def test_patience_outlasts_all_that_an_identity_may_hang(tmp_path: Path) -> None:
    limit_s = 100_000.0
    queue, hung = Leases([(name, {"identity_id": name}) for name in "ab"], Attempts(Store(tmp_path), "f", "run")), 0
    while not (lost := queue.collect()[1]):
        attempt = queue.begin()
        rows = queue.take(attempt, 0, 2)
        if rows == [{"identity_id": "b"}]:
            queue.finish(attempt, rows[0])
        else:
            queue.blame([0])
            hung += 1
    assert [row for row, _ in lost] == [{"identity_id": "a"}]
    assert group(time_limit_s=limit_s).patience_s - NO_PROGRESS_S >= hung * limit_s


def test_a_worker_whose_node_was_taken_away_is_not_to_blame(tmp_path: Path) -> None:
    queue = ray.remote(num_cpus=0)(Leases).remote([], Attempts(Store(tmp_path), "face_lora", "run"))
    taken = WorkerHealthCheckFailedError("", RayActorError(preempted=True))
    for _ in range(OPENINGS):  # as often as Ray Train looks until the node is gone
        _Blame(queue).after_exception(None, {0: taken, 1: RayActorError(preempted=True)})
    assert ray.get(queue.collect.remote())[2] == ""
    for _ in range(OPENINGS):
        _Blame(queue).after_exception(None, {0: WorkerHealthCheckFailedError("", RayActorError())})
    assert "could not load its models" in ray.get(queue.collect.remote())[2]
    ray.kill(queue)
