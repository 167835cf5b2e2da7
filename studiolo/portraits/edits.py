"""Edits: a person's face in a template, as an order and as what it asks of the engine (FaceChain, section 2.5).

Two passes. The first draws the person as the template's head is turned, from nothing and shown no more than bones, so
that only the face-LoRA says what the face is like. Its landmarks, warped onto the template's, are what the second
shows, which draws the template's face anew from its own noisy latents, the edges around it in view.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pydantic
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from studiolo.generation.controlnets import EDGES, POSE
from studiolo.generation.order import Control
from studiolo.generation.order import Order as EngineOrder
from studiolo.keys import unit_key
from studiolo.perception.conditions import edge_picture, pose_picture
from studiolo.portraits.edit_templates import EditTemplate
from studiolo.portraits.orders import Order, order_seed
from studiolo.portraits.prompts import portrait_prompt
from studiolo.portraits.rounds import Subject
from studiolo.settings import GenerationSettings, Section

EDIT = "edit"
"""What stands in the place of a style."""


class EditOrder(Section):
    """`count` pictures of one identity in the place of a template's person."""

    identity_id: str
    """Whose face."""
    template_sha256: str = pydantic.Field(pattern="^[0-9a-f]{64}$")
    """Of the template's pixels, see `template_sha256`."""
    count: int = pydantic.Field(1, ge=1)
    """Pictures wanted; more candidates than this may be made."""
    seed: int = pydantic.Field(0, ge=0, lt=2**63)
    """Seed of the order."""
    prompt: str = ""
    """Words after the person's own."""
    negative_prompt: str = ""
    """What to keep away from."""
    strength: float = pydantic.Field(0.65, gt=0, le=1)
    """Share of the steps that are done in the second pass: with less, more of the template's face stays."""
    pose_scale: float = pydantic.Field(1.0, ge=0, le=2)
    """How much bones and landmarks count."""
    edge_scale: float = pydantic.Field(1.0, ge=0, le=2)
    """How much the edges around the face count."""
    face_ratio: float = pydantic.Field(0.66, gt=0, le=1)
    """The face's share of the side of the picture that the base draws. The embedded base knows close portraits."""
    generation: GenerationSettings = GenerationSettings()
    """How pictures are made and judged."""
    unsafe_above: float = pydantic.Field(0.8, ge=0, le=1)
    """A picture, or a template, scored above this by the safety model is rejected."""

    def key(self, identity_key: str, face_lora_sha256: str, weights_sha256: Mapping[str, str]) -> str:
        """sha256 (64 hex digits) of all that decides the pictures' bytes.

        `identity_key` stands for the references they are judged against, `weights_sha256` for every model file used.
        """
        own = self.model_dump(mode="json", exclude={"generation", "seed"})
        inputs = [EDIT, own, identity_key, face_lora_sha256]
        return unit_key("order", inputs, {"generation": self.generation}, weights_sha256, self.seed)

    @property
    def portraits(self) -> Order:
        """The same as an order of portraits: how many, how they are judged, and the seed of the second pass."""
        return Order(
            identity_id=self.identity_id,
            style=EDIT,
            count=self.count,
            seed=order_seed(self.seed, EDIT),
            generation=self.generation,
            unsafe_above=self.unsafe_above,
        )


def template_sha256(rgb_u8: NDArray[np.uint8]) -> str:
    """Hash (64 hex digits) of a template's pixels [H, W, 3]."""
    return hashlib.sha256(f"{rgb_u8.shape}\0".encode() + np.ascontiguousarray(rgb_u8).tobytes()).hexdigest()


def first_pass(
    order: EditOrder,
    template: EditTemplate,
    subject: Subject,
    face_lora: str | None,
    fits: Callable[[str], bool] = lambda text: True,
) -> EngineOrder:
    """The person, turned as the template's head is (FaceChain, section 2.5.1)."""
    side_px = len(template.mask)
    return EngineOrder(
        seed=order_seed(order.seed, EDIT, like="first"),
        count=order.generation.candidates_per_portrait,
        controls={POSE: Control(pose_picture(template.joints_px, side_px), order.pose_scale)},
        **_shared(order, template, subject, face_lora, fits),
    )


def second_pass(
    order: EditOrder,
    template: EditTemplate,
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
    side_px = len(template.mask)
    pose = pose_picture(template.joints_px, side_px, landmarks_px)
    edges = edge_picture(template.crop_rgb_u8, template.mask)
    controls = {POSE: Control(pose, order.pose_scale), EDGES: Control(edges, order.edge_scale)}
    return EngineOrder(
        seed=order.portraits.seed,
        count=count,
        first_index=first_index,
        latents=latents_Chw,
        strength=order.strength,
        mask=whole_blocks(template.mask, side_px // latents_Chw.shape[-1]),
        controls={name: control for name, control in controls.items() if control.scale > 0},
        **_shared(order, template, subject, face_lora, fits),
    )


def whole_blocks(mask: NDArray[np.bool_], block_px: int) -> NDArray[np.bool_]:
    """`mask` [S, S] with each square of `block_px` that it touches: those of the latents that are drawn anew."""
    side = len(mask) // block_px
    touched = mask.reshape(side, block_px, side, block_px).any(axis=(1, 3))
    return np.asarray(touched.repeat(block_px, axis=0).repeat(block_px, axis=1))


def _shared(
    order: EditOrder,
    template: EditTemplate,
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
        "size_px": len(template.mask),
        "face_lora": None if face_lora is None else (face_lora, settings.face_weight),
    }
