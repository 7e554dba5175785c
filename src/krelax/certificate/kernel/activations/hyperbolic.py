"""Hyperbolic and trigonometric functions, by their pieces below and above zero."""

from __future__ import annotations

from math import inf

import numpy as np

from krelax.certificate.kernel.activations.curve import Curve
from krelax.certificate.kernel.arithmetic import Floats

_LARGEST = 2.0**500


class _Steepening(Curve):
    """Rising, concave below zero and convex above, with a derivative that rises from 1 to both sides alike."""

    turns = (0.0,)

    def distance(self, slope: Floats) -> Floats:
        """How far from zero it has a slope of at least 1."""
        raise NotImplementedError

    def stationary(self, slope: Floats, piece: int) -> Floats:
        found = self.distance(np.clip(slope, 1.0, _LARGEST))
        return found if piece else -found


class Sinh(_Steepening):
    """The hyperbolic sine."""

    name = "sinh"

    def act(self, z: Floats) -> Floats:
        return np.sinh(z)

    def derivative(self, z: Floats, piece: int) -> Floats:
        return np.cosh(z)

    def distance(self, slope: Floats) -> Floats:
        return np.arccosh(slope)


class Cosh(Curve):
    """The hyperbolic cosine."""

    name, extrema, range = "cosh", (0.0,), (1.0, inf)

    def act(self, z: Floats) -> Floats:
        return np.cosh(z)

    def derivative(self, z: Floats, piece: int) -> Floats:
        return np.sinh(z)

    def stationary(self, slope: Floats, piece: int) -> Floats:
        return np.arcsinh(np.clip(slope, -_LARGEST, _LARGEST))


class Tan(_Steepening):
    """The tangent between the poles next to zero."""

    name, domain = "tan", (-1.5707963267948966, 1.5707963267948966)

    def act(self, z: Floats) -> Floats:
        return np.tan(z)

    def derivative(self, z: Floats, piece: int) -> Floats:
        return 1 + np.tan(z) ** 2

    def distance(self, slope: Floats) -> Floats:
        return np.arctan(np.sqrt(slope - 1))


class Asin(_Steepening):
    """The inverse sine."""

    name, domain, somewhere, range = "asin", (-1.0, 1.0), 0.5, (-1.5707963267948968, 1.5707963267948968)

    def act(self, z: Floats) -> Floats:
        return np.arcsin(z)

    def derivative(self, z: Floats, piece: int) -> Floats:
        return 1 / np.sqrt((1 - z) * (1 + z))

    def distance(self, slope: Floats) -> Floats:
        return np.sqrt((1 - 1 / slope) * (1 + 1 / slope))


class Atanh(_Steepening):
    """The inverse hyperbolic tangent."""

    name, domain, somewhere = "atanh", (-1.0, 1.0), 0.5

    def act(self, z: Floats) -> Floats:
        return np.arctanh(z)

    def derivative(self, z: Floats, piece: int) -> Floats:
        return 1 / ((1 - z) * (1 + z))

    def distance(self, slope: Floats) -> Floats:
        return np.sqrt(1 - 1 / slope)


class Acosh(Curve):
    """The inverse hyperbolic cosine, from 1 on."""

    name, domain, somewhere, range = "acosh", (1.0, inf), 2.0, (0.0, inf)

    def act(self, z: Floats) -> Floats:
        return np.arccosh(z)

    def derivative(self, z: Floats, piece: int) -> Floats:
        return 1 / (np.sqrt(z - 1) * np.sqrt(z + 1))

    def stationary(self, slope: Floats, piece: int) -> Floats:
        return np.sqrt(1 + np.clip(slope, 1 / _LARGEST, _LARGEST) ** -2.0)
