"""The activations under test and their values to 60 digits: add one line here for every new activation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mpmath
import torch
from torch import Tensor

from krelax.activations import Activation, LeakyReLU, Max, Product, Relaxation, ReLU, Sigmoid, Tanh

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


@dataclass(frozen=True)
class Elementwise:
    """An activation of one number: `act` is its exact value, `stationary(slope, coeff)` where the support may lie."""

    name: str
    op: Activation
    act: Callable[[Number], Number]
    stationary: Callable[[float, float], list[Number]] = _no_points

    def relax(self, intervals: Sequence[tuple[float, float]], dtype: torch.dtype) -> Relaxation:
        """Its relaxation over a batch of intervals: bounds of shape `(len(intervals), 1)`."""
        lower, upper = torch.tensor(intervals, dtype=dtype).unsqueeze(-1).unbind(1)
        return self.op.relax(lower, upper)


@dataclass(frozen=True)
class Windowed:
    """An activation of `size` numbers, which are the last axis of its operand. `height` is how large it can be, by how
    large they can be."""

    name: str
    op: Activation
    act: Callable[[Sequence[Number]], Number]
    size: int
    height: Callable[[Sequence[Number]], Number] = max

    def relax(self, lower: Tensor, upper: Tensor) -> Relaxation:
        """Its relaxation over a batch of boxes `(batch, size)`."""
        return self.op.relax(lower, upper)


ELEMENTWISE = [
    Elementwise("relu", ReLU(), _piecewise(0.0)),
    *(Elementwise(f"leaky-{s:g}", LeakyReLU(s), _piecewise(s)) for s in (0.0, 1e-9, 0.01, 0.3, 1.0)),
    Elementwise("sigmoid", Sigmoid(), _sigmoid, _stationary(0.25, 1)),
    Elementwise("tanh", Tanh(), mpmath.tanh, _stationary(1.0, 2)),
]
WINDOWED = [
    *(Windowed(f"max-{n}", Max(), max, n) for n in range(1, 6)),
    Windowed("product", Product(), mpmath.fprod, 2, mpmath.fprod),
]
