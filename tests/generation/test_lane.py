"""ControlNets in a lane, against diffusers' pipeline; slots that come and go."""

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline, StableDiffusionPipeline
from numpy.typing import NDArray

from studiolo.errors import SettingsError
from studiolo.generation.engine import Control, Engine, Order, Portrait
from tests.generation.conftest import LoraFile

STEPS = 4


@pytest.fixture(scope="module")
def controlnets(base: StableDiffusionPipeline) -> dict[str, ControlNetModel]:
    """The real class for the tiny base, its zero convolutions filled as if trained."""
    networks = {}
    for seed, name in enumerate(("pose", "edges")):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = ControlNetModel.from_unet(base.unet, conditioning_embedding_out_channels=(8, 8, 16, 16))
            for parameter in network.parameters():
                if not parameter.any():
                    torch.nn.init.normal_(parameter, std=0.1)
        networks[name] = network.eval().requires_grad_(False)
    return networks


@pytest.fixture(scope="module")
def engine(base: StableDiffusionPipeline, controlnets: dict[str, ControlNetModel]) -> Engine:
    return Engine(base, slots=3, controlnets=controlnets)


def shown(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (64, 64, 3), np.uint8)


def order(identity_id: str = "anna", **changes: Any) -> Order:
    fields = {"seed": 7, "prompt": "a portrait", "negative_prompt": "blurred", "steps": STEPS}
    return Order(identity_id=identity_id, **{**fields, **changes})


def picture(engine: Engine, wanted: Order) -> Portrait:
    return next(event for event in engine.submit(wanted) if isinstance(event, Portrait))


@pytest.mark.parametrize("scales", [{"pose": 0.8}, {"pose": 0.5, "edges": 1.2}])
def test_as_diffusers(
    base: StableDiffusionPipeline,
    controlnets: dict[str, ControlNetModel],
    engine: Engine,
    scales: dict[str, float],
) -> None:
    names = sorted(scales)
    wanted = order(controls={name: Control(shown(number), scales[name]) for number, name in enumerate(names)})
    made = picture(engine, wanted)
    pipeline = StableDiffusionControlNetPipeline(
        **base.components, controlnet=[controlnets[name] for name in names], requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        wanted.prompt,
        [torch.tensor(shown(number)).permute(2, 0, 1)[None] / 255 for number, _ in enumerate(names)],
        negative_prompt=wanted.negative_prompt,
        num_inference_steps=STEPS,
        guidance_scale=wanted.guidance_scale,
        controlnet_conditioning_scale=[scales[name] for name in names],
        generator=torch.Generator().manual_seed(made.seed),
        output_type="np",
    ).images[0]
    assert np.abs(made.rgb_u8 - np.rint(expected * 255)).mean() <= 0.1
    assert np.abs(made.rgb_u8.astype(int) - picture(engine, order()).rgb_u8).mean() > 1


def test_scale_0_is_without(engine: Engine) -> None:
    without = picture(engine, order())
    assert np.array_equal(picture(engine, order(controls={"pose": Control(shown(0), 0.0)})).rgb_u8, without.rgb_u8)


def test_company_changes_nothing(engine: Engine, lora_file: LoraFile) -> None:
    lora = (str(lora_file("anna", 1)), 1.0)
    orders = [
        order("anna", controls={"pose": Control(shown(0))}, face_lora=lora),
        order("ben", controls={"pose": Control(shown(1), 0.3)}),
        order("cleo"),
        order("dan", controls={"pose": Control(shown(0)), "edges": Control(shown(2))}),
    ]
    alone = [picture(engine, one).rgb_u8 for one in orders]
    events = [engine.submit(one) for one in orders]
    for expected, its in zip(alone, events, strict=True):
        assert np.array_equal(next(event for event in its if isinstance(event, Portrait)).rgb_u8, expected)


def test_a_picture_of_another_size_is_refused(engine: Engine) -> None:
    with pytest.raises(SettingsError, match="ControlNet 'pose', wanted \\(64, 64, 3\\)"):
        engine.submit(order(controls={"pose": Control(np.zeros((32, 64, 3), np.uint8))}))
