"""What *Portraits* and *Edit* share: an order is sent, followed to its pictures, stopped, and shown again later."""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import gradio as gr

from studiolo.service.records import Kind
from web.page import views
from web.page.client import AnswerError, Client
from web.page.studio import Choices, Studio, names_of, said, titles_of
from web.types import IdentityView, JobView, StyleView

_RECENT = 100
_OFFERED = 30

Send = Callable[[Client, str], Awaitable[JobView]]
"""Orders something under an idempotency key."""
Show = Callable[[JobView, dict[str, str], dict[str, str]], str]
"""HTML of a job that has ended, given names by identity and titles by style."""
Mine = Callable[[JobView], bool]
"""Whether a job of portraits is one of the tab's."""


async def made(
    studio: Studio, request: gr.Request, send: Send, show: Show, mine: Mine
) -> AsyncIterator[tuple[Any, ...]]:
    """Order, follow and show; what is going on, results, job, both buttons, earlier orders."""
    on, off = gr.Button(interactive=True), gr.Button(interactive=False)
    busy, idle = (off, on), (on, off)
    try:
        client = studio.client(request.cookies)
        job = await send(client, uuid.uuid4().hex)
        wanted, news = int(job.request.get("count", 1)), views.News(position=job.position)
        yield views.making(news, wanted), "", job.id, *busy, gr.skip()
        async for name, data in client.events(job.id):
            news.take(name, data)
            if name in ("progress", "preview", "candidate", "state"):
                yield views.making(news, wanted), *(gr.skip(),) * 5
        job = await client.job(job.id)
        people, styles = await client.people(), await client.styles()
        html = show(job, names_of(people), titles_of(styles))
        yield "", html, "", *idle, await earlier(client, people, styles, mine)
    except AnswerError as error:
        yield views.notice(said(error), "bad"), gr.skip(), "", *idle, gr.skip()


async def stopped(studio: Studio, job_id: str, request: gr.Request) -> Any:
    """Cancel what is being made; who follows it hears of it. What went wrong."""
    if not job_id:
        return gr.skip()
    try:
        await studio.client(request.cookies).cancel(job_id)
    except AnswerError as error:
        return views.notice(said(error), "bad")
    return gr.skip()


async def again(studio: Studio, job_id: str | None, request: gr.Request, show: Show) -> tuple[Any, Any]:
    """The results of an earlier order, and what went wrong."""
    if not job_id:
        return gr.skip(), gr.skip()
    try:
        client = studio.client(request.cookies)
        job = await client.job(job_id)
        people, styles = await client.people(), await client.styles()
    except AnswerError as error:
        return gr.skip(), views.notice(said(error), "bad")
    return show(job, names_of(people), titles_of(styles)), gr.skip()


async def earlier(client: Client, people: list[IdentityView], styles: list[StyleView], mine: Mine) -> Any:
    """The choice of earlier orders of which something can be shown: pictures, or why none was good enough."""
    found = (await client.jobs(_RECENT, kind=Kind.PORTRAITS)).data
    names, titles = names_of(people), titles_of(styles)
    own = [job for job in found if (job.images or job.rejected) and mine(job)][:_OFFERED]
    choices: Choices = [(_called(job, names, titles), job.id) for job in own]
    return gr.Dropdown(choices=choices, value=None, visible=bool(choices))


def seed_of(text: str) -> int | None:
    """A seed as somebody wrote it; None when nobody did. Raises `AnswerError` for what is none."""
    text = text.strip()
    if text and not (text.isascii() and text.isdigit()):
        raise AnswerError(422, "seed", "A seed is a whole number.")
    return int(text) if text else None


def _called(job: JobView, names: dict[str, str], titles: dict[str, str]) -> str:
    count = len(job.images) or "none good enough"
    return f"{views.title(job, names, titles)} ({count}), {views.moment(job.created_at)}"
