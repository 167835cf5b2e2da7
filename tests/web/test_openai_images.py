"""OpenAI's own client against a real server and a worker that makes real pictures."""

import base64
import hashlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from diffusers import StableDiffusionPipeline

from studiolo.albums.records import Reason
from studiolo.generation.tiny import tiny_base
from studiolo.portraits.files import decode_portrait
from studiolo.service.records import JobReason, Kind
from studiolo.service.service import Service
from tests.web.painter import Painter
from tests.web.server import served
from tests.web.test_identities import photo
from tests.web.world import REJECTED, SETTINGS, World, settings_with
from web.app import create_app

MODEL = SETTINGS.base


@pytest.fixture(scope="module")
def base() -> StableDiffusionPipeline:
    return tiny_base()


@pytest.fixture
def client(world: World) -> Iterator[openai.OpenAI]:
    with served(world.app) as url, _client(url, world) as client:
        yield client


def _client(url: str, world: World) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=f"{url}/v1",
        api_key=world.tokens["anna"],
        max_retries=0,
        timeout=30,
        http_client=httpx.Client(trust_env=False),
    )


@pytest.fixture
def _painter(service: Service, base: StableDiffusionPipeline) -> Iterator[None]:
    with Painter(service, base, SETTINGS.generation).working():
        yield


@pytest.mark.usefixtures("_painter")
def test_pictures_as_base64_and_by_url(world: World, client: openai.OpenAI) -> None:
    more = {"model": MODEL, "prompt": "a portrait of a woman", "n": 2, "extra_body": {"seed": 7}}
    inline = client.images.generate(**more, response_format="b64_json", size="128x128")
    assert inline.data is not None
    pictures = [base64.b64decode(image.b64_json or "") for image in inline.data]
    assert [decode_portrait(picture)[0].shape for picture in pictures] == [(128, 128, 3)] * 2
    assert pictures[0] != pictures[1]
    assert "a portrait of a woman" in decode_portrait(pictures[0])[1]["prompt"]
    assert abs(inline.created - time.time()) < 60
    linked = client.images.generate(**more, size="128x128", quality="standard")
    assert linked.data is not None
    for image, picture in zip(linked.data, pictures, strict=True):
        assert image.url is not None
        assert httpx.get(image.url, timeout=60).status_code == 401
        key = {"Authorization": f"Bearer {world.tokens['anna']}"}
        fetched = httpx.get(image.url, headers=key, timeout=60)
        assert fetched.content == picture  # the same seed, the same picture


@pytest.mark.usefixtures("_painter")
def test_portraits_of_our_own_route_are_the_same_pictures(world: World, client: openai.OpenAI) -> None:
    ours = world.ask("POST", "/v1/portraits", json={"prompt": "a man", "seed": 3, "size_px": 64, "wait_s": 30}).json()
    assert ours["state"] == "succeeded"
    content = world.ask("GET", ours["images"][0]["url"]).content
    theirs = client.images.generate(
        prompt="a man", response_format="b64_json", size="64x64", extra_body={"seed": 3}
    ).data
    assert theirs is not None
    assert base64.b64decode(theirs[0].b64_json or "") == content


def test_an_identity_is_given_as_user_or_by_its_own_name(world: World, client: openai.OpenAI) -> None:
    identity_id = world.identity()
    for given in ({"user": identity_id}, {"extra_body": {"identity_id": identity_id, "user": "a customer"}}):
        with pytest.raises(openai.APITimeoutError):
            client.with_options(timeout=2).images.generate(prompt="a portrait", **given)  # type: ignore[call-overload]
    jobs = world.ask("GET", "/v1/jobs?kind=portraits").json()["data"]
    assert [job["identity_id"] for job in jobs] == [identity_id] * 2
    give_up_s = time.monotonic() + 60
    while any(job["state"] != "cancelled" for job in jobs):  # nobody is there to fetch them
        assert time.monotonic() < give_up_s, jobs
        time.sleep(0.1)
        jobs = world.ask("GET", "/v1/jobs?kind=portraits").json()["data"]


def test_refusals_are_openais_errors(world: World, client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.images.generate(prompt="x", model="dall-e-3")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError) as foreign:
        client.images.generate(prompt="x", user=world.identity("bert"))
    assert foreign.value.code == "identity"
    for odd in ({"size": "256x128"}, {"size": "100x100"}, {"n": 11}, {"prompt": ""}, {"stream": True}):
        with pytest.raises(openai.UnprocessableEntityError):
            client.images.generate(**({"prompt": "x"} | odd))  # type: ignore[call-overload]
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="nonsense").images.generate(prompt="x")
    assert world.ask("GET", "/v1/jobs?kind=portraits").json()["data"] == []


def test_pictures_that_come_too_late_are_an_error(world: World) -> None:
    quick = create_app(world.service, settings_with(openai_wait_s=1.0))
    world.service.speeds.report("w", Kind.PORTRAITS, steps=1000, busy_s=1.0)
    with served(quick) as url, _client(url, world) as client:
        with pytest.raises(openai.InternalServerError) as late:
            client.images.generate(prompt="x")
        assert late.value.code in ("too_slow", JobReason.DEADLINE)


