"""Albums over HTTP: what is taken, what is refused, and that nothing is left of the latter."""

import asyncio
import hashlib
import io
import time
from typing import Any

import pytest
from PIL import Image

from studiolo.errors import DatabaseError, StoreError
from studiolo.service.identities import album_folder
from studiolo.service.queue import JobQueue
from studiolo.service.receipts import verify_receipt
from studiolo.service.records import Kind
from studiolo.storage.store import Store
from tests.jobs.finished_job import empty_database
from tests.web.test_gate import Message, spoken
from tests.web.world import SETTINGS, World, settings_with
from web.app import create_app

TEXTS = {
    "name": "Anna",
    "consent_given_by": "Anna herself",
    "consent_statement": "Portraits may be made of me.",
    "consent_given_at": "1794000000",
}


def photo(shade: int = 0, kind: str = "JPEG") -> bytes:
    """A small picture."""
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (shade, 0, 0)).save(buffer, kind)
    return buffer.getvalue()


def files(*photos: bytes, name: str = "me.jpg") -> list[tuple[str, tuple[str, bytes, str]]]:
    return [("photos", (name, content, "image/jpeg")) for content in photos]


def kept(world: World) -> list[str]:
    return world.service.store.list("albums")


def test_an_album_is_kept_and_learned(world: World) -> None:
    photos = [photo(1), photo(2, "PNG"), photo(3, "WEBP")]
    answer = world.ask("POST", "/v1/identities", data=TEXTS, files=files(*photos))
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert job["request"]["photos"][1] == {"sha256": hashlib.sha256(photos[1]).hexdigest(), "bytes": len(photos[1])}
    folder = album_folder(job["identity_id"])
    assert kept(world) == [f"{folder}/{number:03d}" for number in (1, 2, 3)]
    assert [world.service.store.read_bytes(path) for path in kept(world)] == photos
    lease = world.lease(Kind.IDENTITY)
    assert (lease.job.id, lease.job.steps) == (job["id"], SETTINGS.face_lora.steps)
    found = world.ask("GET", f"/v1/identities/{job['identity_id']}").json()
    assert (found["name"], found["state"], found["versions"]) == ("Anna", "training", [])
    assert found["consent"] == {
        "given_by": "Anna herself",
        "statement": "Portraits may be made of me.",
        "given_at": 1794000000.0,
    }


def test_a_learned_identity_shows_references_verdicts_and_curve(world: World) -> None:
    identity_id = world.identity()
    found = world.ask("GET", f"/v1/identities/{identity_id}")
    (version,) = found.json()["versions"]
    assert found.json()["state"] == "ready"
    assert version["references"] == [{"photo": 1, "quality_score": 0.75, "verdict": "same"}]
    assert [one["status"] for one in version["photos"]] == ["ok", "dropped"]
    assert version["curve"] == [{"step": 1, "loss": 0.5}, {"step": 8, "loss": 0.25}]
    assert "embedding" not in found.text
    assert "crop_path" not in found.text
    job = world.ask("GET", f"/v1/jobs/{found.json()['job_id']}").json()
    assert job["photos"][1]["sentence"] == "No face was found."


def test_identities_are_listed_in_pages(world: World) -> None:
    made = [world.identity() for _ in range(3)]
    world.identity("bert")
    first = world.ask("GET", "/v1/identities?limit=2").json()
    second = world.ask("GET", f"/v1/identities?limit=2&before={first['next']}").json()
    assert sorted(one["id"] for one in first["data"] + second["data"]) == sorted(made)
    assert second["next"] is None


