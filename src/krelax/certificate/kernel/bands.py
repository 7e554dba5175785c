"""Pairs of neurons that are no pieces of lines: what they pay is at most the support function of bands around their
graphs, over octagons.

Each member's interval is cut into segments: of those there are, the one whose band is widest is halved, again and
again. A band is two values of the activation's own support function: how far its graph lies on either side of a chord.
In a cell, a segment of each member, the price of a pair is a linear form, and what the cell leaves of the octagon is an
octagon again. The largest price of a cell is an upper bound. Nothing of this is chosen, so certificates say nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.format.schema import GroupSet
from krelax.certificate.kernel.activations import Ends
from krelax.certificate.kernel.activations.rule import ASIDE, Rule
from krelax.certificate.kernel.arithmetic import Arithmetic, Array, Float64, Floats, gamma
from krelax.certificate.kernel.linear import Pick
from krelax.certificate.kernel.octagons import Octagons, closed, octagon_of

# Segments of an interval.
_SEGMENTS = 16
# Cells are told apart by floats near their values, which are this near, relatively.
_NEAR = 2.0**-40


class Bands:
    """Pairs of `size` neurons with the activation of a rule: members `(groups, 2)`, and the octagons' rows with their
    bounds `(groups, m)`. `ends`, `(size,)`, are the intervals of all neurons."""

    def __init__(self, stored: GroupSet, bounds: Floats, ends: Ends, rule: Rule) -> None:
        self.members, self._rule = stored.members.astype(np.int64), rule
        self._place = Pick(self.members.reshape(-1), len(ends[0]))
        octagon = octagon_of(stored.rows, bounds)
        lower, upper = (end[self.members] for end in ends)
        lower = np.maximum(lower, -octagon[:, [1, 3]])
        upper = np.maximum(lower, np.minimum(upper, octagon[:, [6, 4]]))
        every = _segments(rule, lower.reshape(-1), upper.reshape(-1))
        # (groups, 2, segments) each
        self._low, self._high, self._slope, self._below, self._above = (
            np.ascontiguousarray(t.reshape(*self.members.shape, -1)) for t in every
        )
        self._lost = ~np.isfinite(self._below + self._above).all((1, 2))
        for table in (self._slope, self._below, self._above):
            table[self._lost] = 0.0
        self._far = np.maximum(abs(lower), abs(upper))
        aside = np.maximum(abs(self._below), abs(self._above)).max(2)
        self._large = abs(self._slope).max(2) * self._far + aside
        self._cells = self._cut(octagon)

    @property
    def width(self) -> int:
        """How many numbers there are for each row and pair, about: of cells that matter."""
        return 2 * _SEGMENTS

    def _cut(self, octagon: Floats) -> Octagons:
        """What is left of the octagons in every cell, `(groups * segments²,)`."""
        part = np.repeat(octagon[:, None], _SEGMENTS**2, 1).reshape(-1, _SEGMENTS, _SEGMENTS, 8)
        for place, end in ((1, -self._low[:, 0, :, None]), (6, self._high[:, 0, :, None])):
            part[..., place] = np.minimum(part[..., place], end)
        for place, end in ((3, -self._low[:, 1, None]), (4, self._high[:, 1, None])):
            part[..., place] = np.minimum(part[..., place], end)
        return closed(part.reshape(-1, 8))

    def put(self, ar: Arithmetic, x: Array) -> Array:
        """Numbers of the members, `(rows, groups, 2)`, added up at their neurons."""
        return self._place.adjoint(ar, x.reshape(len(x), len(self._place.index)))

    def support(self, ar: Arithmetic, coeff: Array, slope: Array, ends: Ends, basis: NDArray[np.uint8] | None) -> Array:
        """Upper bounds of `max slope z - coeff act(z)` over each pair, `(rows, groups, 2) -> (rows, groups)`.

        `ends`, `(rows | 1, size)`, are the neurons' intervals, cut by the splits of each row's leaf.
        """
        lower, upper = (end[:, self.members] for end in ends)
        alone = self._alone(ar, coeff, slope, (lower, upper))
        boxes = np.stack([self._boxes(ar.floats(coeff), ar.floats(slope), m, lower, upper) for m in (0, 1)])
        outer = boxes[0][..., :, None] + boxes[1][..., None, :]
        outer[:, ~self._possible()] = -np.inf
        flat = outer.reshape(*outer.shape[:2], -1)
        first = flat.argmax(2)
        row, group = np.indices(first.shape).reshape(2, -1)
        value = self._values(ar, coeff, slope, row, group, first.reshape(-1)).reshape(*first.shape)
        size = abs(ar.floats(coeff)) * self._large + abs(ar.floats(slope)) * self._far
        least = ar.floats(value) - _NEAR * size.sum(2)
        row, group, cell = np.nonzero(flat > least[..., None])
        others = self._values(ar, coeff, slope, row, group, cell)
        value = ar.largest_at(value, (row, group), others)
        none = ~np.isfinite(flat.max(2)) | self._lost
        return ar.where(none, alone, ar.minimum(value, alone))

    def _possible(self) -> NDArray[np.bool_]:
        return ~self._cells.empty.reshape(-1, _SEGMENTS, _SEGMENTS)

    def _boxes(self, coeff: Floats, slope: Floats, m: int, lower: Floats, upper: Floats) -> Floats:
        """About the largest values of a member's line in each of its segments, `(rows, groups, segments)`; minus
        infinity where the leaf's interval has nothing of it."""
        low, high = self._low[:, m], self._high[:, m]
        e = coeff[:, :, m, None]
        steep = slope[:, :, m, None] - e * self._slope[:, m]
        offset = np.where(e > 0, e * self._below[:, m], -e * self._above[:, m])
        outside = (low > upper[:, :, m, None]) | (high < lower[:, :, m, None])
        return np.where(outside, -np.inf, offset + np.maximum(steep * low, steep * high))

    def _values(
        self,
        ar: Arithmetic,
        coeff: Array,
        slope: Array,
        row: NDArray[np.int64],
        group: NDArray[np.int64],
        cell: NDArray[np.int64],
    ) -> Array:
        """Upper bounds of the prices in some cells, `(n,)`."""
        segment = np.stack([cell // _SEGMENTS, cell % _SEGMENTS], 1)
        tables = self._slope, self._below, self._above, self._low, self._high
        flat, below, above, low, high = (t[group[:, None], np.arange(2), segment] for t in tables)
        e, c = coeff[row, group], slope[row, group]
        size = abs(c) + abs(e) * ar.number(abs(flat))
        far = np.maximum(abs(low), abs(high))
        offset = ar.where(ar.positive(e), e * ar.number(below), e * ar.number(-above)).sum(1)
        number = group * _SEGMENTS**2 + cell
        here = Octagons(self._cells.bounds[number], self._cells.empty[number])
        steep = (c - e * ar.number(flat)).reshape(1, len(row), 2)
        value = here.support(ar, steep, size.reshape(1, len(row), 2), far[None])[0] + offset
        if slack := gamma(64, ar.unit):
            worth = (abs(e) * ar.number(np.maximum(abs(below), abs(above)))).sum(1)
            value = value + slack * (worth + abs(value)) + ar.tiny
        return value

    def _alone(self, ar: Arithmetic, coeff: Array, slope: Array, ends: Ends) -> Array:
        """What members pay by themselves, `(rows, groups)`, rounded up."""
        shape = coeff.shape
        low, high = (end.reshape(len(end), -1) for end in ends)
        flat = low.shape[1]
        price = self._rule.price(ar, coeff.reshape(len(coeff), flat), slope.reshape(len(slope), flat), (low, high))
        price = price.reshape(*shape).sum(2)
        if slack := gamma(128, ar.unit):
            reach = self._rule.reach((low, high)).reshape(ends[0].shape)
            # where nothing is known there is no price, or nothing is asked
            far, reach = (np.where(np.isfinite(t), t, 0.0) for t in (np.maximum(abs(ends[0]), abs(ends[1])), reach))
            price = price + (slack * (abs(slope) * far + abs(coeff) * reach).sum(2) + ar.tiny)
        return price


def _segments(rule: Rule, lower: Floats, upper: Floats) -> Floats:
    """Segments of intervals `(n,)` with their bands, `(5, n, segments)`: ends, slope, and distances below and above."""
    every = _band(rule, lower, upper)[:, :, None]
    rows = np.arange(len(lower))
    for _ in range(_SEGMENTS - 1):
        width = every[3] + every[4]
        widest = (width >= (1 - ASIDE) * width.max(1, keepdims=True)).argmax(1)
        low, high = every[:2, rows, widest]
        middle = low / 2 + high / 2
        every[:, rows, widest] = _band(rule, low, middle)
        every = np.concatenate([every, _band(rule, middle, high)[:, :, None]], 2)
    return every


def _band(rule: Rule, low: Floats, high: Floats) -> Floats:
    """Segments `(n,)` with their bands, `(5, n)`, in which act(z) lies: ends, and `slope z - below` and `+ above`."""
    at = [np.add(*(end / 2 for end in rule.interval((z[None], z[None]), False)))[0] for z in (low, high)]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        slope = np.nan_to_num((at[1] - at[0]) / (high - low), nan=0.0, posinf=0.0, neginf=0.0)
    ar, ends, one = Float64(), (low[None], high[None]), np.ones((1, len(low)))
    size = gamma(128, ar.unit) * (abs(slope) * np.maximum(abs(low), abs(high)) + rule.reach(ends)[0]) + ar.tiny
    below, above = (rule.price(ar, s * one, s * slope[None], ends)[0] + size for s in (1, -1))
    return np.stack([low, high, slope, below, above])
