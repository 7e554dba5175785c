"""Octagons: what is known of two neurons, with the normals in {-1, 0, 1}², and support functions over their parts.

Every sign pattern leaves a part of an octagon, which is an octagon again. Its bounds are made as small as they can be:
each is the least of its own and of sums of others (Miné, The Octagon Abstract Domain, 2006). Then the two normals next
to a direction are a basis that is optimal for it. Any upper bounds will do for a proof: sums are rounded upward.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.kernel.arithmetic import Arithmetic, Array, Floats, gamma

_NORMALS = [(a, b) for a, b in product((-1, 0, 1), repeat=2) if a or b]
_PLACE = {normal: n for n, normal in enumerate(_NORMALS)}


@dataclass(frozen=True, eq=False)
class Octagons:
    """Octagons of `(groups,)`: their bounds `(groups, 8)`, in the order of normals, and which contain nothing."""

    bounds: Floats
    empty: NDArray[np.bool_]

    def support(self, ar: Arithmetic, c: Array, size: Array, far: Floats) -> Array:
        """Upper bounds of `max c z`, `(rows, groups, 2) -> (rows, groups)`, by weak duality: multipliers of a diagonal
        and of a unit normal. `size` bounds the absolute terms that c is made of, `far`, `(rows | 1, groups, 2)`, |z|.
        """
        near = ar.floats(c)
        sign, absolute = np.where(near < 0, -1, 1), abs(near)
        larger = absolute[..., 0] >= absolute[..., 1]
        both, reach = absolute.min(2), ar.number(far)
        unit = sign * np.stack([larger, ~larger], -1)
        group = np.arange(len(self.bounds))
        value = worth = ar.number(np.zeros(larger.shape))
        rest = c
        for y, normal in ((both, sign), (absolute.max(2) - both, unit)):
            bound = self.bounds[group, _NUMBER[normal[..., 0] + 1, normal[..., 1] + 1]]
            value = value + ar.number(y) * ar.number(bound)
            worth = worth + ar.number(y) * ar.number(abs(bound) + far.sum(2))
            rest = rest - ar.number(y[..., None] * normal)
        value = value + (abs(rest) * reach).sum(2)
        if slack := gamma(64, ar.unit):
            value = value + (slack * (worth + (size * reach).sum(2)) + ar.tiny * (1 + worth + reach.sum(2)))
        return value


_NUMBER = np.array([[_PLACE.get((a, b), 0) for b in (-1, 0, 1)] for a in (-1, 0, 1)])


def octagons(rows: NDArray[np.int8], bounds: Floats) -> list[Octagons]:
    """What rows `(m, 2)`, with bounds `(groups, m)`, leave for each sign pattern; bit i of its number says that member
    i is at least zero."""
    whole, result = octagon_of(rows, bounds), []
    for number in range(4):
        part = whole.copy()
        for i in range(2):
            outside = [0, 0]
            outside[i] = -1 if number >> i & 1 else 1
            place = _PLACE[outside[0], outside[1]]
            part[:, place] = np.minimum(part[:, place], 0.0)
        result.append(closed(part))
    return result


def octagon_of(rows: NDArray[np.int8], bounds: Floats) -> Floats:
    """The bounds of octagons `(groups, 8)`, in the order of normals, from rows `(m, 2)` with bounds `(groups, m)`;
    infinite where there is none."""
    whole = np.full((len(bounds), len(_NORMALS)), np.inf)
    for n, row in enumerate(rows.tolist()):
        if any(row):
            whole[:, _PLACE[tuple(row)]] = np.minimum(whole[:, _PLACE[tuple(row)]], bounds[:, n])
    return whole


def closed(bounds: Floats) -> Octagons:
    """Octagons with bounds `(groups, 8)`, made as small as they can be."""
    least = _closed(bounds)
    finite = np.where(np.isfinite(least), least, np.finfo(np.float64).max / 4)
    return Octagons(finite, np.asarray((_up(least + least[:, ::-1]) < 0).any(1)))


def _closed(bounds: Floats) -> Floats:
    """The least that sums of two bounds say of every normal, and no less: units first, then diagonals."""
    every = bounds.copy()
    for (a, b), place in _PLACE.items():
        if a and b:
            continue
        others = [(a or s, b or s) for s in (1, -1)]  # the diagonals on both sides
        plus, minus = (bounds[:, _PLACE[d]] for d in others)
        every[:, place] = np.minimum(every[:, place], _up((plus + minus) / 2))
        for (first, second), s in zip(others, (1, -1), strict=True):
            unit = (-s if a == 0 else 0, -s if b == 0 else 0)
            every[:, place] = np.minimum(
                every[:, place], _up(bounds[:, _PLACE[first, second]] + bounds[:, _PLACE[unit]])
            )
    for (a, b), place in _PLACE.items():
        if a and b:
            every[:, place] = np.minimum(every[:, place], _up(every[:, _PLACE[a, 0]] + every[:, _PLACE[0, b]]))
    return every


def _up(x: Floats) -> Floats:
    """The next larger numbers."""
    return np.nextafter(x, np.inf)
