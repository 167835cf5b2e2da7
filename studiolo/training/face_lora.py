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
from typing import Any

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
from studiolo.training.checkpoints import UnitCheckpoint
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
    checkpoint: UnitCheckpoint | None = None,
) -> FaceLora:
    """Learn one identity; `base` itself is left as it is.

    `on_metric` gets (step, loss) of every step, also of those before the `checkpoint` that the training goes on from.
    The same photos, settings and seed give the same bytes on the same machine and number of threads, however often it
    was interrupted. Raises `TrainingError` without photos and when the loss is no longer a number.
    """
    if not photos:
        raise TrainingError(f"face-LoRA of {identity_id!r}: got no photos, wanted at least 1")
    identity_seed = _seed(seed, identity_id)
    rng = np.random.default_rng(identity_seed)
    cache = build_cache(base, photos, settings.views_per_photo, settings.view_face_ratio, rng, settings.look_share)
    unet = _with_adapter(base.unet, settings, identity_seed)
    training = _Training(unet, cache, base.scheduler, settings, identity_seed)
    try:
        _run(training, settings.steps, checkpoint, on_metric)
    except TrainingError as error:
        raise TrainingError(f"face-LoRA of {identity_id!r}: {error}") from None
    set_trainable([unet], training.parameters)
    return FaceLora(
        weights=_weights(unet),
        metadata=_metadata(base, unet, settings, trigger, len(photos), seed),
        final_loss=float(np.mean(training.losses[-max(1, settings.steps // 10) :])),
    )


def _with_adapter(base_unet: UNet2DConditionModel, settings: FaceLoraSettings, seed: int) -> UNet2DConditionModel:
    """A frozen copy of the UNet with LoRA layers to train."""
    unet = copy.deepcopy(base_unet).requires_grad_(False)
    config = LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules=list(TARGETS))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet.add_adapter(config, adapter_name=_ADAPTER)
    return unet.train()


class _Training:
    """Steps of one face-LoRA. All random numbers come from one CPU generator, whose state is part of `state_dict`:
    it decides the views of a batch too, so a resumed training equals one without a break.
    """

    def __init__(
        self, unet: UNet2DConditionModel, cache: Cache, scheduler: DDIMScheduler, settings: FaceLoraSettings, seed: int
    ) -> None:
        self._unet, self._cache, self._scheduler, self._settings = unet, cache, scheduler, settings
        self._masters = Masters([unet], torch.bfloat16)
        self.parameters = self._masters.parameters
        self._optimiser = torch.optim.AdamW(self.parameters, lr=settings.learning_rate, fused=True)
        self._schedule = get_cosine_with_hard_restarts_schedule_with_warmup(
            self._optimiser, int(_WARMUP_SHARE * settings.steps), settings.steps, num_cycles=settings.restarts
        )
        self._generator = torch.Generator().manual_seed(seed)
        self.losses: list[float] = []
        """The loss of every step so far."""

    def step(self) -> None:
        """One step. Raises `TrainingError` when its loss or gradient is no longer a number."""
        loss = self._loss()
        loss.backward()  # type: ignore[no-untyped-call]
        self._masters.take_gradients()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self._settings.gradient_clip).item()
        self.losses.append(loss.item())
        if not (math.isfinite(self.losses[-1]) and math.isfinite(norm)):
            raise TrainingError(
                f"got a loss of {self.losses[-1]} and a gradient of length {norm} in step {len(self.losses)}, wanted"
                f" finite ones; use a learning rate below {self._settings.learning_rate:g}"
            )
        self._optimiser.step()
        self._schedule.step()
        self._masters.give_weights()

    def state_dict(self) -> dict[str, Any]:
        """Everything a resume needs."""
        return {
            "masters": self.parameters,
            "optimiser": self._optimiser.state_dict(),
            "schedule": self._schedule.state_dict(),
            "generator": self._generator.get_state(),
            "losses": self.losses,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self._masters.load(state["masters"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._schedule.load_state_dict(state["schedule"])
        self._generator.set_state(state["generator"])
        self.losses = list(state["losses"])

    def _loss(self) -> Tensor:
        """Min-SNR weighted, masked loss of one random batch."""
        cache, settings, generator = self._cache, self._settings, self._generator
        size = settings.batch_size
        view_B = torch.randint(len(cache.mean_NCHW), (size,), generator=generator)
        mean_BCHW = cache.mean_NCHW[view_B]
        latents_BCHW = mean_BCHW + cache.std_NCHW[view_B] * torch.randn(mean_BCHW.shape, generator=generator)
        noise_BCHW = torch.randn(mean_BCHW.shape, generator=generator)
        timesteps_B = torch.randint(self._scheduler.config.num_train_timesteps, (size,), generator=generator)
        dropped_B = torch.rand(size, generator=generator) < settings.caption_dropout
        return training_loss(
            self._unet,
            self._scheduler,
            latents_BCHW,
            noise_BCHW,
            timesteps_B,
            cache.prompts_PLD[cache.prompt_N[view_B].masked_fill(dropped_B, 0)],
            min_snr_gamma=settings.min_snr_gamma,
            mask_BHW=settings.background_weight + (1 - settings.background_weight) * cache.mask_NHW[view_B],
        )


def _run(
    training: _Training,
    steps: int,
    checkpoint: UnitCheckpoint | None,
    on_metric: Callable[[int, float], None] | None,
) -> None:
    """All steps, from the checkpoint on when there is one."""

    def report(step: int) -> None:
        if on_metric is not None:
            on_metric(step, training.losses[step - 1])

    state = checkpoint.load() if checkpoint is not None else None
    if state is not None:
        training.load_state_dict(state)
        for step in range(1, len(training.losses) + 1):
            report(step)
    for step in range(len(training.losses) + 1, steps + 1):
        training.step()
        report(step)
        if checkpoint is not None and checkpoint.due:
            checkpoint.save(training.state_dict())


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
