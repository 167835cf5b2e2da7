"""Training in bfloat16 with float32 masters, and the moving average of the masters.

Matrix units are twice as fast or more on weights that *are* bfloat16 (autocast, measured, was slower than
float32), but small updates vanish in 8 bits of mantissa: the optimiser therefore works on float32 copies.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from studiolo.generation.autoencoder import cast_weights


class Masters:
    """Float32 masters of the trainable weights of `modules`, whose own weights become `dtype`.

    A step is: backward through the modules, `take_gradients`, clip and step an optimiser over `parameters`,
    `give_weights`.
    """

    def __init__(self, modules: Sequence[nn.Module], dtype: torch.dtype) -> None:
        self._working = [weight for module in modules for weight in module.parameters() if weight.requires_grad]
        self.parameters = [
            weight.detach().float().clone(memory_format=torch.contiguous_format) for weight in self._working
        ]
        for module in modules:
            cast_weights(module, dtype)
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def take_gradients(self) -> None:
        """Move the modules' gradients to the masters; a weight without one keeps its master still.

        A gradient gets its master's memory layout: the modules are channels_last, and a fused optimiser walks
        through both in memory order without comparing them, so that it would train noise.
        """
        for master, working in zip(self.parameters, self._working, strict=True):
            master.grad = None if working.grad is None else working.grad.float().contiguous()
            working.grad = None

    @torch.no_grad()
    def give_weights(self) -> None:
        """Copy the masters into the modules, rounded to their type."""
        for master, working in zip(self.parameters, self._working, strict=True):
            working.copy_(master)

    @torch.no_grad()
    def load(self, weights: Sequence[Tensor]) -> None:
        """Take `weights` as masters and hand them to the modules."""
        for master, weight in zip(self.parameters, weights, strict=True):
            master.copy_(weight)
        self.give_weights()


class Ema:
    """Exponential moving average of `parameters`: e <- d e + (1 - d) p.

    d = min(decay, (1 + n) / (10 + n)) after n updates, so that the start is forgotten soon.
    """

    def __init__(self, parameters: Sequence[Tensor], decay: float) -> None:
        self.averages = [parameter.detach().clone() for parameter in parameters]
        self.updates = 0
        self._decay = decay

    @torch.no_grad()
    def update(self, parameters: Sequence[Tensor]) -> None:
        """One step towards `parameters`."""
        decay = min(self._decay, (1 + self.updates) / (10 + self.updates))
        for average, parameter in zip(self.averages, parameters, strict=True):
            average.lerp_(parameter, 1 - decay)
        self.updates += 1


class Descent:
    """AdamW on the masters of `modules`, with clipped gradients and a moving average: what a step does to weights."""

    def __init__(
        self,
        modules: Sequence[nn.Module],
        dtype: torch.dtype,
        *,
        weight_decay: float,
        gradient_clip: float,
        ema_decay: float,
    ) -> None:
        self._masters, self._clip = Masters(modules, dtype), gradient_clip
        self._ema = Ema(self._masters.parameters, ema_decay)
        self._optimiser = torch.optim.AdamW(
            self._masters.parameters, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True
        )

    @property
    def averages(self) -> list[Tensor]:
        """The moving average, in the order of `Masters.parameters`."""
        return self._ema.averages

    def step(self, loss: Tensor, learning_rate: float) -> float:
        """Go down the gradients of `loss`, a scalar; its value."""
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate
        loss.backward()  # type: ignore[no-untyped-call]
        self._masters.take_gradients()
        torch.nn.utils.clip_grad_norm_(self._masters.parameters, self._clip)
        self._optimiser.step()
        self._masters.give_weights()
        self._ema.update(self._masters.parameters)
        return loss.item()

    def state_dict(self) -> dict[str, Any]:
        """Everything a resume needs."""
        return {
            "masters": self._masters.parameters,
            "ema": self._ema.averages,
            "ema_updates": self._ema.updates,
            "optimiser": self._optimiser.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self._masters.load(state["masters"])
        for average, saved in zip(self._ema.averages, state["ema"], strict=True):
            average.copy_(saved)
        self._ema.updates = state["ema_updates"]
        self._optimiser.load_state_dict(state["optimiser"])


@torch.no_grad()
def set_trainable(modules: Sequence[nn.Module], weights: Sequence[Tensor]) -> None:
    """Make `weights`, in the order of `Masters.parameters`, the trainable weights of `modules`, in their
    precision.
    """
    working = [weight for module in modules for weight in module.parameters() if weight.requires_grad]
    for weight, value in zip(working, weights, strict=True):
        weight.data = value.detach().clone()
