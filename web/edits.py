"""The route of edits: a person's face in a template, which is a picture that is sent.

The template goes into the store as it came, with the job that is made of it, and is opened by a worker. What is found
in it, and why it may be none, is the job's result.
"""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import IO

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool

from studiolo.errors import NotFoundError, RefusedError, StoreError, TooLargeError, UnacceptableError
from studiolo.portraits.requests import EditRequest
from studiolo.service.keys import Caller
from studiolo.service.records import Job, new_id, template_path
from studiolo.service.uploads import check_photo
from studiolo.storage.store import Store
from web import examples
from web.endpoint import Endpoint, Here, IdempotencyKey, Who
from web.errors import TooSlowError
from web.forms import FormReader, Part, parsed
from web.jobs import get_job
from web.portraits import enqueue, waited
from web.types import EditTexts, JobView
from web.uploads import store_file

router = APIRouter(prefix="/v1", tags=["edits"])

TEMPLATE = "template"
"""Name of the part that is the template."""
_FORM = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": [TEMPLATE, "identity_id"],
                "properties": {
                    TEMPLATE: {
                        "type": "string",
                        "format": "binary",
                        "description": "The picture in which the person is drawn: JPEG, PNG, HEIC, WebP, AVIF. It is"
                        " scaled down where its longest side is above the service's limit.",
                    },
                    **EditTexts.model_json_schema()["properties"],
                },
            },
            "example": examples.EDIT,
        }
    },
}


@dataclass(frozen=True)
class Sent:
    """A template that is in the store, for a job that is to be."""

    job_id: str
    fields: dict[str, str]
    """The texts of its form."""
    sha256: str
    """Of the file."""


@router.post(
    "/edits",
    status_code=202,
    openapi_extra={"requestBody": _FORM},
    responses={200: {"model": JobView, "description": "It is done: with `wait_s`, or asked for before."}},
)
async def order_edits(
    here: Here, who: Who, request: Request, response: Response, idempotency_key: IdempotencyKey = None
) -> JobView:
    """Order pictures of a person in the place of somebody in a template. Outside that face nothing is changed.

    The job fails with `no_face`, `several_faces`, `no_face_there`, `face_too_small`, `turned_away`, `unsafe` or what a
    damaged file is called, where the picture is no template, and with `none_accepted` where no picture was good enough.
    """
    require_edits(here)
    sent = await receive_template(request, here, (TEMPLATE,), frozenset(EditTexts.model_fields))
    async with gone_if_refused(here, sent):
        texts = parsed(EditTexts, sent.fields)
        job = await run_in_threadpool(_order, here, who, sent, texts, idempotency_key)
    if texts.wait_s > 0:
        job = await waited(here, job, min(texts.wait_s, here.settings.web.max_wait_s), request)
    response.headers["Location"] = here.url(request, f"/v1/jobs/{job.id}")
    response.status_code = 200 if job.state.final else 202
    return await run_in_threadpool(get_job, job, here, request)


def _order(here: Endpoint, who: Caller, sent: Sent, texts: EditTexts, idempotency_key: str | None) -> Job:
    same = texts.model_dump(include={"identity_id", "count", "seed", "prompt", "negative_prompt", "strength"})
    wanted = EditRequest(template_sha256=sent.sha256, face=texts.point, **same)
    return order_edit(here, who, sent, wanted, texts.deadline_s, idempotency_key, texts.webhook_url)


def require_edits(here: Endpoint) -> None:
    """Raises `NotFoundError` where edits are not made."""
    if here.settings.controlnets is None:
        raise NotFoundError("no_edits", "Edits are not made here: the operator has named no ControlNets for the base.")


async def receive_template(
    request: Request, here: Endpoint, names: tuple[str, ...], texts: frozenset[str], masks: tuple[str, ...] = ()
) -> Sent:
    """The template of a form, in the store; it is not left there when it is refused.

    It is a part called one of `names`; `texts` are the names of the text fields there may be, and a part called one of
    `masks` is refused with its reason. Raises `RefusedError`, `StoreError`, and `ClientDisconnect`.
    """
    reader, time_s = _TemplateReader(request, here, names, texts, masks), here.settings.web.upload_s
    try:
        async with asyncio.timeout(time_s):
            await reader.read()
        if not reader.sha256:
            raise UnacceptableError("no_template", f"Send the template as a part called {names[0]}.")
    except BaseException as error:
        await asyncio.shield(run_in_threadpool(_remove, here.service.store, reader.job_id))
        if isinstance(error, TimeoutError):
            raise TooSlowError("too_slow", f"The template did not come in {time_s:g} s.") from None
        raise
    here.service.meters.count("studiolo_upload_bytes_total", reader.came)
    return Sent(reader.job_id, reader.fields, reader.sha256)


@asynccontextmanager
async def gone_if_refused(here: Endpoint, sent: Sent) -> AsyncIterator[None]:
    """A template of which there is no job is removed; after any other fault the job may be there all the same."""
    try:
        yield
    except (RefusedError, RequestValidationError):
        await run_in_threadpool(_remove, here.service.store, sent.job_id)
        raise


def order_edit(
    here: Endpoint,
    who: Caller,
    sent: Sent,
    wanted: EditRequest,
    deadline_s: float | None = None,
    idempotency_key: str | None = None,
    webhook_url: str | None = None,
) -> Job:
    """Put an edit into the queue, or refuse it. Raises `RefusedError`."""
    generation = here.settings.generation
    if wanted.steps_each(generation) < 1:
        least = math.ceil(1000 / generation.steps) / 1000
        raise UnacceptableError("strength", f"With this strength nothing is drawn; send {least} or more.")
    job = enqueue(here, who, wanted, deadline_s, idempotency_key, webhook_url, sent.job_id)
    if job.id != sent.job_id:  # it was sent before, and that template is there
        _remove(here.service.store, sent.job_id)
    return job


def _remove(store: Store, job_id: str) -> None:
    """A template without a job; what a store that is away keeps goes as an orphan."""
    with suppress(StoreError):
        store.remove(template_path(job_id))


class _TemplateReader(FormReader):
    """Reads one template into the store."""

    def __init__(
        self,
        request: Request,
        here: Endpoint,
        names: tuple[str, ...],
        texts: frozenset[str],
        masks: tuple[str, ...],
    ) -> None:
        self.here, self.names, self.masks = here, names, masks
        self.limit = int(here.service.settings.uploads.max_template_mib * 2**20)
        super().__init__(request, names[0], texts, self.limit)
        self.job_id, self.sha256 = new_id("job"), ""
        self.came = 0
        self._files = 0

    def is_file(self, name: str) -> bool:
        if name in self.masks:
            raise UnacceptableError("mask", "The mask is made here, around the face; send none.")
        return name in self.names

    def begin(self) -> None:
        self._files += 1
        if self._files > 1:
            raise UnacceptableError("form", "Send one template.")

    def take(self, count: int) -> None:
        self.came += count
        if self.came > self.limit:
            raise TooLargeError("template_too_large", f"The template has more than {self.limit / 2**20:g} MiB.")

    def sniff(self, begins: bytes) -> None:
        check_photo(begins)

    async def keep(self, file: IO[bytes], part: Part) -> None:
        async with self.here.writes:
            await run_in_threadpool(store_file, self.here.service.store, template_path(self.job_id), file)
        self.sha256 = part.digest.hexdigest()
