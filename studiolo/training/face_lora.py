"""A face-LoRA: one identity learned as low-rank updates of the frozen base's attention and feed-forward
layers.
"""

import copy
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from diffusers.optimization import get_cosine_with_hard_restarts_schedule_with_warmup
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save
from torch import Tensor

import studiolo
from studiolo.errors import TrainingError
from studiolo.generation.adapters import unet_sha256
from studiolo.identities.artifacts import LORA_FILE
from studiolo.keys import PLAN_FIELDS
from studiolo.settings import FaceLoraSettings
from studiolo.training.cache import Cache, TrainingPhoto, build_cache
from studiolo.training.losses import training_loss
from studiolo.training.precision import Masters, set_trainable

TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")
"""Layers of the UNet that get an update: all projections of its attention and feed-forward blocks."""

_ADAPTER = "face"
_WARMUP_SHARE = 0.05


@dataclass(frozen=True, eq=False)
class FaceLora:
    """A trained face-LoRA."""

    weights: dict[str, Tensor]
    """By diffusers' names, with the prefix `unet.`."""
    metadata: dict[str, str]
    """What it was trained on and how; strings, as the file's header wants them."""
    final_loss: float
    """Mean loss over the last tenth of the steps."""

    def save(self, folder: Path) -> Path:
        """Write `folder/pytorch_lora_weights.safetensors`, which an unmodified pipeline's `load_lora_weights`
        takes.
        """
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / LORA_FILE
        path.write_bytes(_with_sorted_metadata(save(self.weights, metadata=self.metadata)))
        return path


