"""Where the factors of every layer lie in one flat vector.

The optimiser makes one pass over an identity's vector, and what a pack does with it (scale, cast) is done once, not for
two small tensors a layer.

Shapes: R rank, I and O a layer's inputs and outputs, S numbers of all factors.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from studiolo.generation.grouped import Factors

Layers = Mapping[str, tuple[int, int]]
"""[O, I] of every layer that is trained, by its name in the UNet."""


class Layout:
    """The factors of `layers` at a rank: `down_RI` and then `up_OR` of each, one layer after another."""

    def __init__(self, layers: Layers, rank: int) -> None:
        self._layers, self._rank = layers, rank
        self.size = sum(rank * (inputs + outputs) for outputs, inputs in layers.values())

    def factors(self, flat: Tensor) -> dict[str, Factors]:
        """Views [..., R, I] and [..., O, R] of `flat` [..., S]."""
        found, at = {}, 0
        for name, (outputs, inputs) in self._layers.items():
            shapes = (self._rank, inputs), (outputs, self._rank)
            pair = []
            for shape in shapes:
                size = math.prod(shape)
                pair.append(flat[..., at : at + size].view(*flat.shape[:-1], *shape))
                at += size
            found[name] = pair[0], pair[1]
        return found

    def scales(self, up: float) -> Tensor:
        """[S]: `up` where an up-factor lies, 1 elsewhere."""
        scales_S = torch.ones(self.size)
        for _, up_OR in self.factors(scales_S).values():
            up_OR.fill_(up)
        return scales_S
