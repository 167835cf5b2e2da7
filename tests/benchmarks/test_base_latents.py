"""Samples made elsewhere are the pipeline's own, and belong to their prompts."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.base_latents import read_latents, sample_latents, write_latents
from studiolo.errors import SettingsError
from studiolo.generation.engine import Engine
from studiolo.generation.tiny import tiny_base
from studiolo.settings import GenerationSettings

PROMPTS = ["a man", "a woman, smile"]


def test_latents_come_back_and_decode_to_the_pipeline_s_own_pictures(tmp_path: Path) -> None:
    base, settings = tiny_base(), GenerationSettings(steps=2)
    latents = sample_latents(base, PROMPTS, settings)
    write_latents(tmp_path / "base.npz", PROMPTS, latents)
    kept, device = read_latents(tmp_path / "base.npz", PROMPTS)
    assert np.array_equal(kept, latents)
    assert device
    assert np.array_equal(sample_latents(base, PROMPTS, settings), latents)
    picture = Engine(base).decode(torch.from_numpy(latents[1]).float())
    scaled = torch.from_numpy(latents[1:].astype(np.float32)) / base.vae.config.scaling_factor
    theirs = base.image_processor.postprocess(base.vae.decode(scaled).sample, output_type="np")[0]
    assert np.abs(picture / 255 - theirs).max() <= 0.5 / 255 + 1e-6


def test_latents_of_other_prompts_are_refused(tmp_path: Path) -> None:
    write_latents(tmp_path / "base.npz", PROMPTS, np.zeros((2, 4, 2, 2), np.float16))
    with pytest.raises(SettingsError, match="made for other prompts"):
        read_latents(tmp_path / "base.npz", [*PROMPTS, "a boy"])
