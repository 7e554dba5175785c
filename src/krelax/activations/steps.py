"""Functions that jump: floor, ceil, round, sign, thresholds.

Over an interval the closure of the graph is made of straight pieces, so the support function is attained at an end, or
at a jump, from one of its sides. Of equal steps only the first and the last one count, because values between them
rise or fall steadily. A bound is one for any value that the function comes near to, so it does not matter that a float
may be on another side of a jump than the number it stands for.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from math import inf
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from krelax.activations.base import Support
from krelax.activations.curve import Curve, CurveHull, Profile
from krelax.errors import UnsupportedError


class Corner(NamedTuple):
    """A point of the closure of a graph over each interval, if it is `there`."""

    z: Tensor
    a: Tensor
    there: Tensor


class Jumping(Curve):
    """A function whose graph is made of straight pieces of these slopes."""

    slopes: tuple[float, ...] = (0.0,)
    profile = Profile("0")
    jumps = True

    def smeared(self, z: Tensor, width: Tensor) -> Tensor:
        """Of steps of height and width 1 that is z."""
        return z

    @abstractmethod
    def corners(self, lower: Tensor, upper: Tensor) -> list[Corner]:
        """All points between the ends at which the support may be attained."""

    def stationary(self, slope: Tensor) -> tuple[Tensor, ...]:
        return ()

    def relax(self, lower: Tensor, upper: Tensor) -> JumpHull:
        return JumpHull(self, lower, upper)


class JumpHull(CurveHull):
    """The convex hull of the closure of the graph."""

    optimised = (True, True)
    op: Jumping

    def __init__(self, op: Jumping, lower: Tensor, upper: Tensor) -> None:
        super().__init__(op, lower, upper)
        self.optimised = (True, True)
        corners = op.corners(*self._ends)
        ends = zip(self._ends, self._at, strict=True)
        first = self._ends[0], self._at[0]
        inner = [(torch.where(there, z, first[0]), torch.where(there, a, first[1])) for z, a, there in corners]
        self._z, self._a = (torch.stack(torch.broadcast_tensors(*ts)) for ts in zip(*ends, *inner, strict=True))
        self._broken = torch.stack([c.there.expand(self.lower.shape) for c in corners]).any(0)

    def interval(self) -> tuple[Tensor, Tensor]:
        """Values are those of the function itself, or sums of two numbers."""
        limits, profile = torch.finfo(self.lower.dtype), self.op.profile
        error = 4 * limits.eps * self._a.abs() if any(self.op.slopes) else torch.zeros_like(self._a)
        low, high = (self._a - error).amin(0), (self._a + error).amax(0)
        low, high = torch.where(self._known, low, -inf), torch.where(self._known, high, inf)
        return low.clamp(min=profile.range[0]), high.clamp(max=profile.range[1])

    def support(self, slope: Tensor, coeff: Tensor) -> Support:
        z, a = self._z.unsqueeze(2), self._a.unsqueeze(2)
        value, arg = (slope * z - coeff * a).max(0, keepdim=True)
        z, a = (t.expand(len(t), *value.shape[1:]).gather(0, arg)[0] for t in (z, a))
        return Support(self._unless_lost(value[0], slope, coeff), z, a)

    def _shape(self) -> tuple[Tensor, Tensor]:
        return ~self._broken, ~self._broken

    def slope_range(self) -> tuple[Tensor, Tensor]:
        if self._slope_range is None:
            chord = self._chord()
            steep = torch.stack([chord, 2 * chord, *(torch.full_like(chord, s) for s in self.op.slopes)])
            low, high = steep.amin(0), steep.amax(0)
            self._slope_range = torch.where(self._broken, low, chord), torch.where(self._broken, high, chord)
        return self._slope_range

    def _candidates(self) -> list[Tensor]:
        """Jumps, and between them and the ends."""
        return [z for t in self._z[2:].unbind(0) for z in (t, *(torch.lerp(t, end, 0.5) for end in self._ends))]


class Staircase(Jumping):
    """Steps of height and width 1, which jump at `offset` and whole numbers away from it, to `offset + above` from a
    value that is lower by 1."""

    offset: ClassVar[float]
    above: ClassVar[float]

    def derivative(self, z: Tensor) -> Tensor:
        return torch.zeros_like(z)

    def corners(self, lower: Tensor, upper: Tensor) -> list[Corner]:
        low, high = lower - self.offset, upper - self.offset
        before = [t + self.offset for t in (low.floor() + 1, high.floor())]  # of jumps above the lower end
        behind = [t + self.offset for t in (low.ceil(), high.ceil() - 1)]  # of jumps below the upper end
        corners = [Corner(t, t + self.above - 1, (lower < t) & (t <= upper)) for t in before]
        return corners + [Corner(t, t + self.above, (lower <= t) & (t < upper)) for t in behind]


@dataclass(frozen=True, eq=False)
class Floor(Staircase):
    """The largest whole number that is not above z."""

    name, offset, above = "floor", 0.0, 0.0
    rising = True

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].floor()


@dataclass(frozen=True, eq=False)
class Ceil(Staircase):
    """The smallest whole number that is not below z."""

    name, offset, above = "ceil", 0.0, 1.0
    rising = True

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].ceil()


@dataclass(frozen=True, eq=False)
class Round(Staircase):
    """The nearest whole number, an even one where two are as near."""

    name, offset, above = "round", 0.5, 0.5
    rising = True

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].round()


@dataclass(frozen=True, eq=False)
class Quantise(Round):
    """The nearest whole number from `low` to `high`, an even one where two are as near; both limits are whole.
    UnsupportedError for limits that are not two whole numbers."""

    low: float
    high: float

    name = "quantise"

    def __post_init__(self) -> None:
        if not (self.low < self.high and self.low.is_integer() and self.high.is_integer()):
            raise UnsupportedError(f"a grid from {self.low:g} to {self.high:g}; it needs two whole numbers or more")

    @property
    def profile(self) -> Profile:  # type: ignore[override]
        return Profile("0", range=(self.low, self.high))

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].round().clamp(self.low, self.high)

    def smeared(self, z: Tensor, width: Tensor) -> Tensor:
        return z.clamp(self.low, self.high)

    def corners(self, lower: Tensor, upper: Tensor) -> list[Corner]:
        first, last = self.low + 0.5, self.high - 0.5
        inside = [c._replace(z=c.z.clamp(first, last)) for c in super().corners(lower, upper)]
        sides = [-0.5] * 2 + [0.5] * 2
        there = [
            (lower < c.z) & (c.z <= upper) if s < 0 else (lower <= c.z) & (c.z < upper)
            for c, s in zip(inside, sides, strict=True)
        ]
        return [Corner(c.z, c.z + s, t) for c, s, t in zip(inside, sides, there, strict=True)]


class _Broken(Jumping):
    """Straight pieces `slopes * z + shifts`, between `breaks`."""

    breaks: tuple[float, ...]
    shifts: tuple[float, ...]

    def derivative(self, z: Tensor) -> Tensor:
        steep = torch.full_like(z, self.slopes[0])
        for t, slope in zip(self.breaks, self.slopes[1:], strict=True):
            steep = torch.where(z >= t, slope, steep)
        return steep

    def smeared(self, z: Tensor, width: Tensor) -> Tensor:
        ramp = self.derivative(z) * z
        for i, t in enumerate(self.breaks):
            rise = (self.slopes[i + 1] - self.slopes[i]) * t + self.shifts[i + 1] - self.shifts[i]
            ramp = ramp + rise * ((z - t) / width).clamp(-1, 1) / 2
        return ramp

    def corners(self, lower: Tensor, upper: Tensor) -> list[Corner]:
        corners = []
        for i, t in enumerate(self.breaks):
            z = torch.full_like(lower, t)
            left, right = (self.slopes[j] * z + self.shifts[j] for j in (i, i + 1))
            inside = (lower <= z) & (z <= upper)
            corners += [
                Corner(z, left, inside & (lower < z)),
                Corner(z, self.forward(z), inside),
                Corner(z, right, inside & (z < upper)),
            ]
        return corners


@dataclass(frozen=True, eq=False)
class Sign(_Broken):
    """-1, 0 or 1."""

    name, breaks, shifts, slopes = "sign", (0.0,), (-1.0, 1.0), (0.0, 0.0)
    rising = True
    profile = Profile("0", range=(-1.0, 1.0))

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].sign()


@dataclass(frozen=True, eq=False)
class Step(_Broken):
    """1 above zero, 0 below; at zero `at`, which is one of them."""

    at: float = 0.0

    name, breaks, shifts, slopes = "step", (0.0,), (0.0, 1.0), (0.0, 0.0)
    rising = True
    profile = Profile("0", range=(0.0, 1.0))

    def forward(self, *inputs: Tensor) -> Tensor:
        above = inputs[0] > 0 if self.at == 0 else inputs[0] >= 0
        return above.to(inputs[0])


@dataclass(frozen=True, eq=False)
class Threshold(_Broken):
    """z above a limit, else another number."""

    limit: float
    otherwise: float = 0.0

    name, slopes = "threshold", (0.0, 1.0)

    @property
    def breaks(self) -> tuple[float, ...]:  # type: ignore[override]
        return (self.limit,)

    @property
    def shifts(self) -> tuple[float, ...]:  # type: ignore[override]
        return (self.otherwise, 0.0)

    def forward(self, *inputs: Tensor) -> Tensor:
        return torch.where(inputs[0] > self.limit, inputs[0], self.otherwise)


@dataclass(frozen=True, eq=False)
class Shrink(_Broken):
    """z moved towards zero by `bias`, where it is more than `limit` away from zero, else zero. UnsupportedError for a
    negative limit."""

    limit: float
    bias: float = 0.0

    name, slopes = "shrink", (1.0, 0.0, 1.0)

    def __post_init__(self) -> None:
        if not 0 <= self.limit < inf:
            raise UnsupportedError(f"a shrinkage with a limit of {self.limit:g}")

    @property
    def breaks(self) -> tuple[float, ...]:  # type: ignore[override]
        return (-self.limit, self.limit)

    @property
    def shifts(self) -> tuple[float, ...]:  # type: ignore[override]
        return (self.bias, 0.0, -self.bias)

    def forward(self, *inputs: Tensor) -> Tensor:
        return torch.where(inputs[0].abs() > self.limit, inputs[0] - self.bias * inputs[0].sign(), 0.0)
