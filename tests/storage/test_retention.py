"""Which day is an album's last, and what may still be made of it."""

import datetime

import pytest

from studiolo.storage.retention import begin, closed, due, finish, known_albums, remember, was_erased
from studiolo.storage.store import Store

DAY = datetime.date(2026, 11, 21)


def days(count: int) -> datetime.date:
    return DAY + datetime.timedelta(count)


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path)


def test_the_orders_date_wins_over_the_settings_days(store: Store):
    remember(store, {"anna": days(3), "ben": None, "clara": None}, 10, DAY)
    assert due(store, days(3)) == []
    assert due(store, days(4)) == ["anna"]
    assert due(store, days(10)) == ["anna"]
    assert due(store, days(11)) == ["anna", "ben", "clara"]


def test_days_count_from_the_first_job_and_other_albums_stay(store: Store):
    remember(store, {"anna": None}, 10, DAY)
    remember(store, {"anna": None, "ben": None}, 10, days(8))
    remember(store, {"ben": None}, 10, days(9))
    assert due(store, days(11)) == ["anna"]
    assert known_albums(store) == {"anna", "ben"}


def test_a_date_once_given_is_replaced_and_never_taken_away(store: Store):
    remember(store, {"anna": days(5)}, None, DAY)
    remember(store, {"anna": None}, None, DAY)
    assert due(store, days(6)) == ["anna"]
    remember(store, {"anna": days(9)}, None, DAY)
    assert due(store, days(6)) == []


def test_without_a_date_nothing_falls_due(store: Store):
    remember(store, {"anna": None}, None, DAY)
    assert due(store, days(100_000)) == []


def test_nothing_is_made_of_an_album_that_is_over(store: Store):
    remember(store, {"anna": days(1), "ben": None}, None, DAY)
    ordered = {"anna": days(1), "ben": None, "clara": days(-1)}
    assert list(closed(store, ordered, None, DAY)) == ["clara"]
    assert list(closed(store, ordered, None, days(2))) == ["anna", "clara"]


def test_an_erased_album_opens_with_a_day_to_come(store: Store):
    begin(store, {}, datetime.datetime(2026, 11, 21))
    store.write_json("erasing.json", {"anna": {"erased_at": "2026-11-21", "counts": {}}})
    assert "not finished" in closed(store, {"anna": days(5)}, None, DAY)["anna"]
    finish(store)
    finish(store)
    assert was_erased(store, "anna")
    assert not was_erased(store, "ben")
    assert "erased at 2026-11-21" in closed(store, {"anna": None}, 10, DAY)["anna"]
    assert closed(store, {"anna": days(5), "ben": None}, None, DAY) == {}
    assert b"anna" not in store.read_bytes("erased.jsonl")