def train_face_lora(
    base: StableDiffusionPipeline,
    photos: Sequence[TrainingPhoto],
    settings: FaceLoraSettings,
    *,
    identity_id: str,
    trigger: str,
    seed: int,
    on_metric: Callable[[int, float], None] | None = None,
) -> FaceLora:
    """Learn one identity; `base` itself is left as it is.

    `on_metric` gets (step, loss) after every step. The same photos, settings and seed give the same bytes on
    the same machine and number of threads. Raises `TrainingError` without photos and when the loss is no
    longer a number.
    """
    if not photos:
        raise TrainingError(f"face-LoRA of {identity_id!r}: got no photos, wanted at least 1")
    identity_seed = _seed(seed, identity_id)
    rng = np.random.default_rng(identity_seed)
    cache = build_cache(base, photos, settings.views_per_photo, settings.view_face_ratio, rng, settings.look_share)
    unet = _with_adapter(base.unet, settings, identity_seed)
    losses = _optimise(unet, cache, base.scheduler, settings, identity_id, identity_seed, on_metric)
    return FaceLora(
        weights=_weights(unet),
        metadata=_metadata(base, unet, settings, trigger, len(photos), seed),
        final_loss=float(np.mean(losses[-max(1, len(losses) // 10) :])),
    )


def _with_adapter(base_unet: UNet2DConditionModel, settings: FaceLoraSettings, seed: int) -> UNet2DConditionModel:
    """A frozen copy of the UNet with LoRA layers to train."""
    unet = copy.deepcopy(base_unet).requires_grad_(False)
    config = LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules=list(TARGETS))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet.add_adapter(config, adapter_name=_ADAPTER)
    return unet.train()


def _optimise(
    unet: UNet2DConditionModel,
    cache: Cache,
    scheduler: DDIMScheduler,
    settings: FaceLoraSettings,
    identity_id: str,
    seed: int,
    on_metric: Callable[[int, float], None] | None,
) -> list[float]:
    """Run all steps; the loss of each."""
    masters = Masters([unet], torch.bfloat16)
    parameters = masters.parameters
    optimiser = torch.optim.AdamW(parameters, lr=settings.learning_rate, fused=True)
    schedule = get_cosine_with_hard_restarts_schedule_with_warmup(
        optimiser, int(_WARMUP_SHARE * settings.steps), settings.steps, num_cycles=settings.restarts
    )
    generator = torch.Generator().manual_seed(seed)
    losses: list[float] = []
    for step in range(settings.steps):
        loss = _loss(unet, cache, scheduler, settings, generator)
        loss.backward()  # type: ignore[no-untyped-call]
        masters.take_gradients()
        norm = torch.nn.utils.clip_grad_norm_(parameters, settings.gradient_clip).item()
        losses.append(loss.item())
        if not (math.isfinite(losses[-1]) and math.isfinite(norm)):
            raise TrainingError(
                f"face-LoRA of {identity_id!r}: got a loss of {losses[-1]} and a gradient of length {norm} in step"
                f" {step + 1}, wanted finite ones; use a learning rate below {settings.learning_rate:g}"
            )
        optimiser.step()
        schedule.step()
        masters.give_weights()
        if on_metric is not None:
            on_metric(step + 1, losses[-1])
    set_trainable([unet], parameters)
    return losses


def _loss(
    unet: UNet2DConditionModel,
    cache: Cache,
    scheduler: DDIMScheduler,
    settings: FaceLoraSettings,
    generator: torch.Generator,
) -> Tensor:
    """Min-SNR weighted, masked loss of one random batch. All random numbers come from `generator`, on the
    CPU.
    """
    size = settings.batch_size
    view_B = torch.randint(len(cache.mean_NCHW), (size,), generator=generator)
    mean_BCHW = cache.mean_NCHW[view_B]
    latents_BCHW = mean_BCHW + cache.std_NCHW[view_B] * torch.randn(mean_BCHW.shape, generator=generator)
    noise_BCHW = torch.randn(mean_BCHW.shape, generator=generator)
    timesteps_B = torch.randint(scheduler.config.num_train_timesteps, (size,), generator=generator)
    dropped_B = torch.rand(size, generator=generator) < settings.caption_dropout
    return training_loss(
        unet,
        scheduler,
        latents_BCHW,
        noise_BCHW,
        timesteps_B,
        cache.prompts_PLD[cache.prompt_N[view_B].masked_fill(dropped_B, 0)],
        min_snr_gamma=settings.min_snr_gamma,
        mask_BHW=settings.background_weight + (1 - settings.background_weight) * cache.mask_NHW[view_B],
    )


def _weights(unet: UNet2DConditionModel) -> dict[str, Tensor]:
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet, adapter_name=_ADAPTER))
    return {f"unet.{name}": tensor.detach().cpu().contiguous() for name, tensor in sorted(layers.items())}


def _metadata(
    base: StableDiffusionPipeline,
    unet: UNet2DConditionModel,
    settings: FaceLoraSettings,
    trigger: str,
    photos: int,
    seed: int,
) -> dict[str, str]:
    config = unet.peft_config[_ADAPTER].to_dict()
    # diffusers reads the LoRA's configuration back from here, so alpha is not guessed from the rank
    plain = {f"unet.{name}": sorted(value) if isinstance(value, set) else value for name, value in config.items()}
    return {
        "format": "pt",
        LORA_ADAPTER_METADATA_KEY: json.dumps(plain, sort_keys=True, default=str),
        "base_sha256": unet_sha256(base.unet),
        "trigger": trigger,
        "photos": str(photos),
        "seed": str(seed),
        "settings": settings.model_dump_json(exclude=set(PLAN_FIELDS)),
        "studiolo": studiolo.__version__,
    }


def _with_sorted_metadata(content: bytes) -> bytes:
    """A safetensors file with its metadata in the order of their names: the library writes them in a random one.

    The header is JSON behind its length (8 bytes), filled with blanks to a multiple of 8; tensors follow unchanged.
    """
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[start:]


def _seed(seed: int, identity_id: str) -> int:
    digest = hashlib.sha256(f"face-lora\0{seed}\0{identity_id}".encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") >> 1
