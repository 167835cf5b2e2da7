"""Edits over HTTP: what is taken, what is refused, and that nothing is left of the latter."""

import asyncio
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from studiolo.errors import DatabaseError
from studiolo.service.queue import JobQueue
from studiolo.service.records import template_path
from tests.jobs.finished_job import empty_database
from tests.web.test_gate import Message, spoken
from tests.web.test_identities import photo
from tests.web.world import SETTINGS, World, settings_with
from web.app import create_app

SAME_KEY = {"Idempotency-Key": "one"}


@pytest.fixture
def anna(world: World) -> str:
    """A person of anna's."""
    return world.identity()


def send(world: World, identity_id: str | None, template: bytes | None = photo(), **change: Any) -> Any:
    headers, by = change.pop("headers", {}), change.pop("by", "anna")
    texts = {name: value for name, value in {"identity_id": identity_id, **change}.items() if value is not None}
    files = [] if template is None else [("template", ("../../evil.jpg", template, "text/html"))]
    form: list[Any] = [*files, *((name, (None, str(value))) for name, value in texts.items())]
    return world.ask("POST", "/v1/edits", by=by, files=form, headers=headers)


def kept(world: World) -> list[str]:
    return world.service.store.list("results")


def test_an_edit_is_queued_with_its_template_beside_its_result(world: World, anna: str) -> None:
    answer = send(world, anna, count=2, seed=7, face="0.25,1", strength="0.5", prompt="smiling", deadline_s=3600)
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert answer.headers["Location"].endswith(f"/v1/jobs/{job['id']}")
    assert job["request"] == {
        "identity_id": anna,
        "template_sha256": hashlib.sha256(photo()).hexdigest(),
        "face": [0.25, 1.0],
        "strength": 0.5,
        "prompt": "smiling",
        "count": 2,
        "seed": 7,
    }
    each = SETTINGS.generation.candidates_per_portrait
    assert (job["kind"], job["seed"], job["identity_id"]) == ("portraits", 7, anna)
    assert job["steps"] == each * 4 + 2 * each * 2  # sketches, and half the steps of each candidate
    assert kept(world) == [template_path(job["id"])]
    assert world.service.store.read_bytes(kept(world)[0]) == photo()
    assert world.lease().job.id == job["id"]
    usage = world.ask("GET", "/v1/usage").json()["data"]
    assert usage[0]["portraits"] == 2


def test_who_waits_gets_the_pictures(world: World, anna: str) -> None:
    with world.meanwhile(world.make):
        answer = send(world, anna, wait_s=30)
    assert (answer.status_code, answer.json()["state"]) == (200, "succeeded")
    assert world.ask("GET", answer.json()["images"][0]["url"]).headers["content-type"] == "image/png"


def test_the_same_edit_again_is_the_job_that_is_there(world: World, anna: str) -> None:
    first, again = (send(world, anna, headers=SAME_KEY).json()["id"] for _ in range(2))
    assert first == again
    assert kept(world) == [template_path(first)]
    for other in (send(world, anna, photo(9), headers=SAME_KEY), send(world, anna, count=2, headers=SAME_KEY)):
        assert (other.status_code, other.json()["reason"]) == (409, "idempotency_key")
    assert kept(world) == [template_path(first)]


REFUSED: list[tuple[bytes | None, dict[str, Any], int, str]] = [
    (None, {}, 422, "no_template"),
    (b"", {}, 415, "not_an_image"),
    (b"<html><script>alert(1)</script>", {}, 415, "not_an_image"),
    (b"%PDF-1.7 and more than 16 bytes", {}, 415, "not_an_image"),
    (photo(), {"identity_id": None}, 422, "invalid"),
    (photo(), {"identity_id": "id_" + "0" * 32}, 404, "identity"),
    (photo(), {"identity_id": "../../etc/passwd"}, 422, "invalid"),
    (photo(), {"face": "0.5"}, 422, "invalid"),
    (photo(), {"face": "0.5,1.1"}, 422, "invalid"),
    (photo(), {"face": "-0.5,0.5"}, 422, "invalid"),
    (photo(), {"face": "nan,0"}, 422, "invalid"),
    (photo(), {"face": "0.5,0.5\n"}, 422, "invalid"),
    (photo(), {"strength": "0"}, 422, "invalid"),
    (photo(), {"strength": "nan"}, 422, "invalid"),
    (photo(), {"strength": "0.2"}, 422, "strength"),
    (photo(), {"count": "0"}, 422, "invalid"),
    (photo(), {"count": "17"}, 422, "too_many_portraits"),
    (photo(), {"prompt": "x" * 501}, 422, "invalid"),
    (photo(), {"wait_s": "inf"}, 422, "invalid"),
    (photo(), {"deadline_s": "1e-3"}, 422, "deadline_too_short"),
    (photo(), {"webhook_url": "ftp://example.com"}, 422, "invalid"),
    (photo(), {"webhook_url": "https://me:secret@example.com"}, 422, "webhook_url"),
    (photo(), {"style": "studio"}, 422, "form"),
]


