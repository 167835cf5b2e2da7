import json

import pytest
import torch
from diffusers import AutoencoderKL
from torch.nn import functional as F

from studiolo.errors import SettingsError
from studiolo.generation.autoencoder import SpaceToDepthAutoencoderKL, load_autoencoder
from studiolo.generation.tiny import tiny_base


@pytest.fixture
def inner() -> AutoencoderKL:
    """An AutoencoderKL on 48 channels, as the first base had."""
    torch.manual_seed(0)
    return AutoencoderKL(
        in_channels=48,
        out_channels=48,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(16, 16),
        latent_channels=8,
        norm_num_groups=8,
        sample_size=8,
        scaling_factor=0.6,
    ).eval()


@torch.no_grad()
def test_conversion_is_exact(inner: AutoencoderKL) -> None:
    ours = SpaceToDepthAutoencoderKL.from_inner(inner).eval()
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(2, 3, 32, 32, generator=generator) * 2 - 1
    latents = torch.randn(2, 8, 4, 4, generator=generator)
    assert torch.equal(ours.encode(image).latent_dist.mean, inner.encode(F.pixel_unshuffle(image, 4)).latent_dist.mean)
    assert torch.equal(ours.decode(latents).sample, F.pixel_shuffle(inner.decode(latents).sample, 4))
    assert ours.config.scaling_factor == 0.6


@torch.no_grad()
def test_loads_both_forms_and_keeps_its_own(inner: AutoencoderKL, tmp_path) -> None:
    inner.save_pretrained(tmp_path / "inner")
    first = load_autoencoder(tmp_path / "inner")
    first.save_pretrained(tmp_path / "ours")
    second = load_autoencoder(tmp_path / "ours")
    assert type(first) is type(second) is SpaceToDepthAutoencoderKL
    assert _own(first.config) == _own(second.config)
    latents = torch.randn(1, 8, 4, 4, generator=torch.Generator().manual_seed(1))
    assert torch.equal(first.decode(latents).sample, second.decode(latents).sample)


def test_config_has_the_length_the_pipelines_count_on() -> None:
    base = tiny_base()
    assert len(base.vae.config.block_out_channels) == 4
    assert (base.vae.config.in_channels, base.vae.config.out_channels) == (3, 3)
    assert base.vae_scale_factor == 8


@torch.no_grad()
def test_slicing_is_equal_and_tiling_keeps_the_size() -> None:
    vae = tiny_base().vae
    image = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(1)) * 2 - 1
    whole = vae.encode(image).latent_dist.mean
    vae.enable_slicing()
    torch.testing.assert_close(vae.encode(image).latent_dist.mean, whole)
    vae.enable_tiling()
    tiled = vae.encode(image).latent_dist.mean
    assert tiled.shape == whole.shape == (2, 8, 16, 16)
    assert vae.decode(tiled).sample.shape == image.shape
    # the first tile sees no other: away from its blended edges it is the tile encoded alone
    alone = vae.encode(image[:, :, :64, :64]).latent_dist.mean
    torch.testing.assert_close(tiled[:, :, :6, :6], alone[:, :, :6, :6])


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    gradients = []
    for checkpointing in (False, True):
        vae = tiny_base().vae.requires_grad_(True).train()
        if checkpointing:
            vae.enable_gradient_checkpointing()
        vae.decode(vae.encode(image).latent_dist.mean).sample.square().mean().backward()
        gradients.append([weight.grad for weight in vae.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


@pytest.mark.parametrize(
    "wrong",
    [
        {"block_out_channels": (16, 48, 16, 16)},
        {"block_out_channels": (12, 48)},
        {"out_channels": 1},
        {"down_block_types": ("DownEncoderBlock2D",) * 4},
        {"up_block_types": ("UpDecoderBlock2D",) * 4},
    ],
)
def test_other_levels_are_refused(wrong) -> None:
    with pytest.raises(SettingsError, match="wanted"):
        SpaceToDepthAutoencoderKL(**({"block_out_channels": (12, 48, 16, 16), "norm_num_groups": 8} | wrong))


def _own(config) -> dict[str, str]:
    """A configuration without what diffusers adds; JSON makes lists of tuples."""
    return {name: json.dumps(value) for name, value in config.items() if not name.startswith("_")}
