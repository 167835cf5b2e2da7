"""What every request passes: a name, the key, the rate, the body's limits; and how refusals look."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from studiolo.errors import DatabaseError
from studiolo.service.keys import KeyLimits
from studiolo.service.service import Service
from tests.service.test_service import settings as service_settings
from tests.web.world import SETTINGS, World, settings_with
from web.app import create_app

Message = dict[str, Any]


def test_without_a_good_key_nothing_is_said(world: World) -> None:
    key = world.tokens["anna"]
    for headers in ({}, {"Authorization": "Bearer nonsense"}, {"Authorization": f"Basic {key}"}, {"X-Key": key}):
        answer = world.client.get("/v1/jobs", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["reason"] in ("no_key", "unknown_key")
    assert world.client.get("/v1/no/such/route").status_code == 401
    assert world.ask("GET", "/v1/jobs").status_code == 200
    assert world.ask("GET", "/v1/no/such/route").json()["reason"] == "not_found"


def test_a_revoked_key_opens_nothing(world: World) -> None:
    world.service.keys.revoke(world.tokens["anna"].split("_")[1])
    answer = world.ask("GET", "/v1/jobs")
    assert (answer.status_code, answer.json()["reason"]) == (401, "revoked_key")


def test_every_answer_has_the_request_id(world: World) -> None:
    for path, status in (("/healthz", 200), ("/v1/jobs", 200), ("/v1/jobs/x", 404), ("/nothing", 404)):
        answer = world.ask("GET", path, headers={"X-Request-ID": "my-name.1"})
        assert (answer.status_code, answer.headers["x-request-id"]) == (status, "my-name.1")
        if status == 404:
            assert answer.json()["request_id"] == "my-name.1"
    for odd in ("", "x" * 65, "a b", "a\tb"):
        made = world.ask("GET", "/healthz", headers={"X-Request-ID": odd}).headers["x-request-id"]
        assert len(made) == 32


async def spoken(app: FastAPI, headers: dict[str, str], receive: Any, path: str = "/v1/portraits") -> list[Message]:
    """What the app sends for a POST whose body comes from `receive`."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("test", 80),
    }
    await asyncio.wait_for(app(scope, receive, send), 20)
    return sent


def _json(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}


def test_too_many_requests_are_refused_before_the_body_is_read(world: World) -> None:
    token = world.service.keys.create("busy", limits=KeyLimits(requests_per_s=0.01, burst=1)).token

    async def unread() -> Message:
        raise AssertionError("the body was read")

    assert world.client.get("/v1/jobs", headers=_json(token)).status_code == 200
    start, *_ = asyncio.run(spoken(world.app, _json(token), unread))
    assert start["status"] == 429
    assert 90 <= int(dict(start["headers"])[b"retry-after"]) <= 100


def test_a_body_of_any_length_is_broken_off_at_the_limit(world: World) -> None:
    read = 0

    async def endless() -> Message:
        nonlocal read
        read += 1
        return {"type": "http.request", "body": b" " * 10_000, "more_body": True}

    start, *_ = asyncio.run(spoken(world.app, _json(world.tokens["anna"]), endless))
    assert start["status"] == 413
    assert read == 7  # 64 KiB and one more
    said = world.ask("POST", "/v1/portraits", content=b" " * 70_000, headers={"Content-Type": "application/json"})
    assert (said.status_code, said.json()["reason"]) == (413, "body_too_large")


def test_a_body_that_does_not_come_is_not_waited_for(service: Service) -> None:
    app = create_app(service, settings_with(body_s=0.1))
    token = service.keys.create("slow").token

    async def nothing() -> Message:
        await asyncio.sleep(30)
        raise AssertionError("it was waited for")

    start, *_ = asyncio.run(spoken(app, _json(token), nothing))
    assert start["status"] == 408


def test_a_client_that_hangs_up_in_its_body_is_let_go(world: World) -> None:
    parts = iter(({"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}))

    async def broken() -> Message:
        return next(parts)

    assert asyncio.run(spoken(world.app, _json(world.tokens["anna"]), broken)) == []
    assert world.ask("GET", "/v1/jobs").json()["data"] == []


@pytest.mark.parametrize(
    ("content", "kind", "status", "reason"),
    [
        (b"{}", "text/plain", 415, "content_type"),
        (b"style=studio", "application/x-www-form-urlencoded", 415, "content_type"),
        (b"{", "application/json", 422, "invalid"),
        (b'"\xff"', "application/json", 400, "bad_request"),
        (b"[1]", "application/json", 422, "invalid"),
        (b'{"style": "\\ud800"}', "application/json", 422, "invalid"),
        (b'{"\\ud800": 1}', "application/json", 422, "invalid"),
        (b'{"count": 1e999}', "application/json", 422, "invalid"),
    ],
)
def test_bodies_that_are_none_are_refused(world: World, content: bytes, kind: str, status: int, reason: str) -> None:
    answer = world.ask("POST", "/v1/portraits", content=content, headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()["reason"]) == (status, reason)


def test_a_field_that_does_not_fit_is_named(world: World) -> None:
    answer = world.ask("POST", "/v1/portraits", json={"style": "studio", "count": 0, "colour": "red"})
    assert answer.status_code == 422
    assert [item["field"] for item in answer.json()["errors"]] == ["body.count", "body.colour"]
    wrong = world.ask("PUT", "/v1/portraits", json={})
    assert (wrong.status_code, wrong.json()["reason"], wrong.headers["allow"]) == (405, "method_not_allowed", "POST")


def test_a_database_that_is_away_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service.open(service_settings(tmp_path, database_patience_s=0.1))
    world = World(service, app := create_app(service, SETTINGS), _client(app))
    (tmp_path / "service.db").rename(tmp_path / "away.db")
    for name in ("service.db-wal", "service.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    service.close()
    for path in ("/readyz", "/v1/jobs"):
        answer = world.ask("GET", path)
        assert (answer.status_code, answer.json()["reason"], answer.headers["retry-after"]) == (503, "away", "5")
    assert world.client.get("/healthz").status_code == 200


def test_a_fault_of_ours_is_a_500_with_the_request_id_and_nothing_else(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_self: object, *_args: object, **_more: object) -> None:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(type(world.service.queue), "page", broken)
    answer = world.ask("GET", "/v1/jobs", headers={"X-Request-ID": "r1"})
    assert (answer.status_code, answer.json()["request_id"]) == (500, "r1")
    assert "secret" not in answer.text
    (fault,) = (record for record in caplog.records if record.exc_info)
    assert fault.exc_info is not None
    assert fault.exc_info[0] is ZeroDivisionError
    monkeypatch.setattr(type(world.service.queue), "page", lambda *_a, **_m: (_ for _ in ()).throw(DatabaseError("x")))
    assert world.ask("GET", "/v1/jobs").status_code == 503


def test_the_log_names_the_request_and_no_secret(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "studiolo.requests")
    world.ask("POST", "/v1/portraits?x=SECRETQUERY", json={"prompt": "SECRETPROMPT"}, headers={"X-Request-ID": "r2"})
    (record,) = (one for one in caplog.records if one.name == "studiolo.requests")
    said = vars(record)
    assert (said["method"], said["route"], said["status"]) == ("POST", "/v1/portraits", 202)
    assert said["ms"] > 0
    text = str([one.__dict__ for one in caplog.records])
    assert "SECRET" not in text
    assert world.tokens["anna"] not in text


def _client(app: FastAPI) -> Any:
    from fastapi.testclient import TestClient

    return TestClient(app)
