"""What every request of the page passes: known paths only, a key that opens, its own session, and strict headers.

Gradio has doors that this page does not use: files by their paths, a proxy, monitoring, editing. They stay shut.
"""

import hashlib
import json
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TypeVar
from urllib.parse import parse_qs, urlsplit

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from web.page import views
from web.page.client import AnswerError

Kept = TypeVar("Kept")

COOKIE = "studiolo_key"

OPEN = re.compile(r"/(sign-in|page\.css|static/fonts/[\w/.-]+|healthz)")
"""Paths for which nobody has to be signed in."""
_OWN = re.compile(r"/(sign-out|styles/[\w-]+\.jpg|portraits/\w+(/\d+\.png|\.zip))")
_GRADIO = re.compile(
    r"/(config|theme\.css|favicon\.ico|(assets|static|svelte)/[\w/.-]+"
    r"|gradio_api/(queue/(join|data)|upload|upload_progress|heartbeat/\w+|cancel|reset/?|startup-events))?"
)
_JOIN, _CANCEL, _UPLOAD = "/gradio_api/queue/join", "/gradio_api/cancel", "/gradio_api/upload"
_BODY_BYTES = 2**20
"""Of a request that is no upload."""
_SURE_S = 30.0
"""So long a key that opened once is not asked about again."""
_REMEMBERED = 10_000

_HEADERS = {
    # Gradio has scripts inside its page and compiles its templates; nothing in them comes from a person or from afar.
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline';"
        " img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:;"
        " object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # without any a browser would not say whose form it sends
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}


class Gate:
    """Lets requests through to `app`. `opens` says whether a key is good; it may raise `AnswerError`."""

    def __init__(self, app: ASGIApp, opens: Callable[[str], Awaitable[bool]], upload_bytes: int) -> None:
        self.app, self.opens, self.upload_bytes = app, opens, upload_bytes
        self._sure: OrderedDict[str, float] = OrderedDict()
        self._sessions: OrderedDict[str, str] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI has it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # nothing here speaks websockets

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                named = {name.lower() for name, _ in message["headers"]}
                more = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]
                message["headers"] = [*message["headers"], *(one for one in more if one[0] not in named)]
            await send(message)

        request = Request(scope, receive)
        refusal, receive = await self._admitted(request)
        if refusal is None:
            await self.app(scope, receive, guarded)
        else:
            await refusal(scope, receive, guarded)

    async def _admitted(self, request: Request) -> tuple[Response | None, Receive]:
        """Why not, if not; and what the app reads the request from."""
        path, receive = route_path(request), request.receive
        if not path:
            return RedirectResponse(request.url.path + "/", 308), receive
        if not (OPEN.fullmatch(path) or _OWN.fullmatch(path) or _GRADIO.fullmatch(path)) or ".." in path:
            return PlainTextResponse("There is no such thing.", 404), receive
        if request.method == "POST" and not _of_this_page(request):
            return PlainTextResponse("This was sent by another site.", 403), receive
        body: bytes | None = None
        if request.method == "POST":
            if path == _UPLOAD:
                length = request.headers.get("content-length", "")
                if length.isascii() and length.isdigit() and int(length[:20]) > self.upload_bytes:
                    return PlainTextResponse("The photos are too large together.", 413), receive
                receive = metered(receive, self.upload_bytes)
            elif (body := await whole(receive, _BODY_BYTES)) is None:
                return PlainTextResponse("The request is too large.", 413), receive
            else:
                receive = _again(body, receive)
        if OPEN.fullmatch(path):
            return None, receive
        key = request.cookies.get(COOKIE)
        try:
            if key is None or not await self._opens(key):
                return _shut(request, path), receive
        except AnswerError as error:
            return _away(error, path), receive
        if not self._own_session(path, request, body, _digest(key)):
            return PlainTextResponse("This session is somebody else's.", 403), receive
        return None, receive

    async def _opens(self, key: str) -> bool:
        digest = _digest(key)
        if self._sure.get(digest, 0.0) > time.monotonic():
            return True
        self._sure.pop(digest, None)
        if not await self.opens(key):
            return False
        _remember(self._sure, digest, time.monotonic() + _SURE_S)
        return True

    def _own_session(self, path: str, request: Request, body: bytes | None, digest: str) -> bool:
        """Whether the session of Gradio's that a request names, if any, is that of this key: whoever named it first."""
        session = _session(path, request, body)
        if session is None:
            return True
        if session not in self._sessions:
            _remember(self._sessions, session, digest)
        return self._sessions[session] == digest


def route_path(request: Request) -> str:
    """The path below the place where the page is mounted."""
    path, root = request.scope["path"], request.scope.get("root_path", "").rstrip("/")
    return path[len(root) :] if path.startswith(root) else path


async def whole(receive: Receive, limit: int) -> bytes | None:
    """A body; None for one of more than `limit` bytes."""
    body, more = bytearray(), True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message["type"] == "http.request" and message.get("more_body", False)
        if len(body) > limit:
            return None
    return bytes(body)


def metered(receive: Receive, limit: int) -> Receive:
    """`receive`, as of a client that hangs up after `limit` bytes."""
    came = 0

    async def take() -> Message:
        nonlocal came
        message = await receive()
        came += len(message.get("body", b""))
        return message if came <= limit else {"type": "http.disconnect"}

    return take


def _again(body: bytes, receive: Receive) -> Receive:
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def take() -> Message:
        return waiting.pop() if waiting else await receive()

    return take


def _session(path: str, request: Request, body: bytes | None) -> str | None:
    if path in (_JOIN, _CANCEL):
        try:
            said = json.loads(body or b"")
        except ValueError:
            return None
        found = said.get("session_hash") if isinstance(said, dict) else None
        return str(found) if found is not None else None
    if path.startswith("/gradio_api/heartbeat/"):
        return path.rpartition("/")[2]
    query = parse_qs(request.url.query)
    return query.get("session_hash", [None])[0]


def _of_this_page(request: Request) -> bool:
    """Whether a request was sent by a page of this address; browsers say so, other clients say nothing."""
    origin = request.headers.get("origin")
    hosts = {request.headers.get("host"), request.headers.get("x-forwarded-host")}
    return origin is None or urlsplit(origin).netloc in hosts


def _shut(request: Request, path: str) -> Response:
    if path == "/" and request.method in ("GET", "HEAD"):
        return RedirectResponse("sign-in", 303)
    return PlainTextResponse("Sign in first.", 401)


def _away(error: AnswerError, path: str) -> Response:
    if path != "/":
        return PlainTextResponse(error.sentence, error.status, {"Retry-After": "5"})
    page = views.templates().get_template("away.html.j2").render(sentence=error.sentence)
    return HTMLResponse(page, error.status, {"Retry-After": "5", "Cache-Control": "no-store"})


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _remember(where: OrderedDict[str, Kept], name: str, value: Kept) -> None:
    where[name] = value
    while len(where) > _REMEMBERED:
        where.popitem(last=False)
