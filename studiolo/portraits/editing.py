"""Edits in one process: a template and a person in, pictures of that person in the template out, judged and ranked."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from studiolo.albums.records import Reason, Status
from studiolo.errors import PhotoError
from studiolo.generation.engine import Engine, Portrait
from studiolo.metrics.identity import Floats
from studiolo.portraits import edit_rounds
from studiolo.portraits.edit_passes import engine_order
from studiolo.portraits.edit_rounds import Sketch, work_off_edit
from studiolo.portraits.edit_templates import EditTemplate, see_template
from studiolo.portraits.edits import EditOrder, EditPass
from studiolo.portraits.finishing import Finished, Finisher
from studiolo.portraits.fusion import Template
from studiolo.portraits.rounds import Drawn, Outcome, Subject
from studiolo.settings import PerceptionSettings

RgbU8 = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Sitter:
    """Who is drawn into templates."""

    subject: Subject
    face_lora: str | None
    """Path of the face-LoRA on this disk."""
    faces: Sequence[Template]
    """Of their photos, for fusion, see `Finisher.templates`."""
    references_ND: Floats
    """Embeddings [N, D] to be judged against."""


@dataclass(frozen=True, eq=False)
class Edit:
    """What came of an order of edits."""

    status: Status
    """`ok` when a picture was accepted, `dropped` when the template is none, `failed` when no picture was good."""
    reason: Reason
    """Why not; `sentence()` says it to a customer."""
    detail: str = ""
    template: EditTemplate | None = None
    outcome: Outcome | None = None
    """All candidates, the accepted first, as whole pictures; None without a template."""


class Editor:
    """Makes edits with an engine that has the ControlNets `pose` and `edges`.

    It may be called from several threads; what comes of an order depends on it alone.
    """

    def __init__(self, engine: Engine, finisher: Finisher, seeing: PerceptionSettings) -> None:
        self._engine, self._finisher, self._seeing = engine, finisher, seeing

    def __call__(self, order: EditOrder, rgb_u8: RgbU8, sitter: Sitter) -> Edit:
        """`order`'s pictures in the template `rgb_u8` [H, W, 3], each [H, W, 3]; outside the template's mask every byte
        is the template's.

        Raises what the engine does: `SettingsError`, `WeightsError`, `UsageError`.
        """
        try:
            template = self.look(order, rgb_u8)
        except PhotoError as error:
            return Edit(Status.DROPPED, Reason(error.reason), error.detail)

        def draw(shown: EditPass, count: int, first_index: int) -> Iterator[Drawn]:
            return self._draw(shown, sitter, count, first_index)

        def outline(drawn_rgb_u8: RgbU8) -> Finished:
            return self._outline(order, drawn_rgb_u8, sitter)

        def set_in(drawn_rgb_u8: RgbU8) -> Finished:
            return self.set_in(order, drawn_rgb_u8, template, sitter)

        outcome = work_off_edit(order, template.face, draw, outline, set_in)
        if any(one.rank for one in outcome.ranked):
            return Edit(Status.OK, Reason.NONE, "", template, outcome)
        return Edit(Status.FAILED, Reason.NONE_ACCEPTED, "", template, outcome)

    def look(self, order: EditOrder, rgb_u8: RgbU8) -> EditTemplate:
        """The template; `PhotoError` with the reason why the picture is none."""
        with self._finisher.models() as suite:
            side_px = self._engine.side_px
            return see_template(
                rgb_u8, suite, side_px, order.face_ratio, self._seeing, order.unsafe_above, order.face_xy
            )

    def sketch(self, order: EditOrder, template: EditTemplate, sitter: Sitter) -> Sketch | None:
        """The first pass alone, see `edit_rounds.sketch`."""
        return edit_rounds.sketch(
            order,
            template.face,
            lambda shown, count, first_index: self._draw(shown, sitter, count, first_index),
            lambda drawn_rgb_u8: self._outline(order, drawn_rgb_u8, sitter),
        )

    def set_in(self, order: EditOrder, drawn_rgb_u8: RgbU8, template: EditTemplate, sitter: Sitter) -> Finished:
        """What the second pass drew [S, S, 3], in the template, see `edit_rounds.set_in`."""
        finished = self._finished(order, drawn_rgb_u8, sitter, template)
        return edit_rounds.set_in(self._finisher, finished, template, sitter.references_ND)

    def _outline(self, order: EditOrder, drawn_rgb_u8: RgbU8, sitter: Sitter) -> Finished:
        return edit_rounds.outlined(self._finisher, self._finished(order, drawn_rgb_u8, sitter))

    def _finished(
        self, order: EditOrder, drawn_rgb_u8: RgbU8, sitter: Sitter, template: EditTemplate | None = None
    ) -> Finished:
        settings = order.generation
        return self._finisher(
            drawn_rgb_u8,
            sitter.faces,
            sitter.references_ND,
            grey=template is not None and template.grey,
            upscale=settings.upscale,
            fusion=settings.fusion,
            within=None if template is None else template.face.mask,
        )

    def _draw(self, shown: EditPass, sitter: Sitter, count: int, first_index: int) -> Iterator[Drawn]:
        wanted = engine_order(self._engine, shown, sitter.subject, sitter.face_lora, count, first_index)
        for event in self._engine.submit(wanted):
            if isinstance(event, Portrait):
                yield Drawn(event.index, event.seed, wanted.prompt, event.rgb_u8)
