"""Another tenant's things on every route of the OpenAPI document: not found, not listed, not changed.

A route that is not in `TRIED` fails here: whoever adds one says how a stranger would name what is not theirs.
"""

import json
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tests.jobs.finished_job import empty_database
from tests.web.test_identities import TEXTS, files, photo
from tests.web.test_styles import LORA
from tests.web.world import SETTINGS, World
from web.app import create_app


@dataclass(frozen=True)
class Hidden:
    """The answer is 404, or as for what there is not. `{job}`, `{identity}`, `{style}` and `{look}` are anna's."""

    path: str
    body: dict[str, Any] | None = None
    status: int = 404
    file: str = ""
    """With a form: what the file in it is called."""


@dataclass(frozen=True)
class Listed:
    """The answer is a list, and nothing of anna's is in it."""

    path: str


@dataclass(frozen=True)
class Own:
    """What is made is the sender's own, whatever anna called hers."""

    path: str
    more: dict[str, Any] = field(default_factory=dict)
    status: int = 202


@dataclass(frozen=True)
class Nameless:
    """There is no way to name anything of anybody's."""

    why: str


DOCUMENT = create_app(None, SETTINGS).openapi()  # type: ignore[arg-type]  # who only reads it needs no service
TEMPLATE = {"template": photo()}
SAME_KEY = {"Idempotency-Key": "annas-key"}
TRIED: dict[str, list[Hidden | Listed | Own | Nameless]] = {
    "GET /healthz": [Nameless("it says that the process lives")],
    "GET /readyz": [Nameless("it says that the database answers")],
    "GET /v1/usage": [Listed("/v1/usage"), Listed("/v1/usage?since=1970-01-01")],
    "GET /v1/jobs": [
        Listed("/v1/jobs"),
        Listed("/v1/jobs?identity_id={identity}"),
        Listed("/v1/jobs?before={job}"),
        Listed("/v1/jobs?state=succeeded&kind=portraits"),
    ],
    "GET /v1/jobs/{job_id}": [Hidden("/v1/jobs/{job}")],
    "DELETE /v1/jobs/{job_id}": [Hidden("/v1/jobs/{job}")],
    "GET /v1/jobs/{job_id}/images/{number}": [Hidden("/v1/jobs/{job}/images/0")],
    "GET /v1/jobs/{job_id}/events": [Hidden("/v1/jobs/{job}/events")],
    "GET /v1/styles": [Listed("/v1/styles")],
    "POST /v1/styles": [Own("/v1/styles", {"data": {"name": "annas-look"}, "files": {"lora": LORA}}, 201)],
    "DELETE /v1/styles/{style_id}": [Hidden("/v1/styles/{style}")],
    "POST /v1/portraits": [
        Hidden("/v1/portraits", {"identity_id": "{identity}", "style": "studio"}),
        Hidden("/v1/portraits", {"style": "{look}"}, 422),
        Hidden("/v1/portraits", {"style": "{style}"}, 422),
        Own("/v1/portraits", {"json": {"style": "studio"}, "headers": SAME_KEY}),
    ],
    "POST /v1/edits": [
        Hidden("/v1/edits", {"identity_id": "{identity}"}, file="template"),
        Own("/v1/edits", {"data": {"identity_id": "{berts}"}, "files": TEMPLATE, "headers": SAME_KEY}),
    ],
    "POST /v1/images/edits": [
        Hidden("/v1/images/edits", {"prompt": "x", "user": "{identity}"}, file="image"),
        Hidden("/v1/images/edits", {"prompt": "x", "identity_id": "{identity}"}, file="image"),
    ],
    "GET /v1/identities": [Listed("/v1/identities"), Listed("/v1/identities?before={identity}")],
    "POST /v1/identities": [Own("/v1/identities", {"data": TEXTS, "files": files(photo()), "headers": SAME_KEY})],
    "GET /v1/identities/{identity_id}": [Hidden("/v1/identities/{identity}")],
    "DELETE /v1/identities/{identity_id}": [Hidden("/v1/identities/{identity}")],
    "POST /v1/images/generations": [
        Hidden("/v1/images/generations", {"prompt": "x", "user": "{identity}"}),
        Hidden("/v1/images/generations", {"prompt": "x", "identity_id": "{identity}"}),
        Hidden("/v1/images/generations", {"prompt": "x", "style_name": "{look}"}, 422),
    ],
    "POST /v1/provenance": [Nameless("it tells of a picture whether it was made here, to whoever has it")],
}


@pytest.fixture
def annas(world: World) -> dict[str, str]:
    """A finished job of portraits of a learned identity, asked for under a key's name, and a style."""
    settings = SETTINGS.model_copy(update={"base": "embedded-base"})
    world.app.state.endpoint = replace(world.app.state.endpoint, settings=settings)
    world.service.store.write_bytes("mlflow.db", empty_database())
    identity = world.identity()
    asked = {"identity_id": identity, "style": "studio"}
    job = world.ask("POST", "/v1/portraits", json=asked, headers=SAME_KEY).json()["id"]
    world.make()
    style = world.ask("POST", "/v1/styles", data={"name": "annas-look"}, files={"lora": LORA}).json()["own"]["id"]
    return {"job": job, "identity": identity, "style": style, "look": "annas-look"}


def test_every_route_is_tried() -> None:
    document = {f"{method.upper()} {path}" for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert set(TRIED) == document


def filled(value: Any, annas: dict[str, str]) -> Any:
    text = json.dumps(value)
    for name, real in annas.items():
        text = text.replace(f"{{{name}}}", real)
    return json.loads(text)


@pytest.mark.parametrize("route", TRIED)
def test_another_tenant_sees_nothing_and_changes_nothing(world: World, annas: dict[str, str], route: str) -> None:
    def seen_by_anna() -> list[Any]:
        return [world.ask("GET", path).json() for path in ("/v1/jobs", "/v1/identities", "/v1/styles")]

    method, before, berts = route.partition(" ")[0], seen_by_anna(), world.identity(by="bert")
    for one in TRIED[route]:
        match one:
            case Hidden(path, body, status, file):
                real, more = filled(path, annas), {} if body is None else {"json": filled(body, annas)}
                if file:
                    more = {"data": more["json"], "files": {file: photo()}}
                answer = world.ask(method, real, by="bert", **more)
                assert (answer.status_code, answer.json()["status"]) == (status, status), answer.text
            case Listed(path):
                answer = world.ask("GET", filled(path, annas), by="bert")
                assert answer.status_code == 200
                assert not any(name in answer.text for name in (*annas.values(), world.tokens["anna"].split("_")[1]))
            case Own(path, more, status):
                form = {"data": filled(more["data"], {"berts": berts})} if "data" in more else {}
                made = world.ask(method, path, by="bert", **more | form)
                assert made.status_code == status, made.text
                assert not any(annas[name] in made.text for name in ("job", "identity", "style"))
        assert seen_by_anna() == before


def test_what_is_not_hers_looks_like_what_is_not(world: World, annas: dict[str, str]) -> None:
    """But for the id that was asked for, the two answers are the same."""
    for place, real in (("jobs", annas["job"]), ("identities", annas["identity"])):
        other = real[:-8] + "00000000"
        answers = [
            world.ask("GET", f"/v1/{place}/{name}", by="bert", headers={"X-Request-ID": "r"}).text.replace(name, "ID")
            for name in (real, other)
        ]
        assert answers[0] == answers[1]
