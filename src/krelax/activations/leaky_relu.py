"""The leaky rectifier: linear on both sides of zero, less steep below."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from krelax.activations.base import Activation
from krelax.activations.triangle import Triangle
from krelax.errors import UnsupportedError


@dataclass(frozen=True, eq=False)
class LeakyReLU(Activation):
    """`max(z, 0) + negative_slope * min(z, 0)`, with a slope in [0, 1]; UnsupportedError for any other.

    Relaxations rest on that: below 0 it is not monotone, above 1 it is not `max(z, negative_slope * z)`.
    """

    negative_slope: float

    name = "leaky-relu"
    rising = True
    published = True
    work = 50.0

    def __post_init__(self) -> None:
        if not 0 <= self.negative_slope <= 1:
            slope = f"{self.negative_slope:g}"
            raise UnsupportedError(f"a leaky ReLU with a negative slope of {slope}; it must lie in [0, 1]")

    def forward(self, *inputs: Tensor) -> Tensor:
        return torch.nn.functional.leaky_relu(inputs[0], self.negative_slope)

    @property
    def leak(self) -> float:
        return self.negative_slope

    def piece(self, z: Tensor) -> Tensor:
        return torch.where(z >= 0, torch.ones_like(z), self.negative_slope)

    def relax(self, lower: Tensor, upper: Tensor) -> Triangle:
        return Triangle(self, lower, upper, self.negative_slope)
