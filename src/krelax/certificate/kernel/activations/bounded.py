"""Curves that are bounded on both sides."""

from __future__ import annotations

from math import erf, pi, sqrt

import numpy as np

from krelax.certificate.kernel.activations.curve import Curve
from krelax.certificate.kernel.arithmetic import Floats

_LEAST = 2.0**-1000
_ERF = np.frompyfunc(erf, 1, 1)


class _Sided(Curve):
    """Rising, convex below zero and concave above, with a derivative that falls to both sides alike."""

    turns = (0.0,)

    def distance(self, slope: Floats) -> Floats:
        """How far from zero it has a slope between zero and that at zero."""
        raise NotImplementedError

    def stationary(self, slope: Floats, piece: int) -> Floats:
        steepest = self.derivative(np.zeros(()), 0)
        found = np.where(slope > 0, self.distance(np.clip(slope, _LEAST, steepest)), np.inf)
        return found if piece else -found


class Erf(_Sided):
    """The error function."""

    name, range = "erf", (-1.0, 1.0)

    def act(self, z: Floats) -> Floats:
        return np.asarray(_ERF(z), dtype=np.float64)

    def derivative(self, z: Floats, piece: int) -> Floats:
        return (2 / sqrt(pi)) * np.exp(-z * z)

    def distance(self, slope: Floats) -> Floats:
        return np.sqrt(np.maximum(-np.log(slope * (sqrt(pi) / 2)), 0.0))


class Atan(_Sided):
    """The inverse tangent."""

    name, range = "atan", (-1.5707963267948968, 1.5707963267948968)

    def act(self, z: Floats) -> Floats:
        return np.arctan(z)

    def derivative(self, z: Floats, piece: int) -> Floats:
        return 1 / (1 + z * z)

    def distance(self, slope: Floats) -> Floats:
        return np.sqrt(1 / slope - 1)


class Softsign(_Sided):
    """`z / (1 + |z|)`."""

    name, range = "softsign", (-1.0, 1.0)

    def act(self, z: Floats) -> Floats:
        return z / (1 + abs(z))

    def derivative(self, z: Floats, piece: int) -> Floats:
        return (1 + abs(z)) ** -2.0

    def distance(self, slope: Floats) -> Floats:
        return slope**-0.5 - 1
