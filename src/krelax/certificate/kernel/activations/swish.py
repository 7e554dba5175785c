"""Curves that are z times a gate from 0 to 1: concave, convex between two turns, and concave again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import erfc, inf, pi, sqrt

import numpy as np

from krelax.certificate.kernel.activations.curve import Curve
from krelax.certificate.kernel.activations.rule import Ends
from krelax.certificate.kernel.arithmetic import Floats

_ERFC = np.frompyfunc(erfc, 1, 1)
_NODES, _SECANTS, _BESIDE = 4096, 2, 1e-5
_FURTHEST = 740.0
_GAIN, _CUBE = sqrt(2 / pi), 0.044715


class Gated(Curve):
    """Values and derivatives cancel in the tails, so they have an absolute error."""

    absolute = 2.0**-46

    @cached_property
    def _tables(self) -> list[Ends]:
        """Slopes in rising order, and where they are, for each piece."""
        share, (first, last), tables = np.linspace(0.0, 1.0, _NODES), self.turns, []
        nodes = (
            first - (first + _FURTHEST) * share**2,
            first + (last - first) * (1 - np.cos(pi * share)) / 2,
            last + (_FURTHEST - last) * share**2,
        )
        for piece, z in enumerate(nodes):
            slope = self.derivative(z, piece)
            order = np.argsort(slope, kind="stable")
            tables.append((slope[order], z[order]))
        return tables

    def stationary(self, slope: Floats, piece: int) -> Floats:
        """Between two nodes, and then by secants; any point would do."""
        z = np.interp(slope, *self._tables[piece])
        for _ in range(_SECANTS):
            bend = self.derivative(z + _BESIDE, piece) - self.derivative(z - _BESIDE, piece)
            step = 2 * _BESIDE * (self.derivative(z, piece) - slope) / bend
            z = z - np.where(np.isfinite(step), np.clip(step, -0.1, 0.1), 0.0)
        return z


class SiLU(Gated):
    """`z * sigmoid(z)`."""

    name, turns, extrema = "SiLU", (-2.3993572805154677, 2.3993572805154677), (-1.2784645427610738,)

    def act(self, z: Floats) -> Floats:
        return z / (1 + np.exp(-z))

    def derivative(self, z: Floats, piece: int) -> Floats:
        s = 1 / (1 + np.exp(-z))
        return s * (1 + z / (1 + np.exp(z)))


class GELU(Gated):
    """`z * Phi(z)`, with the distribution function of the normal distribution."""

    name, turns, extrema = "GELU", (-1.4142135623730951, 1.4142135623730951), (-0.7517915246935645,)

    def act(self, z: Floats) -> Floats:
        return z * self._below(z)

    def derivative(self, z: Floats, piece: int) -> Floats:
        return self._below(z) + z * np.exp(-z * z / 2) / sqrt(2 * pi)

    @staticmethod
    def _below(z: Floats) -> Floats:
        return 0.5 * np.asarray(_ERFC(z / -sqrt(2.0)), dtype=np.float64)


@dataclass(frozen=True)
class TanhGELU(Gated):
    """`z (1 + tanh(gain (z + cube z^3))) / 2`, with constants near the published ones."""

    name = "tanh form of GELU"
    gain: float = _GAIN
    cube: float = _CUBE

    @classmethod
    def near(cls, gain: float, cube: float) -> TanhGELU | None:
        """The form with these constants; None where its shape is not known."""
        close = abs(gain - _GAIN) <= _GAIN / 128 and abs(cube - _CUBE) <= _CUBE / 128
        return cls(gain, cube) if close else None

    @cached_property
    def turns(self) -> tuple[float, ...]:  # type: ignore[override]
        turn = self._root(self._bend, 1.0, 2.0)
        return (-turn, turn)

    @cached_property
    def extrema(self) -> tuple[float, ...]:  # type: ignore[override]
        return (self._root(lambda z: float(self.derivative(np.asarray(z), 0)), -1.0, -0.5),)

    def act(self, z: Floats) -> Floats:
        return z * (0.5 + 0.5 * self._tanh(z))

    def derivative(self, z: Floats, piece: int) -> Floats:
        t = self._tanh(z)
        z = np.clip(z, -1e6, 1e6)  # where t has long been 1
        return 0.5 + 0.5 * t + 0.5 * z * (1 - t) * (1 + t) * self.gain * (1 + 3 * self.cube * z * z)

    def _tanh(self, z: Floats) -> Floats:
        return np.tanh(self.gain * z * (1 + self.cube * z * z))

    def _bend(self, z: float) -> float:
        """A positive multiple of the second derivative, at positive numbers."""
        t, steep = float(self._tanh(np.asarray(z))), self.gain * (1 + 3 * self.cube * z * z)
        return 2 * steep + z * (6 * self.gain * self.cube * z - 2 * t * steep * steep)

    @staticmethod
    def _root(function: Callable[[float], float], low: float, high: float) -> float:
        """Where a function changes sign, by bisection."""
        positive = function(low) > 0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if (function(middle) > 0) == positive else (low, middle)
        return low


class Mish(Gated):
    """`z * tanh(softplus(z))`."""

    name, turns, extrema = "mish", (-2.256376396360793, 1.4905711794854284), (-1.1924312145154952,)

    def act(self, z: Floats) -> Floats:
        return z * np.tanh(np.logaddexp(z, 0.0))

    def derivative(self, z: Floats, piece: int) -> Floats:
        t = np.tanh(np.logaddexp(z, 0.0))
        return t + z * (1 - t) * (1 + t) * np.exp(-np.logaddexp(-z, 0.0))


class HardSwish(Curve):
    """`z * min(max(z + 3, 0), 6) / 6`."""

    name, turns, extrema, range = "hard swish", (-3.0, 3.0), (-1.5,), (-0.375, inf)

    def act(self, z: Floats) -> Floats:
        return z * (np.clip(z + 3, 0.0, 6.0) / 6)

    def derivative(self, z: Floats, piece: int) -> Floats:
        return z / 3 + 0.5 if piece == 1 else np.full(np.shape(z), 1.0 if piece else 0.0)

    def stationary(self, slope: Floats, piece: int) -> Floats:
        return 3 * slope - 1.5
