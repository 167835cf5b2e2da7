"""Training of the embedded base's denoiser: UNet and text encoder together, on latents encoded once.

Shapes: N views, B batch, C latent channels, H and W of the latents, L tokens, D width.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pydantic
import torch
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray
from torch import Tensor

from studiolo.errors import TrainingError
from studiolo.generation.base import tokenize
from studiolo.settings import Section
from studiolo.training.cache import encode_images
from studiolo.training.checkpoints import Budget
from studiolo.training.faces import CaptionShares, View, random_caption
from studiolo.training.loop import warmup_cosine
from studiolo.training.losses import training_losses
from studiolo.training.precision import Ema, Masters, set_trainable


class BaseSettings(Section):
    """How the base is trained."""

    batch_size: int = pydantic.Field(32, ge=1)
    """Samples a step."""
    learning_rate: float = pydantic.Field(3e-4, gt=0)
    """Peak AdamW learning rate of the UNet."""
    cross_attention_rate: float = pydantic.Field(3.0, ge=0)
    """Learning rate of the UNet's cross-attention, as a multiple: at 1 the words are learned last."""
    text_rate: float = pydantic.Field(1.0, ge=0)
    """Learning rate of the text encoder, as a multiple of the UNet's."""
    warmup_steps: int = pydantic.Field(150, ge=0)
    """Steps until the peak."""
    final_rate: float = pydantic.Field(0.03, ge=0, le=1)
    """Share of the peak at the end of the cosine."""
    weight_decay: float = pydantic.Field(0.01, ge=0)
    """AdamW's weight decay."""
    gradient_clip: float = pydantic.Field(1.0, gt=0)
    """Largest gradient norm."""
    min_snr_gamma: float | None = pydantic.Field(None, gt=0)
    """Clamp of the signal-to-noise weighting of the loss; without it all timesteps weigh the same, so that what noise
    hides most, layout and colours, is learned too."""
    caption_dropout: float = pydantic.Field(0.1, ge=0, le=1)
    """Share of samples with the empty prompt."""
    tag_share: float = pydantic.Field(0.85, ge=0, le=1)
    """Share of its tags a caption says."""
    style_share: float = pydantic.Field(0.95, ge=0, le=1)
    """Share of its style phrases a caption says."""
    offset_noise: float = pydantic.Field(0.03, ge=0)
    """Standard deviation of a noise that is equal all over a channel, so that plain and dark pictures are
    learned.
    """
    ema_decay: float = pydantic.Field(0.9995, ge=0, lt=1)
    """Decay of the moving average that is packaged."""
    views_per_face: int = pydantic.Field(8, ge=1)
    """Views of each face, encoded once."""
    checkpoint_minutes: float = pydantic.Field(10.0, gt=0)
    """Minutes between checkpoints, each with a sample sheet."""


@dataclass(frozen=True, eq=False)
class Latents:
    """Views, encoded once."""

    mean_NCHW: Tensor
    std_NCHW: Tensor
    views: Sequence[View]


def encode_views(base: StableDiffusionPipeline, views: Sequence[View]) -> Latents:
    """Encode all views and set the autoencoder's `scaling_factor` so that the latents have unit variance."""
    mean, std = encode_images(base, [view.rgb_u8 for view in views])
    scale = 1 / mean.std().item()
    base.vae.register_to_config(scaling_factor=base.vae.config.scaling_factor * scale)
    return Latents(mean * scale, std * scale, views)


