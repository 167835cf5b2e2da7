"""The page's client against the real application, over HTTP."""

import asyncio
import socket
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse, StreamingResponse

from studiolo.service.identities import IdentityState
from studiolo.service.live import LiveMemory, Progress
from studiolo.service.records import Kind, State
from tests.jobs.finished_job import empty_database
from tests.web.page.conftest import Front
from tests.web.server import served
from tests.web.test_identities import photo
from web.page.client import AnswerError, Client
from web.page.studio import cut_off

TEXTS = {"name": "Anna", "consent_given_by": "Anna", "consent_statement": "Yes.", "consent_given_at": "1794000000"}


def test_an_album_goes_there_whole_and_once(front: Front, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.jpg" for number in range(3)]
    for shade, path in enumerate(paths):
        path.write_bytes(photo(shade))

    async def learn() -> Any:
        client = front.client()
        first, again = [await client.learn(paths, TEXTS, "one-album") for _ in range(2)]
        return first, again, await client.people(), await client.person(str(first.identity_id))

    first, again, people, person = asyncio.run(learn())
    assert (first.kind, first.state, first.id) == (Kind.IDENTITY, State.QUEUED, again.id)
    assert people == [person]
    assert (person.name, person.state, person.job_id) == ("Anna", IdentityState.TRAINING, first.id)
    store = front.world.service.store
    assert [store.read_bytes(path) for path in store.list("albums")] == [path.read_bytes() for path in paths]


def test_an_order_is_followed_to_its_pictures(front: Front, live: LiveMemory) -> None:
    async def order() -> Any:
        client = front.client()
        job = await client.order({"style": "studio", "count": 2}, "one-order")
        events = []
        async for event in client.events(job.id):
            events.append(event)
            if len(events) == 1:
                live.tell(job.id, Progress(1, "denoise", 1, 8))
                await asyncio.to_thread(front.world.make, 2)
        job = await client.job(job.id)
        return job, events, [(await client.image(job.id, number)).content for number in range(2)]

    job, events, pictures = asyncio.run(order())
    assert [name for name, _ in events][-1] == "end"
    assert (job.state, len(job.images)) == (State.SUCCEEDED, 2)
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)
    assert pictures[0] != pictures[1]


def test_jobs_are_listed_and_cancelled(front: Front) -> None:
    async def cancel() -> Any:
        client = front.client()
        jobs = [await client.order({"style": "studio", "seed": seed}, str(seed)) for seed in (1, 2)]
        cancelled = await client.cancel(jobs[0].id)
        return jobs, cancelled, await client.jobs(1), await client.jobs(9, state=State.QUEUED)

    jobs, cancelled, newest, queued = asyncio.run(cancel())
    assert cancelled.state == State.CANCELLED
    assert ([job.id for job in newest.data], newest.next is not None) == ([jobs[1].id], True)
    assert [job.id for job in queued.data] == [jobs[1].id]


def test_a_person_is_erased_with_a_receipt(front: Front) -> None:
    front.world.service.store.write_bytes("mlflow.db", empty_database())
    identity_id = front.world.identity()

    async def erase() -> Any:
        client = front.client()
        erasure, _ = await client.erase(identity_id)
        return erasure, await client.people()

    erasure, people = asyncio.run(erase())
    assert (erasure.state, erasure.receipt["identity_id"], people) == ("erased", identity_id, [])


def test_of_very_many_people_the_newest_are_listed_and_that_is_said(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [front.world.identity(ready=False) for _ in range(4)]
    assert cut_off(asyncio.run(front.client().people())) == ""
    monkeypatch.setattr("web.page.client._PART", 1)
    for module in ("client", "studio"):
        monkeypatch.setattr(f"web.page.{module}.MOST_PEOPLE", 3)
    people = asyncio.run(front.client().people())
    assert [one.id for one in people] == ids[:0:-1]
    assert cut_off(people) == "The newest 3 people are shown."


def refusal(ask: Any) -> AnswerError:
    with pytest.raises(AnswerError) as found:
        asyncio.run(ask)
    return found.value


def test_refusals_are_told_as_the_service_says_them(front: Front) -> None:
    job_id = front.world.ask("POST", "/v1/portraits", by="bert", json={"style": "studio"}).json()["id"]
    told = refusal(front.client().job(job_id))
    assert (told.status, told.reason) == (404, "job")
    assert told.sentence == front.world.ask("GET", f"/v1/jobs/{job_id}").json()["detail"]
    assert refusal(front.client().order({"count": 1}, "x")).reason == "request"
    assert refusal(Client(front.http(), "studiolo_nobody").styles()).status == 401

    async def events() -> None:
        async for _ in front.client().events(job_id):
            pass

    assert refusal(events()).status == 404


@pytest.mark.parametrize("key", ["", "a\nb", "a\r\nX-Other: 1", "ключ"])
def test_what_can_be_no_key_is_never_sent(key: str) -> None:
    with pytest.raises(AnswerError):
        Client(httpx.AsyncClient(base_url="http://127.0.0.1:1"), key)


@pytest.mark.parametrize("name", ["../healthz", "x/../../healthz", "x?y", "", "a b", "x#y", "é"])
def test_no_id_leads_to_another_route(front: Front, name: str) -> None:
    for ask in (front.client().job(name), front.client().person(name), front.client().image(name, 0)):
        assert refusal(ask).status == 404


def test_when_nobody_answers_it_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    away = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False)
    assert refusal(Client(away, "studiolo_key").styles()).status == 503


def test_an_answer_of_something_else_is_not_taken_for_one() -> None:
    other = FastAPI()
    other.add_api_route("/v1/styles", lambda: PlainTextResponse("<html>hello</html>"))
    other.add_api_route("/v1/jobs", lambda: PlainTextResponse("<html>bad gateway</html>", 502))
    with served(other) as url:
        told = refusal(Client(httpx.AsyncClient(base_url=url), "studiolo_key").styles())
        assert told.status == 502
        assert "<" not in told.sentence
        assert refusal(Client(httpx.AsyncClient(base_url=url), "studiolo_key").jobs(1)).status == 502


def test_a_stream_that_breaks_off_is_taken_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("web.page.client._PAUSE_S", 0.01)
    broken, asked = FastAPI(), []

    @broken.get("/v1/jobs/{job_id}/events")
    async def events(job_id: str) -> StreamingResponse:
        asked.append(time.monotonic())
        parts = ['event: state\ndata: {"state": "running"}\n\n']
        if len(asked) == 3:
            parts.append('event: end\ndata: {"state": "succeeded"}\n\n')
        return StreamingResponse(iter(parts), media_type="text/event-stream")

    async def follow(url: str) -> list[str]:
        client = Client(httpx.AsyncClient(base_url=url), "studiolo_key")
        return [name async for name, _ in client.events("job_1")]

    with served(broken) as url:
        assert asyncio.run(follow(url)) == ["state", "state", "state", "end"]
