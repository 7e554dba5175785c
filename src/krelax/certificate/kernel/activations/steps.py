"""Functions that jump: their graphs are made of straight pieces."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.kernel.activations.rule import Ends, Rule, unless_lost
from krelax.certificate.kernel.arithmetic import Arithmetic, Array, Floats

# A point of the closure of the graph over each interval, with its value in two parts, and where there is one.
Corner = tuple[Floats, Floats, float | Floats, NDArray[np.bool_]]


class Jumping(Rule):
    """Supports are attained at an end, or at a jump, from one of its sides: at `corners`.

    Executions in float32 may take what is subnormal for zero, and so be on the other side of a jump there.
    """

    def act(self, z: Floats) -> tuple[Floats, float | Floats]:
        """Its values, in two parts that are exact."""
        raise NotImplementedError

    def corners(self, lower: Floats, upper: Floats) -> list[Corner]:
        """Jumps from one side or the other, and at them, between the ends."""
        raise NotImplementedError

    def interval(self, ends: Ends, float32: bool) -> Ends:
        known, ends = self._known(ends)
        low, high = np.full(ends[0].shape, np.inf), np.full(ends[0].shape, -np.inf)
        for _, value, more, there in self._points(ends):
            a = np.where(there, value + more, np.nan)
            off = 0.0 if np.ndim(more) == 0 and not more else 2.0**-50 * abs(a)
            low, high = np.fmin(low, a - off), np.fmax(high, a + off)
        return np.where(known, low, -np.inf), np.where(known, high, np.inf)

    def lines(self, ends: Ends, parallel: bool) -> Ends:
        """Parallel to the chord, by either rule."""
        known, (lower, upper) = self._known(ends)
        rise = sum(self.act(upper)) - sum(self.act(lower))
        chord = np.where(known & (upper > lower), rise / np.where(upper > lower, upper - lower, 1.0), 0.0)
        chord = np.where(np.isfinite(chord), chord, 0.0)
        return chord, chord

    def price(self, ar: Arithmetic, coeff: Array, slope: Array, ends: Ends) -> Array:
        known, ends = self._known(ends)
        values: list[Array] = []
        for at, value, more, there in self._points(ends):
            z, a = ar.number(np.where(there, at, ends[0])), ar.number(np.where(there, value, 0.0))
            here = slope * z - coeff * (a + ar.number(np.asarray(more)))
            values.append(here if not values else ar.where(there, here, values[0]))
        return unless_lost(ar, reduce(ar.maximum, values), coeff, slope, known)

    def reach(self, ends: Ends) -> Floats:
        lower, upper = self.interval(ends, False)
        return np.maximum(abs(lower), abs(upper))

    def _points(self, ends: Ends) -> list[Corner]:
        always = np.ones(ends[0].shape, bool)
        values = [self.act(z) for z in ends]
        return [*((z, *value, always) for z, value in zip(ends, values, strict=True)), *self.corners(*ends)]

    @staticmethod
    def _known(ends: Ends) -> tuple[NDArray[np.bool_], Ends]:
        """Where the interval is bounded, and its ends, elsewhere zero."""
        known = np.asarray(np.isfinite(ends[1] - ends[0]))
        return known, (np.where(known, ends[0], 0.0), np.where(known, ends[1], 0.0))


class Floor(Jumping):
    """Whole numbers: equal steps rise or fall steadily with `slope`, so the first and the last of them count."""

    name, offset, above = "floor", 0.0, 0.0

    def act(self, z: Floats) -> tuple[Floats, float | Floats]:
        return np.floor(z), 0.0

    def corners(self, lower: Floats, upper: Floats) -> list[Corner]:
        low, high, result = lower - self.offset, upper - self.offset, list[Corner]()
        for t in (np.floor(low) + 1, np.floor(high)):  # of jumps above the lower end, from below
            z = t + self.offset
            result.append((z, z + (self.above - 1), 0.0, (lower < z) & (z <= upper)))
        for t in (np.ceil(low), np.ceil(high) - 1):  # of jumps below the upper end, from above
            z = t + self.offset
            result.append((z, z + self.above, 0.0, (lower <= z) & (z < upper)))
        return result


class Ceil(Floor):
    name, above = "ceil", 1.0

    def act(self, z: Floats) -> tuple[Floats, float | Floats]:
        return np.ceil(z), 0.0


class Round(Floor):
    """Halves go to the even number. Executions in float32 are exact, and no jump is where numbers are subnormal."""

    name, float32, offset, above = "round", True, 0.5, 0.5

    def act(self, z: Floats) -> tuple[Floats, float | Floats]:
        return np.rint(z), 0.0


@dataclass(frozen=True)
class Quantise(Jumping):
    """Round, but no lower than `low` and no higher than `high`, which are whole numbers. Halves go to the even number.

    What is rounded follows from quotients, of which executions in float32 may be on another side of a jump.
    """

    name = "quantise"
    low: float
    high: float

    def act(self, z: Floats) -> tuple[Floats, float | Floats]:
        return np.clip(np.rint(z), self.low, self.high), 0.0

    def corners(self, lower: Floats, upper: Floats) -> list[Corner]:
        """Steps are alike, so only the first and the last jump between the ends count: from step k to step k + 1."""
        first = np.maximum(np.ceil(lower - 0.5), self.low)
        last = np.minimum(np.floor(upper - 0.5), self.high - 1)
        found: list[Corner] = []
        for k in (first, last):
            at = np.clip(k, self.low, self.high - 1) + 0.5
            there = (first <= last) & (lower <= at) & (at <= upper)
            found += [(at, at - 0.5, 0.0, there & (lower < at)), (at, at + 0.5, 0.0, there & (at < upper))]
        # the jump behind one that is the lower end, and the one before one that is the upper end
        for at in (np.minimum(first + 1, self.high - 1) + 0.5, np.maximum(last - 1, self.low) + 0.5):
            there = (lower < at) & (at < upper)
            found += [(at, at - 0.5, 0.0, there), (at, at + 0.5, 0.0, there)]
        return found


class Sign(Jumping):
    name = "sign"

    def act(self, z: Floats) -> tuple[Floats, float | Floats]:
        return np.sign(z), 0.0

    def corners(self, lower: Floats, upper: Floats) -> list[Corner]:
        zero, inside = np.zeros(lower.shape), (lower <= 0) & (upper >= 0)
        sides = ((-1.0, lower < 0), (0.0, inside), (1.0, upper > 0))
        return [(zero, np.full(lower.shape, a), 0.0, inside & side) for a, side in sides]


@dataclass(frozen=True)
class Step(Jumping):
    """1 above zero, 0 below, and at zero one of them."""

    name = "step"
    at: float = 0.0

    def act(self, z: Floats) -> tuple[Floats, float | Floats]:
        return np.where((z > 0) | ((z == 0) & (self.at == 1)), 1.0, 0.0), 0.0

    def corners(self, lower: Floats, upper: Floats) -> list[Corner]:
        zero = np.zeros(lower.shape)
        return [(zero, zero, 0.0, (lower <= 0) & (upper >= 0)), (zero, zero + 1, 0.0, (lower <= 0) & (upper >= 0))]


@dataclass(frozen=True)
class Threshold(Jumping):
    """z above a limit, else another number."""

    name = "threshold"
    limit: float
    otherwise: float = 0.0

    def act(self, z: Floats) -> tuple[Floats, float | Floats]:
        return np.where(z > self.limit, z, self.otherwise), 0.0

    def corners(self, lower: Floats, upper: Floats) -> list[Corner]:
        at, inside = np.full(lower.shape, self.limit), (lower <= self.limit) & (upper >= self.limit)
        low = np.full(lower.shape, self.otherwise)
        return [(at, low, 0.0, inside), (at, at, 0.0, inside & (upper > self.limit))]


@dataclass(frozen=True)
class Shrink(Jumping):
    """z moved towards zero by `bias`, where it is more than `limit` away from zero, else zero."""

    name = "shrink"
    limit: float
    bias: float = 0.0

    def act(self, z: Floats) -> tuple[Floats, float | Floats]:
        far = abs(z) > self.limit
        return np.where(far, z, 0.0), np.where(far, -self.bias * np.sign(z), 0.0)

    def corners(self, lower: Floats, upper: Floats) -> list[Corner]:
        zero, result = np.zeros(lower.shape), list[Corner]()
        for side in (-1.0, 1.0):
            at = np.full(lower.shape, side * self.limit)
            inside = (lower <= at) & (at <= upper)
            result += [(at, zero, 0.0, inside), (at, at, -side * self.bias, inside)]
        return result
