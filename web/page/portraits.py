"""The tab *Portraits*: whom, in which style, in which words; how it goes on step by step; what came of it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studiolo.service.identities import IdentityState
from web.page import orders, views
from web.page.client import AnswerError, Client
from web.page.studio import NO_ONE, QUIET, SEED, Choices, Studio, choices_of, cut_off, offered, said
from web.types import JobView

TITLE = "Portraits"
WORDS = "-"
"""Choice of no style."""
_MOST = 16
_EMPTY = views.empty("No portraits yet", "Choose a person and a style, and press Make portraits.")
_NO_ONE = "Nobody in particular"
_WHOM = f"Choose of whom, or “{_NO_ONE}”."
_SIZES = (1, 2, 4)
_USUAL = "usual"
_LEAST = "Candidates below it are put aside."
_FACE = "Weight of what was learned: less follows the style and the words more freely."
_STYLE = "Of a style of your own."
_FUSION = "How much of the best photo's face is set into a portrait."


def build(studio: Studio, blocks: gr.Blocks, tab: gr.Tab) -> None:
    """Fill the tab."""
    tasks, job, known = _Tasks(studio), gr.State(""), gr.State(None)
    usual = studio.settings.generation
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320):
            gr.HTML("<h2>An order</h2>")
            person = gr.Dropdown(label="Of whom", choices=[], interactive=True)
            style = gr.Radio(label="Style", choices=[], elem_id="styles")
            initials = gr.HTML(elem_id="initials")
            prompt = gr.Textbox("", label="In words", placeholder="in a dark coat, smiling", max_length=500, lines=2)
            count = gr.Slider(1, _MOST, value=4, step=1, label="How many")
            with gr.Accordion("Finer settings", open=False):
                threshold = gr.Slider(
                    0, 1, value=usual.accept_similarity, step=0.05, label="Least likeness", info=_LEAST
                )
                face = gr.Slider(0, 2, value=usual.face_weight, step=0.05, label="Face", info=_FACE)
                styling = gr.Slider(0, 2, value=usual.style_weight, step=0.05, label="Style's weight", info=_STYLE)
                fusion = gr.Slider(0, 1, value=usual.fusion, step=0.05, label="Photo's face", info=_FUSION)
                size = gr.Radio(_sizes(studio), value=_USUAL, label="Size")
                against = gr.Textbox("", label="Not in the picture", placeholder="glasses, hat", max_length=500)
                seed = gr.Textbox("", label="Seed", info=SEED, max_length=10)
            with gr.Row():
                make = gr.Button("Make portraits", variant="primary", size="lg", scale=3)
                stop = gr.Button("Stop", variant="stop", size="lg", scale=1, interactive=False)
        with gr.Column(scale=7, min_width=320, elem_classes="outcome"):
            gr.HTML("<h2>Results</h2>")
            live = gr.HTML(elem_id="making")
            shown = gr.HTML(_EMPTY, elem_id="results")
            earlier = gr.Dropdown(
                label="Earlier orders", choices=[], info="Choose one to see it again.", interactive=True, visible=False
            )
    order = [person, style, prompt, count, threshold, face, styling, fusion, size, against, seed]
    make.click(tasks.make, order, [live, shown, job, make, stop, earlier], trigger_mode="once", **QUIET)
    stop.click(tasks.stop, job, live, **QUIET)
    earlier.input(tasks.earlier, earlier, [shown, live], **QUIET)
    offers = [person, style, known]
    gr.on([blocks.load, tab.select], tasks.choices, offers, [*offers, initials, earlier, live], **QUIET)


@dataclass(frozen=True)
class Order:
    """The form as it is sent, its fields as `build` lists them."""

    person: str | None
    style: str | None
    prompt: str
    count: float
    threshold: float
    face_weight: float
    style_weight: float
    fusion: float
    size: str
    against: str
    seed: str

    def body(self) -> dict[str, Any]:
        """The body of `POST /v1/portraits`, with all weights that were shown. Raises `AnswerError`."""
        if not self.person:  # also while the choices are still on their way: nobody's portraits were never asked for
            raise AnswerError(422, "person", _WHOM)
        body: dict[str, Any] = {"count": int(self.count), "prompt": self.prompt.strip()}
        body["negative_prompt"] = self.against.strip()
        if self.person != NO_ONE:
            body["identity_id"] = self.person
            body |= {"threshold": self.threshold, "face_weight": self.face_weight, "fusion": self.fusion}
        if self.style and self.style != WORDS:
            body |= {"style": self.style, "style_weight": self.style_weight}
        if self.size != _USUAL:
            body["size_px"] = int(self.size)
        seed = orders.seed_of(self.seed)
        return body if seed is None else {**body, "seed": seed}


class _Tasks:
    """What the tab's controls do."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    async def choices(self, person: str | None, style: str | None, known: Any, request: gr.Request) -> tuple[Any, ...]:
        """People and styles to choose from, both once more, how own styles look, earlier orders, and what went wrong.

        What is `known` already is not drawn anew: a keyboard would lose its place.
        """
        try:
            client = self.studio.client(request.cookies)
            people, styles = await client.people(), await client.styles()
            earlier = await orders.earlier(client, people, styles, _is_mine)
        except AnswerError as error:
            return *(gr.skip(),) * 5, views.notice(said(error), "bad")
        ready = choices_of([one for one in people if one.state == IdentityState.READY])
        whom: Choices = [*ready, (_NO_ONE, NO_ONE)]
        looks: Choices = [*((one.title, one.name) for one in styles), ("In words alone", WORDS)]
        if known == [whom, looks]:
            return *(gr.skip(),) * 4, earlier, gr.skip()
        chosen = offered(whom, person)
        if not ready and "value" in chosen:
            chosen["value"] = None  # whoever is learned next is suggested then
        offers = gr.Dropdown(**chosen, info=cut_off(people)), gr.Radio(**offered(looks, style))
        return *offers, [whom, looks], views.initials(styles), earlier, gr.skip()

    async def make(self, request: gr.Request, *fields: Any) -> AsyncIterator[tuple[Any, ...]]:
        """Order, follow and show portraits; what is going on, results, job, both buttons, earlier orders."""

        async def send(client: Client, name: str) -> JobView:
            return await client.order(Order(*fields).body(), name)

        async for shown in orders.made(self.studio, request, send, views.results, _is_mine):
            yield shown

    async def stop(self, job_id: str, request: gr.Request) -> Any:
        """Cancel what is being made; what went wrong."""
        return await orders.stopped(self.studio, job_id, request)

    async def earlier(self, job_id: str | None, request: gr.Request) -> tuple[Any, Any]:
        """The results of an earlier order, and what went wrong."""
        return await orders.again(self.studio, job_id, request, views.results)


def _is_mine(job: JobView) -> bool:
    return not views.is_edit(job)


def _sizes(studio: Studio) -> Choices:
    base_px = studio.settings.base_px
    return [("As usual", _USUAL), *((f"{base_px * one} px", str(base_px * one)) for one in _SIZES)]
