"""What becomes of jobs of portraits when workers, the database or the dispatcher itself are away."""

import threading
import time
from typing import Any

import pytest

from actors.hand import Hand
from studiolo.errors import (
    DatabaseError,
    SettingsError,
    StoreError,
)
from studiolo.portraits.rounds import Draft
from studiolo.service.records import Kind, Lease
from studiolo.storage.store import Store
from tests.actors.house import NOBODY, House, Never, Slow, until

pytestmark = [pytest.mark.usefixtures("weights"), pytest.mark.timeout(90)]


def test_a_round_that_a_drain_cut_short_is_given_back_though_there_is_no_other(house: House) -> None:
    generation = house.settings.generation.model_copy(update={"retries": 0})
    house.settings = house.settings.model_copy(update={"generation": generation})
    slow = Slow(house)
    leaving = house.dispatcher(slow)
    job = house.order(NOBODY)
    assert slow.begun.wait(30)
    leaving.drain(0)
    assert (house.job(job).state, house.job(job).attempts) == ("queued", 0)


def test_a_job_that_was_leased_while_a_drain_began_is_given_back(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    lease, entered, go_on = house.service.queue.lease, threading.Event(), threading.Event()

    def slow_lease(*args: Any) -> list[Lease]:
        if found := lease(*args):
            entered.set()
            go_on.wait(60)
        return found

    monkeypatch.setattr(house.service.queue, "lease", slow_lease)
    leaving = house.dispatcher(Slow(house))
    job = house.order(NOBODY)
    assert entered.wait(30)
    draining = threading.Thread(target=leaving.drain, args=(0,))
    draining.start()
    time.sleep(0.2)
    go_on.set()
    draining.join(30)
    assert (house.job(job).state, house.job(job).attempts) == ("queued", 0)


def test_a_job_that_is_not_begun_by_its_deadline_is_let_go(house: House) -> None:
    never = Never()
    dispatcher = house.dispatcher(lambda draft: never)
    failed = house.ended(house.order(NOBODY, deadline_s=6))
    assert never.begun.is_set()
    assert (failed.state, failed.reason) == ("failed", "deadline")
    until(lambda: not dispatcher._hands)


def test_a_job_without_news_for_long_is_given_back(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.hand.STILL_S", 1.5)
    nevers = iter([Never()])
    house.dispatcher(finish=lambda *what: next(nevers, None) or house.finish(*what))
    done = house.ended(house.order(NOBODY))
    assert (done.state, done.attempts) == ("succeeded", 1)


@pytest.mark.parametrize("by", ["drain", "cancel"])
def test_a_job_whose_finisher_does_not_answer_can_be_stopped(house: House, by: str) -> None:
    never = Never()
    dispatcher = house.dispatcher(finish=lambda *_: never)
    job = house.order(NOBODY)
    assert never.begun.wait(30)
    if by == "drain":
        dispatcher.drain(0)
        assert (house.job(job).state, house.job(job).attempts) == ("queued", 0)
    else:
        house.service.queue.cancel("ten_shop", job.id)
    until(lambda: not dispatcher._hands)
    assert never.closed.is_set()


def test_a_job_that_cannot_be_stopped_is_given_back_by_the_drain(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def hang(*_: Any) -> Never:
        begun.set()
        go_on.wait(40)
        return Never()

    dispatcher = house.dispatcher(hang)
    job = house.order(NOBODY)
    assert begun.wait(30)
    monkeypatch.setattr("actors.dispatcher._END_S", 0.2)
    monkeypatch.setattr("actors.dispatcher._SILENT_S", 0.1)
    dispatcher.drain(0)
    assert (house.job(job).state, house.job(job).attempts) == ("queued", 0)
    dispatcher._looked_s += 60  # that it looks for no jobs is another matter
    with pytest.raises(RuntimeError, match="cannot be stopped"):
        dispatcher.check()
    go_on.set()
    until(lambda: not dispatcher._hands)
    assert (house.job(job).state, house.job(job).attempts) == ("queued", 0)


def test_a_database_that_fails_for_one_job_costs_no_other_lease(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    queue, lease_s = house.service.queue, house.settings.dispatcher.lease_s
    house.order({**NOBODY, "seed": 1})
    house.order({**NOBODY, "seed": 2})
    hands = [Hand(lease, lease_s) for lease in queue.lease([Kind.PORTRAITS], "w", lease_s, 2)]
    dispatcher, extend, away = house.idle(), queue.extend, [True]
    dispatcher._hands = set(hands)

    def failing(lease: Lease, *more: Any) -> Lease:
        if away[0] and lease is hands[0].lease:
            raise DatabaseError("away")
        return extend(lease, *more)

    monkeypatch.setattr(queue, "extend", failing)
    hands[0].extended_s -= lease_s / 2
    hands[1].extended_s -= lease_s / 3
    before = [hand.extended_s for hand in hands]
    dispatcher._keep()
    assert [hand.extended_s > one for hand, one in zip(hands, before, strict=True)] == [False, True]
    away.clear()
    away.append(False)
    newest = hands[1].extended_s
    dispatcher._keep()  # at the next look, not a third of the lease later
    assert hands[0].extended_s > before[0]
    assert hands[1].extended_s == newest


def test_as_many_jobs_are_taken_as_the_samplers_that_are_there_can_draw(house: House) -> None:
    dispatcher = house.idle(jobs=3)
    assert dispatcher._room() == 3  # of one that is being started
    for name in ("a", "b"):
        house.service.speeds.report(name, Kind.PORTRAITS, 0, 0.0)
    house.service.speeds.report("c", Kind.IDENTITY, 0, 0.0)
    dispatcher._counted_s = -1e9
    assert dispatcher._room() == 6
    house.service.speeds.leave("a")
    dispatcher._counted_s = -1e9
    assert dispatcher._room() == 3


def test_a_fault_of_the_operator_is_not_told_to_the_tenant(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.dispatcher._PAUSE_S", 0.01)

    def draw(draft: Draft) -> Any:
        raise SettingsError("style 'studio': no file in /srv/secret")

    house.dispatcher(draw)
    failed = house.ended(house.order(NOBODY))
    assert (failed.state, failed.reason, failed.attempts) == ("failed", "gave_up", 3)
    assert "secret" not in failed.sentence


def test_a_dispatcher_that_looks_for_no_jobs_is_not_well(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    dispatcher = house.dispatcher()
    dispatcher.check()
    stuck = threading.Event()
    monkeypatch.setattr("actors.dispatcher._SILENT_S", 0.2)
    monkeypatch.setattr(house.service.queue, "lease", lambda *_: stuck.wait(30) and [])
    time.sleep(0.5)
    with pytest.raises(RuntimeError, match="start it again"):
        dispatcher.check()
    stuck.set()


def test_writes_that_fail_now_and_then_cost_no_attempt(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    write, count = Store.write_bytes, iter(range(100))

    def failing(store: Store, path: str, content: bytes) -> None:
        if next(count) % 3 != 2:
            raise StoreError("now and then")
        write(store, path, content)

    monkeypatch.setattr("actors.held.RETRY_PAUSES_S", (0.01, 0.01))
    monkeypatch.setattr(Store, "write_bytes", failing)
    house.dispatcher()
    done = house.ended(house.order({**NOBODY, "count": 2}, steps=8))
    assert (done.state, done.attempts) == ("succeeded", 1)
    assert len(house.pictures(done)) == 2
    assert next(count) == 6


def test_who_is_stopped_writes_nothing_more(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    dispatcher = house.idle()
    tried: list[str] = []

    def failing(store: Store, path: str, content: bytes) -> None:
        if not path.startswith("results/"):
            raise StoreError("away")
        tried.append(path)
        for hand in dispatcher._in_hand():
            house.service.queue.cancel("ten_shop", hand.lease.job.id)
            hand.stop("cancelled")
        raise StoreError("away")

    monkeypatch.setattr("actors.held.RETRY_PAUSES_S", (0.01, 0.01))
    monkeypatch.setattr(Store, "write_bytes", failing)
    job = house.order(NOBODY)
    dispatcher.start()
    house.dispatchers.append(dispatcher)
    assert house.ended(job).state == "cancelled"
    until(lambda: not dispatcher._hands)
    assert len(tried) == 1