@pytest.mark.parametrize(
    ("change", "photos", "status", "reason"),
    [
        ({"consent_statement": None}, [photo()], 422, "invalid"),
        ({"consent_given_by": ""}, [photo()], 422, "invalid"),
        ({"consent_given_at": "yesterday"}, [photo()], 422, "invalid"),
        ({"consent_given_at": "nan"}, [photo()], 422, "invalid"),
        ({"name": None}, [photo()], 422, "invalid"),
        ({"name": "a\x00b"}, [photo()], 422, "invalid"),
        ({"name": "x" * 40_000}, [photo()], 422, "form"),
        ({"colour": "red"}, [photo()], 422, "form"),
        ({"name": ["Anna", "Berta"]}, [photo()], 422, "form"),
        ({"webhook_url": "https://user:word@x.org/"}, [photo()], 422, "webhook_url"),
        ({"deadline_s": "1"}, [photo()], 422, "deadline_too_short"),
        ({}, [], 422, "no_photos"),
        ({}, [photo(), b"GIF is what I say"], 415, "not_an_image"),
        ({}, [photo(), b""], 415, "not_an_image"),
        ({}, [b"x" * 15], 415, "not_an_image"),
        ({}, [b"PK\x03\x04" + b"x" * 100], 415, "not_an_image"),
    ],
)
def test_nothing_is_left_of_a_refused_album(
    world: World, change: dict[str, Any], photos: list[bytes], status: int, reason: str
) -> None:
    texts = {name: value for name, value in {**TEXTS, **change}.items() if value is not None}
    form: list[Any] = [*files(*photos), *((name, (None, value, "text/plain")) for name, value in _flat(texts))]
    answer = world.ask("POST", "/v1/identities", files=form)
    assert (answer.status_code, answer.json()["reason"]) == (status, reason), answer.text
    assert kept(world) == []
    assert world.ask("GET", "/v1/identities").json()["data"] == []


def _flat(texts: dict[str, Any]) -> list[tuple[str, str]]:
    return [(name, one) for name, value in texts.items() for one in (value if isinstance(value, list) else [value])]


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"max_photos": 2}, "too_many_photos"),
        ({"max_photo_mib": 0.01}, "photo_too_large"),
        ({"max_album_mib": 0.02}, "album_too_large"),
    ],
)
def test_too_much_is_broken_off(world: World, limits: dict[str, float], reason: str) -> None:
    uploads = world.service.settings.uploads.model_copy(update=limits)
    object.__setattr__(world.service, "settings", world.service.settings.model_copy(update={"uploads": uploads}))
    large = photo() + b"\0" * 12_000
    answer = world.ask("POST", "/v1/identities", data=TEXTS, files=files(*[large] * 3))
    assert (answer.status_code, answer.json()["reason"]) == (413, reason)
    assert kept(world) == []


def test_a_file_name_reaches_no_file_system(world: World) -> None:
    for name in ("../../../evil.jpg", "C:\\evil.jpg", "a/b\x00c", "é" * 300, ""):
        answer = world.ask("POST", "/v1/identities", data=TEXTS, files=files(photo(), name=name))
        assert answer.status_code == 202, name
    folder = world.service.store.local_path("x")
    assert folder is not None
    names = {path.name for path in folder.parent.parent.rglob("*") if path.is_file()}
    assert not any("evil" in name or "é" in name for name in names)
    assert [path.rpartition("/")[2] for path in kept(world)] == ["001"] * 5


def test_the_same_album_under_the_same_key_is_kept_once(world: World) -> None:
    key = {"Idempotency-Key": "album-1"}
    first, again = (
        world.ask("POST", "/v1/identities", data=TEXTS, files=files(photo()), headers=key).json() for _ in range(2)
    )
    assert (again["id"], again["identity_id"]) == (first["id"], first["identity_id"])
    assert kept(world) == [f"{album_folder(first['identity_id'])}/001"]
    other = world.ask("POST", "/v1/identities", data=TEXTS, files=files(photo(9)), headers=key)
    assert (other.status_code, len(kept(world))) == (409, 1)


def test_forms_that_are_none(world: World) -> None:
    def send(content: bytes, kind: str) -> tuple[int, str]:
        answer = world.ask("POST", "/v1/identities", content=content, headers={"Content-Type": kind})
        return answer.status_code, answer.json()["reason"]

    form = "multipart/form-data; boundary=b"
    assert send(b"{}", "application/json") == (415, "content_type")
    assert send(b"", "multipart/form-data") == (415, "content_type")
    assert send(b"no form", form) == (422, "form")
    assert send(b'--b\r\nContent-Disposition: form-data; name="photos"\r\n\r\n' + photo(), form) == (422, "form")
    assert send(b"--b\r\n\r\nx\r\n--b--\r\n", form) == (422, "form")
    assert kept(world) == []


