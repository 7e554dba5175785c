"""Powers of a number."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.kernel.activations.curve import Curve
from krelax.certificate.kernel.activations.rule import Ends
from krelax.certificate.kernel.arithmetic import Array, Floats


class Square(Curve):
    """`z * z`."""

    name, extrema, range = "square", (0.0,), (0.0, inf)

    def act(self, z: Floats) -> Floats:
        return z * z

    def derivative(self, z: Floats, piece: int) -> Floats:
        return 2 * z

    def stationary(self, slope: Floats, piece: int) -> Floats:
        return slope / 2

    def factors(self, slope: Array) -> tuple[Array, Array]:
        return 0.5 * slope, 0.5 * slope


class Sqrt(Curve):
    """`sqrt(z)`, for numbers that are not negative. Its tangent at zero is upright: it is taken beside it."""

    name, range, domain = "square root", (0.0, inf), (0.0, inf)

    def act(self, z: Floats) -> Floats:
        return np.sqrt(z)

    def derivative(self, z: Floats, piece: int) -> Floats:
        return 0.5 / np.sqrt(z)

    def stationary(self, slope: Floats, piece: int) -> Floats:
        return np.where(slope > 0, np.maximum((0.5 / slope) ** 2, 2.0**-900), inf)


class Poled(Curve):
    """A curve that is not defined at zero, where it turns."""

    turns = (0.0,)

    def inside(self, ends: Ends) -> NDArray[np.bool_]:
        return np.asarray((ends[0] > 0) | (ends[1] < 0))


class Reciprocal(Poled):
    """`1 / z`, for intervals without zero."""

    name = "reciprocal"

    def act(self, z: Floats) -> Floats:
        return 1 / z

    def derivative(self, z: Floats, piece: int) -> Floats:
        return -1 / (z * z)

    def stationary(self, slope: Floats, piece: int) -> Floats:
        return np.where(slope < 0, np.sqrt(-1 / slope), inf) * (1.0 if piece else -1.0)


@dataclass(frozen=True)
class Power(Curve):
    """`z ** exponent`, of an exponent other than 0 and 1: for all numbers if it is a positive integer, for all but zero
    if it is a negative one, else for numbers that are not negative. Only then a tangent may be upright, at zero."""

    name = "power"
    exponent: float

    @property
    def _whole(self) -> bool:
        return self.exponent == round(self.exponent)

    @property
    def turns(self) -> tuple[float, ...]:  # type: ignore[override]
        return (0.0,) if self._whole else ()

    @property
    def extrema(self) -> tuple[float, ...]:  # type: ignore[override]
        return (0.0,) if self._whole and self.exponent > 0 else ()

    def inside(self, ends: Ends) -> NDArray[np.bool_]:
        if self._whole and self.exponent > 0:
            return np.ones(ends[0].shape, bool)
        positive = ends[0] >= 0 if self.exponent > 0 else ends[0] > 0
        return np.asarray(positive | (ends[1] < 0) if self._whole else positive)

    def act(self, z: Floats) -> Floats:
        return np.asarray(z**self.exponent)

    def derivative(self, z: Floats, piece: int) -> Floats:
        return np.asarray(self.exponent * z ** (self.exponent - 1))

    def stationary(self, slope: Floats, piece: int) -> Floats | None:
        if self._whole:
            return None
        root = np.maximum(slope / self.exponent, 0.0) ** (1 / (self.exponent - 1))
        return np.maximum(root, 2.0**-900)
