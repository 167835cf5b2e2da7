"""An autoencoder whose first two levels only rearrange pixels: fast on a CPU, standard for a pipeline.

image [B, 3, H, W] -> space to depth x4 -> [B, 48, H/4, W/4] -> AutoencoderKL's own levels -> [B, 8, H/8, W/8]

diffusers' pipelines take the factor between pixels and latents from `len(config.block_out_channels)`, so the
two rearranging levels are listed there (12 and 48 channels) although they have no weights. They are inside
the encoder and the decoder, and slicing, tiling and gradient checkpointing are AutoencoderKL's own.
"""

from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import AutoencoderKL
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import Decoder, Encoder
from torch import Tensor
from torch.nn import functional as F

from studiolo.errors import SettingsError

Model = TypeVar("Model", bound=torch.nn.Module)

FACTOR = 4
"""Side of the square of pixels that becomes channels."""

_LEVELS = 2
"""Levels that only rearrange: FACTOR = 2 ** _LEVELS."""


class SpaceToDepthEncoder(Encoder):
    """diffusers' encoder behind a space-to-depth: [B, 3, H, W] in, H and W multiples of 8."""

    def forward(self, sample: Tensor) -> Tensor:
        """Moments [B, 2 * latent channels, H/8, W/8] of images [B, 3, H, W] in -1..1."""
        return super().forward(F.pixel_unshuffle(sample, FACTOR))


class SpaceToDepthDecoder(Decoder):
    """diffusers' decoder before a depth-to-space: [B, 3, H, W] out."""

    def forward(self, sample: Tensor, latent_embeds: Tensor | None = None) -> Tensor:
        """Images [B, 3, 8h, 8w] in about -1..1 of latents [B, latent channels, h, w]."""
        return F.pixel_shuffle(super().forward(sample, latent_embeds), FACTOR)


