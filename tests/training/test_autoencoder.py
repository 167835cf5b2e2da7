import numpy as np
import pytest
import torch

from studiolo.generation.tiny import tiny_base
from studiolo.training.autoencoder import (
    AutoencoderSettings,
    AutoencoderTrainer,
    psnr_db,
    reconstruction_loss,
)
from studiolo.training.checkpoints import Budget, load_checkpoint
from studiolo.training.loop import train_until_spent

SETTINGS = AutoencoderSettings(batch_size=4)


@pytest.fixture
def pictures() -> list[np.ndarray]:
    """Plain pictures with a bright square."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(8):
        picture = np.full((80, 80, 3), rng.integers(0, 255, 3), np.uint8)
        picture[24:56, 24:56] = rng.integers(0, 255, 3)
        made.append(picture)
    return made


def trainer(pictures, steps: int, **options) -> AutoencoderTrainer:
    options = {"dtype": torch.float32, "settings": SETTINGS} | options
    return AutoencoderTrainer(tiny_base().vae, pictures, budget=Budget(steps=steps), **options)


def test_the_loss_is_nothing_for_equal_pictures_and_sees_detail() -> None:
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert reconstruction_loss(image, image, SETTINGS) == 0
    checks = 0.1 * (-1.0) ** (torch.arange(16)[:, None] + torch.arange(16))
    # both are off by 0.1 everywhere; only one of them in its fine structure
    assert reconstruction_loss(image + checks, image, SETTINGS) > 1.5 * reconstruction_loss(
        image + 0.1, image, SETTINGS
    )


def test_it_learns(pictures) -> None:
    training = trainer(pictures, 200, settings=AutoencoderSettings(batch_size=4, learning_rate=3e-3, ema_decay=0.8))
    small = [picture[8:72, 8:72] for picture in pictures]
    before = psnr_db(tiny_base().vae, small)
    for _ in range(200):
        training.step()
    assert psnr_db(training.averaged(), small) > before + 2


def test_a_resumed_run_equals_an_uninterrupted_one(pictures, tmp_path) -> None:
    train_until_spent(trainer(pictures, 4), tmp_path / "whole.pt")
    first = trainer(pictures, 4)
    for _ in range(2):
        first.step()
    torch.save(first.state_dict(), tmp_path / "half.pt")
    train_until_spent(trainer(pictures, 4), tmp_path / "half.pt")
    one, two = load_checkpoint(tmp_path / "whole.pt"), load_checkpoint(tmp_path / "half.pt")
    assert all(torch.equal(a, b) for a, b in zip(one["ema"], two["ema"], strict=True))


def test_psnr_is_of_the_mean_squared_error() -> None:
    vae = tiny_base().vae
    picture = np.full((64, 64, 3), 200, np.uint8)
    with torch.no_grad():
        image = torch.from_numpy(picture.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
        decoded = vae.decode(vae.encode(image).latent_dist.mean).sample.clamp(-1, 1)
    wanted = 10 * np.log10(4 / ((decoded - image) ** 2).mean().item())
    assert psnr_db(vae, [picture]) == pytest.approx(wanted, abs=1e-4)
