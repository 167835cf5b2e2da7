"""What every request passes before its body is read: a name, the key, the rate limit, then the body's limits.

FastAPI reads a body before it asks its dependencies, so this is ASGI around it.
"""

import asyncio
import logging
import re
import time
import uuid

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from studiolo.errors import TooLargeError, UnauthorisedError, UnsupportedError
from studiolo.service.endpoint import EndpointSettings
from studiolo.service.keys import Caller
from studiolo.service.logs import answering
from studiolo.service.service import Service
from web.asgi import replayed, route_path
from web.errors import REQUEST_ID, TooSlowError, answer
from web.strangers import Strangers

log = logging.getLogger("studiolo.requests")

STREAMED = frozenset({"/v1/edits", "/v1/identities", "/v1/images/edits", "/v1/provenance", "/v1/styles"})
"""Paths whose routes read their bodies themselves."""
_PROTECTED = "/v1/"
_SOUND_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_METHODS = _WITH_BODY | {"GET", "HEAD", "DELETE", "OPTIONS"}
_AS_IT_SAYS = (b"x-content-type-options", b"nosniff")
"""Browsers take an answer for what it says it is, and for no page."""


class Gate:
    """Lets requests through to `app`, with `request.state.caller` and `request.state.request_id`."""

    def __init__(self, app: ASGIApp, service: Service, settings: EndpointSettings) -> None:
        self.app, self.service, self.settings = app, service, settings
        self.strangers = Strangers(settings.web.wrong_keys_per_min)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI has it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request, began_s = Request(scope, receive), time.monotonic()
        given = request.headers.get(REQUEST_ID, "")
        request.state.request_id = given if _SOUND_ID.fullmatch(given) else uuid.uuid4().hex
        status = 0

        async def named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                named_so = (b"x-request-id", request.state.request_id.encode())
                message["headers"] = [*message["headers"], named_so, _AS_IT_SAYS]
            await send(message)

        with answering(request.state.request_id):
            try:
                await self.app(scope, await self._admitted(request, receive), named)
            except ClientDisconnect:
                pass  # nobody is there to be answered
            except Exception as error:
                if status:  # the answer has begun: only breaking it off tells the client
                    raise
                await answer(request, error)(scope, receive, named)
            finally:
                self._tell(request, status, time.monotonic() - began_s)

    def _tell(self, request: Request, status: int, seconds: float) -> None:
        """The log's line and the figures of one request: no path but the route's, no query, no body, no key."""
        route = getattr(request.scope.get("route"), "path", "none")
        method = request.method if request.method in _METHODS else "other"
        said = str(status) if status else "gone"
        key_id = getattr(getattr(request.state, "caller", None), "key_id", None)
        fields = {"method": method, "route": route, "status": status, "ms": round(1000 * seconds, 1), "key_id": key_id}
        log.info("request", extra=fields)
        meters = self.service.meters
        meters.count("studiolo_requests_total", method=method, route=route, status=said)
        meters.observe("studiolo_request_seconds", seconds, method=method, route=route)
        reason = getattr(request.state, "refusal", None)
        if reason is not None:
            meters.count("studiolo_refusals_total", status=said, reason=reason)

    async def _admitted(self, request: Request, receive: Receive) -> Receive:
        """What the app reads the request from. Raises `RefusedError` and `DatabaseError`."""
        path = route_path(request.scope)
        if not path.startswith(_PROTECTED):
            return receive
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise UnauthorisedError("no_key", "Send the API key as 'Authorization: Bearer KEY'.")
        address = request.client.host if request.client else ""
        request.state.caller = await run_in_threadpool(self._knock, token.strip(), address)
        if request.method not in _WITH_BODY or path in STREAMED:
            return receive
        return replayed(await self._body(request), receive)

    def _knock(self, token: str, address: str) -> Caller:
        self.strangers.check(address, token)
        try:
            caller = self.service.keys.authenticate(token)
        except UnauthorisedError:
            self.strangers.wrong(address, token)
            raise
        self.strangers.good(token)
        self.service.admission.knock(caller)
        return caller

    async def _body(self, request: Request) -> bytes:
        """The JSON body, whole."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise UnsupportedError("content_type", f"Got a body of type {kind!r}; send application/json.")
        limit = self.settings.web.max_body_kib * 1024
        check_length(request, limit)
        body = bytearray()
        try:
            async with asyncio.timeout(self.settings.web.body_s):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > limit:
                        raise too_large(limit)
        except TimeoutError:
            raise TooSlowError("too_slow", f"The body did not come in {self.settings.web.body_s:g} s.") from None
        return bytes(body)


def check_length(request: Request, limit: int) -> None:
    """Raises `TooLargeError` for a body that says itself that it has more than `limit` bytes."""
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length[:20]) > limit:
        raise too_large(limit)


def too_large(limit: int) -> TooLargeError:
    """What is raised for a body of more than `limit` bytes."""
    return TooLargeError("body_too_large", f"The body has more than {limit} bytes.")