def test_why_nothing_was_good_enough_is_said(world: World, client: openai.OpenAI) -> None:
    with world.meanwhile(world.reject), pytest.raises(openai.UnprocessableEntityError) as none:
        client.images.generate(prompt="x")
    assert none.value.code == Reason.NONE_ACCEPTED
    for why in (Reason.NONE_ACCEPTED.sentence(), *(f"{one['count']} x {one['sentence']}" for one in REJECTED)):
        assert why in str(none.value)


def test_pictures_that_are_not_kept_any_more_are_said_to_be_so(world: World, client: openai.OpenAI) -> None:
    again = {"prompt": "x", "extra_headers": {"Idempotency-Key": "one"}}
    with world.meanwhile(world.make):
        assert client.images.generate(**again).data  # type: ignore[call-overload]
    world.service.queue.database.clock = lambda: time.time() + 8 * 86_400
    world.service.tidy()
    with pytest.raises(openai.NotFoundError) as over:
        client.images.generate(**again)  # type: ignore[call-overload]
    assert over.value.code == "expired"


@pytest.fixture
def _maker(world: World) -> Iterator[None]:
    """Finishes whatever job of pictures there is, with small ones."""
    stop = threading.Event()

    def make() -> None:
        while not stop.wait(0.02):
            if world.service.queue.backlog(Kind.PORTRAITS).queued:
                world.make(images=2)

    thread = threading.Thread(target=make)
    thread.start()
    yield
    stop.set()
    thread.join(60)


@pytest.mark.usefixtures("_maker")
def test_edits_as_base64_and_by_url(world: World, client: openai.OpenAI) -> None:
    identity_id = world.identity()
    passed_over: Any = {"quality": "high", "background": "opaque", "input_fidelity": "high"}
    more: Any = {"prompt": "smiling", "n": 2, "size": "auto", **passed_over}
    own = {"identity_id": identity_id, "face": "0.5,0.5", "seed": 7, "strength": 0.5}
    inline = client.images.edit(image=photo(), response_format="b64_json", extra_body=own, model=MODEL, **more)
    assert inline.data is not None
    pictures = [base64.b64decode(image.b64_json or "") for image in inline.data]
    assert [decode_portrait(picture)[0].shape for picture in pictures] == [(8, 8, 3)] * 2
    linked = client.images.edit(image=[("me.jpg", photo(1))], user=identity_id, **more)
    assert linked.data is not None
    key = {"Authorization": f"Bearer {world.tokens['anna']}"}
    assert [httpx.get(str(image.url), headers=key, timeout=60).content for image in linked.data] == pictures
    by_user, by_name = world.ask("GET", "/v1/jobs?kind=portraits").json()["data"]
    same = {"identity_id": identity_id, "prompt": "smiling", "count": 2}
    ours = {"face": [0.5, 0.5], "seed": 7, "strength": 0.5, "template_sha256": hashlib.sha256(photo()).hexdigest()}
    assert by_name["request"] == same | ours
    assert by_user["request"] == same | {"template_sha256": hashlib.sha256(photo(1)).hexdigest()}


def test_refused_edits_are_openais_errors_and_leave_nothing(world: World, client: openai.OpenAI) -> None:
    plain: Any = {"image": photo(), "prompt": "x", "user": world.identity()}
    for odd, code in (
        ({"mask": photo()}, "mask"),
        ({"image": [photo(), photo(1)]}, "form"),
        ({"size": "1024x1024"}, "size"),
        ({"user": openai.omit}, "identity"),
        ({"stream": True}, "stream"),
        ({"prompt": ""}, "invalid"),
        ({"n": 11}, "invalid"),
        ({"output_format": "webp"}, "invalid"),
        ({"extra_body": {"strength": 0.1}}, "strength"),
        ({"extra_body": {"face": "here"}}, "invalid"),
    ):
        with pytest.raises(openai.UnprocessableEntityError) as refused:
            client.images.edit(**(plain | odd))
        assert refused.value.code == code
    with pytest.raises(openai.NotFoundError) as foreign:
        client.images.edit(**(plain | {"user": world.identity("bert")}))
    assert foreign.value.code == "identity"
    with pytest.raises(openai.NotFoundError) as missing:
        client.images.edit(**(plain | {"model": "gpt-image-1"}))
    assert missing.value.code == "model_not_found"
    assert world.ask("GET", "/v1/jobs?kind=portraits").json()["data"] == []
    assert world.service.store.list("results") == []


def test_an_edit_that_fails_says_why(world: World, client: openai.OpenAI) -> None:
    def fail() -> None:
        reason = Reason.SEVERAL_FACES
        world.service.queue.fail(world.lease(), reason.value, reason.sentence())

    identity_id = world.identity()
    with (
        world.meanwhile(fail),
        pytest.raises(openai.UnprocessableEntityError, match="several people") as failed,
    ):
        client.images.edit(image=photo(), prompt="x", user=identity_id)
    assert failed.value.code == "several_faces"
