"""Edits: a person's face in a template, as an order and as what a sampler is asked for (FaceChain, section 2.5).

Two passes. The first draws the person as the template's head is turned, from nothing and shown no more than bones, so
that only the face-LoRA says what the face is like. Its landmarks, warped onto the template's, are what the second
shows, which draws the template's face anew from its own noisy latents, the edges around it in view.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pydantic
from numpy.typing import NDArray

from studiolo.keys import unit_key
from studiolo.portraits.edit_templates import TemplateFace
from studiolo.portraits.orders import Order, order_seed
from studiolo.portraits.styles import Style
from studiolo.settings import GenerationSettings, Section

EDIT = "edit"
"""What stands in the place of a style."""
EDITED = {"strength", "pose_scale", "edge_scale", "face_ratio"}
"""Fields of an order that its pictures' files name, beside those of all portraits."""


class EditOrder(Section):
    """`count` pictures of one identity in the place of a template's person."""

    identity_id: str
    """Whose face."""
    template_sha256: str = pydantic.Field(pattern="^[0-9a-f]{64}$")
    """Of the template's pixels, see `template_sha256`, or of its file."""
    face_xy: tuple[float, float] | None = None
    """A point of the face that is meant, in shares of the template's width and height; None: the only one, or the one
    that dominates."""
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

    @property
    def style(self) -> Style:
        """What stands in the place of a style."""
        return Style(name=EDIT, title="In a template", negative_prompt=self.negative_prompt)


@dataclass(frozen=True, eq=False)
class EditPass:
    """What a sampler has to know of an edit, beside whose it is and how many pictures are wanted."""

    order: EditOrder
    face: TemplateFace
    landmarks_px: NDArray[np.float64] | None = None
    """[68, 2]: those that the second pass shows, in the template's crop; None: it is the first pass."""


def template_sha256(rgb_u8: NDArray[np.uint8]) -> str:
    """Hash (64 hex digits) of a template's pixels [H, W, 3]."""
    return hashlib.sha256(f"{rgb_u8.shape}\0".encode() + np.ascontiguousarray(rgb_u8).tobytes()).hexdigest()
