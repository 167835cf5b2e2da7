"""What the benchmarks of the engine work on: a base, LoRAs with random weights, and diffusers' own way to use them."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from numpy.typing import NDArray
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

from studiolo.generation.autoencoder import cast_weights
from studiolo.generation.base import assemble, load_base
from studiolo.generation.tiny import tiny_tokenizer
from studiolo.weights.fetch import pull

RANK = 16
TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
"""Attention only: files with more have names that diffusers 0.42 reads by halves."""

BASES = ("embedded", "sd15")


def open_base(name: str) -> StableDiffusionPipeline:
    """The embedded base on the CPU, or Stable Diffusion 1.5's architecture with random weights on CUDA.

    All in bfloat16: diffusers' pipeline wants one precision for all its parts.
    """
    pipeline = load_base(pull("embedded-base")) if name == "embedded" else _stable_diffusion("cuda")
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        cast_weights(part, torch.bfloat16)
    return pipeline


def write_loras(pipeline: StableDiffusionPipeline, folder: Path, count: int) -> list[Path]:
    """`count` files in diffusers' format, each as a face-LoRA of another identity."""
    layers = [(name, layer) for name, layer in pipeline.unet.named_modules() if name.endswith(TARGETS)]
    paths = []
    for number in range(count):
        generator, weights = torch.Generator().manual_seed(number), {}
        for name, layer in layers:
            down = torch.randn(RANK, layer.in_features, generator=generator) / layer.in_features**0.5
            weights[f"unet.{name}.lora_A.weight"] = down
            weights[f"unet.{name}.lora_B.weight"] = 0.02 * torch.randn(layer.out_features, RANK, generator=generator)
        paths.append(folder / f"identity-{number}.safetensors")
        save_file(weights, paths[-1])
    return paths


class PlainDiffusers:
    """The same pictures as published: load a LoRA, make a batch with the pipeline, unload it."""

    def __init__(self, pipeline: StableDiffusionPipeline) -> None:
        self._pipeline = pipeline

    def __call__(self, lora: Path | None, prompts: Sequence[str], seeds: Sequence[int], steps: int) -> None:
        """Make a picture of each prompt, all in one batch with one LoRA."""
        if lora is not None:
            self._pipeline.load_lora_weights(str(lora.parent), weight_name=lora.name, adapter_name="identity")
            self._pipeline.set_adapters(["identity"], [1.0])
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        with torch.inference_mode():
            self._pipeline(
                list(prompts),
                negative_prompt=[""] * len(prompts),
                num_inference_steps=steps,
                guidance_scale=3.0,
                generator=generators,
                output_type="np",
            )
        if lora is not None:
            self._pipeline.unload_lora_weights()


def seconds(started: float) -> float:
    """Seconds since `started`, a `time.monotonic()`, all work on an accelerator included."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.monotonic() - started


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Median and 95th percentile."""
    array: NDArray[np.float64] = np.asarray(values, np.float64)
    return {"p50_s": round(float(np.median(array)), 3), "p95_s": round(float(np.percentile(array, 95)), 3)}


def _stable_diffusion(device: str) -> StableDiffusionPipeline:
    """The architecture of stable-diffusion-v1-5, weights as the classes initialise them, on `device`."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    tokenizer.model_max_length = 77
    config = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        max_position_embeddings=77,
        projection_dim=768,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.device(device):  # a CPU takes long to draw a billion weights
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            latent_channels=4,
            sample_size=512,
        )
        text = CLIPTextModel(config)
    return assemble(vae, stable_diffusion_unet(device), text, tokenizer, stable_diffusion_scheduler())


def stable_diffusion_unet(device: str) -> UNet2DConditionModel:
    """That of stable-diffusion-v1-5, weights as the class initialises them."""
    with torch.device(device):
        return UNet2DConditionModel(sample_size=64, cross_attention_dim=768)  # all else is the class's default


def stable_diffusion_scheduler() -> DDIMScheduler:
    """DDIM with stable-diffusion-v1-5's schedule."""
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
    return DDIMScheduler(**schedule, clip_sample=False, set_alpha_to_one=False)
