"""Requests that no honest client sends: below a prefix, over a raw socket, inflated, nested, too long, oddly spelt."""

import asyncio
import gzip
import json
import socket
import tracemalloc
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.web.server import served
from tests.web.test_gate import Message, spoken
from tests.web.test_identities import TEXTS, files, kept, photo
from tests.web.world import World

MIB = 2**20


@pytest.mark.parametrize("root", ["/studio", "/v1"])
def test_below_a_prefix_the_gate_is_as_shut_as_without(world: World, root: str) -> None:
    """No key and a body without an end: it is refused, and not a byte of it read."""

    async def below(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await world.app({**scope, "path": root + scope["path"], "root_path": root}, receive, send)

    async def unread() -> Message:
        raise AssertionError("the body was read")

    for path in ("/v1/portraits", "/v1/identities", "/v1/edits", "/v1/images/edits", "/v1/provenance", "/v1/nothing"):
        start, *_ = asyncio.run(spoken(below, {"Content-Type": "application/json"}, unread, path))  # type: ignore[arg-type]
        assert start["status"] == 401

    async def order() -> Message:
        return {"type": "http.request", "body": b'{"style": "studio"}', "more_body": False}

    good = {"Content-Type": "application/json", "Authorization": f"Bearer {world.tokens['anna']}"}
    start, *_ = asyncio.run(spoken(below, good, order))  # type: ignore[arg-type]
    assert start["status"] == 202


def test_answers_are_taken_for_what_they_say_they_are(world: World) -> None:
    """Markup in an id or a name comes back as text within JSON, and a browser may not guess otherwise."""
    markup = "<script>alert(1)</script>"
    album = world.ask("POST", "/v1/identities", data=TEXTS | {"name": markup}, files=files(photo())).json()
    job = world.ask("POST", "/v1/portraits", json={"style": "studio", "prompt": markup}).json()["id"]
    world.make()
    places = {
        f"/v1/identities/{album['identity_id']}": "application/json",
        f"/v1/jobs/{job}": "application/json",
        f"/v1/jobs/{markup}": "application/problem+json",
        f"/v1/jobs/{job}/events": "text/event-stream",
        f"/v1/jobs/{job}/images/0": "image/png",
        "/healthz": "application/json",
        "/nothing": "application/problem+json",
    }
    for place, kind in places.items():
        answer = world.ask("GET", place)
        assert answer.headers["content-type"].partition(";")[0] == kind, place
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "name",
    [
        "Anna\r\nX-Evil: 1",
        "Anna\x00",
        "Anna\x85",
        "Anna\u2028next",
        "Anna\u202egpj.exe",
        "\u2066Anna\u2069",
        "x" * 201,
        "",
    ],
)
@pytest.mark.parametrize("field", ["name", "consent_given_by"])
def test_signs_that_no_name_has_are_refused(world: World, field: str, name: str) -> None:
    if field == "consent_given_by" and name:
        name += "x" * 300
    answer = world.ask("POST", "/v1/identities", data=TEXTS | {field: name}, files=files(photo()))
    assert (answer.status_code, answer.json()["reason"]) == (422, "invalid")
    assert kept(world) == []


@pytest.mark.parametrize(
    "name", ["Zoë 日本", "ניצן", "نرگس\u200cجان", "O'Brien; DROP TABLE jobs --", "../../etc/passwd", "😀"]
)
def test_names_of_people_come_back_as_they_were_given(world: World, name: str) -> None:
    job = world.ask("POST", "/v1/identities", data=TEXTS | {"name": name}, files=files(photo())).json()
    assert world.ask("GET", f"/v1/identities/{job['identity_id']}").json()["name"] == name
    assert kept(world) == [f"albums/{job['identity_id']}/001"]


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"[" * 60_000, 422),
        (b'{"a":' * 10_000, 422),
        (b'{"style": "studio", "prompt": ' + b"[" * 30_000 + b"]" * 30_000 + b"}", 422),
        (b'{"style": "studio", "seed": ' + b"9" * 60_000 + b"}", 422),
        (b'{"style": "studio", "deadline_s": NaN}', 422),
        (b'{"style": "studio", "deadline_s": 1e400}', 422),
        (b'{"style": "studio", "count": 1.5}', 422),
        (b'{"style": "' + b"x" * 60_000 + b'"}', 422),
        (b'{"style": "../../../etc/passwd"}', 422),
        (b'{"style": "studio", "identity_id": "id_0\\u0000"}', 422),
        (gzip.compress(b"\0" * 10 * MIB), 422),
    ],
)
def test_bodies_that_are_bombs_are_refused_and_nothing_is_queued(world: World, content: bytes, status: int) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip" if content[:2] == b"\x1f\x8b" else ""}
    answer = world.ask("POST", "/v1/portraits", content=content, headers=headers)
    assert answer.status_code in (status, 400), answer.text
    assert len(answer.content) < 200_000
    assert world.ask("GET", "/v1/jobs").json()["data"] == []


def form(*headers: str, size: int = 0) -> bytes:
    """A form of one part with these headers."""
    lines = "\r\n".join(headers)
    return f"--b\r\n{lines}\r\n\r\n".encode() + b"x" * size + b"\r\n--b--\r\n"


