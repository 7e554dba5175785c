"""The logistic function."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from krelax.activations.base import Activation
from krelax.activations.sshaped import SShaped


@dataclass(frozen=True, eq=False)
class Sigmoid(Activation):
    """`1 / (1 + exp(-z))`."""

    name = "sigmoid"
    rising = True
    published = True

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].sigmoid()

    def relax(self, lower: Tensor, upper: Tensor) -> SShaped:
        return SShaped(self, lower, upper, 1.0, 1.0, 0.0)
