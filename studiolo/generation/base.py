"""The base as an unmodified diffusers pipeline: loaded from a folder, packaged into one."""

import copy
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from diffusers.utils import logging as diffusers_logging
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from studiolo.errors import WeightsError
from studiolo.generation.autoencoder import cast_weights, load_autoencoder

TEXT_LENGTH = 32
"""Tokens of a prompt to the embedded base; its tokenizer pads to them."""

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


def tokenize(tokenizer: CLIPTokenizer, prompts: Sequence[str]) -> Tensor:
    """Token ids [P, L] of prompts, padded and cut as the pipeline does."""
    ids: Tensor = tokenizer(
        list(prompts),
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids
    return ids


def assemble(
    vae: AutoencoderKL,
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


def save_pipeline(base: StableDiffusionPipeline, folder: Path, dtype: torch.dtype = torch.float16) -> int:
    """Write a copy of `base` to `folder` in `dtype`, in files below 15 MiB; the folder's size in bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = (base.vae, base.unet, base.text_encoder)
    vae, unet, text_encoder = (cast_weights(copy.deepcopy(part).to("cpu"), dtype) for part in parts)
    for path in [*folder.rglob("*.safetensors"), *folder.rglob("*.safetensors.index.json")]:
        path.unlink()  # shards of an earlier save under other names would otherwise be packaged too
    tokenizer = copy.deepcopy(base.tokenizer)
    tokenizer.backend_tokenizer.no_padding()  # what the last call set is kept in the file otherwise
    tokenizer.backend_tokenizer.no_truncation()
    copied = assemble(vae, unet, text_encoder, tokenizer, base.scheduler)
    with _no_progress_bars():
        copied.save_pretrained(str(folder), safe_serialization=True, max_shard_size=MAX_SHARD)
    _forget_origins(folder)
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o644)  # diffusers leaves them readable by their owner only
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _forget_origins(folder: Path) -> None:
    """Configurations name the folder a model was loaded from, which is nobody's business and differs by
    machine.
    """
    for path in folder.rglob("*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and {"_name_or_path", "name_or_path"} & set(content):
            kept = {name: value for name, value in content.items() if not name.endswith("name_or_path")}
            path.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
