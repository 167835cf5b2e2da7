"""ControlNets: small ones to train for a base, folders of them, and what they add to its UNet.

Shapes: N rows, C latent channels, h and w of the latents, H and W of the picture, L tokens and D their width.
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor

from studiolo.errors import SettingsError, WeightsError
from studiolo.generation.autoencoder import cast_weights

POSE, EDGES = "pose", "edges"
"""Names of the ControlNets that edits need: a head's bones with or without its landmarks, and Canny edges."""

_CONDITION_CHANNELS = (16, 16, 32, 96)
"""Of the layers that read the shown picture. Drawings are simple, and the first layers see every pixel of them."""
_SHARED = (
    *("in_channels", "flip_sin_to_cos", "freq_shift", "block_out_channels", "layers_per_block", "downsample_padding"),
    *("mid_block_scale_factor", "act_fn", "norm_num_groups", "norm_eps", "cross_attention_dim", "attention_head_dim"),
    *("resnet_time_scale_shift",),
)
_FITTING = ("in_channels", "block_out_channels", "layers_per_block", "cross_attention_dim")
"""What decides the shapes of all that goes in and comes out."""


def controlnet_for(unet: UNet2DConditionModel) -> ControlNetModel:
    """A ControlNet for `unet` with its weights, which adds nothing yet (Zhang et al., 2023).

    Theirs copies the UNet's whole encoder. This one leaves out its attention, which is two fifths of it: where
    something shall be is said by convolutions, what it is by the UNet, which still reads the prompt.
    """
    network = ControlNetModel(
        **{name: unet.config[name] for name in _SHARED},
        down_block_types=("DownBlock2D",) * len(unet.config.block_out_channels),
        mid_block_type="UNetMidBlock2D",
        conditioning_embedding_out_channels=_CONDITION_CHANNELS,
    )
    own = network.state_dict()
    shared = {name: weight for name, weight in unet.state_dict().items() if name in own}
    network.load_state_dict({**own, **shared})
    return cast_weights(network, unet.dtype)


def require_fitting(networks: Mapping[str, ControlNetModel], unet_config: Mapping[str, Any]) -> None:
    """Raises `SettingsError` for ControlNets of another base, whose UNet has other shapes."""
    for name, network in networks.items():
        for part in _FITTING:
            got, wanted = (np.atleast_1d(config[part]).tolist() for config in (network.config, unet_config))
            if got != wanted:
                raise SettingsError(
                    f"ControlNet {name!r} is of a base with {part} {got}, and this base has {wanted}; set `controlnets`"
                    " to a card of your base's, or to null"
                )


def residuals(
    networks: Mapping[str, ControlNetModel],
    shown: Mapping[str, tuple[Tensor, Tensor]],
    latents_NChw: Tensor,
    timesteps_N: Tensor,
    prompts_NLD: Tensor | None,
) -> dict[str, Any]:
    """What the networks of `shown` add to the UNet, all together, as its arguments.

    `shown` has for each network pictures [N, 3, H, W] in 0..1 and scales [N, 1, 1, 1]; a scale of 0 is exactly nothing.
    """
    down: list[Tensor] = []
    middle: Tensor | None = None
    for name, (pictures_N3HW, scales_N111) in sorted(shown.items()):
        more_down, more_middle = networks[name](
            latents_NChw,
            timesteps_N,
            encoder_hidden_states=prompts_NLD,
            controlnet_cond=pictures_N3HW,
            conditioning_scale=scales_N111,
            return_dict=False,
        )
        down = [a + b for a, b in zip(down, more_down, strict=True)] if down else list(more_down)
        middle = more_middle if middle is None else middle + more_middle
    if middle is None:
        return {}
    return {"down_block_additional_residuals": tuple(down), "mid_block_additional_residual": middle}


def load_controlnets(
    folder: Path | str, dtype: torch.dtype = torch.float32, *, device: str = "cpu"
) -> dict[str, ControlNetModel]:
    """The ControlNets in the folders of `folder`, by their names, frozen and in eval mode.

    Raises `WeightsError` when one that edits need is missing, or one cannot be read.
    """
    folder = Path(folder)
    names = sorted(path.parent.name for path in folder.glob("*/config.json"))
    if not {POSE, EDGES} <= set(names):
        got = ", ".join(names) or "none"
        raise WeightsError(f"ControlNets in {folder}: got {got}, wanted {POSE} and {EDGES}, as diffusers saves them")
    try:
        return {
            name: ControlNetModel.from_pretrained(folder / name, torch_dtype=dtype, local_files_only=True)
            .requires_grad_(False)
            .eval()
            .to(device)
            for name in names
        }
    except (OSError, ValueError, RuntimeError) as error:
        raise WeightsError(f"ControlNets in {folder}: {error}; run `python -m jobs models verify`") from error


def save_controlnets(networks: Mapping[str, ControlNetModel], folder: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write a copy of each network to a folder of its name in `folder`, in `dtype`."""
    for name, network in networks.items():
        copied = cast_weights(copy.deepcopy(network).to("cpu"), dtype)
        copied.save_pretrained(folder / name, safe_serialization=True)
        for path in (folder / name).glob("*.safetensors"):
            path.chmod(0o644)  # diffusers leaves them readable by their owner only