@pytest.mark.parametrize(
    "content",
    [
        form('Content-Disposition: form-data; name="photos"; filename="' + "x" * 5 * MIB + '"'),
        form(*(f"X-{number}: x" for number in range(200_000))),
        form("X" * 5 * MIB + ": x"),
        form('Content-Disposition: form-data; name="' + "photos" * MIB + '"'),
        b"\r\n" * MIB + form('Content-Disposition: form-data; name="photos"'),
        b"".join(form('Content-Disposition: form-data; name="x"')[:-5] for _ in range(50_000)),
    ],
    ids=["file name", "many headers", "header's name", "part's name", "before the form", "many parts"],
)
def test_forms_that_are_too_much_are_broken_off_in_little_memory(world: World, content: bytes) -> None:
    """In chunks as they come over a network; a part's head may not fill the memory."""
    chunks = [content[first : first + 65_536] for first in range(0, len(content), 65_536)][::-1]

    async def receive() -> Message:
        return {"type": "http.request", "body": chunks.pop(), "more_body": bool(chunks)}

    headers = {
        "Authorization": f"Bearer {world.tokens['anna']}",
        "Content-Type": "multipart/form-data; boundary=b",
    }
    tracemalloc.start()
    start, *_ = asyncio.run(spoken(world.app, headers, receive, "/v1/identities"))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert start["status"] in (413, 415, 422)
    assert most < 8 * MIB
    assert kept(world) == []


@pytest.fixture
def url(world: World) -> Iterator[str]:
    with served(world.app) as url:
        yield url


def said(url: str, request: bytes) -> bytes:
    """What a server answers to these bytes, until it closes."""
    place = urlsplit(url)
    with socket.create_connection((str(place.hostname), place.port or 80), timeout=60) as connection:
        connection.sendall(request)
        answer = b""
        while chunk := connection.recv(65_536):
            answer += chunk
    return answer


def head(answer: bytes) -> dict[str, list[str]]:
    """The headers of the first answer, by name."""
    found: dict[str, list[str]] = {}
    for line in answer.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]:
        name, _, value = line.decode("latin-1").partition(": ")
        found.setdefault(name.lower(), []).append(value)
    return found


ODD_HEADERS = {
    "a line break in an id": b"X-Request-ID: a\r\n\tX-Evil: 1",
    "a bare line feed": b"X-Request-ID: a\nX-Evil: 1",
    "a bare carriage return": b"X-Request-ID: a\rX-Evil: 1",
    "a header in percents": b"X-Request-ID: a%0d%0aX-Evil:1",
    "unicode": "X-Request-ID: a\u560d\u560aX-Evil:1".encode(),
    "NUL": b"X-Request-ID: a\0b",
    "an id twice": b"X-Request-ID: a\r\nX-Request-ID: b",
    "a host that is none": b"Host: a/v1/../../x\r\nX-Request-ID: a",
    "a host with a line break": b"Host: a\r\n\tX-Evil: 1",
    "a name with unicode": "X-Ünicode: a".encode(),
    "a long one": b"X-Long: " + b"x" * 200_000,
}


@pytest.mark.parametrize("what", ODD_HEADERS)
def test_odd_headers_put_nothing_into_the_answer(world: World, url: str, what: str) -> None:
    token = world.tokens["anna"].encode()
    odd = ODD_HEADERS[what]
    host = b"" if odd.startswith(b"Host") else b"Host: x\r\n"
    lines = b"GET /v1/jobs HTTP/1.1\r\n" + host + b"Authorization: Bearer " + token + b"\r\n" + odd
    answer = said(url, lines + b"\r\nConnection: close\r\n\r\n")
    headers = head(answer)
    assert int(answer.split(b" ", 2)[1]) in (200, 400, 401, 431), answer[:200]
    assert "x-evil" not in headers
    assert all(len(values) == 1 for values in headers.values()), headers
    assert world.client.get("/healthz").status_code == 200


def test_two_lengths_are_no_second_request(world: World, url: str) -> None:
    """Smuggled behind a request whose two lengths differ, or that is both chunked and counted."""
    token = world.tokens["anna"]
    hidden = f"DELETE /v1/identities/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
    begins = (
        f"POST /v1/portraits HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n"
    )
    for lengths in (f"Content-Length: 0\r\nContent-Length: {len(hidden)}\r\n", "Content-Length: 1, 2\r\n"):
        answer = said(url, f"{begins}{lengths}\r\n{hidden}".encode())
        assert answer.startswith(b"HTTP/1.1 400")
        assert answer.count(b"HTTP/1.1 ") == 1
    assert world.ask("GET", "/v1/jobs").json()["data"] == []


def test_what_the_caller_calls_the_host_leads_only_the_caller_astray(world: World) -> None:
    """URLs in answers are as the request was addressed, for whoever sent it, and never kept."""
    job = world.ask("POST", "/v1/portraits", json={"style": "studio"}, headers={"Host": "evil.example"})
    assert job.headers["location"].startswith("http://evil.example/v1/jobs/")
    kept_request = json.dumps(world.ask("GET", f"/v1/jobs/{job.json()['id']}").json())
    assert "evil" not in kept_request