class BaseTrainer:
    """Trains a copy of `base`'s UNet and text encoder; `base` itself gets the average when asked for it.

    All random numbers come from one CPU generator, whose state is part of the checkpoint: a resumed run
    equals an uninterrupted one.
    """

    def __init__(
        self,
        base: StableDiffusionPipeline,
        latents: Latents,
        settings: BaseSettings,
        budget: Budget,
        *,
        seed: int = 0,
        device: str = "cpu",
        dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        self._base, self._latents, self._settings, self.budget = base, latents, settings, budget
        self._generator = torch.Generator().manual_seed(seed)
        self._unet = copy.deepcopy(base.unet).requires_grad_(True).train().to(device)
        self._text = copy.deepcopy(base.text_encoder).requires_grad_(True).train().to(device)
        # The text encoder is small and stays in float32.
        self._masters = (Masters([self._unet], dtype), Masters([self._text], torch.float32))
        self._parameters = [*self._masters[0].parameters, *self._masters[1].parameters]
        self._ema = Ema(self._parameters, settings.ema_decay)
        self._optimiser = torch.optim.AdamW(
            self._parameter_groups(),
            lr=settings.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=settings.weight_decay,
            fused=True,
        )

    def step(self) -> float:
        """One step on a random batch; its loss. Raises `TrainingError` when that is no longer a number."""
        settings = self._settings
        rate = settings.learning_rate * warmup_cosine(self.budget, settings.warmup_steps, settings.final_rate)
        for group in self._optimiser.param_groups:
            group["lr"] = rate * group["share"]
        loss = self._loss()
        loss.backward()  # type: ignore[no-untyped-call]
        for masters in self._masters:
            masters.take_gradients()
        torch.nn.utils.clip_grad_norm_(self._parameters, self._settings.gradient_clip)
        self._optimiser.step()
        for masters in self._masters:
            masters.give_weights()
        self._ema.update(self._parameters)
        self.budget.spent_steps += 1
        value = loss.item()
        if not math.isfinite(value):
            raise TrainingError(
                f"base: the loss is {value} after {self.budget.spent_steps} steps, wanted a number; resume from the"
                f" last checkpoint with a learning rate below {self._settings.learning_rate:g}"
            )
        return value

    def averaged(self) -> StableDiffusionPipeline:
        """`base` with the moving average as its UNet and text encoder, in their own precision."""
        parts = (self._base.unet, self._base.text_encoder)
        dtypes = [next(part.parameters()).dtype for part in parts]
        for part in parts:
            part.requires_grad_(True)
        set_trainable(parts, [average.cpu() for average in self._ema.averages])
        for part, dtype in zip(parts, dtypes, strict=True):
            part.requires_grad_(False)
            for weight in part.parameters():
                weight.data = weight.data.to(dtype)
        return self._base

    def state_dict(self) -> dict[str, Any]:
        """Everything a resume needs: masters, average, optimiser, random state, what was spent."""
        return {
            "masters": self._parameters,
            "ema": self._ema.averages,
            "ema_updates": self._ema.updates,
            "optimiser": self._optimiser.state_dict(),
            "generator": self._generator.get_state(),
            "steps": self.budget.spent_steps,
            "seconds": self.budget.elapsed_s,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        count = len(self._masters[0].parameters)
        self._masters[0].load(state["masters"][:count])
        self._masters[1].load(state["masters"][count:])
        for average, saved in zip(self._ema.averages, state["ema"], strict=True):
            average.copy_(saved)
        self._ema.updates = state["ema_updates"]
        self._optimiser.load_state_dict(state["optimiser"])
        self._generator.set_state(state["generator"])
        self.budget.resume(state["steps"], state["seconds"])

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """The masters, each group with its multiple of the learning rate."""
        names = [name for name, _ in self._unet.named_parameters()]
        groups: dict[float, list[Tensor]] = {}
        for name, master in zip(names, self._masters[0].parameters, strict=True):
            reads_words = ".attn2." in name or (".transformer_blocks." in name and ".norm2." in name)
            groups.setdefault(self._settings.cross_attention_rate if reads_words else 1.0, []).append(master)
        groups.setdefault(self._settings.text_rate, []).extend(self._masters[1].parameters)
        return [{"params": masters, "share": share} for share, masters in groups.items()]

    def _loss(self) -> Tensor:
        settings, latents, generator = self._settings, self._latents, self._generator
        size = settings.batch_size
        view_B = torch.randint(len(latents.views), (size,), generator=generator)
        mean_BCHW = latents.mean_NCHW[view_B].float()
        std_BCHW = latents.std_NCHW[view_B].float()
        clean_BCHW = mean_BCHW + std_BCHW * torch.randn(mean_BCHW.shape, generator=generator)
        noise_BCHW = torch.randn(mean_BCHW.shape, generator=generator)
        offset_BC11 = torch.randn((*mean_BCHW.shape[:2], 1, 1), generator=generator)
        noise_BCHW = noise_BCHW + settings.offset_noise * offset_BC11
        timesteps_B = torch.randint(self._base.scheduler.config.num_train_timesteps, (size,), generator=generator)
        shares = CaptionShares(settings.caption_dropout, settings.tag_share, settings.style_share)
        captions = [random_caption(latents.views[view], shares, generator) for view in view_B.tolist()]
        tokens_BL = tokenize(self._base.tokenizer, captions)
        prompts_BLD = self._text(tokens_BL.to(self._text.device)).last_hidden_state
        return training_losses(
            self._unet,
            self._base.scheduler,
            clean_BCHW,
            noise_BCHW,
            timesteps_B,
            prompts_BLD,
            min_snr_gamma=settings.min_snr_gamma,
            memory_format=torch.channels_last,
        ).mean()


SHEET_PROMPTS = (
    "a handsome man, brown hair, studio backdrop, grey background",
    "a beautiful woman, smile, blonde hair, green background",
    "a mature man, grey hair, studio backdrop, white background",
    "a mature woman, smile, red clothes, studio backdrop, blue background",
    "a beautiful woman, black hair, black and white photo",
    "a handsome man, black hair, warm film photo",
    "a beautiful woman, brown hair, cool film photo",
    "a handsome man, neutral expression, sepia photo",
    "a beautiful woman, smile, duotone",
    "a girl, children, smile, pencil drawing",
    "a handsome man, black hair, watercolour",
    "a beautiful woman, blonde hair, high key photo",
    "a handsome man, brown hair, low key photo",
)
"""Columns of the sample sheet."""


def sample_sheet(base: StableDiffusionPipeline, rows: int = 3, steps: int = 30) -> NDArray[np.uint8]:
    """Pictures [rows * S, 13 * S, 3] of `SHEET_PROMPTS`; a row shares its noise, so its columns differ by
    their words.
    """
    sheet = []
    for seed in range(rows):
        images = base(
            list(SHEET_PROMPTS),
            num_inference_steps=steps,
            guidance_scale=3.0,
            generator=[torch.Generator().manual_seed(seed) for _ in SHEET_PROMPTS],
            output_type="np",
        ).images
        sheet.append(np.concatenate(list(images), 1))
    return np.rint(np.concatenate(sheet) * 255).astype(np.uint8)
