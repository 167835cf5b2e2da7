import pytest
import torch
from diffusers import DDIMScheduler

from studiolo.errors import TrainingError
from studiolo.training.losses import add_noise, denoising_losses, denoising_target, min_snr_weights


def test_min_snr_weights_are_those_computed_by_hand() -> None:
    # SNR = 9, 4, 1, 1/9; gamma 4 clamps the first alone
    alphas_cumprod = torch.tensor([0.9, 0.8, 0.5, 0.1])
    weights = min_snr_weights("epsilon", alphas_cumprod, torch.tensor([3, 0, 1, 2, 0]), gamma=4.0)
    torch.testing.assert_close(weights, torch.tensor([1.0, 4 / 9, 1.0, 1.0, 4 / 9]))


def test_a_large_gamma_weighs_all_steps_alike() -> None:
    weights = min_snr_weights("epsilon", torch.linspace(0.99, 0.01, 50), torch.arange(50), gamma=1e9)
    assert torch.equal(weights, torch.ones(50))


@pytest.mark.parametrize("gamma", [None, 0.5, 5.0])
def test_both_kinds_of_prediction_weigh_the_same_error_of_the_picture_alike(gamma: float | None) -> None:
    """An error d of the clean latents is sqrt(SNR) d of the noise and sqrt(SNR + 1) d of v."""
    alphas_cumprod, timesteps = torch.linspace(0.99, 0.01, 50), torch.arange(50)
    snr = alphas_cumprod / (1 - alphas_cumprod)
    epsilon, v = (min_snr_weights(kind, alphas_cumprod, timesteps, gamma) for kind in ("epsilon", "v_prediction"))
    if gamma is None:
        assert torch.equal(epsilon, v)
    else:
        torch.testing.assert_close(epsilon * snr, v * (snr + 1))


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_a_perfect_prediction_leads_the_sampler_back_to_the_picture(prediction_type: str) -> None:
    scheduler = DDIMScheduler(
        prediction_type=prediction_type,
        clip_sample=False,
        rescale_betas_zero_snr=prediction_type == "v_prediction",
        timestep_spacing="trailing",
    )
    scheduler.set_timesteps(4)
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 1, 4, 8, 8, generator=generator)
    for timestep in scheduler.timesteps[1:]:  # nothing is left of the picture at the first
        at = timestep[None]
        noisy = add_noise(clean, noise, scheduler.alphas_cumprod, at)
        target = denoising_target(prediction_type, clean, noise, scheduler.alphas_cumprod, at)
        found = scheduler.step(target, timestep, noisy).pred_original_sample
        torch.testing.assert_close(found, clean, rtol=1e-4, atol=1e-4)


def test_an_unknown_kind_of_prediction_is_refused() -> None:
    with pytest.raises(TrainingError, match="got the prediction type 'sample', wanted epsilon or v_prediction"):
        denoising_target("sample", torch.zeros(1), torch.zeros(1), torch.ones(1), torch.zeros(1, dtype=torch.long))


def test_the_loss_without_a_mask_is_the_weighted_mean_square() -> None:
    # squared errors 1 and 9 in the first sample's pixels, 4 and 4 in the second's
    predicted = torch.tensor([[[[1.0, 3.0]]], [[[2.0, 2.0]]]])
    loss = denoising_losses(predicted, torch.zeros_like(predicted), torch.tensor([1.0, 0.5])).mean()
    assert loss.item() == pytest.approx((1.0 * 5 + 0.5 * 4) / 2)


def test_the_mask_takes_a_weighted_mean_over_pixels_and_a_plain_one_over_channels() -> None:
    predicted = torch.tensor([[[[1.0, 3.0]], [[3.0, 1.0]]], [[[2.0, 0.0]], [[2.0, 4.0]]]])
    # errors by pixel: (5, 5) and (4, 8)
    mask = torch.tensor([[[1.0, 1.0]], [[1.0, 0.1]]])
    loss = denoising_losses(predicted, torch.zeros_like(predicted), torch.tensor([1.0, 2.0]), mask).mean()
    assert loss.item() == pytest.approx((5 + 2 * (4 + 0.8) / 1.1) / 2)


def test_a_uniform_mask_of_any_height_changes_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    predicted, noise = torch.randn(2, 3, 4, 6, 6, generator=generator)
    weights = torch.rand(3, generator=generator)
    plain = denoising_losses(predicted, noise, weights).mean()
    for height in (0.1, 1.0, 7.0):
        torch.testing.assert_close(
            denoising_losses(predicted, noise, weights, torch.full((3, 6, 6), height)).mean(), plain
        )


def test_pixels_outside_the_mask_have_no_gradient_and_an_empty_mask_gives_zero() -> None:
    predicted = torch.ones(1, 2, 2, 2, requires_grad=True)
    mask = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    denoising_losses(predicted, torch.zeros(1, 2, 2, 2), torch.ones(1), mask).mean().backward()
    assert torch.equal(predicted.grad != 0, (mask > 0)[:, None].expand(1, 2, 2, 2))
    empty = denoising_losses(predicted, torch.zeros(1, 2, 2, 2), torch.ones(1), torch.zeros(1, 2, 2)).mean()
    assert empty.item() == 0


def test_a_bfloat16_prediction_is_compared_in_float32() -> None:
    predicted = torch.full((1, 1, 1, 1), 1.0, dtype=torch.bfloat16)
    loss = denoising_losses(predicted, torch.full((1, 1, 1, 1), 0.999), torch.ones(1)).mean()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(1e-6, rel=1e-3)
