"""schemathesis against our own OpenAPI document: whatever is sent, in its shape or not, there is no 5xx."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable

from studiolo.service.keys import KeyLimits
from studiolo.service.records import Kind
from tests.jobs.finished_job import empty_database
from tests.web.world import World, settings_with

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

EXAMPLES = 10
"""Of each route, in its shape, out of it, and each also with ids that there are."""


@pytest.fixture
def free(world: World) -> dict[str, str]:
    """Headers of anna with a key that no limit stops."""
    most = KeyLimits(
        requests_per_s=1e6, burst=10**6, portraits_per_day=10**6, identities_per_day=10**6, open_jobs=10**6
    )
    world.service.store.write_bytes("mlflow.db", empty_database())
    quick = settings_with(max_wait_s=0.0, openai_wait_s=0.05, body_s=5.0, upload_s=5.0)
    world.service.speeds.report("w", Kind.PORTRAITS, steps=10**6, busy_s=1.0)
    world.app.state.endpoint = replace(world.app.state.endpoint, settings=quick)
    return {"Authorization": f"Bearer {world.service.keys.create('anna', limits=most).token}"}


def operations(document: dict[str, Any]) -> Iterator[Any]:
    import schemathesis

    for found in schemathesis.openapi.from_dict(document).get_all_operations():
        yield found.ok()


def ids(world: World) -> dict[str, Any]:
    """A finished job and a learned identity."""
    job_id = world.ask("POST", "/v1/portraits", json={"style": "studio", "deadline_s": 600}).json()["id"]
    while world.service.queue.backlog(Kind.PORTRAITS).queued:
        world.make()
    return {"job_id": job_id, "identity_id": world.identity(), "number": 0}


def test_no_request_is_a_fault_of_ours(world: World, free: dict[str, str]) -> None:
    from schemathesis.generation import GenerationMode

    document, client = world.app.openapi(), world.client
    seen: set[int] = set()
    for operation in operations(document):
        for mode in GenerationMode:
            for known in ({}, ids(world)):
                answers = tried(client, operation, mode, known, free)
                place = f"{operation.method} {operation.path}, {mode}"
                faults = [answer.text for answer in answers if answer.status_code >= 500 and answer.status_code != 504]
                assert faults == [], place
                seen.update(answer.status_code for answer in answers)
    assert seen >= {200, 202, 404, 422}, seen  # it got somewhere
    assert 401 not in seen


def tried(
    client: TestClient, operation: Any, mode: Any, known: dict[str, Any], headers: dict[str, str]
) -> list[httpx.Response]:
    """The answers to generated requests, with `known` values for the parameters of the path."""
    answers = []
    strategy = operation.as_strategy(generation_mode=mode)
    calm = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]

    @seed(1)
    @settings(max_examples=EXAMPLES, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=calm)
    @given(case=strategy)
    def send(case: Any) -> None:
        places = {name: known.get(name, value) for name, value in (case.path_parameters or {}).items()}
        case.path_parameters = places
        arguments = case.as_transport_kwargs(base_url="http://test")
        given_headers = {name: value for name, value in dict(arguments.pop("headers") or {}).items()}
        arguments.pop("cookies", None)
        arguments["headers"] = {**given_headers, **headers}
        answers.append(client.send(prepared(client, arguments), follow_redirects=False))

    with suppress(Unsatisfiable):  # where nothing is to be sent, nothing is out of shape
        send()
    return answers


def prepared(client: TestClient, arguments: dict[str, Any]) -> httpx.Request:
    """The request as `requests` writes it: schemathesis speaks its dialect."""
    import requests

    ready = requests.Request(
        arguments.pop("method"), arguments.pop("url"), **{name: value for name, value in arguments.items() if value}
    ).prepare()
    body = ready.body if ready.body is not None else b""
    content = body.encode() if isinstance(body, str) else bytes(body)
    return client.build_request(
        str(ready.method),
        str(ready.url),
        content=content,
        headers=[*ready.headers.items()],  # type: ignore[arg-type]
    )
