"""A tiny base and LoRA files for it; a test here that waits for ever ends the run instead."""

import faulthandler
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

from studiolo.generation.tiny import tiny_base

LoraFile = Callable[..., Path]

_LIMIT_S = 120


@pytest.fixture(autouse=True)
def _time_limit() -> Iterator[None]:
    faulthandler.dump_traceback_later(_LIMIT_S, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="module")
def base() -> StableDiffusionPipeline:
    return tiny_base()


@pytest.fixture
def lora_file(tmp_path: Path) -> LoraFile:
    """Writes a LoRA with random weights for a fresh tiny base, in diffusers' format."""

    def write(
        name: str,
        seed: int,
        targets: tuple[str, ...] = ("to_q", "to_v", "ff.net.2"),
        metadata: dict[str, str] | None = None,
        rank: int = 4,
    ) -> Path:
        unet = tiny_base().unet
        unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=list(targets)))
        state = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet))
        generator = torch.Generator().manual_seed(seed)
        weights = {
            f"unet.{key}": 0.3 * torch.randn(tensor.shape, generator=generator) for key, tensor in sorted(state.items())
        }
        path = tmp_path / f"{name}.safetensors"
        save_file(weights, path, metadata={"format": "pt", **(metadata or {})})
        return path

    return write
