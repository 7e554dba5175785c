"""Curves that are bounded on both sides, like sigmoid: erf, atan, softsign."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi, sqrt

from torch import Tensor

from krelax.activations.curve import Curve, Profile

# Above pi / 2, which no float is.
_HALF_PI = 1.5707963267948968


@dataclass(frozen=True, eq=False)
class Erf(Curve):
    """The error function, `2 / sqrt(pi)` times the integral of `exp(-t * t)` from 0 to z."""

    name = "erf"
    rising = True
    profile = Profile("+0-", (0.0,), range=(-1.0, 1.0))

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].erf()

    def derivative(self, z: Tensor) -> Tensor:
        return (2 / sqrt(pi)) * (-z.square()).exp()

    def stationary(self, slope: Tensor) -> tuple[Tensor, ...]:
        root = (-(slope * (sqrt(pi) / 2)).log()).sqrt()
        return root, -root


@dataclass(frozen=True, eq=False)
class Atan(Curve):
    """The inverse tangent."""

    name = "atan"
    rising = True
    profile = Profile("+0-", (0.0,), range=(-_HALF_PI, _HALF_PI))

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].atan()

    def derivative(self, z: Tensor) -> Tensor:
        return 1 / (1 + z.square())

    def stationary(self, slope: Tensor) -> tuple[Tensor, ...]:
        root = (1 / slope - 1).sqrt()
        return root, -root


@dataclass(frozen=True, eq=False)
class Softsign(Curve):
    """`z / (1 + |z|)`."""

    name = "softsign"
    rising = True
    profile = Profile("+0-", (0.0,), range=(-1.0, 1.0))

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0] / (1 + inputs[0].abs())

    def derivative(self, z: Tensor) -> Tensor:
        return 1 / (1 + z.abs()).square()

    def stationary(self, slope: Tensor) -> tuple[Tensor, ...]:
        root = slope.rsqrt() - 1
        return root, -root
