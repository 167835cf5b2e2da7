"""Jobs over HTTP."""

import time

from studiolo.service.records import Kind, State
from tests.web.world import REJECTED, World

ORDER = {"style": "studio", "seed": 7}


def test_a_job_from_the_queue_to_its_pictures(world: World) -> None:
    first, second = (world.ask("POST", "/v1/portraits", json=ORDER | {"count": 2}).json()["id"] for _ in range(2))
    waiting = world.ask("GET", f"/v1/jobs/{second}").json()
    assert (waiting["state"], waiting["position"], waiting["images"]) == ("queued", 2, [])
    assert world.ask("GET", f"/v1/jobs/{first}/images/0").status_code == 404
    world.make(images=2)
    done = world.ask("GET", f"/v1/jobs/{first}").json()
    assert (done["state"], done["position"], len(done["images"])) == ("succeeded", None, 2)
    assert done["expires_at"] > time.time()
    for image in done["images"]:
        picture = world.ask("GET", image["url"])
        assert picture.headers["content-type"] == "image/png"
        assert picture.content.startswith(b"\x89PNG")
    assert world.ask("GET", f"/v1/jobs/{first}/images/2").status_code == 404
    assert world.ask("GET", f"/v1/jobs/{first}/images/-1").status_code == 422
    assert world.ask("GET", f"/v1/jobs/{second}").json()["position"] == 1


def test_pictures_expire_with_their_job(world: World) -> None:
    job_id = world.ask("POST", "/v1/portraits", json=ORDER).json()["id"]
    world.make()
    world.service.queue.database.clock = lambda: time.time() + 8 * 86_400
    world.service.tidy()
    assert world.ask("GET", f"/v1/jobs/{job_id}/images/0").status_code == 404
    job = world.ask("GET", f"/v1/jobs/{job_id}").json()
    assert (job["state"], job["images"], job["expires_at"]) == ("succeeded", [], None)


def test_a_job_of_which_nothing_was_good_enough_says_why_as_long_as_it_is_kept(world: World) -> None:
    job_id = world.ask("POST", "/v1/portraits", json=ORDER).json()["id"]
    world.reject()
    job = world.ask("GET", f"/v1/jobs/{job_id}").json()
    assert (job["state"], job["reason"], job["images"], job["rejected"]) == ("failed", "none_accepted", [], REJECTED)
    assert world.ask("GET", "/v1/jobs").json()["data"] == [job]
    assert world.ask("GET", f"/v1/jobs/{job_id}/images/0").status_code == 404
    world.service.queue.database.clock = lambda: time.time() + 8 * 86_400
    world.service.tidy()
    over = world.ask("GET", f"/v1/jobs/{job_id}").json()
    assert over == job | {"rejected": [], "expires_at": None}


def test_pictures_of_a_job_that_has_not_succeeded_are_never_handed_out(world: World) -> None:
    job_id = world.ask("POST", "/v1/portraits", json=ORDER).json()["id"]
    made = {"path": "results/x.png", "sha256": "0" * 64, "seed": 0, "width_px": 8, "height_px": 8}
    world.service.store.write_bytes(made["path"], b"a picture")
    world.service.queue.fail(world.lease(), "none_accepted", "None.", {"images": [made], "rejected": REJECTED})
    job = world.ask("GET", f"/v1/jobs/{job_id}").json()
    assert (job["images"], job["rejected"]) == ([], REJECTED)
    assert world.ask("GET", f"/v1/jobs/{job_id}/images/0").status_code == 404


def test_cancelling_ends_a_job_and_leaves_a_finished_one(world: World) -> None:
    job_id = world.ask("POST", "/v1/portraits", json=ORDER).json()["id"]
    lease = world.lease()
    cancelled = world.ask("DELETE", f"/v1/jobs/{job_id}").json()
    assert (cancelled["state"], cancelled["reason"]) == ("cancelled", "cancelled")
    assert cancelled["sentence"]
    assert lease.job.id == job_id
    assert world.ask("DELETE", f"/v1/jobs/{job_id}").json() == cancelled
    done = world.ask("POST", "/v1/portraits", json=ORDER).json()["id"]
    world.make()
    assert world.ask("DELETE", f"/v1/jobs/{done}").json()["state"] == "succeeded"


def test_pages_join_to_the_whole_list(world: World) -> None:
    made = [world.ask("POST", "/v1/portraits", json=ORDER | {"seed": seed}).json()["id"] for seed in range(5)]
    world.ask("POST", "/v1/portraits", by="bert", json=ORDER)
    listed, before = [], ""
    while before is not None:
        page = world.ask("GET", f"/v1/jobs?limit=2{before and '&before=' + before}").json()
        listed += [job["id"] for job in page["data"]]
        before = page["next"]
    assert sorted(listed) == sorted(made)
    assert len(set(listed)) == 5
    world.ask("DELETE", f"/v1/jobs/{made[2]}")
    chosen = world.ask("GET", f"/v1/jobs?state={State.CANCELLED}&kind={Kind.PORTRAITS}").json()
    assert [job["id"] for job in chosen["data"]] == [made[2]]
    for odd in ("before=x", "before=%00", "limit=0", "limit=101", "state=x", "identity_id=%00"):
        assert world.ask("GET", f"/v1/jobs?{odd}").status_code == 422


def test_ids_that_are_none_are_not_found(world: World) -> None:
    for odd in ("x", "%00", "..", "..%2f..%2fx", "job_" + "0" * 32, "%f0%9f%98%80", "a" * 5000):
        assert world.ask("GET", f"/v1/jobs/{odd}").status_code in (404, 307), odd
        assert world.ask("GET", f"/v1/jobs/{odd}/images/0").status_code == 404, odd


def test_usage_is_counted_by_key(world: World) -> None:
    world.ask("POST", "/v1/portraits", json=ORDER | {"count": 3})
    world.ask("POST", "/v1/portraits", by="bert", json=ORDER)
    (row,) = world.ask("GET", "/v1/usage").json()["data"]
    assert (row["requests"], row["portraits"], row["identities"], row["steps"]) == (2, 3, 0, 12)
    assert world.ask("GET", "/v1/usage?since=2999-01-01").json() == {"data": []}
    assert world.ask("GET", "/v1/usage?since=yesterday").status_code == 422
