"""The product of two numbers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.errors import Rejected
from krelax.certificate.kernel.activations.rule import ASIDE, LARGEST_FLOAT32, Ends, Rule
from krelax.certificate.kernel.arithmetic import Arithmetic, Array, Floats


@dataclass(frozen=True)
class Product(Rule):
    """`z0 * z1`; entries of the pre-activation come in pairs. Its executions in float32 round once.

    `f = slope z - coeff z0 z1` is linear in either operand, so its maximum over the box is at a corner.
    """

    elementwise, paired = False, True
    name, float32 = "product", True

    def factors(self, slope: Array) -> tuple[Array, Array]:
        return slope[:, 1::2], slope[:, 0::2]

    def interval(self, ends: Ends, float32: bool) -> Ends:
        """Where operands cannot have different signs, or equal ones, the product has one, however small it is."""
        x, y = ([z[:, i::2] for z in ends] for i in (0, 1))
        signs, products = ([u * v for u in a for v in b] for a, b in ((map(np.sign, x), [*map(np.sign, y)]), (x, y)))
        low, high = reduce(np.minimum, products), reduce(np.maximum, products)
        relative, least = (2.0**-22, self._lost(ends)) if float32 else (2.0**-50, 2.0**-1000)
        if float32 and not (np.maximum(-low, high) < LARGEST_FLOAT32).all():
            raise Rejected("float32 executions of a product may overflow")
        low, high = low - relative * abs(low) - least, high + relative * abs(high) + least
        low = np.where(reduce(np.minimum, signs) >= 0, np.maximum(low, 0.0), low)
        high = np.where(reduce(np.maximum, signs) <= 0, np.minimum(high, 0.0), high)
        return np.where(np.isnan(low), -np.inf, low), np.where(np.isnan(high), np.inf, high)

    def undecided(self, ends: Ends) -> NDArray[np.bool_]:
        wide = ends[1] > ends[0]
        return np.repeat(wide[:, 0::2] & wide[:, 1::2], 2, axis=1)

    def behind(self, coeff: Array) -> Array:
        return coeff[:, np.repeat(np.arange(coeff.shape[1]), 2)]

    def lines(self, ends: Ends, parallel: bool) -> Ends:
        """Those of the middle of the box; or two facets, which meet the graph at its lowest and at its highest corner.
        Slopes are the other operand's numbers."""
        centre, radius = (ends[0] + ends[1]) / 2, (ends[1] - ends[0]) / 2
        (x, y), (dx, dy) = ((z[:, 0::2], z[:, 1::2]) for z in (centre, radius))
        if parallel:
            return _pairs(y, x), _pairs(y, x)
        one, two, aside = x * dy, y * dx, ASIDE * ((abs(x) + dx) * dy + (abs(y) + dy) * dx)
        below, above = (np.where(side >= -aside, 1.0, -1.0) for side in (one + two, one - two))
        return _pairs(y - below * dy, x - below * dx), _pairs(y + above * dy, x - above * dx)

    def price(self, ar: Arithmetic, coeff: Array, slope: Array, ends: Ends) -> Array:
        (x, y), c = ([(z[:, i::2], slope[:, i::2]) for z in ends] for i in (0, 1)), coeff[:, 0::2]
        corners = (s * ar.number(u) + t * ar.number(v) - c * (ar.number(u) * ar.number(v)) for u, s in x for v, t in y)
        return reduce(ar.maximum, corners)

    def executed(self, ends: Ends) -> Floats:
        largest = np.maximum(abs(ends[0]), abs(ends[1]))
        return 2.0**-23 * largest[:, 0::2] * largest[:, 1::2] + self._lost(ends)

    @staticmethod
    def _lost(ends: Ends) -> Floats:
        """What float32 loses of products that are subnormal, or of operands that are, and are taken for zero."""
        largest = np.maximum(abs(ends[0]), abs(ends[1]))
        return 2.0**-120 * (1 + largest[:, 0::2] + largest[:, 1::2])

    def reach(self, ends: Ends) -> Floats:
        """With something for products that underflow."""
        largest = np.maximum(abs(ends[0]), abs(ends[1]))
        return largest[:, 0::2] * largest[:, 1::2] + 2.0**-900


def _pairs(first: Floats, second: Floats) -> Floats:
    """Two arrays entry by entry in turns."""
    return np.stack([first, second], 2).reshape(len(first), -1)
