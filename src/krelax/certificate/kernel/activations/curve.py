"""What curves have in common: functions of one number that are convex or concave between finitely many turns."""

from __future__ import annotations

from math import inf

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.kernel.activations.rule import Ends, Rule, unless_lost
from krelax.certificate.kernel.arithmetic import Arithmetic, Array, Floats

# Intervals that are narrower, relatively, take the derivative in their middle for the slope of their chord.
_NARROW = 1e-6
_TINY, _HALVINGS = 2.0**-1000, 60
_Known = NDArray[np.bool_]


class Curve(Rule):
    """Convex or concave on each piece, which lie between the `turns`; monotone between `extrema`.

    Values and derivatives come from the C library, which is trusted to a relative `error`, and an `absolute` one, for
    functions that cancel and for what is subnormal, in both arithmetics. Turns may be rounded: what bends the other way
    over a unit of rounding is far below that. All values lie in `range`; it is defined on `domain`, which has the point
    `somewhere`.
    """

    vouched = True
    turns: tuple[float, ...] = ()
    extrema: tuple[float, ...] = ()
    range: tuple[float, float] = (-inf, inf)
    domain: tuple[float, float] = (-inf, inf)
    somewhere = 1.0
    error, absolute = 2.0**-46, _TINY

    def act(self, z: Floats) -> Floats:
        raise NotImplementedError

    def derivative(self, z: Floats, piece: int) -> Floats:
        """The derivative on a piece, at a kink from the side of the piece."""
        raise NotImplementedError

    def stationary(self, slope: Floats, piece: int) -> Floats | None:
        """Where a piece has a slope, or the end of the piece that is nearest to having it; None if it does not know."""
        return None

    def inside(self, ends: Ends) -> _Known:
        """Whether it is defined all over an interval."""
        return np.asarray((ends[0] >= self.domain[0]) & (ends[1] <= self.domain[1]))

    def interval(self, ends: Ends, float32: bool) -> Ends:
        known, ends = self._known(ends)
        values = [self.act(np.clip(np.asarray(z), *ends)) for z in (*ends, *self.extrema)]
        low, high = np.minimum.reduce(values), np.maximum.reduce(values)
        low, high = (z + side * (self.error * abs(z) + self.absolute) for z, side in ((low, -1), (high, 1)))
        low, high = np.maximum(low, self.range[0]), np.minimum(high, self.range[1])
        return np.where(known, low, -inf), np.where(known, high, inf)

    def lines(self, ends: Ends, parallel: bool) -> Ends:
        """Parallel to the chord, by either rule: what is better is for the certificate to say."""
        known, (lower, upper) = self._known(ends)
        width = upper - lower
        narrow = width <= _NARROW * np.maximum(abs(lower), abs(upper))
        middle = (lower + upper) / 2
        flat = self.derivative(middle, 0)
        for piece, turn in enumerate(self.turns, start=1):
            flat = np.where(middle >= turn, self.derivative(middle, piece), flat)
        chord = np.where(narrow, flat, (self.act(upper) - self.act(lower)) / np.where(narrow, 1.0, width))
        chord = np.where(known & np.isfinite(chord), chord, 0.0)
        return chord, chord

    def price(self, ar: Arithmetic, coeff: Array, slope: Array, ends: Ends) -> Array:
        """On each piece `f = slope z - coeff act(z)` is convex or concave: then the larger of its ends is its maximum,
        or it lies below its tangent at a point that should be its maximum. The larger of both is right for either: a
        tangent lies below what is convex, and ends below what is concave."""
        known, (lower, upper) = self._known(ends)
        ratio = ar.floats(slope) / ar.floats(coeff)
        best, size = None, np.zeros(())
        for piece, (start, stop) in enumerate(zip((-inf, *self.turns), (*self.turns, inf), strict=True)):
            first, last = (np.clip(np.clip(z, start, stop), lower, upper) for z in (lower, upper))
            point = self._point(ratio, piece, first, last)
            steep = self.derivative(point, piece)
            known = known & (np.isfinite(steep) | (first == last))
            steep = np.where(np.isfinite(steep), steep, 0.0)
            rise = slope - coeff * ar.number(steep)
            tangent = ar.maximum(*(rise * (ar.number(z) - ar.number(point)) for z in (first, last)))
            values = [self._value(ar, coeff, slope, z) for z in (point, first, last)]
            for value in (values[0] + tangent, *values[1:]):
                best = value if best is None else ar.maximum(best, value)
            size = np.maximum(size, sum(abs(self.act(z)) for z in (point, first, last)) + abs(steep) * (last - first))
        best = best + abs(coeff) * ar.number(4 * (self.error * size + self.absolute * (1 + abs(lower) + abs(upper))))
        return unless_lost(ar, best, coeff, slope, known)

    def _point(self, ratio: Floats, piece: int, first: Floats, last: Floats) -> Floats:
        """Where a piece has a slope, or the end of it that is nearest to that; in the interval from first to last."""
        found = self.stationary(ratio, piece)
        if found is None:
            found = self._bisected(ratio, piece, first, last)
        return np.clip(np.where(np.isnan(found), first / 2 + last / 2, found), first, last)

    def _bisected(self, ratio: Floats, piece: int, first: Floats, last: Floats) -> Floats:
        rising = self.derivative(last, piece) > self.derivative(first, piece)
        for _ in range(_HALVINGS):
            middle = first / 2 + last / 2
            up = (self.derivative(middle, piece) < ratio) == rising
            first, last = np.where(up, middle, first), np.where(up, last, middle)
        return first / 2 + last / 2

    def _known(self, ends: Ends) -> tuple[_Known, Ends]:
        """Where the interval is bounded, in the domain, and so are values; and the ends, elsewhere a point."""
        lower, upper = ends
        known = self.inside(ends) & np.isfinite(upper - lower)
        known = known & np.isfinite(self.act(lower)) & np.isfinite(self.act(upper))
        return known, (np.where(known, lower, self.somewhere), np.where(known, upper, self.somewhere))

    def reach(self, ends: Ends) -> Floats:
        lower, upper = self.interval(ends, False)
        return np.maximum(abs(lower), abs(upper))

    def _value(self, ar: Arithmetic, coeff: Array, slope: Array, z: Floats) -> Array:
        return slope * ar.number(z) - coeff * ar.number(self.act(z))
