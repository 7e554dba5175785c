"""Sine and cosine."""

from __future__ import annotations

from math import pi

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.kernel.activations.rule import Ends, Rule, unless_lost
from krelax.certificate.kernel.arithmetic import Arithmetic, Array, Floats

_PERIOD, _LEAST = 2 * pi, 2.0**-900
_Known = NDArray[np.bool_]


class Sin(Rule):
    """The sine of `z + ahead`. Values of the C library are trusted to `error`."""

    name, vouched, ahead, error = "sine", True, 0.0, 2.0**-46

    def act(self, z: Floats) -> Floats:
        return np.sin(z)

    def interval(self, ends: Ends, float32: bool) -> Ends:
        known, (lower, upper) = self._known(ends)
        values, shift = [self.act(z) for z in (lower, upper)], self._shift(lower, upper)
        found = []
        for side, best in ((-1, np.minimum), (1, np.maximum)):
            start = side * pi / 2 - self.ahead
            place = start + _PERIOD * np.ceil((lower - shift - start) / _PERIOD)
            peak = ~known | (place <= upper + shift)
            found.append(np.where(peak, side, np.clip(best(*values) + side * self.error, -1.0, 1.0)))
        return found[0], found[1]

    def lines(self, ends: Ends, parallel: bool) -> Ends:
        """Parallel to the chord, by either rule."""
        known, (lower, upper) = self._known(ends)
        wide = known & (upper - lower > 1e-6)
        chord = np.where(wide, (self.act(upper) - self.act(lower)) / np.where(wide, upper - lower, 1.0), 0.0)
        return chord, chord

    def price(self, ar: Arithmetic, coeff: Array, slope: Array, ends: Ends) -> Array:
        """The maximum of `slope z - coeff sin(z)` is at an end, or where the cosine is `slope / coeff` and the sine has
        the sign of a maximum: then it is `slope z + sqrt(coeff^2 - slope^2)`. Such places are periods apart: the last
        one in the direction in which `slope z` rises is highest."""
        known, (lower, upper) = self._known(ends)
        c, s = ar.floats(coeff), ar.floats(slope)
        ratio = np.clip(np.nan_to_num(s / c), -1.0, 1.0)
        place = -np.sign(c) * np.arccos(ratio) - self.ahead
        # near where it is 1 or -1, the inverse cosine magnifies what rounds
        shift = self._shift(lower, upper) + 2.0**-48 / np.maximum(np.sqrt(1 - ratio * ratio), 2.0**-24)
        last = place + _PERIOD * np.floor((upper + shift - place) / _PERIOD)
        first = place + _PERIOD * np.ceil((lower - shift - place) / _PERIOD)
        there = np.where(s > 0, last >= lower - 2 * shift, first <= upper + 2 * shift)
        square = (abs(coeff) - abs(slope)) * (abs(coeff) + abs(slope))
        there, square = there & ar.positive(square), ar.maximum(square, ar.number(np.zeros(())))
        peak = slope * ar.number(np.where(s > 0, last, first)) + ar.root(square) + abs(slope) * ar.number(2 * shift)
        best = ar.maximum(*(slope * ar.number(z) - coeff * ar.number(self.act(z)) for z in (lower, upper)))
        best = ar.where(there, ar.maximum(best, peak), best) + abs(coeff) * ar.number(np.full((), 4 * self.error))
        # what no float tells from zero says nothing of the place; no value is larger than one
        steepest = ar.maximum(*(slope * ar.number(z) for z in (lower, upper)))
        best = ar.where(abs(c) < _LEAST, steepest + abs(coeff), best)
        return unless_lost(ar, best, coeff, slope, known)

    def reach(self, ends: Ends) -> Floats:
        return np.ones(ends[0].shape)

    @staticmethod
    def _known(ends: Ends) -> tuple[_Known, Ends]:
        """Where the interval is bounded, and its ends, elsewhere zero."""
        known = np.asarray(np.isfinite(ends[1] - ends[0]))
        return known, (np.where(known, ends[0], 0.0), np.where(known, ends[1], 0.0))

    @staticmethod
    def _shift(lower: Floats, upper: Floats) -> Floats:
        """How far a place is off that is computed as whole periods away from another one."""
        return 2.0**-46 * (1 + abs(lower) + abs(upper))


class Cos(Sin):
    """The cosine."""

    name, ahead = "cosine", pi / 2

    def act(self, z: Floats) -> Floats:
        return np.cos(z)
