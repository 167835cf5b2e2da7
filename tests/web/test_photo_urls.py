"""Albums whose photos are URLs: fetched, metered and kept like those that are sent; of refused ones nothing is left."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from studiolo.service.fetching import PhotoFetcher
from studiolo.service.settings import PhotoUrlSettings
from tests.service.photo_server import FLOOD, Given, PhotoServer
from tests.service.test_webhooks import certificate
from tests.web.test_identities import TEXTS, files, kept, photo
from tests.web.world import World

HOST = "photos.example"


@pytest.fixture
def server(world: World, tmp_path: Path) -> Iterator[PhotoServer]:
    """A host that is on the list."""
    with PhotoServer.started(certificate(tmp_path, HOST)) as server:
        settings = PhotoUrlSettings(
            hosts=(f"{HOST}:{server.port}",),
            networks=("127.0.0.0/8",),
            ca_file=str(tmp_path / "cert.pem"),
        )
        object.__setattr__(world.service, "fetcher", PhotoFetcher(settings, lambda *_: ["127.0.0.1"]))
        yield server


def ask(world: World, urls: list[str], photos: tuple[bytes, ...] = (), **more: Any) -> Any:
    form: list[Any] = [*files(*photos), *((name, (None, value)) for name, value in TEXTS.items())]
    return world.ask("POST", "/v1/identities", files=[*form, *(("photo_urls", (None, url)) for url in urls)], **more)


def test_they_come_behind_those_that_are_sent(world: World, server: PhotoServer) -> None:
    photos = [photo(1), photo(2, "PNG"), photo(3, "WEBP")]
    server.paths |= {"/2": Given(body=photos[1]), "/3?token=SECRET": Given(body=photos[2])}
    urls = [f"https://{HOST}:{server.port}/{path}" for path in ("2", "3?token=SECRET")]
    answer = ask(world, urls, (photos[0],))
    assert answer.status_code == 202, answer.text
    shown = answer.json()["request"]["photos"]
    assert shown == [{"sha256": hashlib.sha256(one).hexdigest(), "bytes": len(one)} for one in photos]
    assert [world.service.store.read_bytes(path) for path in kept(world)] == photos
    assert "SECRET" not in world.ask("GET", "/v1/jobs").text
    sent = world.ask("POST", "/v1/identities", data=TEXTS, files=files(*photos)).json()
    assert sent["request"] == answer.json()["request"]  # however they come


def test_the_same_album_under_the_same_key_is_kept_once(world: World, server: PhotoServer) -> None:
    server.paths["/1"] = Given(body=photo())
    key = {"Idempotency-Key": "album-1"}
    first, again = (ask(world, [f"https://{HOST}:{server.port}/1"], headers=key).json() for _ in range(2))
    assert first["id"] == again["id"]
    assert len(kept(world)) == 1


@pytest.mark.parametrize(
    ("path", "given", "status", "reason"),
    [
        ("/1", Given(404), 422, "photo_url"),
        ("/1", Given(body=b"<html>no photo</html>" * 10), 415, "not_an_image"),
        ("/1", Given(body=b""), 415, "not_an_image"),
        ("/1", Given(body=FLOOD), 413, "photo_too_large"),
        ("/1", Given(302, headers={"Location": "https://169.254.169.254/"}), 422, "photo_url"),
    ],
)
def test_nothing_is_left_of_a_refused_album(
    world: World, server: PhotoServer, path: str, given: Given, status: int, reason: str
) -> None:
    uploads = world.service.settings.uploads.model_copy(update={"max_photo_mib": 0.5})
    object.__setattr__(world.service, "settings", world.service.settings.model_copy(update={"uploads": uploads}))
    server.paths |= {path: given, "/good": Given(body=photo())}
    urls = [f"https://{HOST}:{server.port}{one}" for one in ("/good", path)]
    answer = ask(world, urls, (photo(),))
    assert (answer.status_code, answer.json()["reason"]) == (status, reason), answer.text
    assert kept(world) == []
    assert world.ask("GET", "/v1/identities").json()["data"] == []


def test_a_bad_url_among_good_ones_and_too_many_of_them_ask_nobody(world: World, server: PhotoServer) -> None:
    good = f"https://{HOST}:{server.port}/good"
    for urls, status, reason in (
        ([good, "https://evil.example/"], 422, "photo_url"),
        ([good] * 41, 413, "too_many_photos"),
        ([good] * 501, 422, "form"),
        ([good + "x" * 2048], 422, "form"),
    ):
        answer = ask(world, urls)
        assert (answer.status_code, answer.json()["reason"]) == (status, reason)
    assert (server.asked, kept(world)) == ([], [])


def test_where_no_hosts_are_listed_no_photo_is_fetched(world: World) -> None:
    answer = ask(world, ["https://photos.example/1"], (photo(),))
    assert (answer.status_code, answer.json()["reason"]) == (422, "photo_urls")
    assert kept(world) == []
