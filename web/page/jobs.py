"""The tab *Jobs*: everything that was accepted, where it stands in the queue, how far it is; cancelling."""

import asyncio
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studiolo.service.records import State
from web.page import views
from web.page.client import AnswerError, Client
from web.page.studio import QUIET, Studio, names_of, now_s, said, titles_of
from web.types import JobView

TITLE = "Jobs"
_EVERY_S = 3.0
_NAMES_S = 30.0
"""So long names are not asked for again."""
_PART, _MOST = 20, 100
_PLACES = 5
"""So many jobs of a list are asked for their places in the queue, those that come first."""
_CANCEL = """element.addEventListener('click', (event) => {
    const button = event.target.closest('button[data-job]');
    if (button) trigger('cancel', {job: button.dataset.job});
});"""


def build(studio: Studio, blocks: gr.Blocks, tab: gr.Tab) -> gr.Timer:
    """Fill the tab; what comes back ticks as long as it is shown."""
    tasks, shown, limit, names = _Tasks(studio), gr.State(""), gr.State(_PART), gr.State(None)
    gr.HTML("<h2>Jobs</h2>")
    listed = gr.HTML(js_on_load=_CANCEL, elem_id="jobs")
    more = gr.Button("Show more", visible=False)
    timer = gr.Timer(_EVERY_S, active=False)
    inputs, outputs = [limit, shown, names], [listed, shown, more, names]
    gr.on([tab.select, timer.tick], tasks.look, inputs, outputs, trigger_mode="once", **QUIET)
    listed.cancel(tasks.cancel, [limit, names], outputs, **QUIET)
    more.click(lambda limit: min(limit + _PART, _MOST), limit, limit, **QUIET).then(
        tasks.look, inputs, outputs, **QUIET
    )
    return timer


@dataclass(frozen=True)
class _Names:
    """What people and styles are called, as of a moment (seconds since 1970)."""

    people: dict[str, str]
    styles: dict[str, str]
    at_s: float

    def suit(self, found: list[JobView]) -> bool:
        """Whether they are new enough, also for people who were sent since."""
        unknown = any(job.identity_id not in {None, *self.people} and job.created_at >= self.at_s for job in found)
        return not unknown and now_s() < self.at_s + _NAMES_S


class _Tasks:
    """What the tab's controls do."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    async def look(self, limit: int, shown: str, names: _Names | None, request: gr.Request) -> tuple[Any, ...]:
        """The jobs as they are, the same to compare with, whether there are more, and names, to be kept.

        What has not changed is left alone.
        """
        try:
            client = self.studio.client(request.cookies)
            page = await client.jobs(limit)
            found = await _with_places(client, page.data)
            if names is None or not names.suit(found):
                at_s = now_s()
                names = _Names(names_of(await client.people()), titles_of(await client.styles()), at_s)
        except AnswerError as error:
            html = views.notice(said(error), "bad")
            return html, html, gr.skip(), gr.skip()
        html = views.jobs(found, names.people, names.styles, now_s())
        if html == shown:
            return gr.skip(), gr.skip(), gr.skip(), names
        return html, html, gr.Button(visible=page.next is not None and limit < _MOST), names

    async def cancel(
        self, limit: int, names: _Names | None, request: gr.Request, event: gr.EventData
    ) -> tuple[Any, ...]:
        """Cancel the job whose button was pressed."""
        try:
            await self.studio.client(request.cookies).cancel(str(event.job))
        except AnswerError as error:
            html = views.notice(said(error), "bad")
            return html, html, gr.skip(), gr.skip()
        return await self.look(limit, "", names, request)


async def _with_places(client: Client, found: list[JobView]) -> list[JobView]:
    """The same jobs; of those that wait the next ones know their places, which a list does not tell."""
    waiting = [job for job in reversed(found) if job.state == State.QUEUED][:_PLACES]
    placed = {job.id: job for job in await asyncio.gather(*(client.job(one.id) for one in waiting))}
    return [placed.get(job.id, job) for job in found]
