"""What the routes measure and log: figures by template and reason, and no caller's words anywhere."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from studiolo.service.logs import JsonLines
from studiolo.service.metrics import MemoryMeters
from tests.web.test_identities import photo
from tests.web.world import World

ALBUM = {
    "name": "MARKERNAME",
    "consent_given_by": "MARKERGIVER",
    "consent_statement": "MARKERSTATEMENT",
    "consent_given_at": "0",
}


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Everything that is logged, at every level, as a process writes it."""
    stream, root = io.StringIO(), logging.getLogger()
    handler, level = logging.StreamHandler(stream), root.level
    handler.setFormatter(JsonLines())
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)


def test_requests_are_counted_by_their_templates(world: World, meters: MemoryMeters) -> None:
    job_id = world.ask("POST", "/v1/portraits", json={"style": "studio"}).json()["id"]
    for path in (f"/v1/jobs/{job_id}", "/v1/jobs/other", "/nowhere/MARKER", "/openapi.json"):
        world.ask("GET", path)
    world.ask("BREW", "/healthz")
    counted = {(one["method"], one["route"], one["status"]) for one in meters.series("studiolo_requests_total")}
    assert counted == {
        ("POST", "/v1/portraits", "202"),
        ("GET", "/v1/jobs/{job_id}", "200"),
        ("GET", "/v1/jobs/{job_id}", "404"),
        ("GET", "none", "404"),
        ("GET", "none", "200"),  # the document, which is no route of ours
        ("other", "/healthz", "405"),
    }
    assert len(meters.values("studiolo_request_seconds", route="/v1/jobs/{job_id}")) == 2
    assert all(0 < seconds < 60 for seconds in meters.values("studiolo_request_seconds"))


def test_refusals_are_counted_by_their_reasons(world: World, meters: MemoryMeters) -> None:
    world.client.get("/v1/jobs")
    world.ask("GET", "/v1/jobs/other")
    world.ask("POST", "/v1/portraits", json={"style": "MARKER"})
    world.ask("POST", "/v1/portraits", json={"count": 0})
    world.ask("POST", "/v1/portraits", content=b"", headers={"Content-Type": "text/plain"})
    world.ask("GET", "/healthz")
    refused = [(one["status"], one["reason"]) for one in meters.series("studiolo_refusals_total")]
    assert refused == [
        ("401", "no_key"),
        ("404", "job"),
        ("422", "style"),
        ("422", "invalid"),
        ("415", "content_type"),
    ]


def test_bytes_of_albums_are_counted_when_they_are_whole(world: World, meters: MemoryMeters) -> None:
    files = [("photos", ("a.jpg", photo(), "image/jpeg"))] * 2
    assert world.ask("POST", "/v1/identities", data=ALBUM, files=files).status_code == 202
    broken = [("photos", ("a.jpg", b"no photo at all", "image/jpeg"))]
    assert world.ask("POST", "/v1/identities", data=ALBUM, files=broken).status_code == 415
    assert meters.values("studiolo_upload_bytes_total") == [2 * len(photo())]


def test_one_request_id_runs_from_the_answer_through_the_queue(world: World, log: io.StringIO) -> None:
    named = {"headers": {"X-Request-ID": "my-1"}}
    made = world.ask("POST", "/v1/portraits", json={"style": "studio"}, **named).json()
    assert made["request_id"] == "my-1"
    assert world.lease().job.request_id == "my-1"
    files = [("photos", ("a.jpg", photo(), "image/jpeg"))]
    learned = world.ask("POST", "/v1/identities", data=ALBUM, files=files, headers={"X-Request-ID": "my-2"}).json()
    assert world.ask("GET", f"/v1/jobs/{learned['id']}").json()["request_id"] == "my-2"
    own = world.ask("POST", "/v1/portraits", json={"style": "studio"})
    assert own.json()["request_id"] == own.headers["x-request-id"]
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    access = [line for line in lines if line["logger"] == "studiolo.requests"]
    assert [line["request_id"] for line in access][:2] == ["my-1", "my-2"]
    assert [line["route"] for line in access][:2] == ["/v1/portraits", "/v1/identities"]
    assert all({"method", "status", "ms", "key_id"} <= line.keys() for line in access)


def test_the_log_holds_nobodys_words(world: World, log: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    """Markers in every place where a caller can put one; answers, refusals and a fault of ours."""
    body = {"prompt": "MARKERPROMPT", "negative_prompt": "MARKERNEGATIVE", "count": 1}
    assert world.ask("POST", "/v1/portraits?x=MARKERQUERY", json=body).status_code == 202
    files = [("photos", ("MARKERFILE.jpg", photo() + b"MARKERPIXELS", "image/jpeg"))]
    made = world.ask("POST", "/v1/identities", data=ALBUM | {"webhook_url": "https://MARKERHOOK.org/"}, files=files)
    world.ask("POST", "/v1/identities", data=ALBUM | {"MARKERFIELD": "MARKERVALUE"}, files=files)
    world.ask("POST", "/v1/portraits", json={"style": "MARKERSTYLE"})
    world.ask("POST", "/v1/portraits", json={"MARKERUNKNOWN": 1, "prompt": ["MARKERLIST"]})
    world.ask("POST", "/v1/images/generations", json={"prompt": "MARKEROPENAI", "user": "MARKERUSER"})
    world.ask("GET", "/v1/MARKERPATH", headers={"X-MARKER": "MARKERHEADER", "User-Agent": "MARKERAGENT"})
    world.client.get("/v1/jobs", headers={"Authorization": "Bearer studiolo_MARKERKEY"})
    world.ask("GET", f"/v1/identities/{made.json()['identity_id']}")

    def broken(_self: object, *_args: object, **_more: object) -> None:
        raise ValueError(f"a fault that quotes: {body}")

    monkeypatch.setattr(type(world.service.queue), "submit", broken)
    assert world.ask("POST", "/v1/portraits", json=body).status_code == 500
    text = log.getvalue()
    assert text.count('"logger": "studiolo.requests"') == 10
    assert '"type": "builtins.ValueError"' in text
    assert "MARKER" not in text
    assert not any(token in text or token.split("_", 2)[2] in text for token in world.tokens.values())
