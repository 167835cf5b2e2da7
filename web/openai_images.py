"""OpenAI's route for pictures, so that programs written for it need only another address and key.

`model` is the base, `user` or `identity_id` the person. The answer comes when the pictures are there.
"""

import base64
import time
from typing import Annotated

from fastapi import APIRouter, Body, Request
from starlette.concurrency import run_in_threadpool

from studiolo.errors import NotFoundError, UnacceptableError
from studiolo.service.keys import Caller
from studiolo.service.records import Job, JobReason, State
from web import examples
from web.endpoint import Endpoint, Here, IdempotencyKey, Who
from web.errors import OPENAI, FailedError
from web.jobs import result_of
from web.portraits import accept, portrait_request, upscale_of, waited
from web.types import OpenAIBody, OpenAIImage, OpenAIImages

router = APIRouter(tags=["openai"])

_GRACE = 1.1
"""How much longer than the job's deadline an answer waits: what was begun in time may be finished."""
_STATUS = {JobReason.DEADLINE: 504, JobReason.GAVE_UP: 503, JobReason.CANCELLED: 409, JobReason.ERASED: 404}
_AGAIN_S = {JobReason.DEADLINE: 10.0, JobReason.GAVE_UP: 10.0}


@router.post(f"{OPENAI}generations")
async def generate_images(
    body: Annotated[OpenAIBody, Body(openapi_examples=examples.OPENAI)],
    here: Here,
    who: Who,
    request: Request,
    idempotency_key: IdempotencyKey = None,
) -> OpenAIImages:
    """Make pictures and answer when they are there. Who hangs up has the job cancelled, unless it has a name."""
    job = await run_in_threadpool(_accepted, here, who, body, idempotency_key)
    job = await waited(here, job, _GRACE * here.settings.web.openai_wait_s, request)
    if not job.state.final:
        if idempotency_key is None:
            job = await run_in_threadpool(_cancelled, here, job)
        if not job.state.final or job.reason == JobReason.CANCELLED:
            raise FailedError(504, "too_slow", "The pictures were not ready in time; try again.", 10.0)
    return await run_in_threadpool(_answer, here, body, job, request)


def _cancelled(here: Endpoint, job: Job) -> Job:
    return here.service.queue.cancel(job.tenant_id, job.id) or job


def _accepted(here: Endpoint, who: Caller, body: OpenAIBody, idempotency_key: str | None) -> Job:
    if body.model not in (None, here.settings.base):
        raise NotFoundError("model_not_found", f"There is no model {body.model!r}; there is {here.settings.base!r}.")
    if body.stream:
        raise UnacceptableError("stream", "Pictures are not streamed here; use /v1/portraits and its job's events.")
    wanted = portrait_request(
        identity_id=body.identity_id or body.user or None,
        style=body.style_name,
        prompt=body.prompt,
        count=body.n or 1,
        seed=body.seed,
        upscale=None if body.size in (None, "auto") else upscale_of(here, _side_px(body.size)),
    )
    return accept(here, who, wanted, here.settings.web.openai_wait_s, idempotency_key)


def _side_px(size: str | None) -> int:
    width, height = map(int, str(size).split("x"))
    if width != height:
        raise UnacceptableError("size", f"Got the size {size}; pictures here are square.")
    return width


def _answer(here: Endpoint, body: OpenAIBody, job: Job, request: Request) -> OpenAIImages:
    """The pictures of a job that has ended. Raises `FailedError` when it has none."""
    images = result_of(job).images
    if job.state != State.SUCCEEDED:
        again_s = _AGAIN_S.get(JobReason(job.reason)) if job.reason in list(JobReason) else None
        status = _STATUS[JobReason(job.reason)] if job.reason in list(JobReason) else 422
        raise FailedError(status, job.reason or "failed", job.sentence or "It failed.", again_s)
    if not images:
        why = "; ".join(f"{one.count} x {one.sentence}" for one in result_of(job).rejected)
        raise FailedError(422, "rejected", f"No picture was good enough. {why}".strip())
    data = []
    for number, image in enumerate(images):
        if body.response_format == "b64_json":
            content = here.service.store.read_bytes(image.path)
            data.append(OpenAIImage(b64_json=base64.b64encode(content).decode()))
        else:
            data.append(OpenAIImage(url=here.url(request, f"/v1/jobs/{job.id}/images/{number}")))
    size = f"{images[0].width_px}x{images[0].height_px}"
    return OpenAIImages(created=int(job.finished_at or time.time()), data=data, size=size)
