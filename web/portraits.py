"""The route of portraits, and how jobs of pictures are accepted and waited for."""

import asyncio
from typing import Annotated

import pydantic
from fastapi import APIRouter, Body, Request, Response
from starlette.concurrency import run_in_threadpool

from studiolo.errors import ConflictError, NotFoundError, SettingsError, UnacceptableError
from studiolo.portraits.requests import EditRequest, PortraitRequest
from studiolo.service.identities import IdentityState
from studiolo.service.keys import Caller
from studiolo.service.logs import current_request
from studiolo.service.records import Job, Kind, NewJob
from studiolo.service.webhooks import check_url
from web import examples
from web.endpoint import Endpoint, Here, IdempotencyKey, Who, found_job
from web.jobs import get_job
from web.types import JobView, PortraitsBody

router = APIRouter(prefix="/v1", tags=["portraits"])

_NOT_READY = {
    IdentityState.TRAINING: "It is still being learned; wait for its job.",
    IdentityState.FAILED: "It could not be learned; its job says why.",
    IdentityState.ERASING: "It is being erased.",
}
_UPSCALES = (1, 2, 4)
_AS_THEY_ARE = {
    *("identity_id", "style", "prompt", "negative_prompt", "count", "seed", "face_weight", "style_weight", "fusion")
}
"""Fields of a body that a request has under the same names."""


@router.post(
    "/portraits",
    status_code=202,
    responses={200: {"model": JobView, "description": "It is done: with `wait_s`, or asked for before."}},
)
async def order_portraits(
    body: Annotated[PortraitsBody, Body(openapi_examples=examples.PORTRAITS)],
    here: Here,
    who: Who,
    request: Request,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> JobView:
    """Order portraits. What is answered with 200 or 202 is kept, whatever happens to us afterwards."""
    job = await run_in_threadpool(_order, here, who, body, idempotency_key)
    if body.wait_s > 0:
        job = await waited(here, job, min(body.wait_s, here.settings.web.max_wait_s), request)
    response.headers["Location"] = here.url(request, f"/v1/jobs/{job.id}")
    response.status_code = 200 if job.state.final else 202
    return await run_in_threadpool(get_job, job, here, request)


def _order(here: Endpoint, who: Caller, body: PortraitsBody, idempotency_key: str | None) -> Job:
    fields = body.model_dump(include=_AS_THEY_ARE)
    upscale = None if body.size_px is None else upscale_of(here, body.size_px)
    wanted = portrait_request(upscale=upscale, accept_similarity=body.threshold, **fields)
    return accept(here, who, wanted, body.deadline_s, idempotency_key, body.webhook_url)


def portrait_request(**fields: object) -> PortraitRequest:
    """The request; raises `UnacceptableError` for one that wants nothing."""
    try:
        return PortraitRequest.model_validate(fields)
    except pydantic.ValidationError as error:
        sentence = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise UnacceptableError("request", f"{sentence[0].upper()}{sentence[1:]}.") from None


def upscale_of(here: Endpoint, side_px: int) -> int:
    """By how much the base's pictures are to be scaled up; raises `UnacceptableError`."""
    sides_px = {here.settings.base_px * upscale: upscale for upscale in _UPSCALES}
    if side_px not in sides_px:
        wanted = ", ".join(map(str, sides_px))
        raise UnacceptableError("size", f"Got pictures of {side_px} px a side; there are {wanted} px, square.")
    return sides_px[side_px]


def accept(
    here: Endpoint,
    who: Caller,
    wanted: PortraitRequest,
    deadline_s: float | None = None,
    idempotency_key: str | None = None,
    webhook_url: str | None = None,
) -> Job:
    """Put portraits into the queue, or refuse them. Raises `RefusedError`."""
    service = here.service
    own = None if wanted.style is None else service.styles.named(who.tenant_id, wanted.style)
    if own is not None:
        wanted = wanted.model_copy(update={"style_id": own.id})
    try:
        wanted.look(here.settings.style_folder, None if own is None else own.style())
    except SettingsError as error:
        raise UnacceptableError("style", str(error)) from None
    return enqueue(here, who, wanted, deadline_s, idempotency_key, webhook_url)


def enqueue(
    here: Endpoint,
    who: Caller,
    wanted: PortraitRequest | EditRequest,
    deadline_s: float | None,
    idempotency_key: str | None,
    webhook_url: str | None,
    job_id: str | None = None,
) -> Job:
    """Put a job of pictures into the queue, or refuse it; `job_id` is that under which files lie there already.

    Raises `RefusedError`.
    """
    service = here.service
    if webhook_url is not None:
        check_url(webhook_url, service.settings.webhooks)
    if wanted.identity_id is not None:
        identity = service.identities.get(who.tenant_id, wanted.identity_id)
        if identity is None:
            raise NotFoundError("identity", f"There is no identity {wanted.identity_id[:60]}.")
        if identity.state != IdentityState.READY:
            raise ConflictError("identity_not_ready", _NOT_READY[identity.state])
    new = NewJob(
        kind=Kind.PORTRAITS,
        id=job_id,
        request=wanted.model_dump(mode="json", exclude_defaults=True),
        steps=wanted.steps(here.settings.generation),
        units=wanted.count,
        identity_id=wanted.identity_id,
        deadline_s=deadline_s,
        idempotency_key=idempotency_key,
        webhook_url=webhook_url,
        request_id=current_request(),
    )
    return service.admission.submit(who, new)


async def waited(here: Endpoint, job: Job, wait_s: float, request: Request) -> Job:
    """The job when it has ended, after `wait_s`, or when the client is gone.

    Raises `NotFoundError` for one that was erased meanwhile.
    """
    clock = asyncio.get_running_loop().time
    end_s, pause_s = clock() + wait_s, min(0.05, here.settings.web.poll_s)
    while not job.state.final and clock() < end_s and not await request.is_disconnected():
        await asyncio.sleep(min(pause_s, max(0.0, end_s - clock())))
        pause_s = min(1.5 * pause_s, here.settings.web.poll_s)
        job = await run_in_threadpool(found_job, here, job.tenant_id, job.id)
    return job
