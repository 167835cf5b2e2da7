"""Losses of the denoiser.

Shapes: B batch, C latent channels, H and W of the latents, T training steps of the noise schedule.
"""

import torch
from torch import Tensor


def min_snr_weights(alphas_cumprod_T: Tensor, timesteps_B: Tensor, gamma: float) -> Tensor:
    """Min-SNR weights [B] of the noise prediction's squared error: min(SNR, gamma) / SNR.

    SNR(t) = alpha_bar(t) / (1 - alpha_bar(t)) (Hang et al. 2023, equation 5 turned to the noise): steps with
    little noise are easy and would otherwise dominate.
    """
    alpha_bar_B = alphas_cumprod_T[timesteps_B]
    snr_B = alpha_bar_B / (1 - alpha_bar_B)
    return snr_B.clamp(max=gamma) / snr_B


def denoising_loss(
    predicted_BCHW: Tensor, noise_BCHW: Tensor, weights_B: Tensor, mask_BHW: Tensor | None = None
) -> Tensor:
    """Weighted mean squared error; with a mask, each sample's mean is taken over the mask's weight."""
    error_BHW = (predicted_BCHW.float() - noise_BCHW).square().mean(1)
    if mask_BHW is None:
        return (weights_B * error_BHW.mean((1, 2))).mean()
    total_B = mask_BHW.sum((1, 2)).clamp(min=torch.finfo(torch.float32).tiny)
    return (weights_B * (error_BHW * mask_BHW).sum((1, 2)) / total_B).mean()
