"""The route of events: a job's state from SQL and its progress from where it is kept, as they change, until it ends.

Who connects again begins with the state of the moment, so nothing has to be kept for those who hang up.
"""

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from studiolo.errors import DatabaseError, NotFoundError
from studiolo.service.live import Progress
from studiolo.service.records import JobReason, Kind, State
from web import examples
from web.endpoint import Endpoint, Here, TheJob
from web.jobs import current_view
from web.types import JobView

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


_ANSWER: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {"example": examples.EVENTS}}}}


@router.get("/{job_id}/events", response_class=EventSourceResponse, responses=_ANSWER)
async def job_events(job: TheJob, here: Here, request: Request) -> AsyncIterator[ServerSentEvent]:
    """How a job goes on, as server-sent events, until it has ended.

    `state` (state, position, attempt) whenever one of them changes; `progress` (stage, done, total); `preview` (a PNG
    in base64); `candidate` (index, accepted, reason, sentence), each once; at last `end` with the job itself. A comment
    comes every 15 seconds in which nothing else does.
    """
    seen: dict[str, Any] = {}
    while True:
        try:
            view = await _view(here, request, job.tenant_id, job.id)
        except NotFoundError:
            gone = {"id": job.id, "state": State.CANCELLED, "reason": JobReason.ERASED}
            yield ServerSentEvent(event="end", data={**gone, "sentence": JobReason.ERASED.sentence()})
            return
        if view is not None:
            news = None if view.state.final else await here.live.look(job.id) or _of_training(view)
            for name, data in _events(view, news):
                if seen.get(name) != data:
                    seen[name] = data
                    yield ServerSentEvent(event=name.partition(" ")[0], data=data)
            if view.state.final:
                yield ServerSentEvent(event="end", data=view)
                return
        await asyncio.sleep(here.settings.web.poll_s)


async def _view(here: Endpoint, request: Request, tenant_id: str, job_id: str) -> JobView | None:
    """The job as it is; None while nobody knows. Raises `NotFoundError` for one that was erased meanwhile."""
    try:
        return await run_in_threadpool(current_view, here, request, tenant_id, job_id)
    except DatabaseError:
        return None


def _of_training(view: JobView) -> Progress | None:
    """A training's progress, which its trainer writes with its lease, in the job's row; None for any other job."""
    if view.kind != Kind.IDENTITY or view.state != State.RUNNING:
        return None
    return Progress(view.attempts, "train", view.steps_done, view.steps)


def _events(view: JobView, news: Progress | None) -> list[tuple[str, Any]]:
    """(name, data) of what is to be said now; what was said before under the same name is not said again."""
    events: list[tuple[str, Any]] = [
        ("state", {"state": view.state, "position": view.position, "attempt": view.attempts})
    ]
    if news is None or news.attempt != view.attempts:
        return events
    place = {"attempt": news.attempt}
    events += [(f"candidate {news.attempt} {one.index}", {**place, **vars(one)}) for one in news.candidates]
    events.append(("progress", {**place, "stage": news.stage, "done": news.done, "total": news.total}))
    if news.preview is not None:
        events.append(("preview", {**place, "png": base64.b64encode(news.preview).decode()}))
    return events
