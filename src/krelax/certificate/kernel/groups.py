"""Groups of neurons: what they pay is the support function of the graph over a polytope, one linear program for each
pattern of signs.

A linear program is bounded from above by weak duality. For `P = {z : N z <= b}`, any y >= 0 and any z in P
`c z <= y b + sum_i |c - N'y|_i |z_i|`. So multipliers are only proposed, by solving for the rows of a basis in floating
point, and what they are worth is then computed with care. Members may also pay for themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.format.schema import GroupSet
from krelax.certificate.kernel.activations import Ends, Rule
from krelax.certificate.kernel.arithmetic import Arithmetic, Array, Floats, gamma
from krelax.certificate.kernel.bands import Bands
from krelax.certificate.kernel.linear import Pick
from krelax.certificate.kernel.octagons import octagons
from krelax.certificate.kernel.saddles import Saddles

Key = tuple[bytes, bytes]

# Rays along which a value falls by less, relative to its terms, lead nowhere.
_LEAST_SLOPE = 1e-9


class Groups:
    """Groups of k of `size` neurons with two linear pieces: members `(groups, k)`, and the polytopes' rows `(m, k)`
    with their bounds `(groups, m)`. `pieces` are the slopes for `z <= 0` and `z >= 0`."""

    def __init__(self, stored: GroupSet, bounds: Floats, size: int, pieces: tuple[float, float]) -> None:
        self.members, self.bounds, self._pieces = stored.members.astype(np.int64), bounds, pieces
        self._place = Pick(self.members.reshape(-1), size)
        k = stored.rows.shape[1]
        self._rows = np.concatenate([stored.rows, np.zeros((k, k))])
        self._bounds = np.concatenate([bounds, np.zeros((len(bounds), k))], 1)
        self._octagons = octagons(stored.rows, bounds) if k == 2 else None
        # signs (patterns, k): bit i of a pattern's number says that member i is at least zero
        self._signs = np.where(np.arange(2**k)[:, None] >> np.arange(k) & 1, 1.0, -1.0)

    @property
    def width(self) -> int:
        """How many numbers there are for each row and group."""
        return self.bounds.shape[1] + 1

    def _rows_of(self, sign: Floats) -> Floats:
        """Rows of the polytope's part of one pattern, `(m + k, k)`; the last ones say that the signs are these."""
        rows = self._rows.copy()
        rows[len(rows) - len(sign) :] = -np.diag(sign)
        return rows

    def put(self, ar: Arithmetic, x: Array) -> Array:
        """Numbers of the members, `(rows, groups, k)`, added up at their neurons."""
        return self._place.adjoint(ar, x.reshape(len(x), len(self._place.index)))

    def support(self, ar: Arithmetic, coeff: Array, slope: Array, ends: Ends, basis: NDArray[np.uint8] | None) -> Array:
        """Upper bounds of `max slope z - coeff act(z)` over each group, `(rows, groups, k) -> (rows, groups)`.

        `ends`, `(rows | 1, size)`, are the neurons' intervals, cut by the splits of each row's leaf.
        """
        values, possible = [], []
        lower, upper = (end[:, self.members] for end in ends)
        size = abs(slope) + abs(coeff)
        below_all = 2 * (ar.floats(size) * np.maximum(abs(lower), abs(upper))).sum(2)
        for number, sign in enumerate(self._signs):
            inside = np.where(sign > 0, (upper > 0) | (lower >= 0), lower < 0).all(2)
            low, high = np.where(sign > 0, np.maximum(lower, 0), lower), np.where(sign > 0, upper, np.minimum(upper, 0))
            c = slope - coeff * ar.number(np.where(sign > 0, self._pieces[1], self._pieces[0]))
            if self._octagons is None:
                rows = self._rows_of(sign)
                picked = None if basis is None else basis[:, :, number].astype(np.int64)
                y = self._multipliers(rows, ar.floats(c), below_all, picked)
                values.append(self._best(ar, rows, c, size, y, (low, high)))
            else:
                octagon = self._octagons[number]
                alone, far = self._alone(ar, c, size, (low, high)), np.maximum(abs(low), abs(high))
                values.append(ar.minimum(alone, octagon.support(ar, c, size, far)))
                inside = inside & ~octagon.empty
            possible.append(np.broadcast_to(inside, values[-1].shape))
        return self._maximum(ar, values, possible)

    def _maximum(self, ar: Arithmetic, values: list[Array], possible: list[NDArray[np.bool_]]) -> Array:
        """The largest value of a pattern that the intervals allow; at least one is."""
        least = reduce(ar.minimum, values)
        return reduce(ar.maximum, (ar.where(mask, x, least) for x, mask in zip(values, possible, strict=True)))

    def _alone(self, ar: Arithmetic, c: Array, size: Array, ends: Ends) -> Array:
        """Upper bounds of `max c z`, if members pay for themselves. `size` bounds the absolute terms that c is made
        of."""
        low, high = (ar.number(e) for e in ends)
        alone = ar.maximum(c * low, c * high).sum(2)
        if slack := gamma(64 + 4 * c.shape[2], ar.unit):
            alone = alone + (slack * (size * ar.number(np.maximum(abs(ends[0]), abs(ends[1])))).sum(2) + ar.tiny)
        return alone

    def _best(self, ar: Arithmetic, rows: Floats, c: Array, size: Array, y: Floats | None, ends: Ends) -> Array:
        """The least of two upper bounds of `max c z`: by multipliers, and of members by themselves."""
        alone = self._alone(ar, c, size, ends)
        if y is None:
            return alone
        far, y = ar.number(np.maximum(abs(ends[0]), abs(ends[1]))), ar.number(y)
        value, worth = (y * ar.number(self._bounds)).sum(2), (y * ar.number(abs(self._bounds))).sum(2)
        for i in range(rows.shape[1]):
            column = ar.number(rows[:, i])
            value = value + abs(c[:, :, i] - (y * column).sum(2)) * far[:, :, i]
            worth = worth + (y * abs(column)).sum(2) * far[:, :, i]
        if slack := gamma(64 + 4 * sum(rows.shape), ar.unit):
            value = value + (slack * (worth + (size * far).sum(2)) + ar.tiny * (1 + worth + far.sum(2)))
        return ar.minimum(alone, value)

    def _multipliers(
        self, rows: Floats, c: Floats, below_all: Floats, picked: NDArray[np.int64] | None
    ) -> Floats | None:
        """Proposed multipliers, `(rows, groups, m + k)`, at least zero; None if there are none."""
        if picked is None:
            return None
        count, k = rows.shape
        names, last = picked[:, :, :k], picked[:, :, k]
        known = (names < count).all(2)
        codes = np.where(known, names.clip(0, count - 1) @ count ** np.arange(k), 0)
        distinct, place = np.unique(codes, return_inverse=True)
        inverse = _inverses(rows[distinct[:, None] // count ** np.arange(k) % count])[place.reshape(codes.shape)]
        found, length = self._along_ray(np.einsum("rgi,rgij->rgj", c, inverse), inverse, rows, below_all, names, last)
        every = np.concatenate([found, length[..., None]], 2)
        every = np.where(known[..., None] & np.isfinite(every), np.maximum(every, 0), 0)
        y = np.zeros((*c.shape[:2], count))
        for i in range(k + 1):
            at = picked.clip(0, count - 1)[:, :, i : i + 1]
            np.put_along_axis(y, at, np.take_along_axis(y, at, 2) + every[:, :, i : i + 1], 2)
        return y

    def _along_ray(
        self,
        y: Floats,
        inverse: Floats,
        rows: Floats,
        below_all: Floats,
        names: NDArray[np.int64],
        last: NDArray[np.int64],
    ) -> tuple[Floats, Floats]:
        """Multipliers y of bases moved along the ray on which those of the rows `last`, `(rows, groups)`, enter, where
        there are such: far enough to show that the pattern is empty, if the ray does, and counts for less than others,
        whose values are not below `-below_all`, `(rows, groups)`. Also the entering multipliers."""
        entering = last < len(rows)
        place = last.clip(0, len(rows) - 1)
        weight = np.einsum("rgi,rgij->rgj", rows[place], inverse)
        group = np.arange(len(self._bounds))[None, :]
        bounds = self._bounds[group[..., None], names.clip(0, len(rows) - 1)]
        slope = self._bounds[group, place] - (weight * bounds).sum(2)
        steep = slope < -_LEAST_SLOPE * (abs(self._bounds[group, place]) + abs(weight * bounds).sum(2))
        goal = (y * bounds).sum(2) + below_all
        length = np.where(entering & steep, goal / np.where(steep, -slope, 1.0), 0.0).clip(0)
        return y - length[..., None] * weight, length


def _inverses(matrices: Floats) -> Floats:
    """Inverses of matrices of whole numbers, `(n, k, k)`; zero for those that are singular."""
    regular = abs(np.linalg.det(matrices)) > 0.5
    result = np.zeros_like(matrices)
    result[regular] = np.linalg.inv(matrices[regular])
    return result


def polytopes(stored: GroupSet, forms: Mapping[Key, float], ends: Ends, rule: Rule) -> Groups | Bands | Saddles:
    """A set of groups with the bounds of its rows: what was proven of `-row z`, by `key`, or the members' intervals,
    `(neurons,)` each."""
    lower, upper = ends
    members, rows = stored.members.astype(np.int64), stored.rows.astype(np.int64)
    low, high = lower[members][:, None], upper[members][:, None]
    factors = np.repeat(rows[None].astype(np.float64), len(members), 0)
    if stored.exponents is not None:
        factors[:, :, 1] *= 2.0 ** stored.exponents.astype(np.float64)[:, None]
    terms = np.where(factors > 0, factors * high, factors * low)
    bounds = terms.sum(2) + members.shape[1] * 2.0**-50 * abs(terms).sum(2)
    for g, own in enumerate(members):
        for r, row in enumerate(factors[g]):
            proven = forms.get(key(own[row != 0], -row[row != 0]))
            if proven is not None:
                bounds[g, r] = min(bounds[g, r], -proven)
    if rule.paired:
        return Saddles(stored, bounds + 2.0**-1000)  # for scaled numbers that underflow
    return Bands(stored, bounds, ends, rule) if rule.pieces is None else Groups(stored, bounds, len(lower), rule.pieces)


def key(entries: NDArray[Any], coefficients: Floats) -> Key:
    """A form as a key: its entries in increasing order, with their coefficients."""
    order = np.argsort(entries)
    return entries[order].astype(np.int64).tobytes(), coefficients[order].astype(np.float64).tobytes()
