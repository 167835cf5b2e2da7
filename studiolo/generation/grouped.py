"""Low-rank updates that belong to the sample, not to the model: one frozen layer, an update for each group of rows.

A batch of N = G * b rows lies group by group, so no row is gathered: rows g * b to (g + 1) * b - 1 belong to group g.
Training packs one identity a group, the engine one slot a group.

Shapes: N rows, G groups, b rows a group, R rank, I and O the layer's inputs and outputs, P places (tokens or pixels).
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

Model = TypeVar("Model", bound=nn.Module)

Factors = tuple[Tensor, Tensor]
"""`down_GRI` and `up_GOR` of one layer: the update of group g is W + up[g] down[g]. Weights and alpha are folded into
`up_GOR`, both are in the layer's precision."""


def attach(
    module: nn.Module, targets: Iterable[str], factors: Callable[[str], Factors | None]
) -> list[RemovableHandle]:
    """From now on every layer of `module` named in `targets` adds what `factors(name)` gives in that forward.

    None means no update. Raises `ValueError` for a layer that is not one matrix for every token or pixel. The handles'
    `remove` leaves the module as it was.
    """
    layers = dict(module.named_modules())
    for name in targets:
        if matrix_shape(layers.get(name)) is None:
            kind = type(layers[name]).__name__ if name in layers else "no layer of this model"
            raise ValueError(f"{name}: got {kind}, wanted a linear layer or a 1x1 convolution")
    return [layers[name].register_forward_hook(_hook(name, factors)) for name in targets]


def grouped_update(x: Tensor, down_GRI: Tensor, up_GOR: Tensor) -> Tensor:
    """`up down x` for every row of `x` by its group; x is [N, ..., I] of a linear layer or [N, I, H, W] of a 1x1
    convolution, the result has O in the place of I.
    """
    if x.ndim == 4:
        return _low_rank(x.permute(0, 2, 3, 1), down_GRI, up_GOR).permute(0, 3, 1, 2)
    return _low_rank(x, down_GRI, up_GOR)


def matrix_shape(layer: nn.Module | None) -> tuple[int, int] | None:
    """[O, I] of a layer that is one matrix for every token or pixel; None for any other."""
    if isinstance(layer, nn.Linear):
        return layer.out_features, layer.in_features
    if isinstance(layer, nn.Conv2d) and layer.kernel_size == layer.stride == (1, 1) and layer.groups == 1:
        return layer.out_channels, layer.in_channels
    return None


def with_own_hooks(module: Model) -> Model:
    """A copy of `module` on the same weights: updates of the one do not act on the other, whichever thread uses it."""
    return copy.deepcopy(module, {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())})


class FactorBuffers:
    """Room for the updates of `groups` groups, each up to `rank`; what a group does not use is zero.

    A layer that no group updates takes no room and no time. Zeros are added as exactly nothing, so a group's rows do
    not depend on what the others have.
    """

    def __init__(self, groups: int, rank: int, dtype: torch.dtype, device: torch.device | str = "cpu") -> None:
        self._groups, self._rank = groups, rank
        self._dtype, self._device = dtype, device
        self._factors: dict[str, Factors] = {}
        self._users: dict[str, set[int]] = {}

    def write(self, group: int, updates: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Give `group` the updates `down_RI`, `up_OR` of the layers named, in place of what it had.

        Raises `ValueError` for one of a rank above the buffers'.
        """
        self.clear(group)
        for name, (down_RI, up_OR) in updates.items():
            rank = len(down_RI)
            if rank > self._rank:
                raise ValueError(f"{name}: got an update of rank {rank}, wanted at most {self._rank}")
            if name not in self._factors:
                shapes = (self._rank, down_RI.shape[1]), (len(up_OR), self._rank)
                down_GRI, up_GOR = (
                    torch.zeros(self._groups, *shape, dtype=self._dtype, device=self._device) for shape in shapes
                )
                self._factors[name] = down_GRI, up_GOR
            down_GRI, up_GOR = self._factors[name]
            down_GRI[group, :rank] = down_RI
            up_GOR[group, :, :rank] = up_OR
            self._users.setdefault(name, set()).add(group)

    def clear(self, group: int) -> None:
        """Nothing more is added to the rows of `group`."""
        for name in [name for name, users in self._users.items() if group in users]:
            for factors in self._factors[name]:
                factors[group].zero_()
            self._users[name].discard(group)
            if not self._users[name]:
                del self._users[name], self._factors[name]

    @contextmanager
    def acting(self, module: nn.Module) -> Iterator[None]:
        """While open, the updates act on every forward of `module`; afterwards it is as before."""
        handles = attach(module, self._factors, self._factors.get) if self._factors else []
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _low_rank(x: Tensor, down_GRI: Tensor, up_GOR: Tensor) -> Tensor:
    x_GPI = x.reshape(len(down_GRI), -1, x.shape[-1])
    update_GPO = torch.bmm(torch.bmm(x_GPI, down_GRI.mT), up_GOR.mT)
    return update_GPO.view(*x.shape[:-1], -1)


def _hook(name: str, factors: Callable[[str], Factors | None]) -> Any:
    def add(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        pair = factors(name)
        return output if pair is None else output + grouped_update(inputs[0], *pair)

    return add
