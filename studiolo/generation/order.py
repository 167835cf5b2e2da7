"""What goes into the engine and what comes out of it."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from studiolo.errors import SettingsError
from studiolo.generation.slot import skipped_steps


@dataclass(frozen=True, eq=False)
class Control:
    """What one ControlNet is shown."""

    rgb_u8: NDArray[np.uint8]
    """[H, W, 3], of the picture's size: edges, a pose, depth, as the ControlNet was trained."""
    scale: float = 1.0
    """How much it counts; 0 is nothing."""


@dataclass(frozen=True, eq=False)
class Order:
    """What to make: `count` candidates of one identity, indices from `first_index` on."""

    seed: int
    """0 <= seed < 2**63."""
    identity_id: str
    """Whose portraits; part of every candidate's seed."""
    prompt: str
    """What the pictures show."""
    negative_prompt: str = ""
    """What they do not show; without effect at a guidance scale of 1."""
    count: int = 1
    """Candidates."""
    first_index: int = 0
    """Index of the first candidate, so that a later round goes on where the last one ended."""
    steps: int = 30
    """Denoising steps."""
    guidance_scale: float = 2.0
    """Classifier-free guidance, at least 1."""
    scheduler: str | None = None
    """A name of `studiolo.generation.schedulers.SCHEDULERS`; the base's own when None."""
    eta: float = 0.0
    """Noise DDIM adds back at each step, 0 (none) to 1 (ancestral); it comes from the candidate's own generator."""
    face_lora: tuple[str, float] | None = None
    """(path of the safetensors file, weight)."""
    style_lora: tuple[str, float] | None = None
    """(path of the safetensors file, weight)."""
    size_px: int | None = None
    """Side of the square picture, a multiple of the base's 8; the base's own when None."""
    latents: Tensor | None = None
    """Latents [C, h, w] of a picture to begin from, as `Engine.encode` gives them; pure noise when None."""
    strength: float = 1.0
    """Share of the steps that are done when there are `latents`, above 0, at most 1."""
    mask: NDArray[np.bool_] | None = None
    """[H, W]: where the picture is made anew; the rest stays that of `latents`."""
    controls: Mapping[str, Control] = field(default_factory=dict)
    """What the engine's ControlNets are shown, by their names."""
    deadline_s: float = 3600.0
    """Seconds from now within which the pictures are wanted: the order with the least left is served first."""
    previews: bool = False
    """Whether steps carry the latents of the candidates."""


@dataclass(frozen=True)
class Step:
    """`done` of the order's `total` denoising steps, all candidates together, are done."""

    done: int
    total: int
    latents: Mapping[int, Tensor] = field(default_factory=dict)
    """With `Order.previews`: the latents [C, h, w] of the candidates that did a step, by their index."""


@dataclass(frozen=True, eq=False)
class Portrait:
    """A finished candidate: `rgb_u8` [H, W, 3] and the seed it was made from."""

    index: int
    seed: int
    rgb_u8: NDArray[np.uint8]


def candidate_seed(order_seed: int, identity_id: str, index: int) -> int:
    """Seed of one candidate, 0 <= seed < 2**63: sha256 over the order's seed, whose picture and which one."""
    digest = hashlib.sha256(f"candidate\0{order_seed}\0{identity_id}\0{index}".encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def check_order(order: Order, most_steps: int) -> None:
    """Raise `SettingsError` for numbers that no base could work with, or more than `most_steps` steps."""
    if order.count < 1 or order.steps < 1 or order.first_index < 0:
        raise SettingsError(
            f"order: got {order.count} candidates from index {order.first_index} in {order.steps} steps, wanted at"
            " least 1 candidate, index 0 and 1 step"
        )
    if order.steps > most_steps:
        raise SettingsError(f"order: got {order.steps} steps, wanted at most the base's {most_steps}")
    if not 0 <= order.seed < 2**63:
        raise SettingsError(f"order: got the seed {order.seed}, wanted 0 <= seed < 2**63")
    if not 0 <= order.eta <= 1:
        raise SettingsError(f"order: got an eta of {order.eta}, wanted 0 to 1")
    for text in (order.prompt, order.negative_prompt):
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise SettingsError(f"order: got the prompt {text!r} with half a letter (a surrogate), wanted Unicode text")
    weights = [lora[1] for lora in (order.face_lora, order.style_lora) if lora is not None]
    scales = [control.scale for control in order.controls.values()]
    if not (1 <= order.guidance_scale < math.inf and all(map(math.isfinite, [*weights, *scales, order.deadline_s]))):
        raise SettingsError(
            f"order: got a guidance scale of {order.guidance_scale}, LoRA weights {weights}, ControlNet scales {scales}"
            f" and a deadline of {order.deadline_s} s, wanted a guidance scale of at least 1 and finite numbers"
        )
    if not 0 < order.strength <= 1 or skipped_steps(order.steps, order.strength) == order.steps:
        raise SettingsError(
            f"order: got a strength of {order.strength} in {order.steps} steps, wanted above 0, at most 1, and 1 step"
            " or more to be done"
        )
    if order.latents is None and (order.mask is not None or order.strength != 1):
        raise SettingsError("order: got a mask or a strength without latents of a picture, wanted `latents` too")


def check_shapes(order: Order, side_px: int, shape_CHW: tuple[int, int, int], factor: int) -> None:
    """Raise `SettingsError` for a size, latents, a mask or a ControlNet's picture that does not fit the base."""
    if side_px < factor or side_px % factor:
        raise SettingsError(f"order: got a size of {side_px} px, wanted a multiple of {factor}")
    found = None if order.latents is None else tuple(order.latents.shape)
    if found not in (None, shape_CHW):
        raise SettingsError(f"order: got latents {found}, wanted {shape_CHW}")
    if order.mask is not None and order.mask.shape != (side_px, side_px):
        raise SettingsError(f"order: got a mask {order.mask.shape}, wanted {(side_px, side_px)}")
    for name, control in order.controls.items():
        if control.rgb_u8.shape != (side_px, side_px, 3):
            raise SettingsError(
                f"order: got a picture {control.rgb_u8.shape} for ControlNet {name!r}, wanted {(side_px, side_px, 3)}"
            )
