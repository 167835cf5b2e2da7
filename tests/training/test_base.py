import numpy as np
import pytest
import torch

from studiolo.errors import TrainingError
from studiolo.generation.tiny import tiny_base
from studiolo.training.base import SHEET_PROMPTS, BaseSettings, BaseTrainer, encode_views, sample_sheet
from studiolo.training.checkpoints import Budget, load_checkpoint
from studiolo.training.faces import Face, views_of
from studiolo.training.loop import train_until_spent

SIDE_PX = 64
SETTINGS = BaseSettings(batch_size=4, warmup_steps=2)


def trainer(steps: int, settings: BaseSettings = SETTINGS, **options) -> BaseTrainer:
    base = tiny_base()
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (80, 80, 3), np.uint8) for _ in range(4)]
    faces = [Face(picture, "a handsome man", ("smile", "black hair")) for picture in pictures]
    views = [view for face in faces for view in views_of(face, 4, SIDE_PX, rng)]
    return BaseTrainer(
        base, encode_views(base, views), settings, Budget(steps=steps), **({"dtype": torch.float32} | options)
    )


def test_latents_have_unit_variance() -> None:
    base = tiny_base()
    rng = np.random.default_rng(0)
    face = Face(rng.integers(0, 255, (80, 80, 3), np.uint8), "a", ())
    latents = encode_views(base, views_of(face, 8, SIDE_PX, rng))
    assert latents.mean_NCHW.std().item() == pytest.approx(1, abs=1e-4)
    again = base.vae.encode(
        torch.from_numpy(latents.views[0].rgb_u8 / np.float32(127.5) - 1).permute(2, 0, 1)[None]
    ).latent_dist.mean
    torch.testing.assert_close(again[0] * base.vae.config.scaling_factor, latents.mean_NCHW[0])


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path) -> None:
    whole = trainer(steps=6)
    train_until_spent(whole, tmp_path / "whole.pt")
    first = trainer(steps=6)
    for _ in range(3):
        first.step()
    torch.save(first.state_dict(), tmp_path / "half.pt")
    second = trainer(steps=6)
    train_until_spent(second, tmp_path / "half.pt")
    one, two = load_checkpoint(tmp_path / "whole.pt"), load_checkpoint(tmp_path / "half.pt")
    assert one["steps"] == two["steps"] == 6
    for name in ("masters", "ema"):
        assert all(torch.equal(a, b) for a, b in zip(one[name], two[name], strict=True))
    assert torch.equal(one["generator"], two["generator"])


def test_words_are_learned_at_their_own_rate() -> None:
    """With the other rates at 0, only what reads the words moves: cross-attention and its norm."""
    settings = BaseSettings(batch_size=4, warmup_steps=0, cross_attention_rate=0, text_rate=0, weight_decay=0)
    training, fresh = trainer(3, settings), tiny_base()
    for _ in range(3):
        training.step()
    base = training.averaged()
    still = {
        name
        for (name, ours), theirs in zip(base.unet.named_parameters(), fresh.unet.parameters(), strict=True)
        if torch.equal(ours, theirs)
    }
    words = {name for name, _ in base.unet.named_parameters() if ".attn2." in name}
    assert words
    assert still == words | {name.replace("attn2.to_q", "norm2") for name in words if name.endswith("to_q.weight")} | {
        name.replace("attn2.to_q.weight", "norm2.bias") for name in words if name.endswith("to_q.weight")
    }
    assert all(map(torch.equal, base.text_encoder.parameters(), fresh.text_encoder.parameters()))


def test_a_finished_run_does_nothing_more(tmp_path) -> None:
    train_until_spent(trainer(steps=2), tmp_path / "a.pt")
    metrics = []
    train_until_spent(trainer(steps=2), tmp_path / "a.pt", on_metric=lambda *point: metrics.append(point))
    assert metrics == []
    assert load_checkpoint(tmp_path / "a.pt")["steps"] == 2


def test_it_learns_in_both_precisions() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        training = trainer(50, BaseSettings(batch_size=8, learning_rate=3e-3, warmup_steps=5), dtype=dtype)
        losses = [training.step() for _ in range(50)]
        assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:10])


def test_text_and_unet_are_both_trained_and_the_autoencoder_is_not() -> None:
    training, fresh = trainer(steps=3), tiny_base()
    for _ in range(3):
        training.step()
    base = training.averaged()
    for part in ("unet", "text_encoder"):
        pairs = zip(getattr(base, part).parameters(), getattr(fresh, part).parameters(), strict=True)
        assert any(not torch.equal(ours, theirs) for ours, theirs in pairs)
    assert all(torch.equal(a, b) for a, b in zip(base.vae.parameters(), fresh.vae.parameters(), strict=True))
    assert not any(weight.requires_grad for weight in base.unet.parameters())


def test_a_loss_that_is_no_number_stops_the_run() -> None:
    training = trainer(200, BaseSettings(batch_size=4, learning_rate=1e30, warmup_steps=0, gradient_clip=1e30))
    with pytest.raises(TrainingError, match="wanted a number"):
        [training.step() for _ in range(200)]


def test_curve_and_checkpoints_are_reported(tmp_path) -> None:
    metrics, checkpoints = [], []
    train_until_spent(
        trainer(steps=50),
        tmp_path / "a.pt",
        on_metric=lambda *point: metrics.append(point),
        on_checkpoint=lambda step: checkpoints.append((step, load_checkpoint(tmp_path / "a.pt")["steps"])),
    )
    assert [step for step, _ in metrics] == [50]
    assert checkpoints == [(50, 50)]


def test_a_sheet_is_reproducible() -> None:
    first, second = (sample_sheet(tiny_base(), rows=1, steps=2) for _ in range(2))
    assert first.shape == (SIDE_PX, len(SHEET_PROMPTS) * SIDE_PX, 3)
    assert np.array_equal(first, second)
