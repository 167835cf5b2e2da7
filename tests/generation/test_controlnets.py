"""ControlNets for a base: made, kept, and in the engine's masked lane against diffusers' inpainting pipeline."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetInpaintPipeline, StableDiffusionPipeline
from numpy.typing import NDArray

from studiolo.errors import SettingsError, WeightsError
from studiolo.generation.controlnets import controlnet_for, load_controlnets, save_controlnets
from studiolo.generation.engine import Control, Engine, Order, Portrait
from studiolo.generation.tiny import tiny_base


class WithLatents(StableDiffusionControlNetInpaintPipeline):
    """diffusers' pipeline on given latents: it would draw them at random from the candidate's generator."""

    given: torch.Tensor

    def _encode_vae_image(self, image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return self.given[None]


STEPS = 6
NAMES = ("edges", "pose")
KINDS: dict[str, Callable[[Any], ControlNetModel]] = {
    "ours": controlnet_for,
    "published": ControlNetModel.from_unet,
}


@pytest.fixture(scope="module")
def published_base() -> StableDiffusionPipeline:
    """Stable Diffusion's four latent channels, which diffusers' inpainting takes."""
    return tiny_base(latent_channels=4)


def as_trained(kind: str, base: StableDiffusionPipeline) -> dict[str, ControlNetModel]:
    """ControlNets whose zero convolutions are filled."""
    networks = {}
    for seed, name in enumerate(NAMES):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = KINDS[kind](base.unet)
            for parameter in network.parameters():
                if not parameter.any():
                    torch.nn.init.normal_(parameter, std=0.1)
        networks[name] = network.eval().requires_grad_(False)
    return networks


def picture(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (64, 64, 3), np.uint8)


def edit(engine: Engine, identity_id: str = "anna", **changes: Any) -> Order:
    mask = np.zeros((64, 64), bool)
    mask[16:48, 24:56] = True
    fields = {
        "seed": 7,
        "prompt": "a portrait",
        "negative_prompt": "blurred",
        "steps": STEPS,
        "latents": engine.encode(picture(0)),
        "mask": mask,
        "strength": 0.65,
        "controls": {name: Control(picture(1 + number)) for number, name in enumerate(NAMES)},
    }
    return Order(identity_id=identity_id, **{**fields, **changes})


def made(engine: Engine, order: Order) -> Portrait:
    return next(event for event in engine.submit(order) if isinstance(event, Portrait))


@pytest.mark.parametrize("kind", KINDS)
def test_an_edit_is_as_diffusers_makes_it(published_base: StableDiffusionPipeline, kind: str) -> None:
    base, networks = published_base, as_trained(kind, published_base)
    engine = Engine(base, slots=3, controlnets=networks)
    order = edit(engine, controls={"edges": Control(picture(1), 0.7), "pose": Control(picture(2), 1.1)})
    ours = made(engine, order)
    pipeline = WithLatents(
        **base.components, controlnet=[networks[name] for name in NAMES], requires_safety_checker=False
    )
    pipeline.given = order.latents
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        order.prompt,
        image=torch.tensor(picture(0)).permute(2, 0, 1)[None] / 127.5 - 1,
        mask_image=torch.tensor(order.mask)[None, None].float(),
        control_image=[torch.tensor(picture(number)).permute(2, 0, 1)[None] / 255 for number in (1, 2)],
        controlnet_conditioning_scale=[0.7, 1.1],
        negative_prompt=order.negative_prompt,
        num_inference_steps=STEPS,
        guidance_scale=order.guidance_scale,
        strength=order.strength,
        generator=torch.Generator().manual_seed(ours.seed),
        output_type="np",
    ).images[0]
    assert np.abs(ours.rgb_u8 - np.rint(expected * 255)).mean() <= 0.1
    without = made(engine, edit(engine, controls={}))
    assert np.abs(ours.rgb_u8.astype(int) - without.rgb_u8).mean() > 3


def test_neighbours_change_no_byte_of_an_edit(base: StableDiffusionPipeline) -> None:
    engine = Engine(base, slots=4, controlnets=as_trained("ours", base))
    orders = [
        edit(engine, "anna"),
        edit(engine, "ben", strength=0.3),
        edit(engine, "cleo", latents=None, mask=None, strength=1.0),
        edit(engine, "dan", mask=None, controls={"pose": Control(picture(3), 0.5)}),
        edit(engine, "eva", controls={}),
    ]
    alone = [made(engine, order).rgb_u8 for order in orders]
    for crowd in (orders, orders[::-1]):
        events = {order.identity_id: engine.submit(order) for order in crowd}
        for order, expected in zip(orders, alone, strict=True):
            found = next(event for event in events[order.identity_id] if isinstance(event, Portrait))
            assert np.array_equal(found.rgb_u8, expected)


def test_outside_the_mask_the_latents_are_the_templates(base: StableDiffusionPipeline) -> None:
    """The last step's latents; what the decoder makes of their neighbours is the blend's business."""
    engine = Engine(base, slots=2, controlnets=as_trained("ours", base))
    order = edit(engine, previews=True)
    *_, last, _ = engine.submit(order)
    outside = ~torch.tensor(order.mask[::8, ::8])
    difference = (last.latents[0] - order.latents).abs()
    assert difference[:, outside].max() == 0
    assert difference[:, ~outside].min(0).values.max() > 0.1


def test_a_fresh_one_changes_nothing(base: StableDiffusionPipeline) -> None:
    engine = Engine(base, slots=2, controlnets={"pose": controlnet_for(base.unet)})
    controlled = made(engine, edit(engine, controls={"pose": Control(picture(1))}))
    assert np.array_equal(controlled.rgb_u8, made(engine, edit(engine, controls={})).rgb_u8)


def test_it_begins_as_the_unets_encoder(base: StableDiffusionPipeline) -> None:
    network, encoder = controlnet_for(base.unet), base.unet.state_dict()
    own = network.state_dict()
    shared = own.keys() & encoder.keys()
    assert {name for name in own if name.startswith(("conv_in", "time_embedding", "down_blocks"))} <= shared
    assert all(torch.equal(own[name], encoder[name]) for name in shared)
    whole = ControlNetModel.from_unet(base.unet)
    assert network.num_parameters() < whole.num_parameters()


def test_saved_and_loaded_they_are_equal(base: StableDiffusionPipeline, tmp_path: Path) -> None:
    networks = as_trained("ours", base)
    save_controlnets(networks, tmp_path, torch.float32)
    loaded = load_controlnets(tmp_path)
    assert sorted(loaded) == sorted(NAMES)
    for name, network in networks.items():
        assert all(map(torch.equal, network.parameters(), loaded[name].parameters()))
        assert not any(parameter.requires_grad for parameter in loaded[name].parameters())
    save_controlnets(networks, tmp_path)
    assert load_controlnets(tmp_path, torch.float16)["pose"].dtype == torch.float16


def test_a_folder_without_them_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="got none"):
        load_controlnets(tmp_path)
    for name in ("edges", "pose"):
        with pytest.raises(WeightsError, match="wanted pose and edges"):
            load_controlnets(tmp_path)
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match="models verify"):
        load_controlnets(tmp_path)


def test_those_of_another_base_are_refused(base: StableDiffusionPipeline, tmp_path: Path) -> None:
    save_controlnets(as_trained("ours", base), tmp_path)
    loaded = load_controlnets(tmp_path)
    Engine(base, controlnets=loaded)
    wider = copy.deepcopy(loaded)
    wider["edges"].register_to_config(block_out_channels=(64, 128))
    with pytest.raises(SettingsError, match=r"'edges' is of a base with block_out_channels \[64, 128\], .* to null"):
        Engine(base, controlnets=wider)
