import math

import numpy as np
import pytest
import torch
from torch import Tensor

from studiolo.errors import TrainingError
from studiolo.generation.controlnets import EDGES, POSE
from studiolo.generation.tiny import tiny_base
from studiolo.training.checkpoints import Budget, load_checkpoint
from studiolo.training.controlnet import ControlNetSettings, ControlNetTrainer, controlled_sheet
from studiolo.training.faces import View
from studiolo.training.loop import train_until_spent
from studiolo.training.sights import Examples, Sight

SIDE_PX, VIEWS = 64, 12
SETTINGS = ControlNetSettings(batch_size=8, warmup_steps=2, held_out=2)


def examples() -> Examples:
    """Random faces whose latents are their joints' picture: what a pose says is all there is to learn."""
    rng = np.random.default_rng(0)
    sights = []
    for _ in range(VIEWS):
        joints = rng.uniform(16, 48, (5, 2))
        landmarks = rng.uniform(16, 48, (68, 2))
        sights.append(
            Sight(joints, landmarks, rng.random((SIDE_PX, SIDE_PX)) < 0.1, np.zeros((SIDE_PX, SIDE_PX), bool))
        )
    latents = torch.tensor(np.stack([_bump(sight.joints_px.mean(axis=0)) for sight in sights]), dtype=torch.float32)
    views = [View(np.zeros((0, 0, 3), np.uint8), "a woman", ("smile",), ()) for _ in sights]
    return Examples(latents, torch.full_like(latents, 1e-3), sights, views)


def _bump(centre_px: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[:8, :8] * 8.0
    bump = 3 * np.exp(-((x - centre_px[0]) ** 2 + (y - centre_px[1]) ** 2) / 200)
    return np.repeat(bump[None], 8, axis=0)


def trainer(steps: int, settings: ControlNetSettings = SETTINGS, **options) -> ControlNetTrainer:
    return ControlNetTrainer(
        tiny_base(), examples(), settings, Budget(steps=steps), **({"dtype": torch.float32} | options)
    )


def weights(training: ControlNetTrainer) -> list[Tensor]:
    return [weight for network in training.averaged().values() for weight in network.parameters()]


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path) -> None:
    whole = trainer(steps=4)
    train_until_spent(whole, tmp_path / "whole.pt")
    first = trainer(steps=4)
    for _ in range(2):
        first.step()
    torch.save(first.state_dict(), tmp_path / "half.pt")
    second = trainer(steps=4)
    train_until_spent(second, tmp_path / "half.pt")
    assert load_checkpoint(tmp_path / "half.pt")["steps"] == 4
    assert all(map(torch.equal, weights(whole), weights(second)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_learns_what_is_shown(dtype: torch.dtype) -> None:
    """Against the same samples with nothing shown, which a fresh ControlNet equals."""
    settings = ControlNetSettings(batch_size=16, learning_rate=3e-3, warmup_steps=5, held_out=2)
    training = trainer(60, settings, dtype=dtype)
    losses = [training.step() for _ in range(60)]
    assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:10])


def test_gains_begin_at_nothing_and_change_nothing() -> None:
    training, alone = trainer(steps=4), trainer(steps=4)
    assert training.gains() == pytest.approx({POSE: 0.0, EDGES: 0.0}, abs=1e-6)
    for _ in range(3):
        training.step()
        alone.step()
        assert training.gains() == training.gains()
    assert training.gains()[POSE] != 0
    assert all(map(torch.equal, weights(training), weights(alone)))


def test_a_fifth_is_held_out_at_most() -> None:
    few = examples()
    for count, learned in ((12, 10), (4, 3), (2, 1)):
        some = Examples(few.mean_NChw[:count], few.std_NChw[:count], few.sights[:count], few.views[:count])
        training = ControlNetTrainer(tiny_base(), some, ControlNetSettings(), Budget(steps=1), dtype=torch.float32)
        assert training._learned == learned
    alone = Examples(few.mean_NChw[:1], few.std_NChw[:1], few.sights[:1], few.views[:1])
    with pytest.raises(TrainingError, match="got 1 views, wanted two at least"):
        ControlNetTrainer(tiny_base(), alone, ControlNetSettings(), Budget(steps=1))


def test_the_base_stays_and_both_networks_are_trained() -> None:
    training, fresh = trainer(steps=3), tiny_base()
    base = training._base
    before = trainer(steps=3).averaged()
    for _ in range(3):
        training.step()
    for part in ("unet", "text_encoder", "vae"):
        assert all(map(torch.equal, getattr(base, part).parameters(), getattr(fresh, part).parameters()))
    after = training.averaged()
    assert set(after) == {POSE, EDGES}
    for name in after:
        moved = [
            not torch.equal(*pair) for pair in zip(before[name].parameters(), after[name].parameters(), strict=True)
        ]
        assert any(moved)


def test_each_sample_shows_something_and_hidden_edges_stay_hidden() -> None:
    settings = ControlNetSettings(batch_size=8, whole_edges_share=0.0, held_out=2)
    training = trainer(1, settings)
    for sight in training._examples.sights:
        sight.face[:32] = True
    shown = training._shown([index % VIEWS for index in range(200)], torch.Generator().manual_seed(3))
    scales = torch.cat([shown[name][1].flatten(1) for name in (POSE, EDGES)], dim=1)
    assert set(scales.unique().tolist()) == {0.0, 1.0}
    assert (scales.sum(1) >= 1).all()
    assert 0.7 < scales[:, 0].mean() < 0.9
    assert 0.65 < scales[:, 1].mean() < 0.87
    assert not shown[EDGES][0][:, :, :32].any()
    assert shown[EDGES][0][:, :, 32:].any()


def test_a_loss_that_is_no_number_stops_the_run() -> None:
    training = trainer(
        100, ControlNetSettings(batch_size=4, learning_rate=1e30, warmup_steps=0, gradient_clip=1e30, held_out=2)
    )
    with pytest.raises(TrainingError, match="wanted a number"):
        [training.step() for _ in range(100)]


def test_a_sheet_is_reproducible() -> None:
    training = trainer(steps=1)
    assert math.isfinite(training.step())
    sheets = [controlled_sheet(tiny_base(), training.averaged(), examples(), columns=2, steps=2) for _ in range(2)]
    assert sheets[0].shape == (6 * SIDE_PX, 2 * SIDE_PX, 3)
    assert np.array_equal(*sheets)
