"""Refusals and faults as `application/problem+json` (RFC 9457), each with the request's id."""

import json
import logging
import math
from http import HTTPStatus
from typing import Any

import pydantic
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from studiolo.errors import DatabaseError, RefusedError, StoreError
from web.asgi import route_path

log = logging.getLogger(__name__)

REQUEST_ID = "X-Request-ID"
OPENAI = "/v1/images/"
"""Paths whose problems also have OpenAI's `error` member."""
_AWAY_S = 5


class FieldError(pydantic.BaseModel):
    """One field that does not fit."""

    model_config = pydantic.ConfigDict(use_attribute_docstrings=True)

    field: str
    """Where: `body.count`, `query.limit`."""
    message: str
    """What was wanted."""


class Problem(pydantic.BaseModel):
    """Why a request was not carried out."""

    model_config = pydantic.ConfigDict(use_attribute_docstrings=True)

    title: str
    """The HTTP status in words."""
    status: int
    """The HTTP status."""
    detail: str
    """A sentence for people."""
    reason: str
    """A word for programs."""
    request_id: str
    """Name it when you ask us."""
    retry_after_s: int | None = None
    """Seconds after which the same request may go through; absent where waiting does not help."""
    errors: list[FieldError] | None = None
    """The fields that do not fit."""
    error: dict[str, Any] | None = None
    """The same in OpenAI's form, on its routes."""


class TooSlowError(RefusedError):
    """The client took too long to send its request."""

    status = 408


class FailedError(RefusedError):
    """A job that an answer waited for ended without one."""

    def __init__(self, status: int, reason: str, sentence: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason, sentence, retry_after_s)
        self.status = status


def answer(request: Request, error: Exception) -> Response:
    """The response that says `error`; what nobody foresaw is a 500 that gives nothing away, and is logged.

    The gate counts it by the reason that is left in `request.state.refusal`.
    """
    headers: dict[str, str] = {}
    errors: list[FieldError] | None = None
    retry_after_s: float | None = None
    if isinstance(error, RefusedError):
        status, reason, detail, retry_after_s = error.status, error.reason, error.sentence, error.retry_after_s
    elif isinstance(error, RequestValidationError):
        errors = [FieldError(field=".".join(map(str, item["loc"])), message=item["msg"]) for item in error.errors()]
        status, reason, detail = 422, "invalid", "; ".join(f"{item.field}: {item.message}" for item in errors)
    elif isinstance(error, HTTPException):
        status, headers = error.status_code, dict(error.headers or {})
        reason, detail = HTTPStatus(status).name.lower(), str(error.detail)
    elif isinstance(error, DatabaseError | StoreError):
        log.error("a part of the service is away: %s", error)
        status, reason, retry_after_s = 503, "away", _AWAY_S
        detail = "A part of the service is away; nothing was lost, try again."
    else:
        log.exception("a fault of ours", exc_info=error)
        status, reason, detail = 500, "fault", "A fault of ours; it was logged under the request's id."
    request.state.refusal = reason
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    problem = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        reason=reason,
        request_id=request.state.request_id,
        errors=errors,
    )
    if retry_after_s is not None:
        problem.retry_after_s = max(1, math.ceil(retry_after_s))
        headers["Retry-After"] = str(problem.retry_after_s)
    if route_path(request.scope).startswith(OPENAI):
        problem.error = {"message": detail, "type": reason, "code": reason, "param": None}
    content = json.dumps(problem.model_dump(exclude_none=True))  # ASCII: half a letter in a field's name is no fault
    return Response(content, status, headers, "application/problem+json")


def install(app: FastAPI) -> None:
    """Have the app answer with problems."""

    async def handle(request: Request, error: Exception) -> Response:
        return answer(request, error)

    for kind in (RefusedError, RequestValidationError, HTTPException, DatabaseError, StoreError):
        app.add_exception_handler(kind, handle)
