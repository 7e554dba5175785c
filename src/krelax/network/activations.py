"""Activations: what they compute. What is true of them over an interval is in `krelax.relaxations`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from krelax.errors import UnsupportedError
from krelax.network.ops import Op, Shape


class Activation(Op):
    """A non-linear operator with one operand; elementwise unless it says otherwise."""

    def shape(self, *inputs: Shape) -> Shape:
        return inputs[0]


@dataclass(frozen=True, eq=False)
class ReLU(Activation):
    """`max(z, 0)`."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].clamp(min=0)


@dataclass(frozen=True, eq=False)
class LeakyReLU(Activation):
    """`max(z, 0) + negative_slope * min(z, 0)`, with a slope in [0, 1]; UnsupportedError for any other.

    Relaxations rest on that: below 0 it is not monotone, above 1 it is not `max(z, negative_slope * z)`.
    """

    negative_slope: float

    def __post_init__(self) -> None:
        if not 0 <= self.negative_slope <= 1:
            slope = f"{self.negative_slope:g}"
            raise UnsupportedError(f"a leaky ReLU with a negative slope of {slope}; it must lie in [0, 1]")

    def forward(self, *inputs: Tensor) -> Tensor:
        return torch.nn.functional.leaky_relu(inputs[0], self.negative_slope)


@dataclass(frozen=True, eq=False)
class Sigmoid(Activation):
    """`1 / (1 + exp(-z))`."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].sigmoid()


@dataclass(frozen=True, eq=False)
class Tanh(Activation):
    """Hyperbolic tangent."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].tanh()


@dataclass(frozen=True, eq=False)
class Max(Activation):
    """Largest entry along the last axis, which disappears (max pooling, after `Take` laid out the windows)."""

    def shape(self, *inputs: Shape) -> Shape:
        return inputs[0][:-1]

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].amax(-1)
