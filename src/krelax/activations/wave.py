"""Sine and cosine: they turn at every half period.

Where `slope * z - coeff * sin(z)` is stationary repeats with the period, and values there rise or fall steadily with
`slope`: only the first and the last such point of an interval count.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi
from typing import ClassVar

import torch
from torch import Tensor

from krelax.activations.base import Support
from krelax.activations.curve import Curve, CurveHull, Profile

# Units of rounding that points are off by, relatively, whose place is computed.
_OFF = 8


class Wave(Curve):
    """`sin(z + ahead)`, with a derivative of 1 at `-ahead`."""

    ahead: ClassVar[float]
    profile = Profile("+0-", (0.0,), range=(-1.0, 1.0))

    def stationary(self, slope: Tensor) -> tuple[Tensor, ...]:
        """Two of the points, from which others are whole periods away."""
        root = slope.nan_to_num().clamp(-1, 1).acos()
        return root - self.ahead, -root - self.ahead

    def relax(self, lower: Tensor, upper: Tensor) -> WaveHull:
        return WaveHull(self, lower, upper)


class WaveHull(CurveHull):
    """The convex hull of a wave's graph. Of intervals so far away that floats are a period apart, little is known."""

    op: Wave

    def __init__(self, op: Wave, lower: Tensor, upper: Tensor) -> None:
        super().__init__(op, lower, upper)
        far = torch.maximum(*(t.abs() for t in self._ends))
        self._off = _OFF * torch.finfo(far.dtype).eps * (1 + far)
        # how much higher a wave may be so far from where its derivative is right
        self._missed = (self._off.square() / 2).clamp(max=2.0).unsqueeze(1)

    def _found(self, slope: Tensor) -> list[tuple[Tensor, Tensor | None]]:
        low, high = (t.unsqueeze(1) for t in self._ends)
        points = self.op.stationary(slope)
        first = (p + 2 * pi * ((low - p) / (2 * pi)).ceil() for p in points)
        last = (p + 2 * pi * ((high - p) / (2 * pi)).floor() for p in points)
        return [(p, None) for p in (*first, *last)]

    def support(self, slope: Tensor, coeff: Tensor) -> Support:
        found = super().support(slope, coeff)
        return Support(found.value + coeff.abs() * self._missed, found.z, found.a)

    def _reached(self, angle: float) -> Tensor:
        """Whether a point that is so far behind where the derivative is 1 may lie in the interval."""
        start, (low, high) = angle - self.op.ahead, self._ends
        return start + 2 * pi * ((low - self._off - start) / (2 * pi)).ceil() <= high + self._off

    def interval(self) -> tuple[Tensor, Tensor]:
        low, high = super().interval()
        return torch.where(self._reached(-pi / 2), -1.0, low), torch.where(self._reached(pi / 2), 1.0, high)

    def slope_range(self) -> tuple[Tensor, Tensor]:
        if self._slope_range is None:
            ends = torch.stack([self._chord(), *(self._finite(self.op.derivative(z)) for z in self._ends)])
            low, high = ends.amin(0), ends.amax(0)
            low, high = torch.where(self._reached(pi), -1.0, low), torch.where(self._reached(0.0), 1.0, high)
            self._slope_range = low, high
        return self._slope_range

    def _candidates(self) -> list[Tensor]:
        """The turn that is nearest to the middle."""
        middle = torch.lerp(*self._ends, 0.5)
        return [(((middle + self.op.ahead) / pi).round() * pi - self.op.ahead).clamp(*self._ends)]

    def _shape(self) -> tuple[Tensor, Tensor]:
        """It is concave where it is above zero."""
        low, high = ((z + self.op.ahead) / pi for z in self._ends)
        one = high.ceil() - 1 <= low.floor()
        even = low.floor() % 2 == 0
        return one & ~even, one & even


@dataclass(frozen=True, eq=False)
class Sin(Wave):
    """The sine."""

    name, ahead = "sin", 0.0

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].sin()

    def derivative(self, z: Tensor) -> Tensor:
        return z.cos()


@dataclass(frozen=True, eq=False)
class Cos(Wave):
    """The cosine."""

    name, ahead = "cos", pi / 2

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].cos()

    def derivative(self, z: Tensor) -> Tensor:
        return -z.sin()
