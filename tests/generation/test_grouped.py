import pytest
import torch
from torch import Tensor, nn

from studiolo.generation.grouped import FactorBuffers, grouped_update, with_own_hooks

Updates = dict[str, tuple[Tensor, Tensor]]

GROUPS, ROWS, WIDTH = 4, 2, 16


class Model(nn.Module):
    """A linear layer and a 1x1 convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.pointwise, self.spatial = nn.Linear(16, 24), nn.Conv2d(16, 8, 1), nn.Conv2d(16, 8, 3)

    def forward(self, x_NIHW: Tensor) -> tuple[Tensor, Tensor]:
        return self.linear(x_NIHW.flatten(2).mT), self.pointwise(x_NIHW)


def updates(seed: int, rank: int) -> Updates:
    generator = torch.Generator().manual_seed(seed)
    wide = {"linear": 24, "pointwise": 8}
    return {
        name: (torch.randn(rank, 16, generator=generator), torch.randn(out, rank, generator=generator))
        for name, out in wide.items()
    }


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    return Model().requires_grad_(False)


@pytest.fixture(scope="module")
def x_NIHW() -> Tensor:
    return torch.randn(GROUPS * ROWS, 16, 5, 5, generator=torch.Generator().manual_seed(1))


def outputs(model: Model, buffers: FactorBuffers, x_NIHW: Tensor) -> tuple[Tensor, Tensor]:
    with buffers.acting(model):
        return model(x_NIHW)


def test_each_group_has_its_own_update(model: Model, x_NIHW: Tensor) -> None:
    """As W + B A merged by hand; group 2 has none."""
    buffers, given = FactorBuffers(GROUPS, 8, torch.float32), {0: updates(1, 8), 1: updates(2, 3), 3: updates(3, 1)}
    for group, one in given.items():
        buffers.write(group, one)
    found = outputs(model, buffers, x_NIHW)
    plain = model(x_NIHW)
    for group in range(GROUPS):
        rows = slice(group * ROWS, (group + 1) * ROWS)
        by_hand = Model()
        by_hand.load_state_dict(model.state_dict())
        for name, (down_RI, up_OR) in given.get(group, {}).items():
            weight = getattr(by_hand, name).weight
            weight.data += (up_OR @ down_RI).view_as(weight)
        for one, other in zip(found, by_hand(x_NIHW[rows]), strict=True):
            torch.testing.assert_close(one[rows], other, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(one[4:6], other[4:6]) for one, other in zip(found, plain, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_group_does_not_depend_on_the_others(model: Model, x_NIHW: Tensor, dtype: torch.dtype) -> None:
    own, cast = updates(1, 4), Model().requires_grad_(False).to(dtype)
    alone, crowded = FactorBuffers(GROUPS, 8, dtype), FactorBuffers(GROUPS, 8, dtype)
    alone.write(1, own)
    for group in range(GROUPS):
        crowded.write(group, updates(group, 8))
    crowded.write(1, own)
    x_NIHW = x_NIHW.to(dtype)
    pairs = zip(outputs(cast, alone, x_NIHW), outputs(cast, crowded, x_NIHW), strict=True)
    assert all(torch.equal(one[2:4], other[2:4]) for one, other in pairs)


def test_nothing_is_left_of_a_group_that_was_cleared(model: Model, x_NIHW: Tensor) -> None:
    buffers = FactorBuffers(GROUPS, 8, torch.float32)
    buffers.write(0, updates(1, 8))
    buffers.write(1, updates(2, 8))
    buffers.write(0, {"linear": updates(3, 2)["linear"]})  # narrower, and one layer less
    fresh = FactorBuffers(GROUPS, 8, torch.float32)
    fresh.write(0, {"linear": updates(3, 2)["linear"]})
    fresh.write(1, updates(2, 8))
    for one, other in zip(outputs(model, buffers, x_NIHW), outputs(model, fresh, x_NIHW), strict=True):
        assert torch.equal(one, other)
    buffers.clear(0)
    buffers.clear(1)
    with buffers.acting(model):
        assert not any(layer._forward_hooks for layer in model.modules())


def test_outside_nothing_acts(model: Model, x_NIHW: Tensor) -> None:
    buffers, before = FactorBuffers(GROUPS, 8, torch.float32), model(x_NIHW)
    buffers.write(0, updates(1, 8))
    with pytest.raises(KeyboardInterrupt), buffers.acting(model):
        raise KeyboardInterrupt
    assert all(torch.equal(one, other) for one, other in zip(model(x_NIHW), before, strict=True))


def test_on_a_copy_with_hooks_of_its_own_updates_act_alone(model: Model, x_NIHW: Tensor) -> None:
    buffers, before, copied = FactorBuffers(GROUPS, 8, torch.float32), model(x_NIHW), with_own_hooks(model)
    buffers.write(0, updates(1, 8))
    with buffers.acting(copied):
        assert all(torch.equal(one, other) for one, other in zip(model(x_NIHW), before, strict=True))
        assert not torch.equal(copied(x_NIHW)[0], before[0])
    pairs = zip(copied.parameters(), model.parameters(), strict=True)
    assert all(one is other for one, other in pairs)  # no weight takes room twice


def test_what_does_not_fit_is_named(model: Model) -> None:
    buffers = FactorBuffers(GROUPS, 8, torch.float32)
    with pytest.raises(ValueError, match="linear: got an update of rank 9, wanted at most 8"):
        buffers.write(0, updates(1, 9))
    buffers.write(0, {"spatial": updates(1, 8)["pointwise"]})
    with pytest.raises(ValueError, match="spatial: got Conv2d"), buffers.acting(model):
        pass


def test_tokens_and_pixels_alike(x_NIHW: Tensor) -> None:
    down_GRI, up_GOR = torch.randn(GROUPS, 3, 16), torch.randn(GROUPS, 24, 3)
    pixels = grouped_update(x_NIHW, down_GRI, up_GOR)
    tokens = grouped_update(x_NIHW.permute(0, 2, 3, 1).flatten(1, 2), down_GRI, up_GOR)
    torch.testing.assert_close(pixels.flatten(2).mT, tokens)
