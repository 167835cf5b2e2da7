"""The tab *Edit*: a picture, whose face in it is drawn anew, and as whom; what came of it, beside what was there."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr

from studiolo.errors import WeightsError
from studiolo.service.identities import IdentityState
from web.page import orders, views
from web.page.client import AnswerError, Client
from web.page.photos import GONE, Template
from web.page.studio import KINDS, QUIET, SEED, Choices, Studio, choices_of, cut_off, offered, said
from web.types import EditTexts, JobView

TITLE = "Edit"
_MOST = 16
_REMEMBERED = 8
_STRENGTH: float = EditTexts.model_fields["strength"].default
_EMPTY = views.empty("No edits yet", "Drop a picture with a face in it, choose a person, and press Make pictures.")
_NO_EDITS = "Edits are not made here"
_WHOSE = "Choose whose face it shall be. People are learned in the tab Album."
_WHICH = "Choose which face is drawn anew."
_NO_TEMPLATE = "Drop a picture to edit."
_BLIND = "No faces can be looked for at the moment; try again later."
_STRENGTHS = "How far the face is drawn anew: with less, more of the one in the picture stays."
_COMPARE = """element.addEventListener('input', (event) => {
    const slide = event.target.closest('input[type="range"]');
    if (slide) slide.closest('figure').style.setProperty('--at', slide.value + '%');
});"""
_Befores = dict[str, str]
"""Data URLs of templates by the sha256 of their files, as long as the session lasts."""


def build(studio: Studio, blocks: gr.Blocks, tab: gr.Tab) -> None:
    """Fill the tab."""
    tasks, job, known = _Tasks(studio), gr.State(""), gr.State(None)
    template, befores = gr.State(None), gr.State({})
    none = gr.HTML(elem_id="no-edits")
    with gr.Row(equal_height=False, visible=False) as form:
        with gr.Column(scale=5, min_width=320):
            gr.HTML("<h2>An edit</h2>")
            file = gr.File(label="Picture", file_count="single", file_types=KINDS, height=150, elem_id="template")
            seen = gr.HTML(elem_id="template-seen")
            face = gr.Radio(label="Face that is drawn anew", choices=[], visible=False, elem_id="face")
            person = gr.Dropdown(label="As whom", choices=[], interactive=True)
            count = gr.Slider(1, _MOST, value=2, step=1, label="How many")
            with gr.Accordion("Finer settings", open=False):
                strength = gr.Slider(0.1, 1, value=_STRENGTH, step=0.05, label="Strength", info=_STRENGTHS)
                prompt = gr.Textbox("", label="The face in words", placeholder="smiling", max_length=500)
                against = gr.Textbox("", label="Not in the face", placeholder="glasses", max_length=500)
                seed = gr.Textbox("", label="Seed", info=SEED, max_length=10)
            with gr.Row():
                make = gr.Button("Make pictures", variant="primary", size="lg", scale=3)
                stop = gr.Button("Stop", variant="stop", size="lg", scale=1, interactive=False)
        with gr.Column(scale=7, min_width=320, elem_classes="outcome"):
            gr.HTML("<h2>Before and after</h2>")
            live = gr.HTML(elem_id="editing")
            shown = gr.HTML(_EMPTY, js_on_load=_COMPARE, elem_id="edits")
            earlier = gr.Dropdown(
                label="Earlier edits", choices=[], info="Choose one to see it again.", interactive=True, visible=False
            )
    file.change(tasks.look, [file, befores], [seen, template, face, befores], **QUIET)
    order = [file, template, befores, face, person, count, strength, prompt, against, seed]
    make.click(tasks.make, order, [live, shown, job, make, stop, earlier], trigger_mode="once", **QUIET)
    stop.click(tasks.stop, job, live, **QUIET)
    earlier.input(tasks.earlier, [earlier, befores], [shown, live], **QUIET)
    tab.select(tasks.choices, [person, known], [person, known, form, none, earlier], **QUIET)


@dataclass(frozen=True)
class Order:
    """The form as it is sent, its fields as `build` lists them."""

    face: str | None
    person: str | None
    count: float
    strength: float
    prompt: str
    against: str
    seed: str

    def texts(self, template: Template) -> dict[str, str]:
        """The texts of the form of `POST /v1/edits`; what is as usual is left to the service. Raises `AnswerError`."""
        if template.sentence:
            raise AnswerError(422, "template", template.sentence)
        faces = {str(number): face for number, face in enumerate(template.faces, 1)}
        face = faces["1"] if len(faces) == 1 else faces.get(self.face or "")
        if face is None:
            raise AnswerError(422, "face", _WHICH)
        if not self.person:
            raise AnswerError(422, "person", _WHOSE)
        seed = orders.seed_of(self.seed)
        texts = {
            "identity_id": self.person,
            "face": face.point,
            "count": str(int(self.count)),
            "prompt": self.prompt.strip(),
            "negative_prompt": self.against.strip(),
            "strength": "" if self.strength == _STRENGTH else str(self.strength),
            "seed": "" if seed is None else str(seed),
        }
        return {name: text for name, text in texts.items() if text}


class _Tasks:
    """What the tab's controls do."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    async def choices(self, person: str | None, known: str | None, request: gr.Request) -> tuple[Any, ...]:
        """People to choose from, why no edits are made, once more, the form or that sentence, earlier edits.

        Whether edits are made is asked once for a session; what is `known` is empty where they are.
        """
        try:
            client = self.studio.client(request.cookies)
            why = await client.no_edits() if known is None else known
            if why:
                return gr.skip(), why, gr.Row(visible=False), views.empty(_NO_EDITS, why), gr.skip()
            people, styles = await client.people(), await client.styles()
            earlier = await orders.earlier(client, people, styles, views.is_edit)
        except AnswerError as error:
            return gr.skip(), gr.skip(), gr.skip(), views.notice(said(error), "bad"), gr.skip()
        ready = choices_of([one for one in people if one.state == IdentityState.READY])
        return gr.Dropdown(**offered(ready, person), info=cut_off(people)), why, gr.Row(visible=True), "", earlier

    async def look(self, file: str | None, befores: _Befores) -> tuple[Any, ...]:
        """The picture that was dropped with its faces, once more, the choice of a face, and all templates so far."""
        hidden = gr.Radio(choices=[], value=None, visible=False)
        if not file:
            return "", None, hidden, gr.skip()
        try:
            template = await self._looked(file)
        except AnswerError as error:
            return views.notice(said(error), "bad"), None, hidden, gr.skip()
        html = views.template(template)
        if template.sentence:
            return html, template, hidden, gr.skip()
        names = _names(len(template.faces))
        value = "1" if len(names) == 1 else None
        face = gr.Radio(choices=names, value=value, visible=len(names) > 1)
        return html, template, face, _with(befores, template)

    async def make(
        self,
        request: gr.Request,
        file: str | None,
        template: Template | None,
        befores: _Befores,
        *fields: Any,
    ) -> AsyncIterator[tuple[Any, ...]]:
        """Order, follow and show edits; what is going on, results, job, both buttons, earlier edits."""

        async def send(client: Client, name: str) -> JobView:
            nonlocal template, befores
            order = Order(*fields)
            if not file:
                raise AnswerError(422, "template", _NO_TEMPLATE)
            if template is None or str(template.file.path) != file:  # it is still being looked at
                template, order = await self._looked(file), replace(order, face=None)
                befores = _with(befores, template)
            texts = order.texts(template)
            try:
                return await client.edit(template.file.path, texts, name)
            except FileNotFoundError:
                raise AnswerError(422, "template", GONE) from None

        async for shown in orders.made(self.studio, request, send, lambda *job: _shown(befores, *job), views.is_edit):
            yield shown

    async def stop(self, job_id: str, request: gr.Request) -> Any:
        """Cancel what is being made; what went wrong."""
        return await orders.stopped(self.studio, job_id, request)

    async def earlier(self, job_id: str | None, befores: _Befores, request: gr.Request) -> tuple[Any, Any]:
        """The results of an earlier edit, and what went wrong."""
        return await orders.again(self.studio, job_id, request, lambda *job: _shown(befores, *job))

    async def _looked(self, file: str) -> Template:
        try:
            return await asyncio.to_thread(self.studio.looker.template, Path(file))
        except WeightsError:
            raise AnswerError(503, "blind", _BLIND) from None


def _shown(befores: _Befores, job: JobView, names: dict[str, str], _: dict[str, str]) -> str:
    return views.edits(job, names, befores.get(str(job.request.get("template_sha256")), ""))


def _with(befores: _Befores, template: Template) -> _Befores:
    """The newest templates that can be edited, this one among them."""
    if template.sentence:
        return befores
    file = template.file
    others = [(name, picture) for name, picture in befores.items() if name != file.sha256]
    return dict([*others, (file.sha256, file.picture)][-_REMEMBERED:])


def _names(count: int) -> Choices:
    """Faces to choose from, as they are numbered from left to right."""
    places = {1: ("",), 2: (" (left)", " (right)"), 3: (" (left)", " (middle)", " (right)")}
    named = places.get(count, (" (left)", *[""] * (count - 2), " (right)"))
    return [(f"Face {number}{place}", str(number)) for number, place in enumerate(named, 1)]
