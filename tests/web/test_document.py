"""Every route of the OpenAPI document, by itself: its examples work, keys are needed."""

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import jsonschema
import pytest
from diffusers import StableDiffusionPipeline

from studiolo.generation.tiny import tiny_base
from studiolo.service.live import Candidate, Progress
from studiolo.service.records import Kind
from studiolo.service.service import Service
from tests.jobs.finished_job import empty_database
from tests.web.painter import Painter
from tests.web.test_identities import photo
from tests.web.test_styles import LORA
from tests.web.world import SETTINGS, LiveMemory, World
from web import examples
from web.app import create_app

DOCUMENT = create_app(None, SETTINGS).openapi()  # type: ignore[arg-type]  # who only reads it needs no service
OPERATIONS = [
    pytest.param(method, path, operation, id=f"{method} {path}")
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
]
OPEN = {"/healthz", "/readyz"}
FILES = {"photos": photo(), "lora": LORA, "template": photo(), "image": photo()}
FREE = {"request", "receipt", "erased"}
"""Objects whose fields differ from one answer to the next."""


@pytest.fixture(scope="module")
def base() -> StableDiffusionPipeline:
    return tiny_base()


@pytest.fixture
def _painter(service: Service, base: StableDiffusionPipeline) -> Iterator[None]:
    with Painter(service, base, SETTINGS.generation).working():
        yield


def owned(world: World) -> dict[str, str]:
    """A finished job, a learned identity and a style of anna's, by the ids that stand for them in the examples."""
    world.service.store.write_bytes("mlflow.db", empty_database())
    job_id = world.ask("POST", "/v1/portraits", json={"style": "studio", "wait_s": 20}).json()["id"]
    style = world.ask("POST", "/v1/styles", data={"name": "another"}, files={"lora": LORA}).json()["own"]["id"]
    return {examples.JOB_ID: job_id, examples.IDENTITY_ID: world.identity(), examples.STYLE_ID: style}


def requests(operation: dict[str, Any], ids: dict[str, str]) -> Iterator[dict[str, Any]]:
    """The examples of a request, with real ids in them, as arguments for `World.ask`."""
    content = operation.get("requestBody", {}).get("content", {"": {}})
    for kind, media in content.items():
        given = [one["value"] for one in media.get("examples", {}).values()] + [media.get("example")]
        assert not kind or any(given), f"no example for a body of {kind}"
        for value in filter(None, given) if kind else [None]:
            real = json.loads(replaced(json.dumps(value), ids))
            if kind == "application/json":
                yield {"json": real}
            elif kind == "multipart/form-data":
                (name,) = FILES.keys() & media["schema"]["properties"]
                yield {"data": real, "files": [(name, ("a file", FILES[name], "text/plain"))]}
            elif kind == "application/octet-stream":
                yield {"content": photo()}
            else:
                yield {}


def place(path: str, operation: dict[str, Any], ids: dict[str, str]) -> str:
    """The path with the examples of its parameters."""
    known = {one["name"]: str(one["schema"].get("examples", [None])[0]) for one in operation.get("parameters", [])}
    return replaced(re.sub(r"\{(\w+)\}", lambda found: known[found.group(1)], path), ids)


def replaced(text: str, ids: dict[str, str]) -> str:
    for name, real in ids.items():
        text = text.replace(name, real)
    return text


@pytest.mark.usefixtures("_painter")
@pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS)
def test_its_examples_are_carried_out_and_answered_as_shown(
    world: World, method: str, path: str, operation: dict[str, Any]
) -> None:
    settings = SETTINGS.model_copy(update={"base": "embedded-base"})
    world.app.state.endpoint = replace(world.app.state.endpoint, settings=settings)
    ids = owned(world)
    for request in requests(operation, ids):
        answer = world.ask(method.upper(), place(path, operation, ids), **request)
        assert answer.is_success, answer.text
        documented = operation["responses"][str(answer.status_code)]["content"]
        kind = answer.headers["content-type"].partition(";")[0]
        assert kind in documented
        if kind == "application/json":
            schema = documented[kind]["schema"]
            checker = jsonschema.Draft202012Validator({**schema, "components": DOCUMENT["components"]})
            shown = resolved(schema)["example"]
            for value in (answer.json(), shown):
                checker.validate(value)
            assert alike(answer.json(), shown), answer.json()


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    name = schema["$ref"].rpartition("/")[2]
    found: dict[str, Any] = DOCUMENT["components"]["schemas"][name]
    return found


def alike(value: Any, shown: Any, name: str = "") -> bool:
    """Whether two JSON values have the same names in them, as far as lists have items to tell."""
    if isinstance(value, dict) and isinstance(shown, dict):
        if name in FREE:
            return True
        return value.keys() == shown.keys() and all(alike(value[key], shown[key], key) for key in value)
    if isinstance(value, list) and isinstance(shown, list) and value and shown:
        return alike(value[0], shown[0])
    return True


@pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS)
def test_without_a_key_it_does_nothing(world: World, method: str, path: str, operation: dict[str, Any]) -> None:
    answer = world.client.request(method, place(path, operation, {}))
    assert (answer.status_code == 401) is (path not in OPEN)
    assert ("security" in operation) is (path not in OPEN)


def test_the_events_shown_are_those_that_come(world: World, live: LiveMemory) -> None:
    shown = events(DOCUMENT["paths"]["/v1/jobs/{job_id}/events"]["get"]["responses"]["200"]["content"])
    job_id = world.ask("POST", "/v1/portraits", json={"style": "studio"}).json()["id"]
    lease = world.lease()
    live.tell(job_id, Progress(1, "denoise", 24, 60, b"png", (Candidate(0, False, "no_face", "No face."),)))
    look = live.look

    async def ending(name: str) -> Progress | None:
        if world.service.queue.backlog(Kind.PORTRAITS).running:
            world.service.queue.complete(lease, {"images": []})
        return await look(name)

    live.look = ending  # type: ignore[method-assign]
    came = dict(parsed(world.ask("GET", f"/v1/jobs/{job_id}/events")))
    assert came.keys() == shown.keys()
    assert all(alike(came[name], shown[name]) for name in came)
    assert base64.b64decode(came["preview"]["png"]) == b"png"


def events(content: dict[str, Any]) -> dict[str, Any]:
    return dict(parsed(httpx.Response(200, text=content["text/event-stream"]["example"])))


def parsed(answer: httpx.Response) -> Iterator[tuple[str, Any]]:
    for block in answer.text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            yield fields["event"], json.loads(fields["data"])
