"""Who gets where on the page: the doors that are open, those that are shut, and whose session it is."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import gradio.routes
import httpx
import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from starlette.routing import Mount

from studiolo.service.keys import KeyLimits
from tests.web.page.conftest import Front, signed_in
from web.page import gate
from web.page.gate import COOKIE

GRADIOS_DOORS = {
    "/",
    "/config",
    "/theme.css",
    "/favicon.ico",
    "/assets/x",
    "/static/x",
    "/svelte/x",
    "/gradio_api/queue/join",
    "/gradio_api/queue/data",
    "/gradio_api/upload",
    "/gradio_api/upload_progress",
    "/gradio_api/heartbeat/x",
    "/gradio_api/cancel",
    "/gradio_api/reset",
    "/gradio_api/reset/",
    "/gradio_api/startup-events",
}
"""Those that the page opens in its browser."""
SHUT = [
    "/gradio_api/file=/etc/passwd",
    "/gradio_api/file=https://example.com/x.png",
    "/gradio_api/file/etc/passwd",
    "/gradio_api/proxy=https://example.com/",
    "/gradio_api/info",
    "/gradio_api/openapi.json",
    "/gradio_api/deep_link",
    "/gradio_api/runs",
    "/gradio_api/run/make",
    "/gradio_api/call/make",
    "/gradio_api/vibe-code/",
    "/gradio_api/app_id",
    "/monitoring",
    "/openapi.json",
    "/docs",
    "/login",
    "/static/../../../etc/passwd",
    "/static/%2e%2e/%2e%2e/etc/passwd",
    "/portraits/job_1/x.zip",
    "/v1/jobs",
]


@pytest.mark.parametrize("path", SHUT)
def test_doors_that_the_page_does_not_need_are_shut_for_all(browser: TestClient, house: Front, path: str) -> None:
    for client in (browser, signed_in(browser, house)):
        answer = client.get(path)
        assert (answer.status_code, answer.text) == (404, "There is no such thing.")


def test_a_door_that_gradio_adds_stays_shut(browser: TestClient) -> None:
    (mounted,) = [one for one in browser.app.routes if isinstance(one, Mount)]
    assert isinstance(mounted.app, gradio.routes.App)
    paths = {re.sub(r"\{[^}]*\}", "x", path) for path in paths_of(mounted.app.routes)}
    assert len(paths) > 50
    opened = {path for path in paths if gate._GRADIO.fullmatch(path) or gate.OPEN.fullmatch(path)}
    assert opened == GRADIOS_DOORS


def paths_of(routes: Iterable[Any]) -> Iterator[str]:
    """Of all routes, those of routers that were taken in too."""
    for route in routes:
        if hasattr(route, "original_router"):
            yield from paths_of(route.original_router.routes)
        elif isinstance(route, APIRoute):
            yield route.path


@pytest.mark.parametrize(
    "path", ["/config", "/theme.css", "/assets/x.js", "/styles/studio.jpg", "/portraits/job_1.zip"]
)
def test_without_a_key_there_is_only_the_way_in(browser: TestClient, path: str) -> None:
    home = browser.get("/")
    assert (home.status_code, home.headers["location"]) == (303, "sign-in")
    assert browser.get(path).status_code == 401
    for post in ("/gradio_api/queue/join", "/gradio_api/upload", "/sign-out"):
        assert browser.post(post).status_code == 401
    for way in ("/sign-in", "/page.css", "/healthz"):
        assert browser.get(way).status_code == 200


def test_a_key_that_was_revoked_opens_nothing(
    browser: TestClient, house: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "_SURE_S", 0.0)
    client, token = browser, house.world.service.keys.create("anna").token
    client.cookies.set(COOKIE, token)
    assert client.get("/").status_code == 200
    house.world.service.keys.revoke(token.split("_")[1])
    assert client.get("/").status_code == 303
    assert client.get("/config").status_code == 401


@pytest.mark.parametrize("key", ["nonsense", "studiolo_x_y", "a%0d%0ab", "\\xff"])
def test_a_cookie_that_is_no_key_opens_nothing(browser: TestClient, key: str) -> None:
    answer = browser.get("/", headers={"Cookie": f"{COOKIE}={key}"})
    assert answer.status_code == 303


def test_every_answer_says_that_nothing_comes_from_elsewhere(browser: TestClient, house: Front) -> None:
    answers = [browser.get("/sign-in"), browser.get("/nothing"), browser.get("/"), signed_in(browser, house).get("/")]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert not re.search(r"https?:|\*", policy)
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"


def test_another_site_can_post_nothing(browser: TestClient, house: Front) -> None:
    client = signed_in(browser, house)
    for path in ("/sign-in", "/sign-out", "/gradio_api/queue/join", "/gradio_api/upload"):
        answer = client.post(path, headers={"Origin": "https://evil.example"})
        assert (answer.status_code, answer.text) == (403, "This was sent by another site.")
    own = client.post("/sign-out", headers={"Origin": "http://studio.example"})
    assert own.status_code == 303


def test_a_session_is_his_who_began_it(browser: TestClient, house: Front) -> None:
    body = {"data": [], "fn_index": 0, "session_hash": "anna1"}
    asked: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "/gradio_api/queue/join", {"json": body}),
        ("POST", "/gradio_api/cancel", {"json": body | {"event_id": "x"}}),
        ("GET", "/gradio_api/queue/data?session_hash=anna1", {}),
        ("GET", "/gradio_api/queue/data?session_hash=bert1&session_hash=anna1", {}),
        ("GET", "/gradio_api/heartbeat/anna1", {}),
        ("GET", "/gradio_api/heartbeat/anna1?session_hash=bert1", {}),
    ]
    assert signed_in(browser, house).post("/gradio_api/cancel", json=body | {"event_id": "x"}).status_code == 200
    other = signed_in(browser, house, "bert")
    for method, path, more in asked:
        answer = other.request(method, path, **more)
        assert (answer.status_code, answer.text) == (403, "This session is somebody else's."), path


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "{folder}/../passwd",
        "{folder}-other/me.jpg",
        "https://example.com/me.jpg",
        "",
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_no_file_is_taken_but_one_that_was_dropped(browser: TestClient, house: Front, path: str, wrapped: bool) -> None:
    client = signed_in(browser, house)
    dropped = client.post("/gradio_api/upload", files={"files": ("me.jpg", b"photo", "image/jpeg")}).json()[0]
    folder = str(Path(dropped).parents[1])
    config = client.get("/config").json()
    files, _ = [one["id"] for one in config["components"] if one["type"] == "file"]
    look = next(number for number, one in enumerate(config["dependencies"]) if one["targets"] == [[files, "change"]])

    def join(path: str) -> httpx.Response:
        file: Any = {"path": path.format(folder=folder), "meta": {"_type": "gradio.FileData"}}
        data = [{"files": [[file]]}, None] if wrapped else [[file], None]
        body = {"data": data, "fn_index": look, "session_hash": "anna2"}
        return client.post("/gradio_api/queue/join", json=body)

    refused = join(path)
    assert (refused.status_code, refused.text) == (403, "This file was not dropped here.")
    assert join(dropped).status_code == 200


@pytest.mark.parametrize("content", [b"", b"nonsense", b"[]", b"\xff", b"[" * 100_000])
def test_what_is_not_understood_goes_no_further(browser: TestClient, house: Front, content: bytes) -> None:
    for path in ("/gradio_api/queue/join", "/gradio_api/cancel"):
        assert signed_in(browser, house).post(path, content=content).status_code == 400
    assert signed_in(browser, house).put("/gradio_api/queue/join", content=content).status_code == 404


def test_what_is_too_large_is_not_read(browser: TestClient, house: Front) -> None:
    client = signed_in(browser, house)
    assert client.post("/gradio_api/queue/join", content=b" " * (2**20 + 1)).status_code == 413
    told = {"Content-Length": str(2**40), "Content-Type": "multipart/form-data; boundary=x"}
    assert client.post("/gradio_api/upload", headers=told, content=b"").status_code == 413


def test_a_service_that_is_busy_is_no_sign_out(browser: TestClient, house: Front) -> None:
    limited = house.world.service.keys.create("anna", limits=KeyLimits(requests_per_s=0.01, burst=1)).token
    browser.cookies.set(COOKIE, limited)
    assert browser.get("/").status_code == 200
    assert browser.get("/").status_code == 200  # sure of it for a while
    assert browser.post("/sign-in", data={"key": limited}).status_code == 429
