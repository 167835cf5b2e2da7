"""The endpoint over the real base: requests checked, pictures made, the same ones again."""

import asyncio
import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from ray import serve
from ray.serve.exceptions import BackPressureError

import serve_app
from studiolo.portraits.files import decode_portrait

QUICK = {"prompt": "a portrait of a smiling woman", "seed": 7, "steps": 2}


@pytest.fixture(scope="module")
def client(weights: Path) -> Iterator[TestClient]:
    """HTTP in front of the application, run in this process without a cluster."""
    handle = serve.run(serve_app.build(slots=2), _local_testing_mode=True)

    async def generate(request: serve_app.PortraitRequest) -> serve_app.PortraitAnswer:
        return await handle.generate.remote(request)

    with TestClient(serve_app.http_app(generate)) as client:
        yield client


def test_health(client: TestClient) -> None:
    answer = client.get("/healthz")
    assert answer.status_code == 200
    assert answer.json()["status"] == "ok"


def test_pictures_as_json_with_their_settings_inside(client: TestClient) -> None:
    answer = client.post("/portraits", json=QUICK | {"count": 3})
    assert answer.status_code == 200
    portraits = answer.json()["portraits"]
    pictures = [decode_portrait(base64.b64decode(portrait["png_base64"])) for portrait in portraits]
    assert len({portrait["seed"] for portrait in portraits}) == 3
    assert len({hashlib.sha256(rgb_u8.tobytes()).hexdigest() for rgb_u8, _ in pictures}) == 3
    for portrait, (rgb_u8, settings) in zip(portraits, pictures, strict=True):
        assert rgb_u8.shape == (128, 128, 3)
        assert rgb_u8.std() > 5
        assert settings["seed"] == portrait["seed"]
        assert settings["prompt"] == QUICK["prompt"]


def test_the_same_request_gives_the_same_bytes_and_another_seed_others(client: TestClient) -> None:
    png = {"Accept": "image/png"}
    first, again, other = (client.post("/portraits", json=QUICK | {"seed": seed}, headers=png) for seed in (7, 7, 8))
    assert first.headers["content-type"] == "image/png"
    assert first.content == again.content
    assert first.content != other.content
    as_json = client.post("/portraits", json=QUICK).json()
    assert base64.b64decode(as_json["portraits"][0]["png_base64"]) == first.content


@pytest.mark.parametrize(
    "change",
    [{"prompt": ""}, {"prompt": "x" * 501}, {"prompt": None}, {"steps": 0}, {"steps": 101}, {"stpes": 3},
     {"count": 5}, {"count": 0}, {"seed": -1}, {"seed": 2**31}, {"seed": "x"}, {"guidance_scale": 0.5}],
)  # fmt: skip
def test_bad_requests_are_refused_with_the_field_named(client: TestClient, change: dict[str, object]) -> None:
    answer = client.post("/portraits", json=QUICK | change)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"][-1] == next(iter(change))


def test_one_png_cannot_hold_two_pictures(client: TestClient) -> None:
    answer = client.post("/portraits", json=QUICK | {"count": 2}, headers={"Accept": "image/png"})
    assert answer.status_code == 422
    assert "got count 2, wanted 1" in answer.json()["detail"]


def test_a_client_that_goes_away_disturbs_nobody(weights: Path) -> None:
    model = serve_app.PortraitModel(slots=1)
    request = serve_app.PortraitRequest.model_validate(QUICK)

    async def one_leaves() -> serve_app.PortraitAnswer:
        left = asyncio.create_task(model.generate(request.model_copy(update={"steps": 8})))
        await asyncio.sleep(0.05)
        left.cancel()
        return await model.generate(request)

    assert asyncio.run(one_leaves()) == asyncio.run(model.generate(request))


def test_requests_share_the_slots(weights: Path) -> None:
    """One that takes a few steps is not held up by one of many that came before, and both are as if alone."""
    model = serve_app.PortraitModel(slots=2)
    quick = serve_app.PortraitRequest.model_validate(QUICK)
    long = quick.model_copy(update={"steps": 12})
    done: list[int] = []

    async def made(request: serve_app.PortraitRequest) -> serve_app.PortraitAnswer:
        answer = await model.generate(request)
        done.append(request.steps)
        return answer

    async def together() -> list[serve_app.PortraitAnswer]:
        return await asyncio.gather(made(long), made(quick))

    both = asyncio.run(together())
    assert done == [2, 12]
    assert both == [asyncio.run(model.generate(long)), asyncio.run(model.generate(quick))]


def test_a_full_queue_is_said_so() -> None:
    async def full(request: serve_app.PortraitRequest) -> serve_app.PortraitAnswer:
        raise BackPressureError(num_queued_requests=32, max_queued_requests=32)

    answer = TestClient(serve_app.http_app(full)).post("/portraits", json=QUICK)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "5"


def test_the_model_scales_with_the_load() -> None:
    api = serve_app.build(max_replicas=3)._bound_deployment
    assert api.name == "Api"
    model = api.init_args[0]._bound_deployment
    scaling = model._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas) == (1, 3)
    assert model.max_queued_requests > 0
