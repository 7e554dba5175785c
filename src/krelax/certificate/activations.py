"""What is true of the activations: their range over an interval, and their support function.

Crossing an activation backwards rests on `coeff act(z) >= slope z - price`, where the price is the support function,
the maximum of `slope z - coeff act(z)` over the intervals `lower <= z <= upper`: then any slope will do. Arrays are
`(rows, entries)`; prices round, and are right up to what the backward pass charges for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.arithmetic import Arithmetic, Array, Floats, Rows
from krelax.certificate.network import Activation

Ends = tuple[Floats, Floats]

# Rules decide by comparing bounds. What they compare is often equal but for rounding, as where intervals are symmetric:
# so the threshold is a little, relatively, to the side of that.
_ASIDE = 2.0**-20


class Kind(Protocol):
    """One kind of activation. `float32` says whether it can be executed in float32 with an error that is known."""

    float32: bool

    def interval(self, node: Activation, ends: Ends, float32: bool) -> Ends:
        """The range of the activation, as it is or as float32 executes it."""

    def undecided(self, node: Activation, ends: Ends) -> NDArray[np.bool_]:
        """Entries of the pre-activation whose bounds matter."""

    def behind(self, ar: Arithmetic, node: Activation, coeff: Array) -> Array:
        """For every entry of the pre-activation the coefficient behind the activation."""

    def slopes(
        self, node: Activation, coeff: Floats, ends: Ends, rule: str, t: Floats | None, top: Floats | None, which: Rows
    ) -> Floats:
        """Slopes by a rule, "adaptive" or "parallel", but for those of lower lines that are given by fractions `t` of
        what is possible, and of upper lines that are given by `top`, NaN where there are none. `coeff` is as `behind`
        makes it, each row over the intervals that `which` names."""

    def price(self, ar: Arithmetic, node: Activation, coeff: Array, slope: Array, ends: Ends) -> Array:
        """What each neuron pays."""

    def reach(self, node: Activation, largest: Floats) -> Floats:
        """How large what coefficients are multiplied with can be, for pre-activations up to the largest."""


class Relu:
    """`max(z, 0) + negative_slope * min(z, 0)`, the larger of two lines: supports are attained at an end or at zero."""

    float32 = True

    def interval(self, node: Activation, ends: Ends, float32: bool) -> Ends:
        slope, (lower, upper) = node.negative_slope, ends
        if slope == 0:
            return np.maximum(lower, 0), np.maximum(upper, 0)
        relative, least = (2.0**-22, 2.0**-120) if float32 else (2.0**-50, 2.0**-1000)  # the product rounds
        low, high = (slope * np.minimum(z, 0) for z in ends)
        low, high = low - relative * abs(low) - least, high + relative * abs(high) + least
        return np.maximum(lower, 0) + low, np.maximum(upper, 0) + high

    def undecided(self, node: Activation, ends: Ends) -> NDArray[np.bool_]:
        return (ends[0] < 0) & (ends[1] > 0)

    def behind(self, ar: Arithmetic, node: Activation, coeff: Array) -> Array:
        return coeff

    def slopes(
        self, node: Activation, coeff: Floats, ends: Ends, rule: str, t: Floats | None, top: Floats | None, which: Rows
    ) -> Floats:
        (lower, upper), slope = ends, node.negative_slope
        width = np.where(upper > lower, upper - lower, 1.0)
        chord = (np.maximum(upper, 0) - slope * np.minimum(lower, 0)) / width
        low = np.where(upper > -lower * (1 + _ASIDE), 1.0, slope) if rule == "adaptive" else chord
        if t is not None:
            low = np.where(np.isnan(t), low, slope + (1 - slope) * t)
        own = np.where(lower >= 0, 1.0, slope)
        fixed = (lower >= 0) | (upper <= 0)
        if top is not None:  # inside a sum, lines can be better than the neuron's own
            chord, fixed = np.where(np.isnan(top), chord, top), fixed & np.isnan(top)
        positive, negative = np.where(fixed, own, low), np.where(fixed, own, chord)
        return np.where(coeff > 0, positive[which], negative[which]) * coeff

    def price(self, ar: Arithmetic, node: Activation, coeff: Array, slope: Array, ends: Ends) -> Array:
        best = ar.maximum(*(slope * ar.number(z) - coeff * self._act(ar, node, z) for z in ends))
        crossing = (ends[0] < 0) & (ends[1] > 0)
        return ar.where(crossing, ar.maximum(best, ar.number(np.zeros(()))), best)

    def _act(self, ar: Arithmetic, node: Activation, z: Floats) -> Array:
        positive = ar.number(np.maximum(z, 0.0))
        if node.negative_slope == 0:
            return positive
        return positive + ar.number(np.asarray(node.negative_slope)) * ar.number(np.minimum(z, 0.0))

    def reach(self, node: Activation, largest: Floats) -> Floats:
        return largest


class Smooth:
    """`scale * sigmoid(gain * z) + offset`: increasing, convex below zero, concave above.

    Values come from the C library's `tanh`, which is trusted to `error`, in both arithmetics.
    """

    float32 = False
    error = 2.0**-46

    def __init__(self, scale: float, gain: float, offset: float) -> None:
        self._scale, self._gain, self._offset = scale, gain, offset

    def _act(self, z: Floats) -> Floats:
        return self._scale * (0.5 + 0.5 * np.tanh(self._gain * z / 2)) + self._offset

    def _derivative(self, z: Floats) -> Floats:
        return self._scale * self._gain / 4 / np.cosh(self._gain * z / 2) ** 2

    def interval(self, node: Activation, ends: Ends, float32: bool) -> Ends:
        low, high = (self._act(z) for z in ends)
        return np.maximum(low - self.error, self._offset), np.minimum(high + self.error, self._offset + self._scale)

    def undecided(self, node: Activation, ends: Ends) -> NDArray[np.bool_]:
        return ends[1] > ends[0]

    def behind(self, ar: Arithmetic, node: Activation, coeff: Array) -> Array:
        return coeff

    def slopes(
        self, node: Activation, coeff: Floats, ends: Ends, rule: str, t: Floats | None, top: Floats | None, which: Rows
    ) -> Floats:
        """Parallel to the flatter end, by either rule: what is better is for the certificate to say."""
        return np.minimum(*(self._derivative(z) for z in ends))[which] * coeff

    def price(self, ar: Arithmetic, node: Activation, coeff: Array, slope: Array, ends: Ends) -> Array:
        """Where `f = slope z - coeff act(z)` is convex, the larger of its ends; where it is concave, the tangent at a
        point that should be its maximum, at the end where it is larger."""
        (lower, upper), c = ends, ar.floats(coeff)
        below, above = np.clip(np.minimum(upper, 0), lower, None), np.clip(np.maximum(lower, 0), None, upper)
        convex = (np.where(c > 0, above, lower), np.where(c > 0, upper, below))
        concave = (np.where(c > 0, lower, above), np.where(c > 0, below, upper))
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
        ratio = np.clip(np.nan_to_num(slope / (coeff * self._scale * self._gain)), 2.0**-1000, 0.25)
        small = 2 * ratio / (1 + np.sqrt(1 - 4 * ratio))
        return np.where(coeff > 0, 1, -1) * (np.log(small) - np.log1p(-small)) / self._gain

    def reach(self, node: Activation, largest: Floats) -> Floats:
        return largest + 1


class Maximum:
    """The largest of a window: entries of the pre-activation come window by window."""

    float32 = True

    def _split(self, node: Activation, x: Array) -> Array:
        return x.reshape(len(x), node.size, node.window)

    def interval(self, node: Activation, ends: Ends, float32: bool) -> Ends:
        lower, upper = (self._split(node, z).max(2) for z in ends)
        return lower, upper

    def _possible(self, node: Activation, ends: Ends) -> NDArray[np.bool_]:
        lower, upper = (self._split(node, z) for z in ends)
        return upper > lower.max(2, keepdims=True)

    def undecided(self, node: Activation, ends: Ends) -> NDArray[np.bool_]:
        possible = self._possible(node, ends)
        return (possible & (possible.sum(2, keepdims=True) > 1)).reshape(len(possible), -1)

    def behind(self, ar: Arithmetic, node: Activation, coeff: Array) -> Array:
        return coeff[:, np.repeat(np.arange(node.size), node.window)]

    def slopes(
        self, node: Activation, coeff: Floats, ends: Ends, rule: str, t: Floats | None, top: Floats | None, which: Rows
    ) -> Floats:
        """The first member whose lower bound is largest, or nearly so. For negative coefficients, and by "parallel" for
        all, only where it is the maximum, or nearly so."""
        lower, upper = (self._split(node, z) for z in ends)
        score = lower + _ASIDE * (upper - lower)
        best = score.max(2, keepdims=True)
        close = score >= best - _ASIDE / 2 * (upper.max(2, keepdims=True) - lower.max(2, keepdims=True)).clip(0)
        leader = np.arange(node.window) == close.argmax(2)[..., None]
        low, high = (np.where(leader, z, 0.0).sum(2, keepdims=True) for z in (lower, upper))
        rest = np.where(leader, -np.inf, upper).max(2, keepdims=True)
        settled = leader & (rest - low <= _ASIDE * (high - low))
        first, second = (x.reshape(len(x), -1) for x in (settled if rule == "parallel" else leader, settled))
        return np.where(coeff > 0, first[which], second[which]) * coeff

    def price(self, ar: Arithmetic, node: Activation, coeff: Array, slope: Array, ends: Ends) -> Array:
        """For `coeff <= 0` the maximum over members that may be the largest. For `coeff > 0` a concave function of the
        maximum t, piecewise linear: members rise with t up to their upper ends, and t need not be more than one of
        those, nor less than the largest lower end."""
        lower, upper = (self._split(node, z) for z in ends)
        least = lower.max(2, keepdims=True)
        slope = self._split(node, slope)
        whole = self._split(node, coeff)
        below = [
            self._summed(ar, slope, lower, np.minimum(upper, t)) - whole[:, :, 0] * ar.number(t[:, :, 0])
            for t in (least, *(np.maximum(upper[:, :, i : i + 1], least) for i in range(node.window)))
        ]
        member = np.arange(node.window)
        above = [self._summed(ar, slope - ar.where(member == i, whole, _zero(ar)), lower, upper) for i in member]
        negative = self._split(node, ar.floats(coeff) <= 0)[:, :, 0]
        return ar.where(negative, _largest(ar, above), _largest(ar, below))

    @staticmethod
    def _summed(ar: Arithmetic, slope: Array, lower: Floats, upper: Floats) -> Array:
        """The maximum of a linear form over the members' intervals."""
        return ar.maximum(*(slope * ar.number(z) for z in (lower, upper))).sum(2)

    def reach(self, node: Activation, largest: Floats) -> Floats:
        return self._split(node, largest).max(2)


def _zero(ar: Arithmetic) -> Array:
    return ar.number(np.zeros(()))


def _largest(ar: Arithmetic, values: Sequence[Array]) -> Array:
    """The largest of several numbers, entry by entry."""
    result = values[0]
    for value in values[1:]:
        result = ar.maximum(result, value)
    return result


KINDS: dict[str, Kind] = {
    "relu": Relu(),
    "sigmoid": Smooth(1, 1, 0),
    "tanh": Smooth(2, 2, -1),
    "max": Maximum(),
}
