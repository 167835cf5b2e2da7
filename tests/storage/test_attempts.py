"""Marks of attempts: a crash counts when the driver lived on, and only then."""

import pickle
from pathlib import Path

import pytest

from studiolo.errors import StoreError
from studiolo.storage.attempts import UNEXPLAINED, WHOLE, Attempts, Crash
from studiolo.storage.store import Store


@pytest.fixture(params=["{tmp_path}", "memory://{tmp_path}"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(request.param.format(tmp_path=tmp_path))


def test_a_mark_of_this_run_is_a_crash(store: Store) -> None:
    assert Attempts(store, "train", "run").begin("anna").crashes == []
    again = pickle.loads(pickle.dumps(Attempts(store, "train", "run")))  # the restarted worker's
    assert again.begin("anna").crashes == [Crash(WHOLE, UNEXPLAINED)]
    assert again.begin("anna").crashes == [Crash(WHOLE, UNEXPLAINED)] * 2
    assert again.begin("bert").crashes == []
    assert Attempts(store, "portraits", "run").begin("anna").crashes == []


def test_a_driver_that_was_killed_ever_so_often_condemns_nobody(store: Store) -> None:
    for run in range(5):
        assert Attempts(store, "train", f"run {run}").begin("anna").crashes == []


def test_crashes_survive_a_killed_driver(store: Store) -> None:
    first = Attempts(store, "train", "first")
    first.begin("anna").explain("took longer than 5 s")
    first.begin("anna")  # the crash is counted, and while this attempt is on the driver is killed
    attempt = Attempts(store, "train", "second").begin("anna")
    assert attempt.crashes == [Crash(WHOLE, "took longer than 5 s")]
    assert len(Attempts(store, "train", "second").begin("anna").crashes) == 2


def test_a_crash_belongs_to_the_part_that_was_worked_on(store: Store) -> None:
    attempts = Attempts(store, "perceive", "run")
    for part in ("a.jpg", "b.jpg", WHOLE, "b.jpg"):
        attempts.begin("album").work_on(part)
    attempt = attempts.begin("album")
    assert [len(attempt.of(part)) for part in ("a.jpg", "b.jpg", WHOLE, "c.jpg")] == [1, 2, 1, 0]
    attempt.work_on("c.jpg")
    attempt.explain("too much memory")
    assert attempts.begin("album").of("c.jpg") == [Crash("c.jpg", "too much memory")]


def test_a_finished_unit_leaves_nothing(store: Store) -> None:
    attempts = Attempts(store, "train", "run")
    with attempts.kept():
        attempts.begin("anna")
        attempts.end("anna")
        assert store.list("attempts/train") == ["attempts/train/run.json"]  # the folder stays for the others
        assert attempts.begin("anna").crashes == []
        attempts.end("anna")
    assert store.list() == []


@pytest.mark.parametrize("content", ["[1]", '{"run": "run"}', '{"run": "run", "crashes": 3}', '{"crashes": [["a"]]}'])
def test_a_mark_damaged_by_other_hands_is_reported(store: Store, content: str) -> None:
    attempts = Attempts(store, "train", "run")
    attempts.begin("anna")
    (path,) = store.list("attempts")
    store.write_bytes(path, content.encode())
    with pytest.raises(StoreError, match="wanted a mark; delete it"):
        attempts.begin("anna")
