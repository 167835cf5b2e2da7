"""Orders: the third unit of work. Portraits of one person in one style, and everything their bytes depend
on.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import pydantic

from studiolo.identities.artifacts import identity_folder, safe_segment
from studiolo.keys import unit_key
from studiolo.portraits.prompts import portrait_prompt
from studiolo.portraits.styles import Style
from studiolo.settings import GenerationSettings, Section


class Order(Section):
    """`count` portraits of one identity in one style."""

    identity_id: str
    """Whose portraits."""
    style: str
    """Name of the style."""
    count: int = pydantic.Field(ge=1)
    """Portraits wanted; more candidates than this may be made."""
    seed: int = pydantic.Field(0, ge=0, lt=2**63)
    """Seed of the order, see `order_seed`."""
    generation: GenerationSettings = GenerationSettings()
    """How portraits are made and judged."""
    unsafe_above: float = pydantic.Field(0.8, ge=0, le=1)
    """A portrait scored above this by the safety model is rejected."""

    def key(self, style: Style, identity_key: str, face_lora_sha256: str, weights_sha256: Mapping[str, str]) -> str:
        """sha256 (64 hex digits) of all that decides the portraits' bytes.

        `identity_key` stands for the references they are judged against, `weights_sha256` for every model
        file used, the style-LoRA's and the calibration of similarity included.
        """
        look = style.model_dump(mode="json")
        inputs = [self.identity_id, self.count, self.unsafe_above, look, identity_key, face_lora_sha256]
        return unit_key("order", inputs, {"generation": self.generation}, weights_sha256, self.seed)


def order_seed(job_seed: int, style: str, like: str = "") -> int:
    """Seed of everyone's order in `style`, or of the one for more like the portrait `like`; 0 <= seed < 2**63.

    Styles differ, so that two styles do not show the same composition twice; people are told apart by the
    candidate's seed, which adds the identity and the index.
    """
    digest = hashlib.sha256("\0".join(["order", str(job_seed), style, *filter(None, [like])]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def portrait_id(identity_id: str, style: str, index: int) -> str:
    """sha256 (64 hex digits) over whose, which style and which candidate."""
    return hashlib.sha256(f"{identity_id}\0{style}\0{index}".encode(errors="surrogatepass")).hexdigest()


def portrait_path(identity_id: str, style: str, index: int) -> str:
    """PNG of a candidate, relative to the output."""
    return f"{identity_folder(identity_id)}/portraits/{safe_segment(style)}/{index:03d}.png"


def to_engine(
    order: Order,
    style: Style,
    identity: Mapping[str, Any],
    *,
    face_lora_path: str | None = None,
    style_lora_path: str | None = None,
    count: int | None = None,
    first_index: int = 0,
    fits: Callable[[str], bool] = lambda text: True,
) -> dict[str, Any]:
    """Fields of the engine's order for `count` candidates (the order's count when None) from `first_index`
    on.

    `identity` is a row of `IDENTITY_SCHEMA`; `fits` says whether the base reads a prompt to its end.
    A LoRA is `None` when there is no file, else (path, weight); its
    weight is the setting times the style's multiplier, so both act and the default setting of 1 leaves the
    style's word.
    """
    settings = order.generation
    face_weight = settings.face_weight * style.multiplier_human
    style_weight = settings.style_weight * style.multiplier_style
    return {
        "seed": order.seed,
        "identity_id": order.identity_id,
        "prompt": portrait_prompt(identity["trigger"], identity["common_tags"] or [], style.words, fits),
        "negative_prompt": style.negative_prompt,
        "count": order.count if count is None else count,
        "first_index": first_index,
        "steps": settings.steps,
        "guidance_scale": settings.guidance_scale,
        "eta": settings.eta,
        "face_lora": None if face_lora_path is None else (face_lora_path, face_weight),
        "style_lora": None if style_lora_path is None else (style_lora_path, style_weight),
    }
