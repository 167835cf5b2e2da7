"""The tab *Album*: photos in, each with its verdict; consent; learning, and how far it is."""

import asyncio
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import gradio as gr

from studiolo.service.identities import IdentityState
from studiolo.service.records import Kind
from web.page import views
from web.page.client import AnswerError, Client
from web.page.photos import Dropped, said_of_repeats
from web.page.studio import KINDS, QUIET, Studio, choices_of, cut_off, now_s, offered, said
from web.types import IdentityView, JobView

TITLE = "Album"
SHEET_STYLE = "plain"
"""Of sample sheets: the person as it was learned, no words added."""
_SHEET = 4
_LISTED = 50
_CONSENT = "Portraits may be made of me from these photos."
_GONE = "The photos lay here too long without being sent, and were removed: drop them again."
_EVERY_S = 2.0
_EMPTY = views.empty("Nobody yet", "Drop an album on the left: a handful of photos of one person, from different days.")
_Pictures = dict[str, list[str]]
"""Data URLs of the photos by identity, as long as the session lasts."""


class _Missing(Exception):
    """Something of the form is missing; the text says what."""


def build(studio: Studio, blocks: gr.Blocks, tab: gr.Tab) -> gr.Timer:
    """Fill the tab; what comes back ticks as long as it is shown."""
    tasks = _Tasks(studio)
    looked, pictures, shown = gr.State({}), gr.State({}), gr.State("")
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320):
            gr.HTML("<h2>A new person</h2>")
            name = gr.Textbox("", label="Name", placeholder="What you call the person", max_length=200)
            most = studio.settings.uploads.max_photos
            files = gr.File(
                label=f"Photos, up to {most}", file_count="multiple", file_types=KINDS, height=150, elem_id="photos"
            )
            verdicts = gr.HTML(elem_id="dropped")
            with gr.Group():
                given_by = gr.Textbox("", label="Who consents", placeholder="The person, or who answers for them")
                statement = gr.Textbox(label="To what", value=_CONSENT, lines=2, max_length=5000)
                agreed = gr.Checkbox(label="This consent was given to me")
            notice = gr.HTML(elem_id="album-notice")
            learn = gr.Button("Learn this person", variant="primary", size="lg")
        with gr.Column(scale=6, min_width=320):
            gr.HTML("<h2>People</h2>")
            person = gr.Dropdown(label="Person", choices=[], interactive=True, visible=False, elem_id="album-person")
            detail = gr.HTML(_EMPTY, elem_id="person")
            sample = gr.Button("Make a sample sheet", visible=False)
    timer = gr.Timer(_EVERY_S)
    files.change(tasks.look, [files, looked], [verdicts, looked], **QUIET)
    form = [name, files, given_by, statement, agreed, looked, pictures]
    cleared = [name, files, given_by, agreed]
    learn.click(
        tasks.learn,
        form,
        [notice, pictures, person, *cleared],
        trigger_mode="once",
        **{**QUIET, "show_progress": "minimal"},
    )
    now = [person, pictures]
    outputs = [detail, shown, sample]
    person.change(tasks.show, now, outputs, **QUIET)
    timer.tick(tasks.tick, [*now, shown], outputs, trigger_mode="once", **QUIET)
    sample.click(tasks.sample, now, [*outputs, notice], trigger_mode="once", **QUIET)
    gr.on([blocks.load, tab.select], tasks.people, person, [person, detail], **QUIET)
    return timer


