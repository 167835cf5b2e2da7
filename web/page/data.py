"""The tab *My data*: what is kept of whom and until when; erasing people, deleting styles."""

import asyncio
from typing import Any

import gradio as gr

from studiolo.service.records import Kind
from web.page import views
from web.page.client import AnswerError, Client
from web.page.studio import QUIET, Choices, Studio, choices_of, cut_off, said

TITLE = "My data"
_LISTED = 100
_TRIES = 20
_PAUSE_S = 3.0
_MISSING = "Choose a person and tick the box: what is erased does not come back."
_NO_STYLE = "Choose a style of your own."
_SAME = (gr.skip(),) * 4


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
            with gr.Column(visible=False) as styles:
                gr.HTML("<h2>Delete a style</h2>")
                style = gr.Dropdown(label="Style of your own", choices=[], interactive=True)
                delete = gr.Button("Delete for good", variant="stop", size="lg")
            deleted = gr.HTML(elem_id="deleted")
    shown = [kept, person, style, styles]
    tab.select(tasks.look, [person, style], shown, **QUIET)
    busy = {**QUIET, "show_progress": "minimal"}
    erase.click(tasks.erase, [person, sure, style], [outcome, sure, *shown], trigger_mode="once", **busy)
    delete.click(tasks.delete, [style, person], [deleted, *shown], trigger_mode="once", **busy)


class _Tasks:
    """What the tab's controls do."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    async def look(self, person: str | None, style: str | None, request: gr.Request) -> tuple[Any, ...]:
        """What is kept, the people and the own styles to choose from, and whether there are such styles."""
        try:
            return await self._look(self.studio.client(request.cookies), person, style)
        except AnswerError as error:
            return views.notice(said(error), "bad"), *_SAME[1:]

    async def erase(
        self, identity_id: str | None, sure: bool, style: str | None, request: gr.Request
    ) -> tuple[Any, ...]:
        """Erase a person, and wait a minute for those who still work on it; outcome, the box, and as `look`."""
        if not identity_id or not sure:
            return views.notice(_MISSING, "bad"), gr.skip(), *_SAME
        try:
            client = self.studio.client(request.cookies)
            name = (await client.person(identity_id)).name
            for _ in range(_TRIES):
                erasure, again_s = await client.erase(identity_id)
                if erasure.receipt is not None:
                    break
                await asyncio.sleep(min(again_s, _PAUSE_S))
            return views.erased(name, erasure), False, *await self._look(client, None, style)
        except AnswerError as error:
            return views.notice(said(error), "bad"), gr.skip(), *_SAME

    async def delete(self, style_id: str | None, person: str | None, request: gr.Request) -> tuple[Any, ...]:
        """Delete a style of one's own; outcome, and as `look`."""
        if not style_id:
            return views.notice(_NO_STYLE, "bad"), *_SAME
        try:
            client = self.studio.client(request.cookies)
            style = await client.delete_style(style_id)
            return views.notice(f"{style.title} was deleted.", "good"), *await self._look(client, person, None)
        except AnswerError as error:
            return views.notice(said(error), "bad"), *_SAME

    async def _look(self, client: Client, person: str | None, style: str | None) -> tuple[Any, ...]:
        people, styles = await client.people(), await client.styles()
        orders = await client.jobs(_LISTED, kind=Kind.PORTRAITS)
        trainings = await client.jobs(_LISTED, kind=Kind.IDENTITY)
        photos = {str(job.identity_id): len(job.request.get("photos", [])) for job in reversed(trainings.data)}
        html = views.kept(people, orders, photos, styles, self.studio.settings.page)
        own: Choices = [(one.title, one.own.id) for one in styles if one.own is not None]
        whom = _choice(choices_of(people), person, info=cut_off(people))
        return html, whom, _choice(own, style), gr.Column(visible=bool(own))


def _choice(choices: Choices, chosen: str | None, **more: Any) -> gr.Dropdown:
    """As `offered`, with nothing suggested: what is chosen here goes for good."""
    there = chosen in [value for _, value in choices]
    return gr.Dropdown(choices=choices, **more, **({} if there else {"value": None}))
