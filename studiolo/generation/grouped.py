"""Low-rank updates that belong to the sample, not to the model: one frozen layer, an update for each group of rows.

A batch of N = G * b rows lies group by group, so no row is gathered: rows g * b to (g + 1) * b - 1 belong to group g.
Training packs one identity a group, the engine one slot a group.

Shapes: N rows, G groups, b rows a group, R rank, I and O the layer's inputs and outputs, P places (tokens or pixels).
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

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


def _low_rank(x: Tensor, down_GRI: Tensor, up_GOR: Tensor) -> Tensor:
    x_GPI = x.reshape(len(down_GRI), -1, x.shape[-1])
    update_GPO = torch.bmm(torch.bmm(x_GPI, down_GRI.mT), up_GOR.mT)
    return update_GPO.view(*x.shape[:-1], -1)


def _hook(name: str, factors: Callable[[str], Factors | None]) -> Any:
    def add(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        pair = factors(name)
        return output if pair is None else output + grouped_update(inputs[0], *pair)

    return add
