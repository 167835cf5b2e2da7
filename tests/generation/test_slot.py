"""The engine against diffusers' own pipelines, for every scheduler."""

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline, StableDiffusionPipeline
from numpy.typing import NDArray
from torch import Tensor

from studiolo.generation.engine import Engine, Order, Portrait, candidate_seed
from studiolo.generation.schedulers import SCHEDULERS, make_scheduler
from studiolo.generation.slot import skipped_steps
from studiolo.generation.tiny import tiny_base

STEPS, MEAN_DIFFERENCE = 6, 0.1


@pytest.fixture(scope="module")
def base() -> StableDiffusionPipeline:
    return tiny_base(latent_channels=4)


@pytest.fixture(scope="module")
def engine(base: StableDiffusionPipeline) -> Engine:
    return Engine(base, slots=3)


@pytest.fixture(scope="module")
def latents(engine: Engine) -> Tensor:
    """Of a picture with a light and a dark half, [4, 8, 8]."""
    rgb_u8 = np.full((64, 64, 3), 220, np.uint8)
    rgb_u8[:, :32] = 30
    return engine.encode(rgb_u8)


def mask() -> NDArray[np.bool_]:
    made_anew = np.zeros((64, 64), np.bool_)
    made_anew[8:40, 16:56] = True
    return made_anew


def diffusers_picture(
    base: StableDiffusionPipeline, order: Order, scheduler: str, eta: float = 0.0
) -> NDArray[np.float32]:
    """Candidate 0 of `order` by the pipeline that is made for it, [64, 64, 3] in 0..1."""
    parts = {**base.components, "scheduler": make_scheduler(base.scheduler, scheduler)}
    options: dict[str, Any] = {
        "negative_prompt": order.negative_prompt,
        "num_inference_steps": order.steps,
        "guidance_scale": order.guidance_scale,
        "eta": eta,
        "generator": torch.Generator().manual_seed(candidate_seed(order.seed, order.identity_id, 0)),
        "output_type": "np",
    }
    kind: Any = StableDiffusionPipeline
    if order.latents is not None:
        kind = StableDiffusionImg2ImgPipeline
        options |= {"image": order.latents[None], "strength": order.strength}
    if order.mask is not None:
        kind = StableDiffusionInpaintPipeline
        options |= {"mask_image": torch.tensor(order.mask)[None, None].float()}
        options |= {"masked_image_latents": order.latents[None], "height": 64, "width": 64}
    pipeline = kind(**parts, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(order.prompt, **options).images[0]


def difference(engine: Engine, base: StableDiffusionPipeline, order: Order, scheduler: str, eta: float = 0.0) -> float:
    """Mean absolute difference of candidate 0 from diffusers', of 255."""
    made = next(event for event in engine.submit(order) if isinstance(event, Portrait)).rgb_u8
    assert made.std() > 5
    wanted = diffusers_picture(base, order, scheduler, eta)
    return float(np.abs(made - np.rint(wanted * 255)).mean())


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("kind", ["text", "image", "image, all steps", "mask", "mask, all steps"])
def test_as_diffusers(
    engine: Engine, base: StableDiffusionPipeline, latents: Tensor, scheduler: str, kind: str
) -> None:
    options: dict[str, Any] = {} if kind == "text" else {"latents": latents, "strength": 1 if "all" in kind else 0.6}
    if "mask" in kind:
        options["mask"] = mask()
    order = Order(1, "anna", "a portrait", "a man", steps=STEPS, guidance_scale=3, scheduler=scheduler, **options)
    assert difference(engine, base, order, scheduler) <= MEAN_DIFFERENCE


def test_ancestral_ddim_as_diffusers(engine: Engine, base: StableDiffusionPipeline) -> None:
    order = Order(1, "anna", "a portrait", steps=STEPS, eta=0.9)
    assert difference(engine, base, order, "ddim", 0.9) <= MEAN_DIFFERENCE
    assert difference(engine, base, order, "ddim", 0.0) > MEAN_DIFFERENCE


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_base_that_predicts_v_without_any_signal_left(scheduler: str) -> None:
    """The embedded base's noise schedule: zero terminal SNR, trailing timesteps."""
    base = tiny_base(latent_channels=4)
    changes = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    base.scheduler = base.scheduler.from_config(base.scheduler.config, **changes)
    order = Order(1, "anna", "a portrait", "a man", steps=STEPS, guidance_scale=3, scheduler=scheduler)
    assert difference(Engine(base, slots=1), base, order, scheduler) <= MEAN_DIFFERENCE


def test_outside_the_mask_nothing_is_made_anew(engine: Engine, latents: Tensor) -> None:
    order = Order(1, "anna", "a portrait", steps=STEPS, latents=latents, mask=mask(), previews=True)
    last = [event for event in engine.submit(order) if not isinstance(event, Portrait)][-1].latents[0]
    kept = ~torch.tensor(mask()[::8, ::8])
    assert torch.equal(last[:, kept], latents[:, kept])
    assert not torch.allclose(last[:, ~kept], latents[:, ~kept], atol=0.1)


@pytest.mark.parametrize(("strength", "skipped"), [(1.0, 0), (0.5, 5), (0.99, 1), (0.1, 9)])
def test_strength_leaves_out_the_first_steps(strength: float, skipped: int) -> None:
    assert skipped_steps(10, strength) == skipped
