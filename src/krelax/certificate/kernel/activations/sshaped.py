"""What sigmoid and tanh have in common."""

from __future__ import annotations

import numpy as np

from krelax.certificate.kernel.activations.rule import Ends, Rule
from krelax.certificate.kernel.arithmetic import Arithmetic, Array, Floats


class SShaped(Rule):
    """`scale * sigmoid(gain * z) + offset`: increasing, convex below zero, concave above.

    Values come from the C library's `tanh`, which is trusted to `error`, in both arithmetics.
    """

    vouched = True
    scale: float
    gain: float
    offset: float
    error = 2.0**-46

    def _act(self, z: Floats) -> Floats:
        return self.scale * (0.5 + 0.5 * np.tanh(self.gain * z / 2)) + self.offset

    def _derivative(self, z: Floats) -> Floats:
        return self.scale * self.gain / 4 / np.cosh(self.gain * z / 2) ** 2

    def interval(self, ends: Ends, float32: bool) -> Ends:
        low, high = (self._act(z) for z in ends)
        return np.maximum(low - self.error, self.offset), np.minimum(high + self.error, self.offset + self.scale)

    def lines(self, ends: Ends, parallel: bool) -> Ends:
        """Parallel to the flatter end, by either rule: what is better is for the certificate to say."""
        flat = np.minimum(*(self._derivative(z) for z in ends))
        return flat, flat

    def price(self, ar: Arithmetic, coeff: Array, slope: Array, ends: Ends) -> Array:
        """Where `f = slope z - coeff act(z)` is convex, the larger of its ends; where it is concave, the tangent at a
        point that should be its maximum, at the end where it is larger."""
        (lower, upper), c, rising = ends, ar.floats(coeff), ar.positive(coeff)
        below, above = np.clip(np.minimum(upper, 0), lower, None), np.clip(np.maximum(lower, 0), None, upper)
        convex = (np.where(rising, above, lower), np.where(rising, upper, below))
        concave = (np.where(rising, lower, above), np.where(rising, below, upper))
        point = np.clip(self._stationary(c, ar.floats(slope)), *concave)
        best = ar.maximum(*(self._value(ar, coeff, slope, z) for z in convex))
        rise = slope - coeff * ar.number(self._derivative(point))
        tangent = ar.maximum(*(rise * (ar.number(z) - ar.number(point)) for z in concave))
        best = ar.maximum(best, self._value(ar, coeff, slope, point) + tangent)
        return best + abs(coeff) * ar.number(4 * self.error * (1 + abs(lower) + abs(upper)))

    def _value(self, ar: Arithmetic, coeff: Array, slope: Array, z: Floats) -> Array:
        return slope * ar.number(z) - coeff * ar.number(self._act(z))

    def _stationary(self, coeff: Floats, slope: Floats) -> Floats:
        """Near the point where f is stationary on the side where it is concave: below zero for `coeff > 0`."""
        ratio = np.clip(np.nan_to_num(slope / (coeff * self.scale * self.gain)), 2.0**-1000, 0.25)
        small = 2 * ratio / (1 + np.sqrt(1 - 4 * ratio))
        return np.where(coeff > 0, 1, -1) * (np.log(small) - np.log1p(-small)) / self.gain

    def reach(self, ends: Ends) -> Floats:
        return super().reach(ends) + 1
