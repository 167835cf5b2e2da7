import json

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline

from studiolo.errors import WeightsError
from studiolo.generation.autoencoder import SpaceToDepthAutoencoderKL
from studiolo.generation.base import TEXT_LENGTH, assemble, load_base, save_pipeline
from studiolo.generation.tiny import tiny_base
from studiolo.weights.fetch import pull

PACKAGED_BYTES = 40_000_000
FILE_BYTES = 15 * 2**20


def sample(base: StableDiffusionPipeline, **options) -> np.ndarray:
    settings = {"num_inference_steps": 2, "guidance_scale": 2.0, "output_type": "np"} | options
    return base("a handsome man, smile", generator=torch.Generator().manual_seed(0), **settings).images[0]


def test_an_unmodified_pipeline_runs_it() -> None:
    base = tiny_base()
    assert type(base) is StableDiffusionPipeline
    assert type(base.vae) is SpaceToDepthAutoencoderKL
    assert sample(base).shape == (64, 64, 3)


def test_saving_and_loading_keeps_the_pictures(tmp_path) -> None:
    base = tiny_base()
    size = save_pipeline(base, tmp_path, torch.float32)
    assert size == sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    loaded = load_base(tmp_path)
    assert np.array_equal(sample(base), sample(loaded))
    assert loaded.tokenizer.model_max_length == TEXT_LENGTH
    assert not any(weight.requires_grad for part in (loaded.unet, loaded.vae) for weight in part.parameters())


def test_a_base_that_was_in_use_is_saved_as_one_that_was_not(tmp_path) -> None:
    base = tiny_base()
    save_pipeline(base, tmp_path / "new")
    sample(base)
    save_pipeline(base, tmp_path / "used")
    new, used = (
        {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        for folder in (tmp_path / "new", tmp_path / "used")
    )
    assert new == used


def test_packaging_halves_the_weights_and_leaves_the_base_alone(tmp_path) -> None:
    base = tiny_base()
    before = sample(base)
    save_pipeline(base, tmp_path)
    assert load_base(tmp_path, torch.float16).unet.dtype == torch.float16
    assert base.unet.dtype == torch.float32
    assert np.array_equal(before, sample(base))
    texts = [path.read_text() for path in tmp_path.rglob("*.json")]
    assert texts
    assert not any("name_or_path" in text for text in texts)


def test_a_base_with_a_stock_autoencoder_and_long_prompts_is_taken_too(tmp_path) -> None:
    tiny = tiny_base()
    tiny.tokenizer.model_max_length = 20
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=8,
        norm_num_groups=4,
    )
    base = assemble(vae, tiny.unet, tiny.text_encoder, tiny.tokenizer, tiny.scheduler)
    save_pipeline(base, tmp_path, torch.float32)
    loaded = load_base(tmp_path)
    assert type(loaded.vae) is AutoencoderKL
    assert loaded.tokenizer.model_max_length == 20
    assert np.array_equal(sample(base), sample(loaded))


def test_a_missing_part_is_named(tmp_path) -> None:
    save_pipeline(tiny_base(), tmp_path)
    (tmp_path / "unet" / "config.json").unlink()
    with pytest.raises(WeightsError, match="wanted vae/, text_encoder/"):
        load_base(tmp_path)


def test_the_packaged_base_is_small_and_standard() -> None:
    folder = pull("embedded-base")
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= PACKAGED_BYTES
    assert max(path.stat().st_size for path in files) <= FILE_BYTES
    assert json.loads((folder / "model_index.json").read_text())["_class_name"] == "StableDiffusionPipeline"
    base = load_base(folder)
    assert type(base) is StableDiffusionPipeline
    assert (base.vae_scale_factor, base.tokenizer.model_max_length) == (8, TEXT_LENGTH)
    picture = sample(base, num_inference_steps=30)
    assert picture.shape == (128, 128, 3)
    assert picture.std() > 0.05
