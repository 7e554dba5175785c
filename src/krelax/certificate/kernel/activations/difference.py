"""What a rectifier makes of the difference of two numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.kernel.activations.rule import Ends, Rule, unless_lost
from krelax.certificate.kernel.arithmetic import Arithmetic, Array, Floats


@dataclass(frozen=True)
class Difference(Rule):
    """`act(g + d) - act(g)` of a rectifier, `act(z) = max(z, leak z)` with a leak in [0, 1]; entries of the
    pre-activation come in pairs, g and d.

    Between the lines `g = 0` and `g + d = 0` it is linear. So `slope z - coeff (...)` is largest over a box at a corner
    of the box, where one of these lines leaves the box, or where they meet.
    """

    elementwise = False
    name = "difference of two rectifiers"
    leak: float

    def interval(self, ends: Ends, float32: bool) -> Ends:
        """It has the sign of d, and is not larger."""
        known = _known(ends)
        values = [_act(g + d, self.leak) - _act(g, self.leak) for g, d in _points(ends, known)]
        aside = 2.0**-48 * (abs(ends[0]) + abs(ends[1])).reshape(len(ends[0]), -1, 2).sum(2) + 2.0**-1000
        low, high = reduce(np.minimum, values) - aside, reduce(np.maximum, values) + aside
        dl, du = (end[:, 1::2] for end in ends)
        low, high = np.where(known, low, -np.inf), np.where(known, high, np.inf)
        return np.maximum(low, np.minimum(dl, 0.0)), np.minimum(high, np.maximum(du, 0.0))

    def behind(self, coeff: Array) -> Array:
        return coeff[:, np.repeat(np.arange(coeff.shape[1]), 2)]

    def lines(self, ends: Ends, parallel: bool) -> Ends:
        """Flat in g, whichever rule: along d where both numbers are of one sign, else of the slope in the middle."""
        (gl, gu), (dl, du) = ([z[:, i::2] for z in ends] for i in (0, 1))
        positive, negative = gl + np.minimum(dl, 0.0) >= 0, gu + np.maximum(du, 0.0) <= 0
        slope = np.where(positive, 1.0, np.where(negative, self.leak, (1 + self.leak) / 2))
        lines = np.stack([np.zeros(slope.shape), slope], 2).reshape(len(slope), -1)
        return lines, lines

    def price(self, ar: Arithmetic, coeff: Array, slope: Array, ends: Ends) -> Array:
        known, c, leak = _known(ends), coeff[:, 0::2], ar.number(np.asarray(self.leak))
        s, t = slope[:, 0::2], slope[:, 1::2]

        def value(g: Floats, d: Floats) -> Array:
            x, y = ar.number(g), ar.number(d)
            moved = x + y
            apart = ar.maximum(moved, leak * moved) - ar.maximum(x, leak * x)
            return s * x + t * y - c * apart

        price = reduce(ar.maximum, (value(g, d) for g, d in _points(ends, known)))
        return unless_lost(ar, price, c, abs(s) + abs(t), np.broadcast_to(known, price.shape))

    def reach(self, ends: Ends) -> Floats:
        """With something for products with the leak that underflow."""
        largest = np.maximum(abs(ends[0]), abs(ends[1]))
        return 2 * (largest[:, 0::2] + largest[:, 1::2]) + 2.0**-900


def _act(z: Floats, leak: float) -> Floats:
    return np.maximum(z, leak * z)


def _known(ends: Ends) -> NDArray[np.bool_]:
    """Pairs that have ends on every side."""
    finite = np.isfinite(ends[0]) & np.isfinite(ends[1])
    return np.asarray(finite[:, 0::2] & finite[:, 1::2])


def _points(ends: Ends, known: NDArray[np.bool_]) -> Iterator[tuple[Floats, Floats]]:
    """The points among which a maximum is, as g and d, none of them rounded. Where a line misses the box another point
    of the box takes its place; zeros stand for those of which nothing is known."""
    (gl, gu), (dl, du) = ([np.where(known, z[:, i::2], 0.0) for z in ends] for i in (0, 1))
    yield from ((g, d) for g in (gl, gu) for d in (dl, du))
    for g in (gl, gu):
        yield g, np.clip(-g, dl, du)
    for d in (dl, du):
        yield np.clip(-d, gl, gu), d
        yield np.clip(0.0, gl, gu), d
    yield np.clip(0.0, gl, gu), np.clip(0.0, dl, du)
