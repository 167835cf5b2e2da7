import pytest
import torch

from studiolo.training.precision import Ema, Masters, set_trainable


def step(masters: Masters, module: torch.nn.Module, optimiser: torch.optim.Optimizer) -> None:
    dtype = next(module.parameters()).dtype
    module(torch.ones(1, 4, dtype=dtype)).float().sum().backward()
    masters.take_gradients()
    optimiser.step()
    masters.give_weights()


def test_small_updates_add_up_in_the_masters_where_bfloat16_would_lose_them() -> None:
    module = torch.nn.Linear(4, 1, bias=False)
    torch.nn.init.ones_(module.weight)
    masters = Masters([module], torch.bfloat16)
    optimiser = torch.optim.SGD(masters.parameters, lr=1e-4)
    for _ in range(100):
        step(masters, module, optimiser)
    assert module.weight.dtype == torch.bfloat16
    torch.testing.assert_close(masters.parameters[0], torch.full((1, 4), 0.99))
    torch.testing.assert_close(module.weight.float(), torch.full((1, 4), 0.99), atol=0.004, rtol=0)
    assert torch.equal(torch.ones(1).bfloat16() - 1e-4, torch.ones(1).bfloat16())


def test_float32_masters_train_as_the_module_would_alone() -> None:
    torch.manual_seed(0)
    module = torch.nn.Linear(4, 2)
    alone = torch.nn.Linear(4, 2)
    alone.load_state_dict(module.state_dict())
    masters = Masters([module], torch.float32)
    ours, theirs = torch.optim.AdamW(masters.parameters), torch.optim.AdamW(alone.parameters())
    for _ in range(5):
        step(masters, module, ours)
        alone(torch.ones(1, 4)).sum().backward()
        theirs.step()
        theirs.zero_grad()
    assert torch.equal(module.weight, alone.weight)


def test_a_fused_optimiser_moves_every_weight_by_its_own_gradient() -> None:
    torch.manual_seed(0)
    module = torch.nn.Conv2d(8, 4, 3, bias=False)
    masters = Masters([module], torch.float32)
    before = masters.parameters[0].clone()
    optimiser = torch.optim.AdamW(masters.parameters, lr=0.1, weight_decay=0, fused=True)
    image = torch.randn(1, 8, 3, 3).contiguous(memory_format=torch.channels_last)
    (module(image) * torch.tensor([1.0, -1, 1, -1]).view(1, 4, 1, 1)).sum().backward()
    direction = module.weight.grad.sign().clone()
    masters.take_gradients()
    optimiser.step()
    # Adam's first step is the learning rate against the gradient's sign
    torch.testing.assert_close(masters.parameters[0], before - 0.1 * direction, atol=1e-4, rtol=0)


def test_only_trainable_weights_have_masters() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(4, 4).requires_grad_(False), torch.nn.Linear(4, 1))
    masters = Masters([module], torch.bfloat16)
    assert len(masters.parameters) == 2
    set_trainable([module], [torch.zeros_like(weight) for weight in masters.parameters])
    assert torch.count_nonzero(module[1].weight) == 0 < torch.count_nonzero(module[0].weight)


def test_the_average_follows_its_recursion() -> None:
    values = [1.0, 5.0, 2.0, 7.0]
    parameter = torch.tensor([0.0])
    ema, wanted = Ema([parameter], decay=0.3), 0.0
    for count, value in enumerate(values):
        decay = min(0.3, (1 + count) / (10 + count))
        wanted = decay * wanted + (1 - decay) * value
        ema.update([torch.tensor([value])])
    assert ema.averages[0].item() == pytest.approx(wanted)
    assert parameter.item() == 0
