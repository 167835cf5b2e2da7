"""The tab *My data*: what is kept of whom and until when; erasing."""

import asyncio
from typing import Any

import gradio as gr

from studiolo.service.records import Kind, State
from web.page import views
from web.page.client import AnswerError, Client
from web.page.studio import QUIET, Studio, choices_of, said

TITLE = "My data"
_LISTED = 100
_TRIES = 20
_PAUSE_S = 3.0
_MISSING = "Choose a person and tick the box: what is erased does not come back."


def build(studio: Studio, blocks: gr.Blocks, tab: gr.Tab) -> None:
    """Fill the tab."""
    tasks = _Tasks(studio)
    with gr.Row(equal_height=False):
        with gr.Column(scale=7, min_width=320):
            gr.HTML("<h2>What is kept</h2>")
            kept = gr.HTML(elem_id="kept")
        with gr.Column(scale=4, min_width=320):
            gr.HTML("<h2>Erase a person</h2>")
            with gr.Group():
                person = gr.Dropdown(label="Whom", choices=[], interactive=True)
                sure = gr.Checkbox(label="Erase their photos, what was learned, and all portraits of them, for good")
            erase = gr.Button("Erase for good", variant="stop", size="lg")
            outcome = gr.HTML(elem_id="erased")
    tab.select(tasks.look, person, [kept, person], **QUIET)
    outputs = [outcome, kept, person, sure]
    erase.click(tasks.erase, [person, sure], outputs, trigger_mode="once", **{**QUIET, "show_progress": "minimal"})


class _Tasks:
    """What the tab's controls do."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    async def look(self, chosen: str | None, request: gr.Request) -> tuple[Any, Any]:
        """What is kept, and the people to choose from."""
        try:
            return await self._look(self.studio.client(request.cookies), chosen)
        except AnswerError as error:
            return views.notice(said(error), "bad"), gr.skip()

    async def erase(self, identity_id: str | None, sure: bool, request: gr.Request) -> tuple[Any, ...]:
        """Erase a person, and wait a minute for those who still work on it; outcome, what is kept, people, the box."""
        if not identity_id or not sure:
            return views.notice(_MISSING, "bad"), gr.skip(), gr.skip(), gr.skip()
        try:
            client = self.studio.client(request.cookies)
            name = (await client.person(identity_id)).name
            for _ in range(_TRIES):
                erasure, again_s = await client.erase(identity_id)
                if erasure.receipt is not None:
                    break
                await asyncio.sleep(min(again_s, _PAUSE_S))
            kept, people = await self._look(client, None)
        except AnswerError as error:
            return views.notice(said(error), "bad"), gr.skip(), gr.skip(), gr.skip()
        return views.erased(name, erasure), kept, people, False

    async def _look(self, client: Client, chosen: str | None) -> tuple[str, Any]:
        people = await client.people()
        portraits = await client.jobs(_LISTED, kind=Kind.PORTRAITS, state=State.SUCCEEDED)
        trainings = await client.jobs(_LISTED, kind=Kind.IDENTITY)
        photos = {str(job.identity_id): len(job.request.get("photos", [])) for job in reversed(trainings.data)}
        html = views.kept(people, portraits.data, photos, self.studio.settings.page.cache_s)
        there = chosen in [one.id for one in people]  # then it is left alone, as in `offered`; nobody is suggested here
        return html, gr.Dropdown(choices=choices_of(people), **({} if there else {"value": None}))
