"""The clients of the load benchmark, before the routes and a worker with the tiny base."""

from pathlib import Path

import httpx

from benchmarks.load import Answer, Load, Outcome, ask_endpoint, summary, wanted
from studiolo.generation.tiny import tiny_base
from studiolo.service.keys import KeyLimits
from studiolo.service.records import State
from studiolo.service.service import Service
from tests.service.test_service import settings as service_settings
from tests.web.painter import Painter
from tests.web.server import served
from tests.web.world import SETTINGS
from web.app import create_app

PEOPLE = ("id_a", "id_b")


def outcome(state: str, began_s: float, ended_s: float, portraits: int = 0) -> Outcome:
    return Outcome(wanted(0, PEOPLE, 60.0), Answer(state, portraits), began_s, ended_s)


def test_the_sequence_is_the_same_for_all_and_has_everything_in_it() -> None:
    first = [wanted(number, PEOPLE, 60.0) for number in range(200)]
    assert first == [wanted(number, PEOPLE, 60.0) for number in range(200)]
    assert {one.body["identity_id"] for one in first} == {*PEOPLE, None}
    assert {one.body["count"] for one in first} == {1, 2, 3, 4}
    assert {one.body["deadline_s"] for one in first} == {60.0, None}
    assert {one.streams for one in first} == {True, False}
    assert len({one.body["seed"] for one in first}) == 200


def test_figures_are_of_what_began_in_a_span_and_throughput_of_what_ended_in_it() -> None:
    outcomes = [
        outcome("succeeded", 0, 4, portraits=2),
        outcome("succeeded", 5, 15, portraits=4),  # ends too late to count for the throughput
        outcome("refused", 6, 6),
        outcome("error", 7, 8),
        outcome("succeeded", 12, 14, portraits=1),  # begins too late
    ]
    found = summary(outcomes, 0, 10)
    assert (found["p50_s"], found["portraits_per_s"], found["refused_share"]) == (7.0, 0.2, 0.25)
    assert found["requests"] == {"error": 1, "refused": 1, "succeeded": 2}
    assert summary(outcomes, 6, 7)["p95_s"] is None


def test_clients_get_their_portraits_and_a_refused_one_waits(tmp_path: Path) -> None:
    service = Service.open(service_settings(tmp_path))
    app = create_app(service, SETTINGS)
    painter = Painter(service, tiny_base(), SETTINGS.generation)
    tokens = {jobs: service.keys.create("shop", limits=KeyLimits(open_jobs=jobs)).token for jobs in (1, 100)}
    with served(app) as url, painter.working():
        load = Load(url, tokens[100], ask_endpoint, [], 60.0)
        load.run(3, 2.0)
        narrow = Load(url, tokens[1], ask_endpoint, [], 60.0)
        narrow.run(2, 1.0)
    states = [one.answer.state for one in load.outcomes]
    assert len(states) >= 3
    assert set(states) == {"succeeded"}
    assert all(one.answer.portraits == one.wanted.body["count"] for one in load.outcomes)
    assert {one.wanted.number for one in load.outcomes} == set(range(len(load.outcomes)))
    refused = [one.answer for one in narrow.outcomes if one.answer.state == "refused"]
    assert refused
    assert {one.detail for one in refused} == {"open_jobs"}
    assert all(one.retry_after_s > 0 for one in refused)
    page = service.queue.page(service.keys.authenticate(tokens[100]).tenant_id, limit=100)
    assert {job.state for job in page.items} == {State.SUCCEEDED}
    service.close()


def test_a_server_that_is_not_there_is_an_error_of_each_request() -> None:
    load = Load("http://127.0.0.1:9", "key", ask_endpoint, [], 60.0)
    load.run(1, 2.0)
    assert {one.answer.state for one in load.outcomes} == {"error"}
    assert httpx.ConnectError.__name__ in load.outcomes[0].answer.detail
