import numpy as np
import pytest

from studiolo.portraits.files import encode_portrait, image_sha256
from studiolo.provenance.manifests import without_manifest
from tests.albums.test_decode import png_header
from tests.albums.test_hostile_files import HOSTILE
from tests.web.world import SETTINGS, World

RGB = np.full((8, 8, 3), 77, np.uint8)


def answer(world: World, content: bytes, by: str = "anna"):
    got = world.ask("POST", "/v1/provenance", by=by, content=content)
    assert got.status_code == 200, got.text
    return got.json()


@pytest.fixture
def delivered(world: World) -> bytes:
    """A picture as anna fetches it."""
    world.ask("POST", "/v1/portraits", json={"style": "studio"})
    lease, service = world.lease(), world.service
    content, path = service.provenance.sign(encode_portrait(RGB, {"prompt": "secret"})), f"{lease.folder}/000.png"
    service.store.write_bytes(path, content)
    image = {"path": path, "sha256": "0" * 64, "seed": 1, "width_px": 8, "height_px": 8}
    known = service.provenance.remember(lease.job.id, [image_sha256(RGB)])
    service.queue.complete(lease, {"images": [image]}, within=known)
    return world.ask("GET", f"/v1/jobs/{lease.job.id}/images/0").content


def test_the_same_is_told_to_everybody_and_nothing_else(world: World, delivered: bytes):
    for content, by in ((delivered, "manifest"), (without_manifest(delivered), "pixels")):
        told = [answer(world, content, by=tenant) for tenant in ("anna", "bert")]
        assert told[0] == told[1]
        assert (told[0]["made_here"], told[0]["by"]) == (True, by)
        assert told[0].keys() == {"made_here", "by", "manifest", "sentence"}
    changed = encode_portrait(RGB ^ 1, {})
    assert answer(world, changed) == {
        **{"made_here": False, "by": None, "manifest": "none"},
        "sentence": "It carries no manifest. Its pixels are not known here.",
    }


def test_what_is_no_picture_or_too_much_is_refused_unread(world: World):
    for content in (b"", b"x", b"PK\x03\x04" + b"\0" * 100, b"<svg></svg>" + b" " * 100):
        got = world.ask("POST", "/v1/provenance", content=content)
        assert (got.status_code, got.json()["reason"]) == (415, "not_an_image")
    most = int(SETTINGS.uploads.max_photo_mib * 2**20)
    begins = b"\x89PNG\r\n\x1a\n" + b"\0" * 8
    said = world.ask("POST", "/v1/provenance", content=begins, headers={"Content-Length": str(most + 1)})
    assert (said.status_code, said.json()["reason"]) == (413, "body_too_large")

    def flood():
        yield begins
        for _ in range(most // 2**20 + 1):
            yield b"\0" * 2**20

    got = world.ask("POST", "/v1/provenance", content=flood())
    assert (got.status_code, got.json()["reason"]) == (413, "photo_too_large")
    assert world.ask("GET", "/v1/provenance").status_code == 405


def test_damaged_pictures_are_answered(world: World, delivered: bytes):
    for content in (delivered[:100], delivered[:-40], b"\xff\xd8\xff" + b"\xff" * 50, b"GIF89a" + b"\xff" * 50):
        assert answer(world, content)["made_here"] is False


def test_bombs_are_answered_too(world: World):
    """They are opened in a child with an end to its memory and time."""
    for write, _ in (HOSTILE[what] for what in ("a PNG with a text of 300 MB", "a GIF that says 65,535 px a side")):
        assert answer(world, write())["made_here"] is False
    assert answer(world, png_header(60_000, 60_000))["by"] is None
