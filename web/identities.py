"""Routes of identities: learning a person from an album, looking, erasing."""

import math
from typing import Any

import pydantic
from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool

from studiolo.errors import NotFoundError, RefusedError, UnacceptableError
from studiolo.identities.learned import LearnedVersion
from studiolo.service.identities import Identity, Version
from studiolo.service.keys import Caller
from studiolo.service.logs import current_request
from studiolo.service.records import Consent, Job, Kind, NewJob, Person, new_id
from studiolo.service.webhooks import check_url
from web import examples
from web.endpoint import Endpoint, Here, IdempotencyKey, IdentityId, Who
from web.jobs import Before, Limit, get_job
from web.types import CurvePoint, ErasureView, IdentityPage, IdentityView, JobView, ReferenceView, VersionView
from web.uploads import PHOTO_URLS, PHOTOS, Album, receive_album, remove_album

router = APIRouter(prefix="/v1/identities", tags=["identities"])

_TEXTS: dict[str, dict[str, Any]] = {
    "name": {"type": "string", "maxLength": 200, "description": "What you call the person."},
    "consent_given_by": {
        "type": "string",
        "description": "Whose consent it is: the person's, or of whoever answers for it.",
    },
    "consent_statement": {"type": "string", "description": "To what, in the words that were agreed to."},
    "consent_given_at": {"type": "number", "description": "When, in seconds since 1970."},
    "deadline_s": {"type": "number", "description": "Seconds from now within which it has to be learned."},
    "webhook_url": {"type": "string", "description": "Told when the job has ended."},
}
_REQUIRED = ["name", "consent_given_by", "consent_statement", "consent_given_at"]
_FORM = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": _REQUIRED,
                "properties": {
                    PHOTOS: {
                        "type": "array",
                        "items": {"type": "string", "format": "binary"},
                        "description": "1 to 20 photos or more, each a part of its own: JPEG, PNG, HEIC, WebP, AVIF.",
                    },
                    PHOTO_URLS: {
                        "type": "array",
                        "items": {"type": "string", "format": "uri"},
                        "description": "Photos to fetch, behind those that are sent, each URL a part of its own: https,"
                        " from hosts that the operator has listed; nowhere unless it has.",
                    },
                    **_TEXTS,
                },
            },
            "example": examples.ALBUM,
        }
    },
}


class _Texts(pydantic.BaseModel):
    """The texts of the form."""

    model_config = pydantic.ConfigDict(extra="forbid")

    name: str = pydantic.Field(min_length=1, max_length=200)
    consent_given_by: str = pydantic.Field(min_length=1, max_length=500)
    consent_statement: str = pydantic.Field(min_length=1, max_length=5000)
    consent_given_at: float = pydantic.Field(ge=0, allow_inf_nan=False)
    deadline_s: float | None = pydantic.Field(None, gt=0, le=1e9)
    webhook_url: str | None = pydantic.Field(None, pattern=r"^https?://[\x21-\x7e]{1,2000}$")


@router.post("", status_code=202, openapi_extra={"requestBody": _FORM})
async def learn_identity(
    here: Here, who: Who, request: Request, response: Response, idempotency_key: IdempotencyKey = None
) -> JobView:
    """Learn a person from an album. The job's `identity_id` is the new identity."""
    service, identity_id = here.service, new_id("id")
    album = await receive_album(request, here, identity_id, frozenset(_TEXTS))
    try:
        job = await run_in_threadpool(_submit, here, who, album, idempotency_key)
    except (RefusedError, RequestValidationError):  # after any other fault the job may be there all the same
        await run_in_threadpool(remove_album, service.store, identity_id)
        raise
    if job.identity_id != identity_id:  # it was sent before, and those photos are there
        await run_in_threadpool(remove_album, service.store, identity_id)
    response.headers["Location"] = here.url(request, f"/v1/jobs/{job.id}")
    return await run_in_threadpool(get_job, job, here, request)


def _submit(here: Endpoint, who: Caller, album: Album, idempotency_key: str | None) -> Job:
    try:
        texts = _Texts.model_validate(album.fields)
        consent = Consent(
            given_by=texts.consent_given_by, statement=texts.consent_statement, given_at=texts.consent_given_at
        )
        person = Person(name=texts.name, consent=consent)
    except pydantic.ValidationError as error:
        raise RequestValidationError([{**item, "loc": ("body", *item["loc"])} for item in error.errors()]) from None
    if not album.photos:
        raise UnacceptableError("no_photos", f"The album is empty; send the photos as parts called {PHOTOS}.")
    if texts.webhook_url is not None:
        check_url(texts.webhook_url, here.service.settings.webhooks)
    new = NewJob(
        kind=Kind.IDENTITY,
        request={PHOTOS: album.photos},
        steps=here.settings.face_lora.steps,
        identity_id=album.identity_id,
        person=person,
        deadline_s=texts.deadline_s,
        idempotency_key=idempotency_key,
        webhook_url=texts.webhook_url,
        request_id=current_request(),
    )
    return here.service.admission.submit(who, new)


@router.get("")
def list_identities(here: Here, who: Who, limit: Limit = 20, before: Before = None) -> IdentityPage:
    """Your identities, newest first."""
    page = here.service.identities.page(who.tenant_id, limit=limit, before=before)
    return IdentityPage(data=list(map(identity_view, page.items)), next=page.next)


@router.get("/{identity_id}")
def get_identity(identity_id: IdentityId, here: Here, who: Who) -> IdentityView:
    """One identity, with the references and the curve of each version."""
    identity = here.service.identities.get(who.tenant_id, identity_id)
    if identity is None:
        raise _missing(identity_id)
    return identity_view(identity)


@router.delete(
    "/{identity_id}",
    responses={202: {"model": ErasureView, "description": "A worker may still write: ask again after `Retry-After`."}},
)
def erase_identity(identity_id: IdentityId, here: Here, who: Who, response: Response) -> ErasureView:
    """Erase a person: photos, references, face-LoRAs, portraits, rows.

    Of one that was erased the receipt comes again.
    """
    erased = here.service.erasure.erase(who.tenant_id, identity_id, here.elsewhere)
    if erased is None:
        raise _missing(identity_id)
    if erased.receipt is None:
        response.status_code = 202
        response.headers["Retry-After"] = str(max(1, math.ceil(erased.again_s)))
    return ErasureView(state="erasing" if erased.receipt is None else "erased", receipt=erased.receipt)


def identity_view(identity: Identity) -> IdentityView:
    """An identity as its tenant sees it: no paths, no embeddings."""
    return IdentityView(
        id=identity.id,
        name=identity.name,
        state=identity.state,
        consent=identity.consent,
        created_at=identity.created_at,
        job_id=identity.job_id,
        versions=list(map(_version_view, identity.versions)),
    )


def _version_view(version: Version) -> VersionView:
    record = LearnedVersion.model_validate(version.record)
    return VersionView(
        number=version.number,
        job_id=version.job_id,
        created_at=version.created_at,
        lora_sha256=record.lora_sha256,
        steps=record.steps,
        references=[
            ReferenceView(photo=one.photo, quality_score=one.quality_score, verdict=one.verdict)
            for one in record.references
        ],
        photos=list(record.photos),
        curve=[CurvePoint(step=step, loss=loss) for step, loss in record.curve],
    )


def _missing(identity_id: str) -> NotFoundError:
    return NotFoundError("identity", f"There is no identity {identity_id[:60]}.")
