"""Hyperbolic and trigonometric functions that are convex on one side and concave on the other, or of one kind."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from torch import Tensor

from krelax.activations.curve import Curve, Profile

# Above pi / 2, and below.
_ABOVE, _BELOW = 1.5707963267948968, 1.5707963267948966


@dataclass(frozen=True, eq=False)
class Sinh(Curve):
    """The hyperbolic sine."""

    name = "sinh"
    rising = True
    profile = Profile("-0+", (0.0,))

    def forward(self, *inputs: Tensor) -> Tensor:
        """By `e / 2 + e / (2 e + 2)` with `e = exp(|z|) - 1`, which rounds alike in batches and alone."""
        e = inputs[0].abs().expm1()
        return ((e + (e / (e + 1)).nan_to_num(1.0)) / 2).copysign(inputs[0])

    def derivative(self, z: Tensor) -> Tensor:
        return z.cosh()

    def stationary(self, slope: Tensor) -> tuple[Tensor, ...]:
        return slope.acosh(), -slope.acosh()


@dataclass(frozen=True, eq=False)
class Cosh(Curve):
    """The hyperbolic cosine."""

    name = "cosh"
    profile = Profile("+", extrema=(0.0,), range=(1.0, inf))

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].cosh()

    def derivative(self, z: Tensor) -> Tensor:
        return z.sinh()

    def stationary(self, slope: Tensor) -> tuple[Tensor, ...]:
        return (slope.asinh(),)


@dataclass(frozen=True, eq=False)
class Tan(Curve):
    """The tangent, between its poles next to zero."""

    name = "tan"
    profile = Profile("-0+", (0.0,), domain=(-_BELOW, _BELOW))

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].tan()

    def derivative(self, z: Tensor) -> Tensor:
        return 1 + z.tan().square()

    def stationary(self, slope: Tensor) -> tuple[Tensor, ...]:
        place = (slope - 1).sqrt().atan()
        return place, -place


@dataclass(frozen=True, eq=False)
class Asin(Curve):
    """The inverse sine."""

    name = "asin"
    rising = True
    profile = Profile("-0+", (0.0,), range=(-_ABOVE, _ABOVE), domain=(-1.0, 1.0), somewhere=0.5)

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].asin()

    def derivative(self, z: Tensor) -> Tensor:
        return ((1 - z) * (1 + z)).rsqrt()

    def stationary(self, slope: Tensor) -> tuple[Tensor, ...]:
        place = ((1 - 1 / slope) * (1 + 1 / slope)).sqrt()
        return place, -place


@dataclass(frozen=True, eq=False)
class Atanh(Curve):
    """The inverse hyperbolic tangent."""

    name = "atanh"
    rising = True
    profile = Profile("-0+", (0.0,), domain=(-1.0, 1.0), somewhere=0.5)

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].atanh()

    def derivative(self, z: Tensor) -> Tensor:
        return 1 / ((1 - z) * (1 + z))

    def stationary(self, slope: Tensor) -> tuple[Tensor, ...]:
        place = (1 - 1 / slope).sqrt()
        return place, -place


@dataclass(frozen=True, eq=False)
class Acosh(Curve):
    """The inverse hyperbolic cosine, for numbers from 1 on."""

    name = "acosh"
    rising = True
    profile = Profile("-", range=(0.0, inf), domain=(1.0, inf), somewhere=2.0)

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].acosh()

    def derivative(self, z: Tensor) -> Tensor:
        return (z - 1).rsqrt() * (z + 1).rsqrt()

    def stationary(self, slope: Tensor) -> tuple[Tensor, ...]:
        return ((1 + slope.reciprocal().square()).sqrt(),)
