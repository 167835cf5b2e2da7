"""Training of the embedded base's autoencoder, before its denoiser.

Shapes: B batch, S side of a picture in pixels.
"""

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pydantic
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from studiolo.errors import TrainingError
from studiolo.generation.autoencoder import SpaceToDepthAutoencoderKL
from studiolo.settings import Section
from studiolo.training.checkpoints import Budget
from studiolo.training.loop import warmup_cosine
from studiolo.training.precision import Descent, set_trainable


class AutoencoderSettings(Section):
    """How the autoencoder is trained."""

    batch_size: int = pydantic.Field(12, ge=1)
    """Pictures a step."""
    learning_rate: float = pydantic.Field(2e-4, gt=0)
    """Peak AdamW learning rate; a cosine over the budget."""
    detail_weight: float = pydantic.Field(2.0, ge=0)
    """Weight of the error of the fine structure (picture minus its 3x3 mean), which plain L1 leaves soft."""
    tone_weight: float = pydantic.Field(0.5, ge=0)
    """Weight of the error of 4x4 means."""
    kl_weight: float = pydantic.Field(2e-4, ge=0)
    """Weight of the latents' divergence from the standard normal distribution."""
    ema_decay: float = pydantic.Field(0.998, ge=0, lt=1)
    """Decay of the moving average that is kept."""


def reconstruction_loss(decoded_B3SS: Tensor, image_B3SS: Tensor, settings: AutoencoderSettings) -> Tensor:
    """L1 + detail_weight * L1 of the fine structure + tone_weight * L1 of 4x4 means."""
    error = (decoded_B3SS - image_B3SS).abs().mean()
    detail = (_fine(decoded_B3SS) - _fine(image_B3SS)).abs().mean()
    tone = (F.avg_pool2d(decoded_B3SS, 4) - F.avg_pool2d(image_B3SS, 4)).abs().mean()
    return error + settings.detail_weight * detail + settings.tone_weight * tone


def _fine(image_B3SS: Tensor) -> Tensor:
    return image_B3SS - F.avg_pool2d(image_B3SS, 3, 1, 1, count_include_pad=False)


class AutoencoderTrainer:
    """Trains a copy of `vae` on random crops and flips of `pictures` [S', S', 3], S' at least the side it is
    made for.
    """

    def __init__(
        self,
        vae: SpaceToDepthAutoencoderKL,
        pictures: Sequence[NDArray[np.uint8]],
        settings: AutoencoderSettings,
        budget: Budget,
        *,
        seed: int = 0,
        device: str = "cpu",
        dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        self._vae, self._pictures, self._settings, self.budget = vae, pictures, settings, budget
        self._generator = torch.Generator().manual_seed(seed)
        self._working = copy.deepcopy(vae).requires_grad_(True).train().to(device)
        self._descent = Descent(
            [self._working], dtype, weight_decay=0.0, gradient_clip=1.0, ema_decay=settings.ema_decay
        )

    def step(self) -> float:
        """One step; its loss. Raises `TrainingError` when that is no longer a number."""
        image_B3SS = self._batch()
        given = image_B3SS.to(self._working.device, self._working.dtype, memory_format=torch.channels_last)
        posterior = self._working.encode(given).latent_dist
        mean, variance = posterior.mean.float(), posterior.var.float()
        latents = mean + variance.sqrt() * torch.randn(mean.shape, generator=self._generator).to(mean.device)
        decoded_B3SS = self._working.decode(latents.to(given.dtype)).sample.float()
        divergence = 0.5 * (mean.square() + variance - 1 - posterior.logvar.float()).mean()
        loss = reconstruction_loss(decoded_B3SS, image_B3SS.to(decoded_B3SS.device), self._settings)
        loss = loss + self._settings.kl_weight * divergence
        value = self._descent.step(loss, self._settings.learning_rate * warmup_cosine(self.budget, 100, 0.05))
        self.budget.spent_steps += 1
        if not math.isfinite(value):
            raise TrainingError(f"autoencoder: the loss is {value} after {self.budget.spent_steps} steps")
        return value

    def averaged(self) -> SpaceToDepthAutoencoderKL:
        """`vae` with the moving average as its weights, frozen."""
        dtype = next(self._vae.parameters()).dtype
        self._vae.requires_grad_(True)
        set_trainable([self._vae], [average.cpu().to(dtype) for average in self._descent.averages])
        self._vae.requires_grad_(False)
        return self._vae

    def state_dict(self) -> dict[str, Any]:
        """Everything a resume needs."""
        return {
            **self._descent.state_dict(),
            "generator": self._generator.get_state(),
            "steps": self.budget.spent_steps,
            "seconds": self.budget.elapsed_s,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self._descent.load_state_dict(state)
        self._generator.set_state(state["generator"])
        self.budget.resume(state["steps"], state["seconds"])

    def _batch(self) -> Tensor:
        side = self._vae.config.sample_size
        crops = []
        for _ in range(self._settings.batch_size):
            index, y, x, flip, whole = torch.rand(5, generator=self._generator).tolist()
            picture = self._pictures[int(index * len(self._pictures))]
            room = picture.shape[0] - side + 1
            if whole < 0.25:
                crop = np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS))
            else:
                crop = picture[int(y * room) :, int(x * room) :][:side, :side]
            crops.append(crop[:, ::-1] if flip < 0.5 else crop)
        return torch.from_numpy(np.stack(crops).astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2)


@torch.no_grad()
def psnr_db(vae: SpaceToDepthAutoencoderKL, pictures: Sequence[NDArray[np.uint8]]) -> float:
    """Mean peak signal-to-noise ratio, in dB, of pictures [S, S, 3] through the autoencoder."""
    ratios = []
    for picture in pictures:
        image = torch.from_numpy(picture.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None].to(vae.dtype)
        decoded = vae.decode(vae.encode(image).latent_dist.mean).sample.clamp(-1, 1)
        ratios.append(10 * math.log10(4 / (decoded.float() - image.float()).square().mean().item()))
    return float(np.mean(ratios))
