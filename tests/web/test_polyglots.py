"""Photos that are something else as well, over HTTP: no route ever gives back what was sent."""

from collections.abc import Iterator

import pytest
from PIL import Image

from studiolo.service.records import template_path
from tests.polyglots import MARK, polyglots
from tests.web.test_identities import TEXTS, files, kept
from tests.web.world import SETTINGS, World
from web.app import create_app

DOCUMENT = create_app(None, SETTINGS).openapi()  # type: ignore[arg-type]  # who only reads it needs no service
FILES = polyglots(Image.new("RGB", (32, 32), "grey"))


def reachable(ids: dict[str, str]) -> Iterator[str]:
    """Every path that may be fetched, with real ids, and places where the photos might be taken to lie."""
    for path, methods in DOCUMENT["paths"].items():
        if "get" in methods:
            yield path.format(**ids)
    for place in kept_places(ids):
        yield from (place, f"/{place}", f"/v1/{place}", f"/v1/identities/../{place}", f"/v1/jobs/%2e%2e/{place}")


def kept_places(ids: dict[str, str]) -> list[str]:
    folder = f"albums/{ids['identity_id']}"
    return [f"{folder}/001", f"identities/{ids['identity_id']}/photos/001", f"store/{folder}/001"]


@pytest.mark.parametrize("what", FILES)
def test_what_was_sent_is_never_given_back(world: World, what: str) -> None:
    made = world.ask("POST", "/v1/identities", data=TEXTS, files=files(FILES[what]))
    assert made.status_code == 202
    (path,) = kept(world)
    assert MARK in world.service.store.read_bytes(path)  # as it came, for the decoder alone
    ids = {"identity_id": made.json()["identity_id"], "job_id": made.json()["id"], "number": "0"}
    world.ask("DELETE", f"/v1/jobs/{ids['job_id']}")  # so that its events end
    for place in reachable(ids):
        answer = world.ask("GET", f"/{place.lstrip('/')}")
        assert MARK not in answer.content
        assert not answer.headers["content-type"].startswith(("text/html", "image/"))
    edit = world.ask("POST", "/v1/edits", data={"identity_id": world.identity()}, files={"template": FILES[what]})
    assert edit.status_code == 202
    assert MARK not in edit.content
    template = template_path(edit.json()["id"])
    assert MARK in world.service.store.read_bytes(template)
    world.make()
    places = [template, f"v1/{template}", f"v1/jobs/../{template}"]
    for place in (*reachable({**ids, "job_id": edit.json()["id"]}), *places):
        assert MARK not in world.ask("GET", f"/{place.lstrip('/')}").content
    told = world.ask("POST", "/v1/provenance", content=FILES[what])
    assert (told.status_code, told.json()["made_here"]) == (200, False)
    assert MARK not in told.content
