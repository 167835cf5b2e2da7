"""The events of a job, as they come to a client of a real server."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from studiolo.errors import DatabaseError
from studiolo.service.live import Candidate, Progress
from studiolo.service.queue import JobQueue
from studiolo.service.records import Kind
from tests.web.server import served
from tests.web.world import LiveMemory, World

ORDER = {"style": "studio", "seed": 7}


@pytest.fixture
def url(app: FastAPI) -> Iterator[str]:
    with served(app) as url:
        yield url


class Listener:
    """Reads one stream of events in a thread, and lets the test wait for one."""

    def __init__(self, url: str, token: str, job_id: str) -> None:
        self.events: list[tuple[str, Any]] = []
        self.hang_up = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._listen, args=(url, token, job_id), daemon=True)
        self._thread.start()

    def _listen(self, url: str, token: str, job_id: str) -> None:
        headers, name = {"Authorization": f"Bearer {token}"}, ""
        with httpx.stream("GET", f"{url}/v1/jobs/{job_id}/events", headers=headers, timeout=60) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            for line in answer.iter_lines():
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    with self._changed:
                        self.events.append((name, json.loads(line.removeprefix("data: "))))
                        self._changed.notify_all()
                if self.hang_up and self.events:
                    return

    def wait_for(self, name: str, **fields: Any) -> Any:
        """The data of the first event of that name with these fields."""

        def found() -> list[Any]:
            return [data for event, data in self.events if event == name and fields.items() <= data.items()]

        with self._changed:
            assert self._changed.wait_for(found, 60), (name, fields, self.events)
            return found()[0]

    def join(self) -> None:
        """Wait for the end of the stream."""
        self._thread.join(60)
        assert not self._thread.is_alive()


def test_a_job_from_its_place_in_the_queue_to_its_end(world: World, live: LiveMemory, url: str) -> None:
    first, second = (world.ask("POST", "/v1/portraits", json=ORDER).json()["id"] for _ in range(2))
    listener = Listener(url, world.tokens["anna"], second)
    listener.wait_for("state", state="queued", position=2)
    world.make()
    listener.wait_for("state", state="queued", position=1)
    lease = world.lease()
    assert (lease.job.id, first != second) == (second, True)
    listener.wait_for("state", state="running", attempt=1)
    live.tell(second, Progress(1, "denoise", 1, 4))
    listener.wait_for("progress", stage="denoise", done=1, total=4)
    rejected = Candidate(0, accepted=False, reason="no_face", sentence="No face was found.")
    live.tell(second, Progress(1, "denoise", 3, 4, preview=b"a png", candidates=(rejected,)))
    listener.wait_for("progress", done=3)
    assert base64.b64decode(listener.wait_for("preview")["png"]) == b"a png"
    listener.wait_for("candidate", index=0, accepted=False, sentence="No face was found.")
    live.tell(second, Progress(1, "finish", 4, 4, candidates=(rejected, Candidate(1, accepted=True))))
    listener.wait_for("candidate", index=1, accepted=True)
    world.service.queue.complete(lease, {"images": []})
    assert listener.wait_for("end")["state"] == "succeeded"
    listener.join()
    names = [name for name, _ in listener.events]
    assert names.count("candidate") == 2
    assert names[-2:] == ["state", "end"]


def test_news_of_an_attempt_that_is_over_are_not_told(world: World, live: LiveMemory, url: str) -> None:
    job_id = world.ask("POST", "/v1/portraits", json=ORDER).json()["id"]
    world.service.queue.retry(world.lease(), "fault", "A fault.")
    world.lease()
    live.tell(job_id, Progress(1, "denoise", 3, 4))
    listener = Listener(url, world.tokens["anna"], job_id)
    listener.wait_for("state", attempt=2)
    live.tell(job_id, Progress(2, "denoise", 1, 4))
    listener.wait_for("progress", attempt=2)
    world.ask("DELETE", f"/v1/jobs/{job_id}")
    listener.wait_for("end", state="cancelled")
    listener.join()
    assert [data["attempt"] for name, data in listener.events if name == "progress"] == [2]


def test_a_trainings_progress_is_what_its_lease_says(world: World, url: str) -> None:
    world.identity(ready=False)
    lease = world.lease(Kind.IDENTITY)
    listener = Listener(url, world.tokens["anna"], lease.job.id)
    listener.wait_for("progress", stage="train", attempt=1, done=0, total=8)
    world.service.queue.extend(lease, 60, steps_done=5, curve=[(1, 0.5), (5, 0.25)])
    listener.wait_for("progress", stage="train", done=5, total=8)
    curve = world.ask("GET", f"/v1/jobs/{lease.job.id}").json()["curve"]
    assert curve == [{"step": 1, "loss": 0.5}, {"step": 5, "loss": 0.25}]
    world.service.queue.complete(lease, {"photos": []})
    listener.wait_for("end", state="succeeded", curve=[])
    listener.join()


def test_who_comes_late_hears_the_end_at_once(world: World, url: str) -> None:
    job_id = world.ask("POST", "/v1/portraits", json=ORDER).json()["id"]
    world.make()
    listener = Listener(url, world.tokens["anna"], job_id)
    listener.join()
    assert [name for name, _ in listener.events] == ["state", "end"]
    assert len(listener.events[-1][1]["images"]) == 1


def test_nobody_else_hears_it(world: World, url: str) -> None:
    job_id = world.ask("POST", "/v1/portraits", json=ORDER).json()["id"]
    headers = {"Authorization": f"Bearer {world.tokens['bert']}"}
    assert httpx.get(f"{url}/v1/jobs/{job_id}/events", headers=headers, timeout=60).status_code == 404


def test_who_hangs_up_is_not_worked_for(world: World, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id, looks = world.ask("POST", "/v1/portraits", json=ORDER).json()["id"], [0]
    get = JobQueue.get

    def counted(queue: JobQueue, tenant_id: str, name: str) -> Any:
        looks[0] += 1
        return get(queue, tenant_id, name)

    monkeypatch.setattr(JobQueue, "get", counted)
    listener = Listener(url, world.tokens["anna"], job_id)
    listener.hang_up = True
    listener.wait_for("state")
    listener.join()
    give_up_s, before = time.monotonic() + 60, -1
    while looks[0] != before:  # no look in twenty pauses between two of them
        assert time.monotonic() < give_up_s, "it is still looked at"
        before = looks[0]
        time.sleep(20 * world.app.state.endpoint.settings.web.poll_s)
    assert world.ask("GET", f"/v1/jobs/{job_id}").json()["state"] == "queued"


def test_a_database_that_is_away_for_a_moment_ends_no_stream(
    world: World, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id, get, calls = world.ask("POST", "/v1/portraits", json=ORDER).json()["id"], JobQueue.get, [0]

    def flickering(queue: JobQueue, tenant_id: str, name: str) -> Any:
        calls[0] += 1
        if 2 < calls[0] < 6:
            raise DatabaseError("away")
        return get(queue, tenant_id, name)

    monkeypatch.setattr(JobQueue, "get", flickering)
    listener = Listener(url, world.tokens["anna"], job_id)
    listener.wait_for("state", state="queued")
    world.make()
    listener.wait_for("end", state="succeeded")
    listener.join()
    assert calls[0] >= 6


def test_a_job_that_is_erased_meanwhile_has_ended(world: World, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = world.ask("POST", "/v1/portraits", json=ORDER).json()["id"]
    listener = Listener(url, world.tokens["anna"], job_id)
    listener.wait_for("state", state="queued")
    monkeypatch.setattr(JobQueue, "get", lambda *_: None)
    assert listener.wait_for("end")["reason"] == "erased"
    listener.join()


def test_memory_forgets_what_is_old() -> None:
    now = [0.0]
    live = LiveMemory(kept_s=10, clock=lambda: now[0])
    live.tell("a", Progress(1, "denoise", 1, 4))
    now[0] = 11.0
    live.tell("b", Progress(1, "denoise", 2, 4))
    assert set(live._news) == {"b"}
