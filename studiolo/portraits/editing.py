"""The pipeline of edits: a template and a person in, pictures of that person in the template out, judged and ranked.

FaceChain, section 2.5, for one face. What differs: the picture is cut out around the face for the base, as the paper
does for several (2.5.3); nothing outside the mask is decoded into the result, so that no reconstruction error has to be
added back; and the first pass is the nearest of a few.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from studiolo.albums.geometry import affine_between, map_points
from studiolo.albums.records import Reason, Status
from studiolo.errors import PhotoError
from studiolo.generation.engine import Engine, Portrait
from studiolo.metrics.identity import Floats
from studiolo.perception.chips import warp
from studiolo.perception.conditions import landmarks_of
from studiolo.portraits.blending import blend, enlarged, placed
from studiolo.portraits.edit_templates import EditTemplate, see_template
from studiolo.portraits.edits import EditOrder, first_pass, second_pass
from studiolo.portraits.finishing import Finished, Finisher
from studiolo.portraits.fusion import Template
from studiolo.portraits.rounds import Drawn, Outcome, Subject, acceptance_of, work_off
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
class Sketch:
    """What the first pass drew, and how it lies over a template."""

    rgb_u8: RgbU8
    """[W, W, 3], finished."""
    matrix: NDArray[np.float64]
    """M [2, 3]: from the sketch to the template's crop."""
    landmarks_px: NDArray[np.float64]
    """[68, 2]: the sketch's landmarks where M carries them, in the template's crop."""


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
        sketch = self.sketch(order, template, sitter)
        landmarks = template.landmarks_px if sketch is None else sketch.landmarks_px
        latents = self._engine.encode(template.crop_rgb_u8)

        def draw(count: int, first_index: int) -> Iterator[Drawn]:
            wanted = second_pass(
                order,
                template,
                sitter.subject,
                sitter.face_lora,
                landmarks,
                latents,
                count=count,
                first_index=first_index,
                fits=self._engine.fits,
            )
            for event in self._engine.submit(wanted):
                if isinstance(event, Portrait):
                    yield Drawn(event.index, event.seed, wanted.prompt, event.rgb_u8)

        def finish(drawn_rgb_u8: RgbU8) -> Finished:
            return self.set_in(drawn_rgb_u8, template, sitter)

        portraits = order.portraits
        outcome = work_off(portraits, acceptance_of(portraits), draw, finish)
        if any(one.rank for one in outcome.ranked):
            return Edit(Status.OK, Reason.NONE, "", template, outcome)
        return Edit(Status.FAILED, Reason.NONE_ACCEPTED, "", template, outcome)

    def look(self, order: EditOrder, rgb_u8: RgbU8) -> EditTemplate:
        """The template; `PhotoError` with the reason why the picture is none."""
        with self._finisher.models() as suite:
            side_px = self._engine.side_px
            return see_template(rgb_u8, suite, side_px, order.face_ratio, self._seeing, order.unsafe_above)

    def sketch(self, order: EditOrder, template: EditTemplate, sitter: Sitter) -> Sketch | None:
        """The first pass: the nearest of a few, its landmarks warped onto the template's; None when no face was drawn,
        and then the template's own landmarks have to do.
        """
        wanted = first_pass(order, template, sitter.subject, sitter.face_lora, self._engine.fits)
        drawn = [event for event in self._engine.submit(wanted) if isinstance(event, Portrait)]
        made = [self._finisher(one.rgb_u8, sitter.faces, sitter.references_ND) for one in drawn]
        faces = [one for one in made if one.score.landmarks_px is not None]
        if not faces:
            return None
        nearest = max(faces, key=lambda one: one.score.similarity + one.similarity_unfused)
        with self._finisher.models() as suite:
            points = suite.mesher(nearest.rgb_u8, np.asarray(nearest.score.landmarks_px)).points_px
        own = landmarks_of(points)
        matrix = affine_between(own, template.landmarks_px)
        return Sketch(nearest.rgb_u8, matrix, map_points(matrix, own))

    def set_in(self, drawn_rgb_u8: RgbU8, template: EditTemplate, sitter: Sitter) -> Finished:
        """What the second pass drew [S, S, 3], finished, in the template; judged there, where it is seen."""
        finished = self._finisher(drawn_rgb_u8, sitter.faces, sitter.references_ND)
        matrix = enlarged(template.matrix, len(finished.rgb_u8) / len(drawn_rgb_u8))
        height, width = template.rgb_u8.shape[:2]
        picture = blend(template.rgb_u8, placed(finished.rgb_u8, matrix, (height, width)), template.seen)
        crop = warp(picture, matrix, len(finished.rgb_u8))
        score = self._finisher.judge(crop, sitter.references_ND)
        return Finished(picture, score, finished.similarity_unfused, finished.fusion)
