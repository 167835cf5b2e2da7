"""Ordering portraits over HTTP."""

import time

import pytest

from studiolo.portraits.requests import PortraitRequest
from studiolo.service.keys import KeyLimits
from studiolo.service.records import Kind
from tests.web.world import SETTINGS, World

ORDER = {"style": "studio", "count": 2, "seed": 7, "size_px": 128, "threshold": 0.3, "face_weight": 0.75, "fusion": 0.0}


def test_an_order_is_kept_as_a_worker_needs_it(world: World) -> None:
    identity_id = world.identity()
    answer = world.ask("POST", "/v1/portraits", json=ORDER | {"identity_id": identity_id})
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"].endswith(f"/v1/jobs/{job['id']}")
    assert world.ask("GET", answer.headers["location"]).json()["id"] == job["id"]
    lease = world.lease()
    wanted = PortraitRequest.model_validate(lease.job.request)
    order = wanted.order(lease.job.id, SETTINGS.generation)
    assert (order.identity_id, order.style, order.count) == (identity_id, "studio", 2)
    assert (order.generation.upscale, order.generation.accept_similarity) == (2, 0.3)
    assert (order.generation.face_weight, order.generation.fusion) == (0.75, 0.0)
    assert order.generation.style_weight == SETTINGS.generation.style_weight
    assert lease.job.steps == 2 * SETTINGS.generation.candidates_per_portrait * SETTINGS.generation.steps
    assert lease.job.units == 2


def test_the_same_key_is_the_same_job_and_another_request_a_conflict(world: World) -> None:
    key = {"Idempotency-Key": "order-1"}
    first = world.ask("POST", "/v1/portraits", json=ORDER, headers=key)
    again = world.ask("POST", "/v1/portraits", json=ORDER | {"deadline_s": 500}, headers=key)
    assert again.json()["id"] == first.json()["id"]
    other = world.ask("POST", "/v1/portraits", json=ORDER | {"seed": 8}, headers=key)
    assert (other.status_code, other.json()["reason"]) == (409, "idempotency_key")
    assert world.ask("POST", "/v1/portraits", by="bert", json=ORDER, headers=key).json()["id"] != first.json()["id"]
    world.make()
    done = world.ask("POST", "/v1/portraits", json=ORDER, headers=key)
    assert (done.status_code, done.json()["state"]) == (200, "succeeded")
    unseeded = {name: value for name, value in ORDER.items() if name != "seed"}
    same = [world.ask("POST", "/v1/portraits", json=unseeded, headers={"Idempotency-Key": "k"}) for _ in range(2)]
    assert same[0].json()["seed"] == same[1].json()["seed"]
    bad = world.ask("POST", "/v1/portraits", json=ORDER, headers={"Idempotency-Key": "a b"})
    assert bad.status_code == 422


def test_waiting_for_the_answer(world: World) -> None:
    with world.meanwhile(world.make):
        answer = world.ask("POST", "/v1/portraits", json=ORDER | {"wait_s": 30})
    assert (answer.status_code, answer.json()["state"], len(answer.json()["images"])) == (200, "succeeded", 1)
    began_s = time.monotonic()
    late = world.ask("POST", "/v1/portraits", json=ORDER | {"wait_s": 0.2})
    assert (late.status_code, late.json()["state"]) == (202, "queued")
    assert 0.2 <= time.monotonic() - began_s < 10


@pytest.mark.parametrize(
    ("change", "status", "reason"),
    [
        ({"style": None}, 422, "request"),
        ({"style": None, "prompt": "  "}, 422, "request"),
        ({"style": "stduio"}, 422, "style"),
        ({"style": "../studio"}, 422, "style"),
        ({"size_px": 100}, 422, "size"),
        ({"count": 17}, 422, "too_many_portraits"),
        ({"deadline_s": 0.01}, 422, "deadline_too_short"),
        ({"deadline_s": 1e8}, 422, "deadline_too_long"),
        ({"webhook_url": "https://user:word@x.org/"}, 422, "webhook_url"),
        ({"identity_id": "id_" + "0" * 32}, 404, "identity"),
        ({"identity_id": "Anna"}, 422, "invalid"),
        ({"threshold": 1.5}, 422, "invalid"),
        ({"seed": 2**31}, 422, "invalid"),
    ],
)
def test_orders_that_cannot_be_carried_out(world: World, change: dict[str, object], status: int, reason: str) -> None:
    answer = world.ask("POST", "/v1/portraits", json=ORDER | change)
    assert (answer.status_code, answer.json()["reason"]) == (status, reason)
    assert world.ask("GET", "/v1/jobs").json()["data"] == []


def test_a_misspelt_style_is_told_the_right_one(world: World) -> None:
    assert "'studio'" in world.ask("POST", "/v1/portraits", json={"style": "stduio"}).json()["detail"]
    names = [style["name"] for style in world.ask("GET", "/v1/styles").json()["data"]]
    assert "studio" in names
    assert all(world.ask("POST", "/v1/portraits", json={"style": name}).status_code == 202 for name in names[:3])


def test_an_identity_that_is_not_learned_yet_is_refused(world: World) -> None:
    answer = world.ask("POST", "/v1/portraits", json=ORDER | {"identity_id": world.identity(ready=False)})
    assert (answer.status_code, answer.json()["reason"]) == (409, "identity_not_ready")


def test_a_backlog_that_leaves_no_room_says_when_to_come_back(world: World) -> None:
    world.service.speeds.report("w", Kind.PORTRAITS, steps=10, busy_s=10.0)  # one step a second
    assert world.ask("POST", "/v1/portraits", json=ORDER | {"count": 10, "deadline_s": 45}).status_code == 202
    answer = world.ask("POST", "/v1/portraits", json=ORDER | {"deadline_s": 20})
    assert (answer.status_code, answer.json()["reason"]) == (429, "backlog")
    assert int(answer.headers["retry-after"]) == answer.json()["retry_after_s"] >= 1


def test_a_quota_that_is_used_up(world: World) -> None:
    token = world.service.keys.create("small", limits=KeyLimits(portraits_per_day=3)).token
    headers = {"Authorization": f"Bearer {token}"}
    answers = [world.client.post("/v1/portraits", json=ORDER, headers=headers) for _ in range(2)]
    assert [one.status_code for one in answers] == [202, 429]
    assert answers[1].json()["reason"] == "quota"
