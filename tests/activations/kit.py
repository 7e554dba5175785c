"""The activations under test and their values to 60 digits: add one line here for every new activation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mpmath
import torch
from torch import Tensor

from krelax.activations import (
    Activation,
    Exp,
    LeakyReLU,
    Log,
    Max,
    Power,
    Reciprocal,
    ReciprocalSqrt,
    Relaxation,
    ReLU,
    Sigmoid,
    Softplus,
    Sqrt,
    Square,
    Tanh,
)

mpmath.mp.prec = 200
mpf = mpmath.mpf
Number = mpmath.mpf


def _piecewise(slope: float) -> Callable[[Number], Number]:
    return lambda z: z if z > 0 else slope * z


def _no_points(slope: float, coeff: float) -> list[Number]:
    return []


def _sigmoid(z: Number) -> Number:
    return 1 / (1 + mpmath.exp(-z))


def _stationary(steepest: float, gain: float) -> Callable[[float, float], list[Number]]:
    """Where `slope z - coeff act(z)` is stationary, for an act with derivative `4 steepest s (1 - s)`, s(gain z)."""

    def points(slope: float, coeff: float) -> list[Number]:
        share = mpf(slope) / (4 * mpf(steepest) * mpf(coeff)) if coeff else mpf(0)
        if not 0 < share <= 0.25:
            return []
        s = 2 * share / (1 + mpmath.sqrt(1 - 4 * share))
        z = mpmath.log(s / (1 - s)) / gain
        return [z, -z]

    return points


def _everywhere(lower: float, upper: float) -> bool:
    return True


def _slope(inverse: Callable[[Number], list[Number]]) -> Callable[[float, float], list[Number]]:
    """Stationary points of an act, by where its derivative has a given value."""

    def points(slope: float, coeff: float) -> list[Number]:
        return inverse(mpf(slope) / mpf(coeff)) if coeff else []

    return points


@dataclass(frozen=True)
class Elementwise:
    """An activation of one number: `act` is its exact value, `stationary(slope, coeff)` where the support may lie, and
    `defined` says over which intervals it is defined."""

    name: str
    op: Activation
    act: Callable[[Number], Number]
    stationary: Callable[[float, float], list[Number]] = _no_points
    defined: Callable[[float, float], bool] = _everywhere

    @property
    def total(self) -> bool:
        """Whether it is defined for every number."""
        return self.defined is _everywhere

    def height(self, lower: float, upper: float) -> Number:
        """Largest |act(z)| in an interval."""
        flat = [z for z in self.stationary(0.0, 1.0) if lower <= z <= upper]
        return max(abs(self.act(z)) for z in (mpf(lower), mpf(upper), *flat))

    def takes(self, lower: float, upper: float, dtype: torch.dtype) -> bool:
        """Whether its values over an interval are numbers, and far from overflow."""
        return self.defined(lower, upper) and self.height(lower, upper) < torch.finfo(dtype).max / 64

    def relax(self, intervals: Sequence[tuple[float, float]], dtype: torch.dtype) -> Relaxation:
        """Its relaxation over a batch of intervals: bounds of shape `(len(intervals), 1)`."""
        lower, upper = torch.tensor(intervals, dtype=dtype).unsqueeze(-1).unbind(1)
        return self.op.relax(lower, upper)


@dataclass(frozen=True)
class Windowed:
    """An activation of `size` numbers, which are the last axis of its operand."""

    name: str
    op: Activation
    act: Callable[[Sequence[Number]], Number]
    size: int

    def relax(self, lower: Tensor, upper: Tensor) -> Relaxation:
        """Its relaxation over a batch of boxes `(batch, size)`."""
        return self.op.relax(lower, upper)


def _power(exponent: float) -> Elementwise:
    """Of an integer for all numbers, but for zero if it is negative; else for positive ones."""
    p = mpf(exponent)
    whole = p == int(p)

    def points(slope: Number) -> list[Number]:
        root = abs(slope / p) ** (1 / (p - 1)) if slope or exponent > 1 else None
        return [] if root is None else [root, -root] if whole else [root]

    def defined(lower: float, upper: float) -> bool:
        return lower > 0 or (exponent > 0 and lower == 0) or (whole and upper < 0)

    power = int(p) if whole else p
    allowed = _everywhere if whole and p > 0 else defined
    return Elementwise(f"power-{exponent:g}", Power(exponent), lambda z: z**power, _slope(points), allowed)


def _logit(share: Number) -> list[Number]:
    return [mpmath.log(share / (1 - share))] if 0 < share < 1 else []


ELEMENTWISE = [
    Elementwise("relu", ReLU(), _piecewise(0.0)),
    *(Elementwise(f"leaky-{s:g}", LeakyReLU(s), _piecewise(s)) for s in (0.0, 1e-9, 0.01, 0.3, 1.0)),
    Elementwise("sigmoid", Sigmoid(), _sigmoid, _stationary(0.25, 1)),
    Elementwise("tanh", Tanh(), mpmath.tanh, _stationary(1.0, 2)),
    Elementwise("exp", Exp(), mpmath.exp, _slope(lambda s: [mpmath.log(s)] if s > 0 else [])),
    Elementwise("log", Log(), mpmath.log, _slope(lambda s: [1 / s] if s > 0 else []), lambda l, u: l > 0),
    Elementwise("softplus", Softplus(), lambda z: mpmath.log1p(mpmath.exp(z)), _slope(_logit)),
    Elementwise("square", Square(), lambda z: z * z, _slope(lambda s: [s / 2])),
    Elementwise(
        "reciprocal-sqrt",
        ReciprocalSqrt(),
        lambda z: 1 / mpmath.sqrt(z),
        _slope(lambda s: [(-2 * s) ** (-mpf(2) / 3)] if s < 0 else []),
        lambda l, u: l > 0,
    ),
    *map(_power, (3.0, 4.0, -3.0, -2.0, 1.5, 0.3, -0.7)),
    Elementwise("sqrt", Sqrt(), mpmath.sqrt, _slope(lambda s: [1 / (4 * s * s)] if s > 0 else []), lambda l, u: l >= 0),
    Elementwise(
        "reciprocal",
        Reciprocal(),
        lambda z: 1 / z,
        _slope(lambda s: [mpmath.sqrt(-1 / s), -mpmath.sqrt(-1 / s)] if s < 0 else []),
        lambda l, u: l > 0 or u < 0,
    ),
]
WINDOWED = [Windowed(f"max-{n}", Max(), max, n) for n in range(1, 6)]