class SpaceToDepthAutoencoderKL(AutoencoderKL):
    """AutoencoderKL on plain RGB [B, 3, H, W] in -1..1 whose first two levels are space-to-depth.

    The first two entries of `block_out_channels`, `down_block_types` and (as the last two) `up_block_types`
    stand for the rearranging levels: 12 and 48 channels, `SpaceToDepth` and `DepthToSpace`. Anything else
    there raises `SettingsError`.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        down_block_types: tuple[str, ...] = ("SpaceToDepth",) * 2 + ("DownEncoderBlock2D",) * 2,
        up_block_types: tuple[str, ...] = ("UpDecoderBlock2D",) * 2 + ("DepthToSpace",) * 2,
        block_out_channels: tuple[int, ...] = (12, 48, 128, 192),
        layers_per_block: int = 1,
        act_fn: str = "silu",
        latent_channels: int = 8,
        norm_num_groups: int = 32,
        sample_size: int = 128,
        scaling_factor: float = 0.18215,
        shift_factor: float | None = None,
        latents_mean: tuple[float, ...] | None = None,
        latents_std: tuple[float, ...] | None = None,
        force_upcast: bool = False,
        use_quant_conv: bool = True,
        use_post_quant_conv: bool = True,
        mid_block_add_attention: bool = True,
    ) -> None:
        given = dict(self.config)
        _check(in_channels, out_channels, block_out_channels, down_block_types, up_block_types)
        inner: dict[str, Any] = {
            "block_out_channels": tuple(block_out_channels[_LEVELS:]),
            "layers_per_block": layers_per_block,
            "act_fn": act_fn,
            "norm_num_groups": norm_num_groups,
            "mid_block_add_attention": mid_block_add_attention,
        }
        # AutoencoderKL builds the inner levels and everything around them; its two halves are then replaced by ours.
        super().__init__(
            in_channels=in_channels * FACTOR**2,
            out_channels=out_channels * FACTOR**2,
            down_block_types=tuple(down_block_types[_LEVELS:]),
            up_block_types=tuple(up_block_types[:-_LEVELS]),
            latent_channels=latent_channels,
            sample_size=sample_size,
            scaling_factor=scaling_factor,
            shift_factor=shift_factor,
            latents_mean=latents_mean,
            latents_std=latents_std,
            force_upcast=force_upcast,
            use_quant_conv=use_quant_conv,
            use_post_quant_conv=use_post_quant_conv,
            **inner,
        )
        down, up = tuple(down_block_types[_LEVELS:]), tuple(up_block_types[:-_LEVELS])
        self.encoder = SpaceToDepthEncoder(
            in_channels * FACTOR**2, latent_channels, down_block_types=down, double_z=True, **inner
        )
        self.decoder = SpaceToDepthDecoder(latent_channels, out_channels * FACTOR**2, up_block_types=up, **inner)
        self.register_to_config(**{name: value for name, value in given.items() if not name.startswith("_")})
        self.tile_latent_min_size = sample_size // 2 ** (len(block_out_channels) - 1)

    @classmethod
    def from_inner(cls, inner: AutoencoderKL) -> "SpaceToDepthAutoencoderKL":
        """The same weights as `inner`, an AutoencoderKL on `pixel_unshuffle(image, 4)`; outputs are equal,
        bit for bit.
        """
        config = inner.config
        shared = (
            "layers_per_block",
            "act_fn",
            "latent_channels",
            "norm_num_groups",
            "scaling_factor",
            "shift_factor",
        )
        more = (
            "latents_mean",
            "latents_std",
            "use_quant_conv",
            "use_post_quant_conv",
            "mid_block_add_attention",
        )
        image_channels = config.in_channels // FACTOR**2
        model = cls(
            in_channels=image_channels,
            out_channels=config.out_channels // FACTOR**2,
            down_block_types=("SpaceToDepth",) * _LEVELS + tuple(config.down_block_types),
            up_block_types=tuple(config.up_block_types) + ("DepthToSpace",) * _LEVELS,
            block_out_channels=(image_channels * 4, image_channels * 16, *config.block_out_channels),
            sample_size=config.sample_size * FACTOR,
            **{name: config[name] for name in (*shared, *more)},
        )
        model.load_state_dict(inner.state_dict())
        return cast_weights(model, inner.dtype)


def cast_weights(model: Model, dtype: torch.dtype) -> Model:
    """`model` with its floating point weights and buffers in `dtype`, in place; `ModelMixin.to` warns about
    nothing.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(dtype)
    return model


def load_autoencoder(folder: Path, dtype: torch.dtype = torch.float32) -> AutoencoderKL:
    """The autoencoder saved in `folder`: ours, or a stock one; one on 48 channels becomes the inner part of ours."""
    ours = AutoencoderKL.load_config(str(folder)).get("_class_name") == SpaceToDepthAutoencoderKL.__name__
    kind = SpaceToDepthAutoencoderKL if ours else AutoencoderKL
    autoencoder = kind.from_pretrained(str(folder), torch_dtype=dtype, local_files_only=True)
    if ours or autoencoder.config.in_channels < FACTOR**2:
        return autoencoder
    return SpaceToDepthAutoencoderKL.from_inner(autoencoder)


def _check(
    in_channels: int,
    out_channels: int,
    block_out_channels: tuple[int, ...],
    down_block_types: tuple[str, ...],
    up_block_types: tuple[str, ...],
) -> None:
    wanted = (in_channels * 4, in_channels * 16)
    found = tuple(block_out_channels[:_LEVELS])
    if found != wanted or len(block_out_channels) <= _LEVELS or out_channels != in_channels:
        raise SettingsError(
            f"autoencoder: got {in_channels} image channels in, {out_channels} out and block_out_channels"
            f" {tuple(block_out_channels)}, wanted as many out as in and {wanted} followed by the levels with weights"
        )
    down, up = tuple(down_block_types[:_LEVELS]), tuple(up_block_types[-_LEVELS:])
    if down != ("SpaceToDepth",) * _LEVELS or up != ("DepthToSpace",) * _LEVELS:
        raise SettingsError(
            f"autoencoder: got {down} as the first down blocks and {up} as the last up blocks, wanted SpaceToDepth and"
            " DepthToSpace, two of each"
        )
