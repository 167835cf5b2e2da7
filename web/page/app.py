"""The page's application: signing in, pictures by authorised URLs, and Gradio below it.

It holds no key and no picture: the key comes with each request, in a cookie that no script reads, and goes on to `/v1`.
"""

import asyncio
import os
import tempfile
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import httpx
from fastapi import FastAPI, Form, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, PlainTextResponse, RedirectResponse
from starlette.background import BackgroundTask
from starlette.responses import StreamingResponse

from studiolo.service.endpoint import EndpointSettings
from web.asgi import route_path
from web.page import views
from web.page.cache import Cache, keep_swept
from web.page.client import NO_KEY, AnswerError, Client
from web.page.gate import COOKIE, Gate
from web.page.photos import Looker
from web.page.studio import Studio

_ASSETS = Path(__file__).with_name("assets")
_CHUNK = 2**16
_IN_MEMORY = 4 * 2**20
_ANSWER_S = 30.0
_CONNECTIONS, _KEPT_ALIVE = 1000, 50
"""To `/v1`: whoever follows a job holds one."""


def create_page(settings: EndpointSettings, endpoint_url: str) -> FastAPI:
    """The page over the `/v1` at `endpoint_url`. Its sessions are in this process: one of it serves all who come."""
    cache = Cache()
    os.environ["GRADIO_TEMP_DIR"] = str(cache.folder)  # Gradio reads its settings from there, again and again
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    limits = httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_KEPT_ALIVE)
    http = httpx.AsyncClient(base_url=endpoint_url, timeout=_ANSWER_S, trust_env=False, limits=limits)
    studio = Studio(settings, http, Looker(settings.perception, settings.suite))

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        sweeping = asyncio.create_task(keep_swept(cache.folder, settings.page.cache_s))
        yield
        sweeping.cancel()
        await http.aclose()
        studio.looker.close()
        cache.close()

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=life)
    _add_files(app)
    _add_door(app, studio)
    _add_portraits(app, studio)
    _mount_gradio(app, studio)
    upload_bytes = int(settings.uploads.max_album_mib * 2**20) + 2**20

    async def opens(key: str) -> bool:
        try:
            await Client(http, key).styles()
        except AnswerError as error:
            if error.status in (401, 403):
                return False
            raise
        return True

    app.add_middleware(Gate, opens=opens, folder=cache.folder, upload_bytes=upload_bytes)
    return app


def _mount_gradio(app: FastAPI, studio: Studio) -> None:
    import gradio as gr  # reads the environment when it is imported

    from web.page.blocks import build_blocks
    from web.page.theme import HEAD, theme

    gr.mount_gradio_app(
        app,
        build_blocks(studio),
        path="/",
        theme=theme(),
        head=HEAD,
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        pwa=False,
        max_file_size=int(studio.settings.uploads.max_photo_mib * 2**20),
        i18n=gr.I18n(en={"common.upload": "Add photos"}),  # the words of a button that Gradio has forgotten
        app_kwargs={"docs_url": None, "redoc_url": None, "openapi_url": None},
    )


def _add_files(app: FastAPI) -> None:
    @app.get("/healthz")
    async def healthz() -> PlainTextResponse:
        return PlainTextResponse("ok")

    @app.get("/page.css")
    async def css() -> FileResponse:
        return FileResponse(_ASSETS / "page.css", headers={"Cache-Control": "no-cache"})

    @app.get("/styles/{name}.jpg")
    async def style(name: str) -> Response:
        found = {path.stem: path for path in (_ASSETS / "styles").glob("*.jpg")}
        if name not in found:
            return PlainTextResponse("There is no picture of this style.", 404)
        return FileResponse(found[name], headers={"Cache-Control": "private, max-age=3600"})


def _add_door(app: FastAPI, studio: Studio) -> None:
    @app.get("/sign-in")
    async def door() -> HTMLResponse:
        return _door("")

    @app.post("/sign-in")
    async def sign_in(request: Request, key: Annotated[str, Form(max_length=200)] = "") -> Response:
        try:
            key = key.strip()
            await Client(studio.http, key).styles()
        except AnswerError as error:
            refused = error.status in (401, 403)
            return _door(NO_KEY if refused else error.sentence, error.status)
        answer = RedirectResponse("./", 303)
        place = _place(request)
        secure = "https" in (request.url.scheme, request.headers.get("x-forwarded-proto"))
        age_s = int(studio.settings.page.signed_in_s)
        answer.set_cookie(COOKIE, key, age_s, path=place, secure=secure, httponly=True, samesite="strict")
        return answer

    @app.post("/sign-out")
    async def sign_out(request: Request) -> Response:
        answer = RedirectResponse("sign-in", 303, {"Clear-Site-Data": '"cache", "storage"'})
        answer.delete_cookie(COOKIE, path=_place(request), httponly=True, samesite="strict")
        return answer


def _add_portraits(app: FastAPI, studio: Studio) -> None:
    @app.get("/portraits/{job_id}/{number}.png")
    async def portrait(request: Request, job_id: str, number: int) -> Response:
        try:
            found = await studio.client(request.cookies).image(job_id, number)
        except AnswerError as error:
            return PlainTextResponse(error.sentence, error.status)
        headers = {"Cache-Control": "private, max-age=600", "Vary": "Cookie"}  # for whoever signs in next, another
        return Response(found.content, media_type="image/png", headers=headers)

    @app.get("/portraits/{job_id}.zip")
    async def portraits(request: Request, job_id: str) -> Response:
        client = studio.client(request.cookies)
        try:
            job = await client.job(job_id)
            if not job.images:
                raise AnswerError(404, "no_images", "There are no pictures of this job.")
            file = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115  (closed when it was sent)
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                for number in range(len(job.images)):
                    archive.writestr(f"portrait-{number + 1:02}.png", (await client.image(job_id, number)).content)
        except AnswerError as error:
            return PlainTextResponse(error.sentence, error.status)
        size = file.tell()
        file.seek(0)
        headers = {"Content-Length": str(size), "Cache-Control": "no-store"}
        headers["Content-Disposition"] = f'attachment; filename="{job.id}.zip"'
        parts, done = iter(lambda: file.read(_CHUNK), b""), BackgroundTask(file.close)
        return StreamingResponse(parts, media_type="application/zip", headers=headers, background=done)


def _door(sentence: str, status: int = 200) -> HTMLResponse:
    page = views.templates().get_template("sign_in.html.j2").render(sentence=sentence)
    return HTMLResponse(page, status, {"Cache-Control": "no-store"})


def _place(request: Request) -> str:
    """Path below which the cookie is sent: that of the page."""
    path = request.url.path
    return path[: len(path) - len(route_path(request.scope))] + "/"
