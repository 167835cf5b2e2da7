"""What the routes are given: the parts of the service, and who asks."""

import asyncio
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Header, Path, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from studiolo.errors import NotFoundError
from studiolo.service.endpoint import EndpointSettings
from studiolo.service.erasure import Elsewhere
from studiolo.service.keys import Caller
from studiolo.service.live import Live
from studiolo.service.records import Job
from studiolo.service.service import Service
from web import examples

_WRITES = 4
_LOOKS = 2
_INSPECTIONS = 1


@dataclass(frozen=True)
class Endpoint:
    """Everything a route may use."""

    service: Service
    settings: EndpointSettings
    live: Live
    elsewhere: Elsewhere | None
    writes: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_WRITES))
    """Held while a photo is whole in memory, on its way into the store."""
    looks: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_LOOKS))
    """Held while a child process looks at a picture."""
    inspections: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_INSPECTIONS))
    """Held while a LoRA is whole in memory."""

    def url(self, request: Request, path: str) -> str:
        """The URL of a path that begins with `/`, as the caller reaches it."""
        return (self.settings.web.public_url or str(request.base_url)).rstrip("/") + path


def _endpoint(request: Request) -> Endpoint:
    found: Endpoint = request.app.state.endpoint
    return found


_bearer = HTTPBearer(auto_error=False, scheme_name="API key", description="`Authorization: Bearer studiolo_...`")


def _caller(request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]) -> Caller:
    """The gate has looked at the key; here it is only written into the OpenAPI document."""
    found: Caller = request.state.caller
    return found


Here = Annotated[Endpoint, Depends(_endpoint)]
Who = Annotated[Caller, Depends(_caller)]
JobId = Annotated[str, Path(description="A job's id.", examples=[examples.JOB_ID])]
IdentityId = Annotated[str, Path(description="An identity's id.", examples=[examples.IDENTITY_ID])]
StyleId = Annotated[str, Path(description="The id of a style of your own.", examples=[examples.STYLE_ID])]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=r"^[\x21-\x7e]{1,255}$",
        description="Your name for this request: sent again under the same name it is the same job.",
    ),
]


def _job(job_id: JobId, here: Here, who: Who) -> Job:
    return found_job(here, who.tenant_id, job_id)


def found_job(here: Endpoint, tenant_id: str, job_id: str) -> Job:
    """The tenant's job; raises `NotFoundError`."""
    job = here.service.queue.get(tenant_id, job_id)
    if job is None:
        raise NotFoundError("job", f"There is no job {job_id[:60]}.")
    return job


TheJob = Annotated[Job, Depends(_job)]
