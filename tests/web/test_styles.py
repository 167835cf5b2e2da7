"""Styles of one's own over HTTP: sent, inspected, ordered, deleted; nothing is left of what is refused."""

import asyncio
import pickle
from dataclasses import replace
from typing import Any

import pytest

from studiolo.errors import DatabaseError, StoreError
from studiolo.generation.lora_files import base_layers
from studiolo.service.records import Kind
from studiolo.service.styles import style_path
from studiolo.weights.fetch import pull
from tests.loras import attention, file, kohya
from tests.web.test_gate import Message, spoken
from tests.web.world import World, settings_with
from web.app import create_app

LAYERS = base_layers(pull("embedded-base"))
LORA = file(kohya(attention(LAYERS)))
TEXTS = {"name": "oil-painting", "title": "Oil", "prompt": "an oil painting", "weight": "0.8"}


@pytest.fixture(autouse=True)
def _embedded(world: World) -> None:
    """The base whose layers are looked at."""
    settings = settings_with(openai_wait_s=0.2).model_copy(update={"base": "embedded-base"})
    world.app.state.endpoint = replace(world.app.state.endpoint, settings=settings)


def send(world: World, lora: bytes | None = LORA, by: str = "anna", **change: Any) -> Any:
    texts = {name: value for name, value in {**TEXTS, **change}.items() if value is not None}
    files = [] if lora is None else [("lora", ("../../evil.safetensors", lora, "text/html"))]
    form: list[Any] = [*files, *((name, (None, value)) for name, value in texts.items())]
    return world.ask("POST", "/v1/styles", by=by, files=form)


def kept(world: World) -> list[str]:
    return world.service.store.list("styles")


def own(world: World, by: str = "anna") -> list[dict[str, Any]]:
    return [one for one in world.ask("GET", "/v1/styles", by=by).json()["data"] if one["own"]]


def test_a_style_is_sent_listed_ordered_and_deleted(world: World) -> None:
    made = send(world)
    assert made.status_code == 201, made.text
    style = made.json()
    assert (style["name"], style["title"], style["own"]["weight"]) == ("oil-painting", "Oil", 0.8)
    assert (style["own"]["rank"], style["own"]["layers"]) == (4, len(attention(LAYERS)))
    assert kept(world) == [style_path(style["own"]["id"])]
    content = world.service.store.read_bytes(kept(world)[0])
    assert content != LORA  # written anew
    assert own(world) == [style]
    assert own(world, by="bert") == []
    ours = [one["name"] for one in world.ask("GET", "/v1/styles", by="bert").json()["data"]]
    assert "studio" in ours
    job = world.ask("POST", "/v1/portraits", json={"style": "oil-painting", "prompt": "a man"}).json()
    assert job["request"] == {"style": "oil-painting", "style_id": style["own"]["id"], "prompt": "a man"}
    place = f"/v1/styles/{style['own']['id']}"
    assert world.ask("DELETE", place, by="bert").status_code == 404
    assert world.ask("DELETE", place).json() == style
    assert (own(world), kept(world)) == ([], [])
    assert world.ask("DELETE", place).status_code == 404
    again = world.ask("POST", "/v1/portraits", json={"style": "oil-painting"})
    assert (again.status_code, again.json()["reason"]) == (422, "style")


def test_another_tenants_name_is_no_style(world: World) -> None:
    send(world)
    refused = world.ask("POST", "/v1/portraits", json={"style": "oil-painting"}, by="bert")
    missing = world.ask("POST", "/v1/portraits", json={"style": "oil-paintinh"}, by="bert")
    assert (refused.status_code, refused.json()["reason"]) == (422, "style")
    assert "oil-painting" not in missing.json()["detail"]
    theirs = send(world, by="bert", prompt="watercolour")
    assert theirs.status_code == 201
    job = world.ask("POST", "/v1/portraits", json={"style": "oil-painting"}, by="bert").json()
    assert job["request"]["style_id"] == theirs.json()["own"]["id"]


def test_the_same_style_again_is_the_one_that_is_there(world: World) -> None:
    first, again = send(world), send(world)
    assert again.json() == first.json()
    assert len(kept(world)) == 1
    other = send(world, prompt="else")
    assert (other.status_code, other.json()["reason"]) == (409, "style_name")
    assert len(kept(world)) == 1


def test_with_openais_route(world: World) -> None:
    send(world)
    world.service.speeds.report("w", Kind.PORTRAITS, steps=100_000, busy_s=1.0)
    world.ask("POST", "/v1/images/generations", json={"prompt": "x", "style_name": "oil-painting", "n": 1})
    (job,) = world.ask("GET", "/v1/jobs").json()["data"]
    assert job["request"]["style_id"] == own(world)[0]["own"]["id"]


