"""OpenAI's routes for pictures, so that programs written for it need only another address and key.

`model` is the base, `user` or `identity_id` the person. The answer comes when the pictures are there.
"""

import base64
import time
from typing import Annotated

from fastapi import APIRouter, Body, Request
from starlette.concurrency import run_in_threadpool

from studiolo.errors import NotFoundError, UnacceptableError
from studiolo.portraits.requests import EditRequest
from studiolo.service.keys import Caller
from studiolo.service.records import Job, JobReason, State
from web import examples
from web.edits import Sent, gone_if_refused, order_edit, receive_template, require_edits
from web.endpoint import Endpoint, Here, IdempotencyKey, Who
from web.errors import OPENAI, FailedError
from web.forms import parsed
from web.jobs import result_of
from web.portraits import accept, portrait_request, upscale_of, waited
from web.types import OpenAIBody, OpenAIImage, OpenAIImages, OpenAITexts, OpenAIWanted

router = APIRouter(tags=["openai"])

_IMAGES, _MASKS = ("image", "image[]"), ("mask", "mask[]")
_PASSED_OVER = frozenset(
    {
        *("background", "input_fidelity", "moderation", "output_compression", "partial_images", "quality"),
        "safety_identifier",
    }
)
"""Fields of OpenAI's form that have no meaning here."""
_FORM = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["image", "prompt"],
                "properties": {
                    "image": {
                        "type": "string",
                        "format": "binary",
                        "description": "One picture, the template. A `mask` is refused: it is made here, around the"
                        " face.",
                    },
                    **OpenAITexts.model_json_schema()["properties"],
                },
            },
            "example": examples.OPENAI_EDIT,
        }
    },
}
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
    return await _answered(here, body, job, request, idempotency_key)


@router.post(f"{OPENAI}edits", openapi_extra={"requestBody": _FORM})
async def edit_images(here: Here, who: Who, request: Request, idempotency_key: IdempotencyKey = None) -> OpenAIImages:
    """Draw a person in the place of somebody in a picture, and answer when it is done: see `POST /v1/edits`."""
    require_edits(here)
    sent = await receive_template(request, here, _IMAGES, frozenset(OpenAITexts.model_fields) | _PASSED_OVER, _MASKS)
    async with gone_if_refused(here, sent):
        texts = parsed(OpenAITexts, sent.fields)
        job = await run_in_threadpool(_accepted_edit, here, who, sent, texts, idempotency_key)
    return await _answered(here, texts, job, request, idempotency_key)


async def _answered(
    here: Endpoint, wanted: OpenAIWanted, job: Job, request: Request, idempotency_key: str | None
) -> OpenAIImages:
    """The answer to a job, waited for."""
    job = await waited(here, job, _GRACE * here.settings.web.openai_wait_s, request)
    if not job.state.final:
        if idempotency_key is None:
            job = await run_in_threadpool(_cancelled, here, job)
        if not job.state.final or job.reason == JobReason.CANCELLED:
            raise FailedError(504, "too_slow", "The pictures were not ready in time; try again.", 10.0)
    return await run_in_threadpool(_answer, here, wanted, job, request)


def _cancelled(here: Endpoint, job: Job) -> Job:
    return here.service.queue.cancel(job.tenant_id, job.id) or job


def _accepted(here: Endpoint, who: Caller, body: OpenAIBody, idempotency_key: str | None) -> Job:
    _check(here, body)
    wanted = portrait_request(
        identity_id=body.who,
        style=body.style_name,
        prompt=body.prompt,
        count=body.n or 1,
        seed=body.seed,
        upscale=None if body.size in (None, "auto") else upscale_of(here, _side_px(body.size)),
    )
    return accept(here, who, wanted, here.settings.web.openai_wait_s, idempotency_key)


def _accepted_edit(here: Endpoint, who: Caller, sent: Sent, texts: OpenAITexts, idempotency_key: str | None) -> Job:
    _check(here, texts)
    if texts.size not in (None, "auto"):
        raise UnacceptableError("size", "A picture is as large as its template here; leave the size out.")
    if texts.who is None:
        raise UnacceptableError("identity", "Name the person who is to be drawn, as identity_id or as user.")
    wanted = EditRequest(
        identity_id=texts.who,
        template_sha256=sent.sha256,
        face=texts.point,
        count=texts.n or 1,
        seed=texts.seed,
        prompt=texts.prompt,
        strength=texts.strength,
    )
    return order_edit(here, who, sent, wanted, here.settings.web.openai_wait_s, idempotency_key)


def _check(here: Endpoint, wanted: OpenAIWanted) -> None:
    if wanted.model not in (None, here.settings.base):
        sentence = f"There is no model {wanted.model!r}; there is {here.settings.base!r}."
        raise NotFoundError("model_not_found", sentence)
    if wanted.stream:
        raise UnacceptableError("stream", "Pictures are not streamed here; use our own routes and a job's events.")


def _side_px(size: str | None) -> int:
    width, height = map(int, str(size).split("x"))
    if width != height:
        raise UnacceptableError("size", f"Got the size {size}; pictures here are square.")
    return width


def _answer(here: Endpoint, wanted: OpenAIWanted, job: Job, request: Request) -> OpenAIImages:
    """The pictures of a job that has ended. Raises `FailedError` when it has none."""
    result = result_of(job)
    if job.state != State.SUCCEEDED:
        again_s = _AGAIN_S.get(JobReason(job.reason)) if job.reason in list(JobReason) else None
        status = _STATUS[JobReason(job.reason)] if job.reason in list(JobReason) else 422
        why = "; ".join(f"{one.count} x {one.sentence}" for one in result.rejected)
        raise FailedError(status, job.reason, f"{job.sentence} {why}".strip(), again_s)
    if not result.images:  # an order that was sent again under its idempotency key
        raise FailedError(404, "expired", "Its pictures are not kept any more.")
    data = []
    for number, image in enumerate(result.images):
        if wanted.response_format == "b64_json":
            content = here.service.store.read_bytes(image.path)
            data.append(OpenAIImage(b64_json=base64.b64encode(content).decode()))
        else:
            data.append(OpenAIImage(url=here.url(request, f"/v1/jobs/{job.id}/images/{number}")))
    size = f"{result.images[0].width_px}x{result.images[0].height_px}"
    return OpenAIImages(created=int(job.finished_at or time.time()), data=data, size=size)
