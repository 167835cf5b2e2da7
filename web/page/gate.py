"""What every request of the page passes: known paths only, a key that opens, its own session, and strict headers.

Gradio has doors that this page does not use: files by their paths, a proxy, monitoring, editing. They stay shut.
"""

import hashlib
import json
import os.path
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from web.asgi import replayed, route_path
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
_HEARTBEAT = "/gradio_api/heartbeat/"
_METHODS = frozenset({"GET", "HEAD", "POST"})
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


class _Refused(Exception):
    """A request that goes no further, with its answer."""

    def __init__(self, answer: Response) -> None:
        super().__init__(answer.status_code)
        self.answer = answer


class Gate:
    """Lets requests through to `app`. `opens` says whether a key is good; it may raise `AnswerError`.

    Files that a request names lie in `folder`, and uploads have at most `upload_bytes`.
    """

    def __init__(self, app: ASGIApp, opens: Callable[[str], Awaitable[bool]], folder: Path, upload_bytes: int) -> None:
        self.app, self.opens, self.folder, self.upload_bytes = app, opens, folder, upload_bytes
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

        try:
            receive = await self._admitted(Request(scope, receive))
        except _Refused as refused:
            await refused.answer(scope, receive, guarded)
        else:
            await self.app(scope, receive, guarded)

    async def _admitted(self, request: Request) -> Receive:
        """What the app reads the request from. Raises `_Refused`."""
        path, receive, body = route_path(request.scope), request.receive, b""
        if not path:
            raise _Refused(RedirectResponse(request.url.path + "/", 308))
        if request.method not in _METHODS or not _known(path):
            raise _Refused(PlainTextResponse("There is no such thing.", 404))
        if request.method == "POST":
            if not _of_this_page(request):
                raise _Refused(PlainTextResponse("This was sent by another site.", 403))
            if path == _UPLOAD:
                receive = self._metered(request)
            else:
                body = await whole(receive, _BODY_BYTES)
                receive = replayed(body, receive)
        if OPEN.fullmatch(path):
            return receive
        key = request.cookies.get(COOKIE)
        try:
            if key is None or not await self._opens(key):
                raise _Refused(_shut(request, path))
        except AnswerError as error:
            raise _Refused(_away(error, path)) from None
        said = _said(body) if path in (_JOIN, _CANCEL) and request.method == "POST" else {}
        if not all(self._lies_here(file) for file in _files(said.get("data"))):
            raise _Refused(PlainTextResponse("This file was not dropped here.", 403))
        if not self._own(_sessions(path, request, said), _digest(key)):
            raise _Refused(PlainTextResponse("This session is somebody else's.", 403))
        return receive

    def _metered(self, request: Request) -> Receive:
        length = request.headers.get("content-length", "")
        if length.isascii() and length.isdigit() and int(length[:20]) > self.upload_bytes:
            raise _Refused(PlainTextResponse("The photos are too large together.", 413))
        return metered(request.receive, self.upload_bytes)

    async def _opens(self, key: str) -> bool:
        digest = _digest(key)
        if self._sure.get(digest, 0.0) > time.monotonic():
            return True
        self._sure.pop(digest, None)
        if not await self.opens(key):
            return False
        _remember(self._sure, digest, time.monotonic() + _SURE_S)
        return True

    def _lies_here(self, file: str) -> bool:
        """Whether a file is one that was dropped. Gradio would fetch others: of this machine, or of any address."""
        return Path(os.path.abspath(file)).is_relative_to(self.folder)

    def _own(self, sessions: set[str], digest: str) -> bool:
        """Whether the sessions of Gradio's that a request names are those of this key: whoever named them first."""
        for session in sessions - self._sessions.keys():
            _remember(self._sessions, session, digest)
        return all(self._sessions.get(session) == digest for session in sessions)


def _known(path: str) -> bool:
    return ".." not in path and any(some.fullmatch(path) for some in (OPEN, _OWN, _GRADIO))


async def whole(receive: Receive, limit: int) -> bytes:
    """A body. Raises `_Refused` for one of more than `limit` bytes."""
    body, more = bytearray(), True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message["type"] == "http.request" and message.get("more_body", False)
        if len(body) > limit:
            raise _Refused(PlainTextResponse("The request is too large.", 413))
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


def _said(body: bytes) -> dict[str, Any]:
    """What a request for Gradio's queue says. Raises `_Refused` for what is no object."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise _Refused(PlainTextResponse("This is not understood.", 400))
    return said


def _files(data: Any) -> Iterator[str]:
    """Names of all files that the inputs of a control name, wherever in them."""
    waiting = [data]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            if "path" in one:
                yield str(one["path"])
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one


def _sessions(path: str, request: Request, said: dict[str, Any]) -> set[str]:
    """Gradio's sessions that a request names, in its body, path or query."""
    found = {*request.query_params.getlist("session_hash")}
    if said.get("session_hash") is not None:
        found.add(str(said["session_hash"]))
    if path.startswith(_HEARTBEAT):
        found.add(path.removeprefix(_HEARTBEAT))
    return found


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
