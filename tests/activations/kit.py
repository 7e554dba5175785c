"""The activations under test and their values to 60 digits: add one line here for every new activation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any, TypeAlias

import mpmath
import torch
from torch import Tensor

from krelax.activations import (
    ELU,
    GELU,
    Acosh,
    Activation,
    Asin,
    Atan,
    Atanh,
    Ceil,
    Cos,
    Cosh,
    Difference,
    Erf,
    Exp,
    Floor,
    HardSwish,
    LeakyReLU,
    Log,
    LogSumExp,
    Max,
    Mish,
    Power,
    Product,
    Quantise,
    Reciprocal,
    ReciprocalSqrt,
    Relaxation,
    ReLU,
    Round,
    Share,
    Shrink,
    Sigmoid,
    Sign,
    SiLU,
    Sin,
    Sinh,
    Softplus,
    Softsign,
    Sqrt,
    Square,
    Step,
    Tan,
    Tanh,
    TanhGELU,
    Threshold,
)
from krelax.activations.swish import Gated

mpmath.mp.prec = 200
mpf = mpmath.mpf
Number: TypeAlias = Any  # of mpmath


def _piecewise(slope: float) -> Callable[[Number], Number]:
    return lambda z: z if z > 0 else slope * z


def _apart(slope: float) -> Callable[[Sequence[Number]], Number]:
    act = _piecewise(slope)

    def exact(z: Sequence[Number]) -> Number:
        with mpmath.workprec(4500):  # the sum of two numbers of any size
            return act(z[0] + z[1]) - act(z[0])

    return exact


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


def _exactly(z: Number) -> Number:
    return mpf(0)


def _no_limits(z: Number) -> list[Number]:
    return []


def _everywhere(lower: float, upper: float) -> bool:
    return True


def _slope(inverse: Callable[[Number], list[Number]]) -> Callable[[float, float], list[Number]]:
    """Stationary points of an act, by where its derivative has a given value."""

    @cache
    def points(slope: float, coeff: float) -> list[Number]:
        return inverse(mpf(slope) / mpf(coeff)) if coeff else []

    return points


@dataclass(frozen=True)
class Elementwise:
    """An activation of one number: `act` is its exact value, `stationary(slope, coeff)` where the support may lie, and
    `defined` says over which intervals it is defined.

    Computed values may be off by `blur` units more, of which supports know. `limits` are one-sided ones where it jumps.
    Points are listed up to the `furthest` one.
    """

    name: str
    op: Activation
    act: Callable[[Number], Number]
    stationary: Callable[[float, float], list[Number]] = _no_points
    defined: Callable[[float, float], bool] = _everywhere
    blur: Callable[[Number], Number] = _exactly
    limits: Callable[[Number], list[Number]] = _no_limits
    furthest: float = math.inf

    @property
    def total(self) -> bool:
        """Whether it is defined for every number."""
        return self.defined is _everywhere

    @property
    def jumps(self) -> bool:
        """Whether it jumps somewhere: the closure of its graph has more points than the graph."""
        return self.limits is not _no_limits

    def height(self, lower: float, upper: float) -> Number:
        """Largest |act(z)| in an interval."""
        return _height(self, lower, upper)

    def values(self, z: Number) -> list[Number]:
        """Its value, and what it comes near to from either side."""
        return [self.act(z), *self.limits(z)]

    def takes(self, lower: float, upper: float, dtype: torch.dtype) -> bool:
        """Whether its values over an interval are numbers, and far from overflow."""
        within = max(abs(lower), abs(upper)) <= self.furthest
        return within and self.defined(lower, upper) and self.height(lower, upper) < torch.finfo(dtype).max / 64

    def relax(self, intervals: Sequence[tuple[float, float]], dtype: torch.dtype) -> Relaxation:
        """Its relaxation over a batch of intervals: bounds of shape `(len(intervals), 1)`."""
        lower, upper = torch.tensor(intervals, dtype=dtype).unsqueeze(-1).unbind(1)
        return self.op.relax(lower, upper)


@cache
def _height(entry: Elementwise, lower: float, upper: float) -> Number:
    flat = [z for z in entry.stationary(0.0, 1.0) if lower <= z <= upper]
    return max(abs(entry.act(z)) for z in (mpf(lower), mpf(upper), *flat))


@dataclass(frozen=True)
class Windowed:
    """An activation of `size` numbers, which are the last axis of its operand. `height` is how large it can be, by how
    large they can be. The relaxation of one that is not `tight` is larger than the hull of its graph."""

    name: str
    op: Activation
    act: Callable[[Sequence[Number]], Number]
    size: int
    height: Callable[[Sequence[Number]], Number] = max
    tight: bool = True

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


def _both(root: Number) -> list[Number]:
    return [root, -root]


def _elu(alpha: float, scale: float, stretch: float) -> Elementwise:
    a, b, c = mpf(alpha), mpf(scale), mpf(stretch)

    def act(z: Number) -> Number:
        return b * z if z > 0 else b * a * mpmath.expm1(z / c)

    def points(slope: Number) -> list[Number]:
        return [z for z in ([c * mpmath.log(slope * c / (a * b))] if slope > 0 else []) if z < 0]

    return Elementwise(f"elu-{alpha:g}-{stretch:g}", ELU(alpha, scale, stretch), act, _slope(points))


def _normal(z: Number) -> Number:
    return mpmath.erfc(-z / mpmath.sqrt(2)) / 2


# The constants of the tanh form of GELU, and what they are in float32 and beside that.
_GAIN, _CUBE = mpmath.sqrt(2 / mpmath.pi), mpf(0.044715)
_OTHERS = ((0.7978845834732056, 0.044714998453855515), (0.7925, 0.04503))


def _tanh_gelu(name: str, op: TanhGELU, gain: Number, cube: Number) -> Elementwise:
    def inner(z: Number) -> Number:
        return 2 * gain * (z + cube * z**3)

    def rise(z: Number) -> Number:
        return 2 * gain * (1 + 3 * cube * z * z) * _sigmoid(inner(z)) * _sigmoid(-inner(z))

    return _gated(name, op, lambda z: _sigmoid(inner(z)), rise, lambda z: max(-4 * inner(z), mpf(0)))


def _gated(
    name: str,
    op: Gated,
    gate: Callable[[Number], Number],
    rise: Callable[[Number], Number],
    blur: Callable[[Number], Number] = _exactly,
) -> Elementwise:
    """z times a gate, which has the derivative `rise`."""
    turns = op.profile.turns

    def derivative(z: Number) -> Number:
        return gate(z) + z * rise(z)

    @cache
    def steps() -> list[tuple[Number, Number]]:
        """Many places, closer to each other at turns, and the derivative there."""
        ends, shares = [mpf(-300), *map(mpf, turns), mpf(60)], [mpf(i) / 64 for i in range(64)]
        every = [low + (high - low) * s * s * (3 - 2 * s) for low, high in pairwise(ends) for s in shares]
        return [(z, derivative(z)) for z in (*every, ends[-1])]

    def points(slope: Number) -> list[Number]:
        found = []
        for (low, first), (high, last) in pairwise(steps()):
            if first == slope:
                found.append(low)
            elif (first - slope) * (last - slope) < 0:
                missing = lambda z: derivative(z) - slope  # noqa: E731
                # Values there are off by the square of that.
                found.append(mpmath.findroot(missing, (low, high), solver="ridder", tol=1e-40, verify=False))
        return found

    return Elementwise(name, op, lambda z: z * gate(z), _slope(points), blur=blur)


def _mish_gate(z: Number) -> Number:
    return mpmath.tanh(mpmath.log1p(mpmath.exp(z)))


def _hard_swish(z: Number) -> Number:
    return z * min(max(z + 3, mpf(0)), mpf(6)) / 6


def _periods(angles: Callable[[Number], list[Number]]) -> Callable[[float, float], list[Number]]:
    def points(ratio: Number) -> list[Number]:
        return [z + 2 * mpmath.pi * k for z in (angles(ratio) if abs(ratio) <= 1 else []) for k in range(-8, 9)]

    return _slope(points)


def _jumps(
    name: str, op: Activation, act: Callable[[Number], Number], places: Sequence[float], *, whole: bool = False
) -> Elementwise:
    """A function that jumps at some places, or at whole numbers from the first of them."""
    tiny = mpf(2) ** -150
    every = [mpf(p) + k for p in places for k in range(-4, 5)] if whole else [mpf(p) for p in places]
    near = [z + side * tiny for z in every for side in (-1, 0, 1)]

    def limits(z: Number) -> list[Number]:
        jumps = (z - mpf(places[0])) == int(z - mpf(places[0])) if whole else z in every
        return [act(z - abs(z) * tiny - tiny), act(z + abs(z) * tiny + tiny)] if jumps else []

    return Elementwise(name, op, act, lambda slope, coeff: near, limits=limits)


def _shrunk(limit: float, bias: float) -> Callable[[Number], Number]:
    return lambda z: z - bias * mpmath.sign(z) if abs(z) > limit else mpf(0)


def _log_sum_exp(z: Sequence[Number]) -> Number:
    top = max(z)
    return top + mpmath.log(mpmath.fsum(mpmath.exp(v - top) for v in z))


ELEMENTWISE = [
    Elementwise("relu", ReLU(), _piecewise(0.0)),
    *(Elementwise(f"leaky-{s:g}", LeakyReLU(s), _piecewise(s)) for s in (0.0, 1e-9, 0.01, 0.3, 1.0)),
    Elementwise("sigmoid", Sigmoid(), _sigmoid, _stationary(0.25, 1)),
    Elementwise("tanh", Tanh(), mpmath.tanh, _stationary(1.0, 2)),
    Elementwise(
        "erf",
        Erf(),
        mpmath.erf,
        _slope(lambda s: _both(mpmath.sqrt(-mpmath.log(s * mpmath.sqrt(mpmath.pi) / 2))) if 0 < s < 1.128 else []),
    ),
    Elementwise("atan", Atan(), mpmath.atan, _slope(lambda s: _both(mpmath.sqrt(1 / s - 1)) if 0 < s <= 1 else [])),
    Elementwise(
        "softsign",
        Softsign(),
        lambda z: z / (1 + abs(z)),
        _slope(lambda s: _both(1 / mpmath.sqrt(s) - 1) if 0 < s <= 1 else []),
    ),
    _gated("silu", SiLU(), _sigmoid, lambda z: _sigmoid(z) * _sigmoid(-z)),
    _gated("gelu", GELU(), _normal, mpmath.npdf, lambda z: z * z if z < 0 else mpf(0)),
    _tanh_gelu("gelu-tanh", TanhGELU(), _GAIN, _CUBE),
    *(_tanh_gelu(f"gelu-tanh-{g:g}", TanhGELU(g, c), mpf(g), mpf(c)) for g, c in _OTHERS),
    _gated("mish", Mish(), _mish_gate, lambda z: (1 - _mish_gate(z) ** 2) * _sigmoid(z)),
    Elementwise("hard-swish", HardSwish(), _hard_swish, _slope(lambda s: [3 * s - mpf(1.5)])),
    Elementwise("sin", Sin(), mpmath.sin, _periods(lambda s: _both(mpmath.acos(s))), furthest=20.0),
    Elementwise(
        "cos", Cos(), mpmath.cos, _periods(lambda s: [-mpmath.asin(s), mpmath.pi + mpmath.asin(s)]), furthest=20.0
    ),
    Elementwise(
        "sinh", Sinh(), mpmath.sinh, _slope(lambda s: _both(mpmath.acosh(s)) if s >= 1 else []), furthest=600.0
    ),
    Elementwise("cosh", Cosh(), mpmath.cosh, _slope(lambda s: [mpmath.asinh(s)]), furthest=600.0),
    Elementwise(
        "tan",
        Tan(),
        mpmath.tan,
        _slope(lambda s: _both(mpmath.atan(mpmath.sqrt(s - 1))) if s >= 1 else []),
        lambda l, u: l > -1.57 and u < 1.57,
    ),
    Elementwise(
        "asin",
        Asin(),
        mpmath.asin,
        _slope(lambda s: _both(mpmath.sqrt(1 - 1 / s**2)) if s >= 1 else []),
        lambda l, u: l >= -1 and u <= 1,
    ),
    Elementwise(
        "acosh",
        Acosh(),
        mpmath.acosh,
        _slope(lambda s: [mpmath.sqrt(1 + 1 / s**2)] if s > 0 else []),
        lambda l, u: l >= 1,
    ),
    Elementwise(
        "atanh",
        Atanh(),
        mpmath.atanh,
        _slope(lambda s: _both(mpmath.sqrt(1 - 1 / s)) if s >= 1 else []),
        lambda l, u: l > -1 and u < 1,
    ),
    _jumps("floor", Floor(), mpmath.floor, [0.0], whole=True),
    _jumps("ceil", Ceil(), mpmath.ceil, [0.0], whole=True),
    _jumps("round", Round(), mpmath.nint, [0.5], whole=True),
    _jumps("quantise", Quantise(-2.0, 3.0), lambda z: min(max(mpmath.nint(z), mpf(-2)), mpf(3)), [0.5], whole=True),
    _jumps("sign", Sign(), mpmath.sign, [0.0]),
    _jumps("step", Step(), lambda z: mpf(z > 0), [0.0]),
    _jumps("step-1", Step(1.0), lambda z: mpf(z >= 0), [0.0]),
    _jumps("threshold", Threshold(0.25, 0.125), lambda z: z if z > 0.25 else mpf(0.125), [0.25]),
    _jumps("shrink-hard", Shrink(0.5), _shrunk(0.5, 0.0), [-0.5, 0.5]),
    _jumps("shrink-soft", Shrink(0.5, 0.5), _shrunk(0.5, 0.5), [-0.5, 0.5]),
    *(_elu(*numbers) for numbers in ((1.0, 1.0, 1.0), (2.0, 1.05, 1.0), (0.5, 1.0, 1.0), (1.5, 1.0, 1.5))),
    Elementwise("exp", Exp(), mpmath.exp, _slope(lambda s: [mpmath.log(s)] if s > 0 else [])),
    Elementwise(
        "share",
        Share(),
        lambda z: mpmath.exp(min(z, mpf(0))),
        _slope(lambda s: [mpmath.log(s)] if 0 < s <= 1 else []),
    ),
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
WINDOWED = [
    *(Windowed(f"max-{n}", Max(), max, n) for n in range(1, 6)),
    *(Windowed(f"difference-{s:g}", Difference(s), _apart(s), 2, lambda z: z[1]) for s in (0.0, 0.3)),
    *(
        Windowed(f"log-sum-exp-{n}", LogSumExp(), _log_sum_exp, n, lambda z: max(z) + mpmath.log(len(z)), False)
        for n in range(1, 4)
    ),
    Windowed("product", Product(), mpmath.fprod, 2, mpmath.fprod),
]