REFUSED: list[tuple[bytes | None, dict[str, Any], int, str]] = [
    (None, {}, 422, "no_lora"),
    (b"", {}, 415, "not_safetensors"),
    (pickle.dumps({"lora": 1}), {}, 415, "not_safetensors"),
    (b"PK\x03\x04" + b"\0" * 100, {}, 415, "not_safetensors"),
    (LORA[:-1], {}, 422, "lora"),
    (LORA + b"<script>", {}, 422, "lora"),
    (file(kohya(attention(LAYERS), rank=64)), {}, 422, "lora"),
    (LORA, {"name": None}, 422, "invalid"),
    (LORA, {"name": "../../etc/passwd"}, 422, "invalid"),
    (LORA, {"name": "Oil"}, 422, "invalid"),
    (LORA, {"name": "x" * 64}, 422, "invalid"),
    (LORA, {"name": "oil\n"}, 422, "invalid"),
    (LORA, {"name": "studio"}, 409, "style_name"),
    (LORA, {"name": "prompt"}, 409, "style_name"),
    (LORA, {"weight": "nan"}, 422, "invalid"),
    (LORA, {"weight": "3"}, 422, "invalid"),
    (LORA, {"title": "a\u202eb"}, 422, "invalid"),
    (LORA, {"prompt": "x" * 501}, 422, "invalid"),
    (LORA, {"colour": "red"}, 422, "form"),
]


@pytest.mark.parametrize(("lora", "change", "status", "reason"), REFUSED)
def test_nothing_is_left_of_a_refused_style(
    world: World, lora: bytes | None, change: dict[str, Any], status: int, reason: str
) -> None:
    answer = send(world, lora, **change)
    assert (answer.status_code, answer.json()["reason"]) == (status, reason), answer.text
    assert (kept(world), own(world)) == ([], [])


def test_too_much_is_broken_off(world: World) -> None:
    uploads = world.service.settings.uploads.model_copy(update={"max_style_mib": 0.01})
    object.__setattr__(world.service, "settings", world.service.settings.model_copy(update={"uploads": uploads}))
    answer = send(world, LORA + b"\0" * 20_000)
    assert (answer.status_code, answer.json()["reason"]) == (413, "lora_too_large")
    two = [("lora", ("a", LORA[:5000], "x"))] * 2
    answer = world.ask("POST", "/v1/styles", files=two, data=TEXTS)
    assert (answer.status_code, kept(world)) == (422, [])


def test_a_client_that_stalls_is_let_go(world: World) -> None:
    async def nothing() -> Message:
        await asyncio.sleep(30)
        raise AssertionError("it was waited for")

    token = world.tokens["anna"]
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "multipart/form-data; boundary=b"}
    app = create_app(world.service, settings_with(upload_s=0.2))
    start, *_ = asyncio.run(spoken(app, headers, nothing, "/v1/styles"))
    assert start["status"] == 408


def test_a_database_that_goes_away_keeps_the_file_of_a_row_that_may_be_there(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = type(world.service.styles).add

    def lost(*args: Any) -> None:
        add(*args)
        raise DatabaseError("it went away after the commit")

    monkeypatch.setattr(type(world.service.styles), "add", lost)
    assert send(world).status_code == 503
    monkeypatch.undo()
    assert send(world).status_code == 201
    assert kept(world) == [style_path(own(world)[0]["own"]["id"])]


@pytest.fixture
def asked(world: World) -> list[str]:
    """What samplers were asked to forget; at first they do not answer."""
    seen: list[str] = []

    def elsewhere(name: str) -> dict[str, int]:
        seen.append(name)
        if len(seen) == 1:
            raise StoreError("no answer")
        return {}

    world.app.state.endpoint = replace(world.app.state.endpoint, elsewhere=elsewhere)
    return seen


def test_samplers_that_do_not_answer_are_asked_by_whoever_tidies(world: World, asked: list[str]) -> None:
    style_id = send(world).json()["own"]["id"]
    assert world.ask("DELETE", f"/v1/styles/{style_id}").status_code == 200
    assert own(world) == []
    world.service.tidy()  # of a process that reaches none
    assert send(world).status_code == 409
    assert world.service.tidy(world.app.state.endpoint.elsewhere)["styles"] == 1
    assert asked == [style_id] * 2
    assert send(world).status_code == 201
