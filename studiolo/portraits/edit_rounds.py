"""An edit worked off: a sketch of the person first, then its landmarks shown to as many candidates as are wanted.

As `studiolo.portraits.rounds` for portraits, the one home of what edits depend on, whoever draws and finishes. What
differs from FaceChain, section 2.5: the picture is cut out around the face for the base, as the paper does for several
(2.5.3); nothing outside the mask is decoded into the result, so that no reconstruction error has to be added back; and
the first pass is the nearest of a few.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from studiolo.albums.geometry import affine_between, map_points
from studiolo.errors import UsageError
from studiolo.metrics.identity import Floats
from studiolo.perception.chips import warp
from studiolo.perception.conditions import landmarks_of
from studiolo.portraits.blending import blend, enlarged, placed
from studiolo.portraits.edit_templates import EditTemplate, TemplateFace
from studiolo.portraits.edits import EditOrder, EditPass
from studiolo.portraits.finishing import Finished, Finisher
from studiolo.portraits.rounds import Drawing, Drawn, Finish, Judged, Outcome, acceptance_of, work_off

RgbU8 = NDArray[np.uint8]

DrawPass = Callable[[EditPass, int, int], Iterator[Drawing | Drawn]]
"""Draws so many candidates of a pass from an index on."""


@dataclass(frozen=True, eq=False)
class Sketch:
    """What the first pass drew, and how it lies over a template."""

    rgb_u8: RgbU8
    """[S, S, 3]"""
    matrix: NDArray[np.float64]
    """M [2, 3]: from the sketch as it was finished, enlarged, to the template's crop."""
    landmarks_px: NDArray[np.float64]
    """[68, 2]: the sketch's landmarks where M carries them, in the template's crop."""


def work_off_edit(
    order: EditOrder,
    face: TemplateFace,
    draw: DrawPass,
    outline: Finish,
    set_in: Finish,
    *,
    first_index: int = 0,
    keep_rejected: bool = True,
    watch: Callable[[Drawing | Judged], None] = lambda news: None,
) -> Outcome:
    """Make, judge and rank the pictures of `order`, with rounds and acceptance as portraits have them.

    `first_index` is that of the first picture; `keep_rejected`: see `work_off`. `outline` finishes what the first pass
    drew, see `outlined`; `set_in` what the second did, see `set_in`. Raises `UsageError` when fewer candidates were
    drawn than asked for.
    """
    made = sketch(order, face, draw, outline, watch=watch)
    shown = EditPass(order, face, face.landmarks_px if made is None else made.landmarks_px)
    portraits = order.portraits
    limits, drawn = acceptance_of(portraits), partial(draw, shown)
    return work_off(portraits, limits, drawn, set_in, first_index=first_index, keep_rejected=keep_rejected, watch=watch)


def sketch(
    order: EditOrder,
    face: TemplateFace,
    draw: DrawPass,
    outline: Finish,
    *,
    watch: Callable[[Drawing | Judged], None] = lambda news: None,
) -> Sketch | None:
    """The first pass: the nearest of a few, its landmarks warped onto the template's; None when no face was drawn, and
    then the template's own landmarks have to do.
    """
    made: list[tuple[RgbU8, Finished]] = []
    count = order.generation.candidates_per_portrait
    for event in draw(EditPass(order, face), count, 0):
        if isinstance(event, Drawn):
            made.append((event.rgb_u8, outline(event.rgb_u8)))
        else:
            watch(event)
    if len(made) < count:
        raise UsageError(f"edit: its sampler ended after {len(made)} of {count} sketches; ask another")
    faces = [(one.score.similarity + one.similarity_unfused, drawn, one.outline_px) for drawn, one in made]
    _, drawn_rgb_u8, outline_px = max(faces, key=lambda one: (one[2] is not None, one[0]))
    if outline_px is None:
        return None
    matrix = affine_between(outline_px, face.landmarks_px)
    return Sketch(drawn_rgb_u8, matrix, map_points(matrix, outline_px))


def outlined(finisher: Finisher, sketch: Finished) -> Finished:
    """What the first pass drew, finished, with the 68 landmarks of its face where it has one."""
    if sketch.score.landmarks_px is None:
        return sketch
    with finisher.models() as suite:
        points = suite.mesher(sketch.rgb_u8, np.asarray(sketch.score.landmarks_px)).points_px
    return replace(sketch, outline_px=landmarks_of(points))


def set_in(finisher: Finisher, finished: Finished, template: EditTemplate, references_ND: Floats) -> Finished:
    """What the second pass drew, finished, in the template [H, W, 3]; judged there, where it is seen, and nobody beside
    it.
    """
    side_px = len(finished.rgb_u8)
    matrix = enlarged(template.face.matrix, side_px / len(template.face.mask))
    height, width = template.rgb_u8.shape[:2]
    picture = blend(template.rgb_u8, placed(finished.rgb_u8, matrix, (height, width)), template.seen)
    score = finisher.judge(warp(picture, matrix, side_px), references_ND, template.face.mask)
    return Finished(picture, score, finished.similarity_unfused, finished.fusion, face_xy=template.face_xy)
