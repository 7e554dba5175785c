"""Products whose two operands are known together: what they pay over an octagon.

With u = z0 + z1 and v = z0 - z1 a product is (u² - v²) / 4. So for coeff >= 0 and fixed u the price, `s z0 + t z1 -
coeff z0 z1`, is convex in v, and largest at an end of what the octagon leaves of v, or anywhere beyond it. Each end is
given by three of the octagon's sides. So the range of u is cut in three, at any two points, with a side for each part.
On a side that fixes an operand the price is linear in u. On one that fixes v it is concave, and below its tangents. So
the largest of the values at the ends of parts is an upper bound, and the maximum itself if points are well chosen. For
coeff < 0 z1 changes its sign.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce

import numpy as np

from krelax.certificate.format.schema import GroupSet
from krelax.certificate.kernel.arithmetic import Arithmetic, Array, Floats, gamma
from krelax.certificate.kernel.octagons import closed, octagon_of

# The order of normals after z1 changed its sign.
_MIRROR = [2, 1, 0, 4, 3, 7, 6, 5]
# Bounds that are larger say nothing.
_LARGEST = 2.0**300


class Saddles:
    """Products with operands at members `(groups, 2)`, and octagons of z0 and 2^e z1 with bounds `(groups, m)`."""

    def __init__(self, stored: GroupSet, bounds: Floats) -> None:
        assert stored.exponents is not None  # as the format has it
        self.members = stored.members.astype(np.int64)
        self._scale = 2.0 ** -stored.exponents.astype(np.float64)
        octagon = closed(octagon_of(stored.rows, bounds)).bounds
        self._lost = np.asarray(~(abs(octagon) < _LARGEST).all(1))
        self._octagon = np.where(self._lost[:, None], 0.0, octagon)

    @property
    def width(self) -> int:
        """How many numbers there are for each row and product, about."""
        return 24

    def least(self, ar: Arithmetic, price: Array, coeff: Array, slope: Array) -> Array:
        """Prices of all products, `(rows, products)`, or less over the octagons. `coeff` has the same shape, `slope`
        has both operands in turns."""
        place = np.flatnonzero(~self._lost)
        product = self.members[place, 0] // 2
        found = self._support(ar, coeff[:, product], slope[:, self.members[place]], place)
        result = price + ar.number(np.zeros(()))
        result[:, product] = ar.minimum(price[:, product], found)
        return result

    def _support(self, ar: Arithmetic, coeff: Array, slope: Array, place: Array) -> Array:
        """Upper bounds of `max slope z - coeff z0 z1`, `(rows, groups)`."""
        scale = ar.number(self._scale[place])
        mirrored = ar.positive(-coeff)
        bounds = np.where(mirrored[..., None], self._octagon[place][:, _MIRROR], self._octagon[place])
        mm, mz, mp, zm, zp, pm, pz, pp = np.moveaxis(bounds, 2, 0)
        s, t, c = slope[:, :, 0], slope[:, :, 1] * scale, abs(coeff * scale)
        t = ar.where(mirrored, -t, t)
        values = [*_beside(ar, (s, t, c), (-mm, pp), (pm, pz, zm)), *_beside(ar, (t, s, c), (-mm, pp), (mp, zp, mz))]
        value = reduce(ar.maximum, values)
        if slack := gamma(64, ar.unit):
            far = abs(bounds).sum(2)
            size = (abs(s) + abs(t) + c * far) * far
            value = value + (slack * size + ar.tiny * (1 + size + far + far * far))
        return value


def _beside(
    ar: Arithmetic,
    numbers: tuple[Array, Array, Array],
    ends: tuple[Floats, Floats],
    sides: tuple[Floats, Floats, Floats],
) -> Iterator[Array]:
    """Values of the price `s x + t y - c x y`, c >= 0, at the ends of the three parts of u, on the side of large x - y:
    first y >= -below, then x - y <= apart, then x <= right."""
    (s, t, c), (low, high), (apart, right, below) = numbers, ends, sides
    first = np.clip(np.minimum(apart - 2 * below, right - below), low, high)
    second = np.clip(np.maximum(2 * right - apart, right - below), first, high)
    d, x, y = (ar.number(side) for side in (apart, right, -below))
    for u in map(ar.number, (low, first)):
        yield s * (u - y) + t * y - c * (u - y) * y
    half, quarter = ar.number(np.asarray(0.5)), ar.number(np.asarray(0.25))
    at = ar.number(_touching(ar.floats(s + t), ar.floats(c), first, second))
    for u in map(ar.number, (first, second)):
        square = at * (u + u - at)  # at most u²
        yield half * (s * (u + d) + t * (u - d)) - quarter * (c * (square - d * d))
    for u in map(ar.number, (second, high)):
        yield s * x + t * (u - x) - c * x * (u - x)


def _touching(steep: Floats, c: Floats, low: Floats, high: Floats) -> Floats:
    """Where the parabola is highest, about."""
    with np.errstate(all="ignore"):
        return np.clip(np.nan_to_num(steep / c), low, high)
