"""The rectifier, `max(z, 0)`."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from krelax.activations.base import Activation
from krelax.activations.triangle import Triangle


@dataclass(frozen=True, eq=False)
class ReLU(Activation):
    """`max(z, 0)`."""

    name = "relu"
    rising = True
    published = True
    work = 50.0

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].clamp(min=0)

    @property
    def leak(self) -> float:
        return 0.0

    def piece(self, z: Tensor) -> Tensor:
        return (z >= 0).to(z)

    def relax(self, lower: Tensor, upper: Tensor) -> Triangle:
        return Triangle(self, lower, upper, 0.0)
