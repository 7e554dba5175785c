"""Powers: square, integer and real exponents, square root, reciprocal."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite

from torch import Tensor

from krelax.activations.curve import Curve, Profile
from krelax.errors import UnsupportedError


@dataclass(frozen=True, eq=False)
class Square(Curve):
    """`z * z`."""

    name = "square"
    profile = Profile("+", extrema=(0.0,), range=(0.0, inf))

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].square()

    def derivative(self, z: Tensor) -> Tensor:
        return 2 * z

    def stationary(self, slope: Tensor) -> tuple[Tensor, ...]:
        return (slope / 2,)

    def factors(self, slope: Tensor) -> tuple[Tensor, Tensor]:
        return slope / 2, slope / 2


@dataclass(frozen=True, eq=False)
class Sqrt(Curve):
    """`sqrt(z)`, for numbers that are not negative."""

    name = "sqrt"
    rising = True
    profile = Profile("-", range=(0.0, inf), domain=(0.0, inf))

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].sqrt()

    def derivative(self, z: Tensor) -> Tensor:
        return 0.5 / z.sqrt()

    def stationary(self, slope: Tensor) -> tuple[Tensor, ...]:
        return ((0.5 / slope).square(),)


class _Poled(Curve):
    """A curve that is not defined at zero, with a branch on both sides of it."""

    def inside(self, lower: Tensor, upper: Tensor) -> Tensor:
        return (lower > 0) | (upper < 0)


@dataclass(frozen=True, eq=False)
class Reciprocal(_Poled):
    """`1 / z`, for intervals without zero."""

    name = "reciprocal"
    profile = Profile("-0+", (0.0,))

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].reciprocal()

    def derivative(self, z: Tensor) -> Tensor:
        return -z.reciprocal().square()

    def stationary(self, slope: Tensor) -> tuple[Tensor, ...]:
        root = (-1 / slope).sqrt()
        return root, -root


@dataclass(frozen=True, eq=False)
class ReciprocalSqrt(Curve):
    """`1 / sqrt(z)`, for positive numbers."""

    name = "reciprocal-sqrt"
    profile = Profile("+", range=(0.0, inf), domain=(0.0, inf))

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].sqrt().reciprocal()

    def derivative(self, z: Tensor) -> Tensor:
        return -0.5 / (z * z.sqrt())

    def stationary(self, slope: Tensor) -> tuple[Tensor, ...]:
        return ((-0.5 / slope) ** (2 / 3),)


@dataclass(frozen=True, eq=False)
class Power(Curve):
    """`z ** exponent`: for all numbers if the exponent is a positive integer, for all but zero if it is a negative one,
    else for numbers that are not negative. UnsupportedError for exponents 0 and 1, and those that are no number."""

    exponent: float

    name = "power"

    def __post_init__(self) -> None:
        if not isfinite(self.exponent) or self.exponent in {0, 1}:
            raise UnsupportedError(f"a power of exponent {self.exponent:g}")

    @property
    def _whole(self) -> bool:
        return self.exponent == round(self.exponent)

    @property
    def profile(self) -> Profile:  # type: ignore[override]
        even, rising = self.exponent % 2 == 0, self.exponent > 0
        if not self._whole:
            return Profile("-" if 0 < self.exponent < 1 else "+", range=(0.0, inf), domain=(0.0, inf))
        if rising:
            return Profile("+", extrema=(0.0,), range=(0.0, inf)) if even else Profile("-0+", (0.0,))
        return Profile("+0+", (0.0,), range=(0.0, inf)) if even else Profile("-0+", (0.0,))

    def inside(self, lower: Tensor, upper: Tensor) -> Tensor:
        if self._whole and self.exponent < 0:
            return (lower > 0) | (upper < 0)
        return super().inside(lower, upper)

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0] ** self.exponent

    def derivative(self, z: Tensor) -> Tensor:
        return self.exponent * z ** (self.exponent - 1)

    def stationary(self, slope: Tensor) -> tuple[Tensor, ...]:
        root = (slope / self.exponent).abs() ** (1 / (self.exponent - 1))
        return (root, -root) if self._whole else (root,)