@pytest.mark.parametrize(("template", "change", "status", "reason"), REFUSED)
def test_nothing_is_left_of_a_refused_edit(
    world: World, anna: str, template: bytes | None, change: dict[str, Any], status: int, reason: str
) -> None:
    answer = send(world, change.pop("identity_id", anna), template, **change)
    assert (answer.status_code, answer.json()["reason"]) == (status, reason), answer.text
    assert kept(world) == []
    assert world.ask("GET", "/v1/jobs?kind=portraits").json()["data"] == []


def test_somebody_who_is_not_learned_yet_cannot_be_drawn(world: World) -> None:
    answer = send(world, world.identity(ready=False))
    assert (answer.status_code, answer.json()["reason"], kept(world)) == (409, "identity_not_ready", [])


def test_too_much_is_broken_off(world: World, anna: str) -> None:
    uploads = world.service.settings.uploads.model_copy(update={"max_template_mib": 0.01})
    object.__setattr__(world.service, "settings", world.service.settings.model_copy(update={"uploads": uploads}))
    answer = send(world, anna, photo() + b"\0" * 20_000)
    assert (answer.status_code, answer.json()["reason"]) == (413, "template_too_large")
    two = [("template", ("a", photo(), "x"))] * 2
    answer = world.ask("POST", "/v1/edits", files=two, data={"identity_id": anna})
    assert (answer.status_code, answer.json()["reason"]) == (422, "form")
    assert kept(world) == []


@pytest.mark.parametrize("path", ["/v1/edits", "/v1/images/edits"])
def test_where_there_are_no_controlnets_nothing_is_read(world: World, path: str) -> None:
    async def unread() -> Message:
        raise AssertionError("the body was read")

    plain = create_app(world.service, SETTINGS.model_copy(update={"controlnets": None}))
    headers = {"Authorization": f"Bearer {world.tokens['anna']}", "Content-Type": "multipart/form-data; boundary=b"}
    start, body = asyncio.run(spoken(plain, headers, unread, path))
    assert start["status"] == 404
    assert b"no_edits" in body["body"]


def test_a_client_that_stalls_is_let_go(world: World) -> None:
    async def nothing() -> Message:
        await asyncio.sleep(30)
        raise AssertionError("it was waited for")

    headers = {"Authorization": f"Bearer {world.tokens['anna']}", "Content-Type": "multipart/form-data; boundary=b"}
    app = create_app(world.service, settings_with(upload_s=0.2))
    start, *_ = asyncio.run(spoken(app, headers, nothing, "/v1/edits"))
    assert start["status"] == 408


def test_a_client_that_hangs_up_leaves_nothing(world: World, anna: str) -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="template"; filename="x"\r\n\r\n'
    messages: Iterator[Message] = iter(
        [
            {"type": "http.request", "body": head + photo() + b"\r\n--b\r\n", "more_body": True},
            {"type": "http.disconnect"},
        ]
    )

    async def hangs_up() -> Message:
        return next(messages)

    headers = {"Authorization": f"Bearer {world.tokens['anna']}", "Content-Type": "multipart/form-data; boundary=b"}
    assert asyncio.run(spoken(world.app, headers, hangs_up, "/v1/edits")) == []
    assert kept(world) == []


def test_a_database_that_goes_away_keeps_the_template_of_a_job_that_may_be_there(
    world: World, anna: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = JobQueue.submit

    def lost(*args: Any, **more: Any) -> None:
        submit(*args, **more)
        raise DatabaseError("it went away after the commit")

    monkeypatch.setattr(JobQueue, "submit", lost)
    assert send(world, anna, headers=SAME_KEY).status_code == 503
    monkeypatch.undo()
    job = send(world, anna, headers=SAME_KEY).json()
    assert kept(world) == [template_path(job["id"])]


def test_a_template_goes_with_its_person(world: World, anna: str) -> None:
    world.service.store.write_bytes("mlflow.db", empty_database())
    world.app.state.endpoint = replace(world.app.state.endpoint, elsewhere=lambda _: {})
    job = send(world, anna).json()["id"]
    receipt = world.ask("DELETE", f"/v1/identities/{anna}").json()["receipt"]
    assert receipt["erased"]["files of results"] == 1
    assert kept(world) == []
    assert world.ask("GET", f"/v1/jobs/{job}").status_code == 404