def _hanging_up(world: World, then: Message | None) -> list[Message]:
    """An upload whose first photo is whole when `then` comes, or nothing more."""
    head = b'Content-Disposition: form-data; name="photos"; filename="x"\r\n\r\n'
    body = b"--b\r\n" + head + photo() + b"\r\n--b\r\n" + head + photo()[:20]
    parts: list[Message] = [{"type": "http.request", "body": body, "more_body": True}]
    seen: list[str] = []

    async def receive() -> Message:
        if parts:
            return parts.pop()
        seen.extend(kept(world))
        if then is None:
            await asyncio.sleep(30)
        return then or {}

    token = world.tokens["anna"]
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "multipart/form-data; boundary=b"}
    sent = asyncio.run(spoken(world.app, headers, receive, "/v1/identities"))
    assert len(seen) == 1  # it was there before the client went
    return sent


def test_a_client_that_hangs_up_leaves_nothing(world: World) -> None:
    assert _hanging_up(world, {"type": "http.disconnect"}) == []
    assert kept(world) == []


def test_a_client_that_stalls_is_let_go(world: World) -> None:
    world.app = create_app(world.service, settings_with(upload_s=0.3))
    start, *_ = _hanging_up(world, None)
    assert start["status"] == 408
    assert kept(world) == []


def test_a_store_that_fails_in_the_middle(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    write, calls = Store.write_bytes, [0]

    def second_fails(store: Store, path: str, content: bytes) -> None:
        calls[0] += 1
        if calls[0] == 2:
            raise StoreError("the disk is full")
        write(store, path, content)

    monkeypatch.setattr(Store, "write_bytes", second_fails)
    answer = world.ask("POST", "/v1/identities", data=TEXTS, files=files(photo(1), photo(2), photo(3)))
    assert (answer.status_code, answer.json()["reason"]) == (503, "away")
    assert kept(world) == []


def test_an_album_whose_answer_was_lost_keeps_its_photos(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    submit = JobQueue.submit

    def lost(*args: Any, **more: Any) -> None:
        submit(*args, **more)
        raise DatabaseError("it went away after the commit")

    monkeypatch.setattr(JobQueue, "submit", lost)
    key = {"Idempotency-Key": "album-1"}
    assert world.ask("POST", "/v1/identities", data=TEXTS, files=files(photo()), headers=key).status_code == 503
    monkeypatch.undo()
    job = world.ask("POST", "/v1/identities", data=TEXTS, files=files(photo()), headers=key).json()
    assert kept(world) == [f"{album_folder(job['identity_id'])}/001"]


def test_erasing_waits_for_the_worker_and_then_gives_the_receipt(world: World) -> None:
    world.service.store.write_bytes("mlflow.db", empty_database())
    job = world.ask("POST", "/v1/identities", data=TEXTS, files=files(photo())).json()
    place = f"/v1/identities/{job['identity_id']}"
    world.service.queue.lease([Kind.IDENTITY], "trainer", 2)
    answer = world.ask("DELETE", place)
    assert (answer.status_code, answer.json()) == (202, {"state": "erasing", "receipt": None})
    assert answer.headers["retry-after"] in ("1", "2")
    assert world.ask("GET", place).json()["state"] == "erasing"
    while (answer := world.ask("DELETE", place)).status_code == 202:
        time.sleep(0.1)
    receipt = answer.json()["receipt"]
    assert (answer.status_code, receipt["erased"]["photos"]) == (200, 1)
    assert verify_receipt(receipt, world.service.erasure.key.public_pem)
    assert kept(world) == []
    assert world.ask("GET", place).status_code == 404
    assert world.ask("DELETE", place).json()["receipt"] == receipt
    assert world.ask("DELETE", place, by="bert").status_code == 404
