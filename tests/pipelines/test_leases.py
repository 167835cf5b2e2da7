"""The queue alone: what a crash costs, and whom it is counted against."""

from pathlib import Path
from typing import Any

import pytest

from pipelines import leases
from pipelines.guard import OPENINGS
from pipelines.leases import Leases
from studiolo.storage.attempts import Attempts
from studiolo.storage.store import Store


@pytest.fixture
def attempts(tmp_path: Path) -> Attempts:
    return Attempts(Store(tmp_path), "face_lora", "run")


def queue(attempts: Attempts, names: str) -> Leases:
    return Leases([(f"key of {name}", {"identity_id": name}) for name in names], attempts)


def names(rows: list[dict[str, Any]]) -> str:
    return "".join(row["identity_id"] for row in rows)


def test_every_row_is_given_once_and_comes_back_once(attempts: Attempts) -> None:
    one = queue(attempts, "abcde")
    attempt = one.begin()
    assert names(one.take(attempt, 0, 3)) == "abc"
    assert names(one.take(attempt, 1, 3)) == "de"
    assert one.take(attempt, 1, 3) == []
    for name in "badce":
        assert one.finish(attempt, {"identity_id": name})
    assert not one.finish(attempt, {"identity_id": "a"})
    rows, lost, fatal = one.collect()
    assert (names(rows), lost, fatal) == ("badce", [], "")
    assert one.collect()[0] == []
    assert attempts.store.list() == []


def test_what_is_under_way_is_what_those_in_training_have_done(attempts: Attempts) -> None:
    one = queue(attempts, "abc")
    attempt = one.begin()
    one.take(attempt, 0, 2)
    assert one.under_way() == 0
    assert not one.hear(attempt, {"a": 0.5, "b": 0.25, "c": 1.0})  # c waits still
    assert one.under_way() == 0.75
    one.finish(attempt, {"identity_id": "a"})
    assert one.under_way() == 0.25
    new = one.begin()
    assert one.hear(attempt, {"b": 0.9})  # nobody waits for it
    one.take(new, 0, 1)
    assert one.under_way() == 0


def test_a_new_attempt_voids_the_leases_of_the_one_before(attempts: Attempts) -> None:
    one = queue(attempts, "abc")
    old = one.begin()
    one.take(old, 0, 2)
    new = one.begin()
    assert one.take(old, 0, 2) == []
    assert not one.finish(old, {"identity_id": "a"})
    assert names(one.take(new, 0, 3)) == "abc"
    assert one.finish(new, {"identity_id": "a"})
    assert names(one.collect()[0]) == "a"


def test_a_worker_that_was_ended_with_another_is_not_to_blame(attempts: Attempts) -> None:
    one = queue(attempts, "ab")
    for _ in range(3):
        attempt = one.begin()
        one.take(attempt, 0, 1)
        one.take(attempt, 1, 1)
        one.blame([1] if attempt < 3 else [])
    rows, lost, _ = one.collect()
    assert rows == []
    assert [(row["identity_id"], why) for row, why in lost] == [
        ("b", "2 attempts, the last: the worker ended without a word")
    ]
    attempt = one.begin()
    assert names(one.take(attempt, 0, 2)) == "a"
    assert one.finish(attempt, {"identity_id": "a"})
    assert attempts.store.list() == []


def test_suspects_are_tried_alone_and_the_culprit_alone_is_given_up(attempts: Attempts) -> None:
    one = queue(attempts, "abc")
    attempt = one.begin()
    assert names(one.take(attempt, 0, 2)) == "ab"
    one.explain(attempt, 0, "took too long")
    one.blame([0])
    attempt = one.begin()
    assert names(one.take(attempt, 0, 2)) == "c"  # the others first
    assert one.take(attempt, 0, 1) == []  # no suspect beside it
    assert one.finish(attempt, {"identity_id": "c"})
    assert names(one.take(attempt, 0, 2)) == "a"
    assert one.take(attempt, 0, 1) == []
    assert names(one.take(attempt, 1, 2)) == "b"
    assert one.finish(attempt, {"identity_id": "a"})
    for _ in range(2):
        one.blame([1])
        attempt = one.begin()
        one.take(attempt, 1, 2)
    rows, lost, _ = one.collect()
    assert names(rows) == "ca"
    assert [(row["identity_id"], why) for row, why in lost] == [
        ("b", "3 attempts, the last: the worker ended without a word")
    ]


def test_what_was_counted_outlives_the_driver_and_its_own_death_does_not_count(attempts: Attempts) -> None:
    one = queue(attempts, "ab")
    one.take(one.begin(), 0, 2)
    one.blame([0])
    attempt = one.begin()
    assert names(one.take(attempt, 0, 2)) == "a"  # and here the driver dies
    again = Leases([("key of a", {"identity_id": "a"})], Attempts(attempts.store, "face_lora", "another run"))
    attempt = again.begin()
    assert names(again.take(attempt, 0, 1)) == "a"
    again.blame([0])
    assert again.collect()[1] == []  # one death in company and one alone
    again.take(again.begin(), 0, 1)
    again.blame([0])
    assert len(again.collect()[1]) == 1


def test_workers_that_die_without_an_identity_end_the_job(attempts: Attempts) -> None:
    one = queue(attempts, "a")
    for number in range(OPENINGS):
        assert one.collect()[2] == ""
        one.explain(one.begin(), 0, f"no memory in attempt {number}")
        one.blame([0])
    assert one.collect()[2].startswith(
        f"a worker could not load its models in {OPENINGS} attempts, the last: no memory"
    )
    assert one.take(one.begin(), 0, 1) == []


def test_workers_that_die_together_while_they_load_are_one_death(attempts: Attempts) -> None:
    one = queue(attempts, "a")
    one.explain(one.begin(), 1, "no memory")
    one.blame(range(OPENINGS + 1))
    assert one.collect()[2] == ""
    assert names(one.take(one.begin(), 0, 1)) == "a"


def test_when_every_identity_crashes_it_is_the_workers(attempts: Attempts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "GIVEN_UP_IN_A_ROW", 2)
    one = queue(attempts, "ab")
    for _ in range(4):
        one.take(one.begin(), 0, 1)
        one.blame([0])
    assert "2 units in a row ended their workers" in one.collect()[2]


def test_it_knows_how_long_no_group_has_been_at_work(attempts: Attempts, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr(leases.time, "monotonic", lambda: now_s)
    one = queue(attempts, "a")
    now_s += 5
    first = one.begin()
    assert one.starting_s() == 5  # its other workers may never come
    assert one.met(first)
    now_s += 1000
    assert one.starting_s() == 0
    one.blame([0])
    now_s += 7
    assert not one.met(first - 1)
    assert one.starting_s() == 7
    assert one.met(one.begin())
    assert one.starting_s() == 0
