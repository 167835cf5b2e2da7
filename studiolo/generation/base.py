"""The base as an unmodified diffusers pipeline: loaded from a folder, packaged into one."""

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from diffusers.utils import logging as diffusers_logging
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from studiolo.errors import WeightsError
from studiolo.generation.autoencoder import SpaceToDepthAutoencoderKL, cast_weights, load_autoencoder

TEXT_LENGTH = 32
"""Tokens of a prompt: the embedded base was trained at this length, so its tokenizer pads to it."""

MAX_SHARD = "14MB"
"""Largest file of a packaged base (diffusers' MB are 10**6 bytes): below 15 MiB."""

_PLAIN_ATTENTION_SIDE = 32
"""Up to this side of the latents, plain attention is about a quarter faster on a CPU than torch's fused kernel, and
its scores still take little memory."""


def load_base(
    folder: Path | str, dtype: torch.dtype = torch.float32, *, device: str = "cpu"
) -> StableDiffusionPipeline:
    """The base in `folder` with every weight frozen, in eval mode, without a safety checker.

    Any folder in Stable Diffusion's layout is taken; an autoencoder saved on 48 channels becomes ours. Raises
    `WeightsError` when a part is missing or cannot be read.
    """
    folder = Path(folder)
    try:
        with _no_progress_bars():
            pipeline = assemble(
                load_autoencoder(folder / "vae", dtype),
                UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=dtype, local_files_only=True),
                CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=dtype, local_files_only=True),
                load_tokenizer(folder / "tokenizer"),
                DDIMScheduler.from_pretrained(folder / "scheduler", local_files_only=True),
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise WeightsError(
            f"base in {folder}: {error}; wanted vae/, text_encoder/, tokenizer/, unet/ and scheduler/ as"
            " diffusers saves them; run `python -m jobs models verify`"
        ) from error
    if device != "cpu":
        pipeline.unet.set_default_attn_processor()
    return pipeline.to(device)


def fits(tokenizer: CLIPTokenizer, prompt: str) -> bool:
    """Whether the text encoder reads `prompt` to its end: no more tokens than it has places for."""
    return len(tokenizer(prompt, verbose=False).input_ids) <= tokenizer.model_max_length


def assemble(
    vae: SpaceToDepthAutoencoderKL,
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    scheduler: DDIMScheduler,
) -> StableDiffusionPipeline:
    """The parts as an unmodified pipeline: frozen, in eval mode, without a safety checker and a progress bar."""
    pipeline = StableDiffusionPipeline(
        vae=vae,
        unet=unet,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    for part in (vae, unet, text_encoder):
        part.requires_grad_(False).eval()
    if unet.device.type == "cpu" and unet.config.sample_size <= _PLAIN_ATTENTION_SIDE:
        unet.set_attn_processor(AttnProcessor())
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Loading takes half a second; the libraries would draw a bar for each part."""
    before = [(library, library.is_progress_bar_enabled()) for library in (diffusers_logging, transformers_logging)]
    for library, _ in before:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, enabled in before:
            if enabled:
                library.enable_progress_bar()


def load_tokenizer(folder: Path) -> CLIPTokenizer:
    """The tokenizer in `folder`; it pads to its own `model_max_length`."""
    return CLIPTokenizer.from_pretrained(folder, local_files_only=True)


def save_base(
    folder: Path,
    *,
    vae: SpaceToDepthAutoencoderKL,
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    scheduler: DDIMScheduler,
    dtype: torch.dtype = torch.float16,
) -> int:
    """Write copies of the parts to `folder` in `dtype`, in files below 15 MiB; the folder's size in bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.model_max_length = TEXT_LENGTH
    vae, unet, text_encoder = (cast_weights(copy.deepcopy(part).to("cpu"), dtype) for part in (vae, unet, text_encoder))
    for path in [*folder.rglob("*.safetensors"), *folder.rglob("*.safetensors.index.json")]:
        path.unlink()  # shards of an earlier save under other names would otherwise be packaged too
    copied = assemble(vae, unet, text_encoder, tokenizer, scheduler)
    with _no_progress_bars():
        copied.save_pretrained(str(folder), safe_serialization=True, max_shard_size=MAX_SHARD)
    _forget_origins(folder)
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o644)  # diffusers leaves them readable by their owner only
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def save_pipeline(base: StableDiffusionPipeline, folder: Path, dtype: torch.dtype = torch.float16) -> int:
    """`save_base` of all parts of `base`."""
    return save_base(
        folder,
        vae=base.vae,
        unet=base.unet,
        text_encoder=base.text_encoder,
        tokenizer=base.tokenizer,
        scheduler=base.scheduler,
        dtype=dtype,
    )


def _forget_origins(folder: Path) -> None:
    """Configurations name the folder a model was loaded from, which is nobody's business and differs by
    machine.
    """
    for path in folder.rglob("*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and {"_name_or_path", "name_or_path"} & set(content):
            kept = {name: value for name, value in content.items() if not name.endswith("name_or_path")}
            path.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
