"""What the passes of an edit ask of the engine (FaceChain, section 2.5), see `studiolo.portraits.edits`."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from studiolo.generation.controlnets import EDGES, POSE
from studiolo.generation.engine import Engine
from studiolo.generation.order import Control
from studiolo.generation.order import Order as EngineOrder
from studiolo.perception.conditions import edge_picture, pose_picture
from studiolo.portraits.edit_templates import TemplateFace
from studiolo.portraits.edits import EDIT, EditOrder, EditPass
from studiolo.portraits.orders import order_seed
from studiolo.portraits.prompts import portrait_prompt
from studiolo.portraits.rounds import Subject


def engine_order(
    engine: Engine, shown: EditPass, subject: Subject, face_lora: str | None, count: int, first_index: int
) -> EngineOrder:
    """`count` candidates of a pass, indices from `first_index` on; `face_lora` is a path on this disk."""
    who = shown.order, shown.face, subject, face_lora
    if shown.landmarks_px is None:
        return first_pass(*who, count=count, first_index=first_index, fits=engine.fits)
    latents = engine.encode(shown.face.crop_rgb_u8)
    return second_pass(*who, shown.landmarks_px, latents, count=count, first_index=first_index, fits=engine.fits)


def first_pass(
    order: EditOrder,
    face: TemplateFace,
    subject: Subject,
    face_lora: str | None,
    *,
    count: int = 1,
    first_index: int = 0,
    fits: Callable[[str], bool] = lambda text: True,
) -> EngineOrder:
    """The person, turned as the template's head is (FaceChain, section 2.5.1)."""
    side_px = len(face.mask)
    return EngineOrder(
        seed=order_seed(order.seed, EDIT, like="first"),
        count=count,
        first_index=first_index,
        controls={POSE: Control(pose_picture(face.joints_px, side_px), order.pose_scale)},
        **_shared(order, face, subject, face_lora, fits),
    )


def second_pass(
    order: EditOrder,
    face: TemplateFace,
    subject: Subject,
    face_lora: str | None,
    landmarks_px: ArrayLike,
    latents_Chw: Tensor,
    *,
    count: int,
    first_index: int,
    fits: Callable[[str], bool] = lambda text: True,
) -> EngineOrder:
    """The template's face drawn anew (FaceChain, section 2.5.2): `landmarks_px` [68, 2] are those to draw, in the
    template's crop, and `latents_Chw` its latents.

    A control with a scale of 0 is left out.
    """
    side_px = len(face.mask)
    pose = pose_picture(face.joints_px, side_px, landmarks_px)
    edges = edge_picture(face.crop_rgb_u8, face.mask)
    controls = {POSE: Control(pose, order.pose_scale), EDGES: Control(edges, order.edge_scale)}
    return EngineOrder(
        seed=order.portraits.seed,
        count=count,
        first_index=first_index,
        latents=latents_Chw,
        strength=order.strength,
        mask=whole_blocks(face.mask, side_px // latents_Chw.shape[-1]),
        controls={name: control for name, control in controls.items() if control.scale > 0},
        **_shared(order, face, subject, face_lora, fits),
    )


def whole_blocks(mask: NDArray[np.bool_], block_px: int) -> NDArray[np.bool_]:
    """`mask` [S, S] with each square of `block_px` that it touches: those of the latents that are drawn anew."""
    side = len(mask) // block_px
    touched = mask.reshape(side, block_px, side, block_px).any(axis=(1, 3))
    return np.asarray(touched.repeat(block_px, axis=0).repeat(block_px, axis=1))


def _shared(
    order: EditOrder,
    face: TemplateFace,
    subject: Subject,
    face_lora: str | None,
    fits: Callable[[str], bool],
) -> dict[str, Any]:
    settings = order.generation
    return {
        "identity_id": order.identity_id,
        "prompt": portrait_prompt(subject.trigger, subject.common_tags, order.prompt, fits),
        "negative_prompt": order.negative_prompt,
        "steps": settings.steps,
        "guidance_scale": settings.guidance_scale,
        "eta": settings.eta,
        "size_px": len(face.mask),
        "face_lora": None if face_lora is None else (face_lora, settings.face_weight),
    }