class _Tasks:
    """What the tab's controls do."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    async def look(self, files: list[str] | None, looked: dict[str, Dropped]) -> tuple[str, dict[str, Dropped]]:
        """Each photo that was dropped, with its verdict; those looked at before are not read again."""
        paths = list(files or [])
        new = [path for path in paths if path not in looked]
        found = await asyncio.gather(*(asyncio.to_thread(self.studio.looker, Path(path)) for path in new))
        known = {**looked, **dict(zip(new, found, strict=True))}
        kept = {path: known[path] for path in paths}
        return views.dropped(said_of_repeats([*kept.values()])), kept

    async def learn(
        self,
        name: str,
        files: list[str] | None,
        given_by: str,
        statement: str,
        agreed: bool,
        looked: dict[str, Dropped],
        pictures: _Pictures,
        request: gr.Request,
    ) -> tuple[Any, ...]:
        """Send the album; notice, pictures, the choice of people, and the form's fields."""
        same = (gr.skip(),) * 6
        try:
            _check(name, files, given_by, statement, agreed)
            _, looked = await self.look(files, looked)
            if not all(Path(path).exists() for path in looked):
                raise _Missing(_GONE)
            photos = [photo for photo in looked.values() if photo.sent]
            if not photos:
                raise _Missing("None of these files is a picture.")
            texts = {"name": name.strip(), "consent_given_by": given_by.strip(), "consent_statement": statement.strip()}
            texts["consent_given_at"] = str(int(now_s()))
            client = self.studio.client(request.cookies)
            job = await client.learn([photo.path for photo in photos], texts, uuid.uuid4().hex)
            people = await client.people()
        except _Missing as missing:
            return views.notice(str(missing), "bad"), *same
        except AnswerError as error:
            return views.notice(said(error), "bad"), *same
        for path in looked:
            with suppress(OSError):
                Path(path).unlink()
        notice = views.notice(f"{name.strip()} is being learned from {len(photos)} photos.", "good")
        mine = {**pictures, str(job.identity_id): [photo.picture for photo in photos]}
        choices = choices_of(people)
        chosen = gr.Dropdown(choices=choices, value=job.identity_id, info=cut_off(people), visible=True)
        return notice, mine, chosen, "", None, "", False

    async def people(self, chosen: str | None, request: gr.Request) -> tuple[Any, Any]:
        """The choice of people, and what stands there when there is nobody or nobody answers."""
        try:
            people = await self.studio.client(request.cookies).people()
        except AnswerError as error:
            return gr.skip(), views.notice(said(error), "bad")
        if not people:
            return gr.Dropdown(choices=[], value=None, visible=False), _EMPTY
        offer = offered(choices_of(people), chosen)
        return gr.Dropdown(**offer, info=cut_off(people), visible=True), gr.skip()

    async def show(self, chosen: str | None, pictures: _Pictures, request: gr.Request) -> tuple[Any, ...]:
        """The person who was chosen; the same to compare with; whether a sample sheet can be made."""
        return await self.tick(chosen, pictures, "", request)

    async def tick(self, chosen: str | None, pictures: _Pictures, shown: str, request: gr.Request) -> tuple[Any, ...]:
        """The same now and again; nothing when that is what is `shown` already."""
        html, ready = await self._detail(chosen, pictures, request)
        return (gr.skip(),) * 3 if html == shown else (html, html, gr.Button(visible=ready))

    async def sample(self, chosen: str | None, pictures: _Pictures, request: gr.Request) -> tuple[Any, ...]:
        """Order a sample sheet, and show that it was ordered; the last is what went wrong."""
        body = {"identity_id": chosen, "style": SHEET_STYLE, "count": _SHEET, "threshold": 0.0}
        try:
            await self.studio.client(request.cookies).order(body, uuid.uuid4().hex)
        except AnswerError as error:
            return *(gr.skip(),) * 3, views.notice(said(error), "bad")
        return *await self.show(chosen, pictures, request), ""

    async def _detail(self, chosen: str | None, pictures: _Pictures, request: gr.Request) -> tuple[str, bool]:
        """What is shown of a person, and whether a sample sheet can be made of it now."""
        if not chosen:
            return _EMPTY, False
        try:
            client = self.studio.client(request.cookies)
            one = await client.person(chosen)
            job, sheet = await _job_of(client, one), await _sheet_of(client, one)
        except AnswerError as error:
            gone = error.status == 404
            said_so = views.empty("Gone", "This person was erased.") if gone else views.notice(said(error), "bad")
            return said_so, False
        html = views.person(one, job, sheet, pictures.get(one.id, []), now_s())
        return html, one.state == IdentityState.READY and (sheet is None or sheet.state.final)


async def _job_of(client: Client, one: IdentityView) -> JobView | None:
    """The newest training of a person; None when it is known no more."""
    if one.job_id is None:
        return None
    try:
        return await client.job(one.job_id)
    except AnswerError as error:
        if error.status == 404:
            return None
        raise


async def _sheet_of(client: Client, one: IdentityView) -> JobView | None:
    """The newest sample sheet of a person that is not thrown away yet."""
    if one.state != IdentityState.READY:
        return None
    found = (await client.jobs(_LISTED, kind=Kind.PORTRAITS, identity_id=one.id)).data
    return next((job for job in found if job.request.get("style") == SHEET_STYLE), None)


def _check(name: str, files: list[str] | None, given_by: str, statement: str, agreed: bool) -> None:
    """Raises `_Missing`."""
    wanted = [
        (name.strip(), "Give the person a name."),
        (files, "Drop at least one photo."),
        (given_by.strip() and statement.strip(), "Say who consents, and to what."),
        (agreed, "Tick that this consent was given to you; without it nobody is learned."),
    ]
    for there, sentence in wanted:
        if not there:
            raise _Missing(sentence)
