"""The hyperbolic tangent, `2 sigmoid(2 z) - 1`."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from krelax.activations.base import Activation
from krelax.activations.sshaped import SShaped


@dataclass(frozen=True, eq=False)
class Tanh(Activation):
    """Hyperbolic tangent."""

    name = "tanh"
    rising = True
    published = True

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].tanh()

    def relax(self, lower: Tensor, upper: Tensor) -> SShaped:
        return SShaped(self, lower, upper, 2.0, 2.0, -1.0)
