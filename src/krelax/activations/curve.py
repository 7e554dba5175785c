"""Curves: functions of one number that are convex or concave between finitely many points.

The support function of the graph over an interval is attained at an end, at a kink, or where the derivative is
`slope / coeff`. So a curve says what it computes, its derivative, where the derivative has a given value, and where it
bends which way; every line, interval and split follows from that. Any slope is usable, because its intercept is a
value of the support function: slopes only have to be proposed, never to be right.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from math import inf

import numpy as np
import torch
from torch import Tensor

from krelax.activations.base import Activation, Relaxation, Rule, Support

# Slopes are written down in float32.
_STEEPEST = 1e30
# Intervals that are narrower, relatively, have no chord: the derivative in their middle is as good.
_NARROW = 1e-6
# Slopes that are optimised are those of the curve but for such a share of the interval at both ends.
_BESIDE = 1 / 64
# Steps of bisection for lines below what is neither convex nor concave.
_STEPS = 20
# Half of the units of rounding that values are trusted to, for the ends of intervals.
_ULPS = 16


@dataclass(frozen=True)
class Profile:
    """What a curve looks like.

    `bends` has a sign for every piece between the `turns` and, between these, for every turn: `+` where the curve is
    convex, `-` where it is concave, `0` where it is linear, or has no kink. So `-0+` is concave before its turn, convex
    behind it, and smooth; `0+0` is a ReLU. At `extrema` it may change between rising and falling. All its values lie in
    `range`, and it is defined on the interval `domain`; `somewhere` is a point of it.
    """

    bends: str
    turns: tuple[float, ...] = ()
    extrema: tuple[float, ...] = ()
    range: tuple[float, float] = (-inf, inf)
    domain: tuple[float, float] = (-inf, inf)
    somewhere: float = 1.0

    @property
    def kinks(self) -> list[float]:
        """Turns where the derivative jumps."""
        return [t for t, bend in zip(self.turns, self.bends[1::2], strict=True) if bend != "0"]


class Curve(Activation):
    """A function of one number, given by its profile.

    Values must be exact up to 4 units of roundoff, relatively, and finite inside the domain, but for what overflows;
    an infinite value is taken for an end of the domain.
    """

    profile: Profile

    @abstractmethod
    def derivative(self, z: Tensor) -> Tensor:
        """The derivative, or nearly so: it proposes slopes."""

    @abstractmethod
    def stationary(self, slope: Tensor) -> tuple[Tensor, ...]:
        """All points where the derivative may be `slope`, but for rounding: the derivative there, or the point itself,
        is within a few units of roundoff. Anything where there is none."""

    def found(self, slope: Tensor) -> list[tuple[Tensor, Tensor | None]]:
        """The same, and how much higher than the tangent at such a point others near it may be that have this very
        slope, by the coefficient; None if that is only rounding."""
        return [(z, None) for z in self.stationary(slope)]

    def blur(self, z: Tensor) -> Tensor | None:
        """How many more units of rounding (of the type's eps) values may be off, relatively."""
        return None

    def inside(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Whether it is defined all over an interval."""
        first, last = self.profile.domain
        return (lower >= first) & (upper <= last)

    def relax(self, lower: Tensor, upper: Tensor) -> CurveHull:
        return CurveHull(self, lower, upper)


class CurveHull(Relaxation):
    """The convex hull of a curve's graph. Where the curve is not defined all over the interval, or its values or the
    interval are not bounded, nothing is known: lines are infinitely far away."""

    derived = Rule.PARALLEL
    step = None
    op: Curve

    def __init__(self, op: Curve, lower: Tensor, upper: Tensor) -> None:
        super().__init__(op, lower, upper)
        bends = op.profile.bends
        self.optimised = ("+" in bends, "-" in bends)
        at = op.forward(self.lower), op.forward(self.upper)
        finite = (self.upper - self.lower).isfinite() & at[0].isfinite() & at[1].isfinite()
        self._known = finite & op.inside(self.lower, self.upper)
        self._all_known = bool(self._known.all())
        # where nothing is known, a point of the domain stands for the interval
        self._ends = self._inside(self.lower), self._inside(self.upper)
        self._at = at if self._all_known else (op.forward(self._ends[0]), op.forward(self._ends[1]))
        self._bends: tuple[Tensor, Tensor] | None = None
        self._slope_range: tuple[Tensor, Tensor] | None = None

    def _inside(self, z: Tensor) -> Tensor:
        return z if self._all_known else torch.where(self._known, z, self.op.profile.somewhere)

    def _constant(self, value: float) -> Tensor:
        """A number in every interval, or the end nearest to it."""
        return torch.full_like(self.lower, value).clamp(*self._ends)

    def interval(self) -> tuple[Tensor, Tensor]:
        profile, limits = self.op.profile, torch.finfo(self.lower.dtype)
        points = torch.stack([*self._ends, *(self._constant(t) for t in profile.extrema)])
        values, blur = self.op.forward(points), self.op.blur(points)
        error = (_ULPS + (0.0 if blur is None else blur)) * limits.eps * values.abs() + limits.tiny
        low, high = (values - error).amin(0), (values + error).amax(0)
        if not self._all_known:
            low, high = torch.where(self._known, low, -inf), torch.where(self._known, high, inf)
            defined = self.op.inside(self.lower, self.upper)
            return (
                torch.where(defined, low.clamp(min=profile.range[0]), low),
                torch.where(defined, high.clamp(max=profile.range[1]), high),
            )
        return low.clamp(min=profile.range[0]), high.clamp(max=profile.range[1])

    def support(self, slope: Tensor, coeff: Tensor) -> Support:
        low, high = (t.unsqueeze(1) for t in self._ends)
        points = [self._constant(t).unsqueeze(1) for t in self.op.profile.kinks]
        found = self._found(slope / coeff)
        points += [p.nan_to_num().clamp(low, high) for p, _ in found]
        at = [t.unsqueeze(1) for t in self._at] + [self.op.forward(p) for p in points]
        shape = np.broadcast_shapes(low.shape, slope.shape, coeff.shape)  # torch's imports SymPy, for seconds
        z, a = (torch.stack([t.expand(shape) for t in ts]) for ts in ([low, high, *points], at))
        values = slope * z - coeff * a
        for i, (_, missed) in enumerate(found, start=len(z) - len(found)):
            if missed is not None:
                values[i] += coeff.abs() * missed
        if (blur := self.op.blur(z)) is not None:
            values += (coeff * a).abs() * blur * torch.finfo(a.dtype).eps
        value, arg = values.max(0, keepdim=True)
        value, z, a = value[0], z.gather(0, arg)[0], a.gather(0, arg)[0]
        return Support(self._unless_lost(value, slope, coeff), z, a)

    def _unless_lost(self, value: Tensor, slope: Tensor, coeff: Tensor) -> Tensor:
        """There is no support where nothing is known, unless nothing is asked."""
        if self._all_known:
            return value
        return torch.where(self._known.unsqueeze(1), value, torch.where((slope == 0) & (coeff == 0), 0.0, inf))

    def _found(self, slope: Tensor) -> list[tuple[Tensor, Tensor | None]]:
        return self.op.found(slope)

    def _candidates(self) -> list[Tensor]:
        """Where it turns, so that pieces are convex or concave."""
        return [self._constant(t) for t in self.op.profile.turns]

    def losses(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """From the chord. Nothing where nothing is known: lines are no nearer in pieces."""
        (first, second), points = super().losses()
        return (first.nan_to_num(0.0, 0.0, 0.0), second.nan_to_num(0.0, 0.0, 0.0)), points

    def unstable(self) -> Tensor:
        """Where it bends."""
        convex, concave = self._shape()
        return (self.upper > self.lower) & ~(convex & concave)

    def _shape(self) -> tuple[Tensor, Tensor]:
        """Whether the curve is convex, and concave, in each interval."""
        if self._bends is None:
            low, high = self._ends
            turns = self.op.profile.turns
            starts, stops = (-inf, *turns), (*turns, inf)
            bent = {sign: torch.zeros_like(low, dtype=torch.bool) for sign in "+-0"}
            for i, sign in enumerate(self.op.profile.bends):
                start, stop = (turns[i // 2],) * 2 if i % 2 else (starts[i // 2], stops[i // 2])
                bent[sign] |= (low < stop) & (high > start)
            self._bends = ~bent["-"], ~bent["+"]
        return self._bends

    def slope_range(self) -> tuple[Tensor, Tensor]:
        """The derivative is monotone between turns. Near ends, where it may have no limit, it is not worth trying."""
        if self._slope_range is None:
            points = [torch.lerp(*self._ends, share) for share in (_BESIDE, 1 - _BESIDE)]
            points += [self._constant(t) for t in self.op.profile.turns]
            values = torch.stack([self._chord(), *(self._finite(self.op.derivative(p)) for p in points)])
            self._slope_range = values.amin(0), values.amax(0)
        return self._slope_range

    def _finite(self, slope: Tensor) -> Tensor:
        """Slopes that can be written down; zero where nothing is known."""
        slope = slope.nan_to_num(0.0).clamp(-_STEEPEST, _STEEPEST)
        return slope if self._all_known else torch.where(self._known, slope, 0.0)

    def _chord(self) -> Tensor:
        (low, high), at = self._ends, self._at
        width = high - low
        narrow = width <= _NARROW * torch.maximum(low.abs(), high.abs())
        rise = (at[1] - at[0]) / torch.where(narrow, 1.0, width)
        middle = self.op.derivative(torch.lerp(low, high, 0.5))
        return self._finite(torch.where(narrow, middle, rise))

    def slopes(self, rule: Rule) -> tuple[Tensor, Tensor]:
        """Rounded to float32, in which proofs are written down; lines pay for what that changes."""
        lower, upper = self._slopes(rule)
        return self.rounded(lower), self.rounded(upper)

    def _slopes(self, rule: Rule) -> tuple[Tensor, Tensor]:
        match rule:
            case Rule.ZERO:
                return torch.zeros_like(self.lower), torch.zeros_like(self.lower)
            case Rule.PARALLEL:
                return self._chord(), self._chord()
            case Rule.FIXED_0:
                return self._lines_at(0.125)
            case Rule.FIXED_1:
                return self._lines_at(0.875)
            case Rule.ADAPTIVE:
                return self._lines_at(0.5)

    def _lines_at(self, share: float) -> tuple[Tensor, Tensor]:
        """The lines that are best at a share of the way from the lower end to the upper one; in the middle they
        enclose the smallest area. On the side of the curvature this is the chord, on the other side a tangent."""
        point, chord = torch.lerp(*self._ends, share), self._chord()
        tangent = self._finite(self.op.derivative(point))
        convex, concave = self._shape()
        lower, upper = torch.where(concave, chord, tangent), torch.where(convex, chord, tangent)
        mixed = ~(convex | concave)
        if bool(mixed.any()):
            lower = torch.where(mixed, self._touching(point, 1), lower)
            upper = torch.where(mixed, self._touching(point, -1), upper)
        return lower, upper

    def _touching(self, point: Tensor, side: int) -> Tensor:
        """The slope of the line below the curve (above, for side -1) that is nearest to it at a point: by bisection,
        because the line of a steeper slope touches the graph further up."""
        low, high = self.slope_range()
        one = torch.full_like(point, side).unsqueeze(1)
        for _ in range(_STEPS):
            middle = low / 2 + high / 2
            touches = self.support(side * middle.unsqueeze(1), one).z[:, 0]
            steeper = touches < point if side > 0 else touches > point
            low, high = torch.where(steeper, middle, low), torch.where(steeper, high, middle)
        return low / 2 + high / 2
