"""Losses of the denoiser.

Shapes: B batch, C latent channels, H and W of the latents, L tokens, D their width, T training
steps of the noise schedule.
"""

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor

from studiolo.errors import TrainingError


def training_losses(
    unet: UNet2DConditionModel,
    scheduler: DDIMScheduler,
    clean_BCHW: Tensor,
    noise_BCHW: Tensor,
    timesteps_B: Tensor,
    prompts_BLD: Tensor,
    *,
    min_snr_gamma: float | None,
    mask_BHW: Tensor | None = None,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """Losses [B] of the samples, on the device of the tensors; the UNet gets its input in `memory_format`."""
    kind, alphas_cumprod_T = scheduler.config.prediction_type, scheduler.alphas_cumprod.to(clean_BCHW.device)
    noisy_BCHW = add_noise(clean_BCHW, noise_BCHW, alphas_cumprod_T, timesteps_B)
    predicted_BCHW = unet(
        noisy_BCHW.to(unet.device, unet.dtype, memory_format=memory_format),
        timesteps_B.to(unet.device),
        prompts_BLD.to(unet.device, unet.dtype),
        return_dict=False,
    )[0].to(clean_BCHW.device)
    target_BCHW = denoising_target(kind, clean_BCHW, noise_BCHW, alphas_cumprod_T, timesteps_B)
    weights_B = min_snr_weights(kind, alphas_cumprod_T, timesteps_B, min_snr_gamma)
    return denoising_losses(predicted_BCHW, target_BCHW, weights_B, mask_BHW)


def add_noise(clean_BCHW: Tensor, noise_BCHW: Tensor, alphas_cumprod_T: Tensor, timesteps_B: Tensor) -> Tensor:
    """Latents after `timesteps_B` of noise: sqrt(alpha_bar) x + sqrt(1 - alpha_bar) e."""
    alpha_bar_B111 = alphas_cumprod_T[timesteps_B].view(-1, 1, 1, 1)
    return alpha_bar_B111.sqrt() * clean_BCHW + (1 - alpha_bar_B111).sqrt() * noise_BCHW


def denoising_target(
    prediction_type: str, clean_BCHW: Tensor, noise_BCHW: Tensor, alphas_cumprod_T: Tensor, timesteps_B: Tensor
) -> Tensor:
    """What the denoiser is to say, by its scheduler's `prediction_type`.

    `epsilon` is the noise, `v_prediction` is sqrt(alpha_bar) e - sqrt(1 - alpha_bar) x (Salimans & Ho 2022, appendix
    D). Raises `TrainingError` for any other.
    """
    if prediction_type == "epsilon":
        return noise_BCHW
    if prediction_type == "v_prediction":
        alpha_bar_B111 = alphas_cumprod_T[timesteps_B].view(-1, 1, 1, 1)
        return alpha_bar_B111.sqrt() * noise_BCHW - (1 - alpha_bar_B111).sqrt() * clean_BCHW
    raise TrainingError(f"scheduler: got the prediction type {prediction_type!r}, wanted epsilon or v_prediction")


def min_snr_weights(prediction_type: str, alphas_cumprod_T: Tensor, timesteps_B: Tensor, gamma: float | None) -> Tensor:
    """Min-SNR weights [B] of the prediction's squared error: min(SNR, gamma) / SNR, for v over SNR + 1.

    SNR(t) = alpha_bar(t) / (1 - alpha_bar(t)) (Hang et al. 2023, equation 5 turned to the prediction): steps with
    little noise are easy and would otherwise dominate. All weights are 1 when `gamma` is None.
    """
    alpha_bar_B = alphas_cumprod_T[timesteps_B]
    if gamma is None:
        return torch.ones_like(alpha_bar_B)
    snr_B = alpha_bar_B / (1 - alpha_bar_B)
    return snr_B.clamp(max=gamma) / (snr_B + (prediction_type == "v_prediction"))


def denoising_losses(
    predicted_BCHW: Tensor, target_BCHW: Tensor, weights_B: Tensor, mask_BHW: Tensor | None = None
) -> Tensor:
    """Weighted mean squared error [B] of each sample; with a mask, its mean is taken over the mask's weight."""
    error_BHW = (predicted_BCHW.float() - target_BCHW).square().mean(1)
    if mask_BHW is None:
        return weights_B * error_BHW.mean((1, 2))
    total_B = mask_BHW.sum((1, 2)).clamp(min=torch.finfo(torch.float32).tiny)
    return weights_B * (error_BHW * mask_BHW).sum((1, 2)) / total_B
