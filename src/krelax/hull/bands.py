"""Pairs of neurons that are no pieces of lines: support functions of bands around their graphs, over octagons.

Each member's interval is cut into segments. Over a segment its graph lies between two parallel lines, a band. So the
graph of a pair lies, over each cell of two segments, in a product of bands, and a direction's maximum over the cell is
that of a linear form over what the cell leaves of the octagon. This is an octagon again, whose tight bounds give the
maximum in closed form. So support values are upper bounds, by as much as bands are wide, which is a quarter for
segments half as long.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from krelax.hull.jit import kernel, spread
from krelax.hull.octagon import ROWS
from krelax.hull.polytope import Array, Polytope
from krelax.hull.support import Maximum

# What rounding may change of a value, in units of rounding of the sum of its absolute terms: some forty operations.
_ROUNDING = 64 * 2.0**-53
_TINY = 2.0**-1000
# A table of cells is as much work as so many directions.
_CELLS = 30


@dataclass(frozen=True, eq=False)
class Bands:
    """Bands around the graphs of G pairs, over octagons.

    `octagon` is `(G, 8)`, in the order of `krelax.hull.octagon.ROWS`. Over segment s of member i, from `ends[g, i, s,
    0]` to `ends[g, i, s, 1]`, the activation lies between `slope * z - below` and `slope * z + above`: all three are
    `(G, 2, S)`. The segments cover the octagon. All numbers are float64 and finite.
    """

    octagon: Array
    ends: Array
    slope: Array
    below: Array
    above: Array

    def select(self, which: NDArray[np.int64] | NDArray[np.bool_]) -> Bands:
        """Some of the pairs."""
        return Bands(*(t[which] for t in (self.octagon, self.ends, self.slope, self.below, self.above)))

    @cached_property
    def cells(self) -> Array:
        """Tight bounds of what every cell leaves of the octagons, `(G, S, S, 8)`, rounded outward; the first one is
        minus infinity where that is nothing."""
        count, segments = len(self.octagon), self.slope.shape[2]
        cells = np.empty((count, segments, segments, 8))
        spread(lambda start, stop: _fill(start, stop, self.octagon, self.ends, cells), count, minimum=_CELLS)
        return cells

    @cached_property
    def size(self) -> Array:
        """What a member's coefficient multiplies at most, and its slope, `(G, 2, 2)`."""
        far, aside = np.abs(self.ends).max((2, 3)), np.maximum(np.abs(self.below), np.abs(self.above)).max(2)
        return np.stack([np.abs(self.slope).max(2) * far + aside, far], 2)


@dataclass(frozen=True, eq=False)
class BandHull:
    """The hulls of pairs in bands, for `krelax.hull.separate`; `act` is the activation."""

    bands: Bands
    act: Callable[[Array], Array]
    outputs: ClassVar[int] = 2

    @cached_property
    def polytope(self) -> Polytope:
        return Polytope(np.array(ROWS, dtype=np.float64), self.bands.octagon)

    def select(self, index: NDArray[np.bool_]) -> BandHull:
        return BandHull(self.bands.select(index), self.act)

    def evaluate(self, z: Array) -> Array:
        return self.act(z)

    def support(self, slope: Array, coeff: Array) -> Maximum:
        every = len(self.bands.octagon)
        wide = (np.broadcast_to(t, (every, *t.shape[1:])).swapaxes(1, 2).copy() for t in (slope, coeff))
        found = support(self.bands, *wide)
        return Maximum(found.value, found.z.swapaxes(1, 2), found.a.swapaxes(1, 2))


def support(bands: Bands, slope: Array, coeff: Array) -> Maximum:
    """Upper bounds of max slope.z - coeff.a over the graphs, for D directions in each pair, both `(G, 2, D)`.

    Sound: `value`, `(G, D)`, is at least the maximum in real arithmetic; infinite for what is not finite. `z` and `a`,
    `(G, 2, D)`, are where the bands attain it, up to rounding. Complete: but for the width of the bands. The maximum
    over an octagon that is empty is some number.
    """
    count, _, directions = slope.shape
    value, z, a = np.empty((count, directions)), np.empty(slope.shape), np.empty(slope.shape)
    tables = bands.ends, bands.slope, bands.below, bands.above, bands.cells, bands.size

    def chunk(start: int, stop: int) -> None:
        _supports(start, stop, *tables, slope, coeff, value, z, a)

    spread(chunk, count, minimum=max(1, 4000 // max(directions, 1)))
    return Maximum(value, z, a)


@kernel
def _up(x: float) -> float:
    """A number that is larger by a unit of rounding, or two."""
    return x + (abs(x) * 2.0**-52 + _TINY)


@kernel
def _unit(own: float, minus: float, plus: float, above: float, below: float) -> float:
    """The tight bound of ±z_i, from the diagonals ±z_i - z_j and ±z_i + z_j and the bounds of z_j and -z_j."""
    return min(own, _up((minus + plus) / 2), _up(minus + above), _up(plus + below))


@kernel
def _fill(start: int, stop: int, octagon: Array, ends: Array, cells: Array) -> None:
    """The tight bounds of cells (`krelax.hull.octagon.tighten`)."""
    segments = cells.shape[1]
    for g in range(start, stop):
        mm, mp, pm, pp = octagon[g, 0], octagon[g, 2], octagon[g, 5], octagon[g, 7]
        for i in range(segments):
            mz, pz = min(octagon[g, 1], -ends[g, 0, i, 0]), min(octagon[g, 6], ends[g, 0, i, 1])
            for j in range(segments):
                zm, zp = min(octagon[g, 3], -ends[g, 1, j, 0]), min(octagon[g, 4], ends[g, 1, j, 1])
                left, right = _unit(mz, mm, mp, zp, zm), _unit(pz, pm, pp, zp, zm)
                down, up = _unit(zm, mm, pm, pz, mz), _unit(zp, mp, pp, pz, mz)
                cell = cells[g, i, j]
                cell[0], cell[2] = min(mm, _up(left + down)), min(mp, _up(left + up))
                cell[5], cell[7] = min(pm, _up(right + down)), min(pp, _up(right + up))
                cell[1], cell[3], cell[4], cell[6] = left, down, up, right
                empty = _up(left + right) < 0.0 or _up(down + up) < 0.0
                if empty or _up(cell[0] + cell[7]) < 0.0 or _up(cell[2] + cell[5]) < 0.0:
                    cell[0] = -math.inf


@kernel
def _supports(
    start: int,
    stop: int,
    ends: Array,
    slope: Array,
    below: Array,
    above: Array,
    cells: Array,
    size: Array,
    lam: Array,
    coeff: Array,
    value: Array,
    z: Array,
    a: Array,
) -> None:
    """Fill `value`, `z` and `a` for pairs start to stop."""
    segments = slope.shape[2]
    steep, price, box = np.empty((2, segments)), np.empty((2, segments)), np.empty((2, segments))
    at = np.empty(2)
    for g in range(start, stop):
        for d in range(value.shape[1]):
            charge = 0.0
            for k in range(2):
                c, e = lam[g, k, d], coeff[g, k, d]
                charge += abs(c) * size[g, k, 1] + abs(e) * size[g, k, 0]
                for s in range(segments):
                    m = c - e * slope[g, k, s]
                    steep[k, s] = m
                    price[k, s] = e * below[g, k, s] if e > 0.0 else -e * above[g, k, s]
                    box[k, s] = price[k, s] + max(m * ends[g, k, s, 0], m * ends[g, k, s, 1])
            best, i, j = _best(cells[g], steep, price, box, at)
            value[g, d] = best + (_ROUNDING * charge + _TINY) if math.isfinite(charge) else math.inf
            for k in range(2):
                s = i if k == 0 else j
                e = coeff[g, k, d]
                z[g, k, d] = at[k]
                a[g, k, d] = slope[g, k, s] * at[k] + (above[g, k, s] if e < 0.0 else -below[g, k, s])


@kernel
def _best(cells: Array, steep: Array, price: Array, box: Array, at: Array) -> tuple[float, int, int]:
    """The largest value of a cell, and that cell; where it is attained goes to `at`. Cells that cannot win by what
    their boxes say are passed over."""
    segments = steep.shape[1]
    first, second = int(np.argmax(box[0])), int(np.argmax(box[1]))
    top = box[1, second]
    best, row, column = _over(cells, steep, price, first, second), first, second
    for i in range(segments):
        if not box[0, i] + top > best:
            continue
        for j in range(segments):
            if box[0, i] + box[1, j] > best:
                here = _over(cells, steep, price, i, j)
                if here > best:
                    best, row, column = here, i, j
    if best == -math.inf:  # the octagon is empty
        best = box[0, first] + top
    _place(cells[row, column], steep[0, row], steep[1, column], at)
    return best, row, column


@kernel
def _over(cells: Array, steep: Array, price: Array, i: int, j: int) -> float:
    """The largest value of a linear form over a cell, which its two normals next to the direction prove."""
    cell, m0, m1 = cells[i, j], steep[0, i], steep[1, j]
    if cell[0] == -math.inf:
        return -math.inf
    unit, diagonal = _normals(m0, m1)
    x, y = abs(m0), abs(m1)
    return price[0, i] + price[1, j] + (min(x, y) * cell[diagonal] + abs(x - y) * cell[unit])


@kernel
def _normals(m0: float, m1: float) -> tuple[int, int]:
    """The unit normal and the diagonal next to a direction, by their numbers in the order of rows."""
    diagonal = (5 if m0 >= 0.0 else 0) + (2 if m1 >= 0.0 else 0)
    if abs(m0) >= abs(m1):
        return (6 if m0 >= 0.0 else 1), diagonal
    return (4 if m1 >= 0.0 else 3), diagonal


@kernel
def _place(cell: Array, m0: float, m1: float, at: Array) -> None:
    """The vertex of a cell between these normals."""
    unit, diagonal = _normals(m0, m1)
    corner = max(cell[diagonal], -cell[7 - diagonal])  # of an empty cell, any number that is finite
    s0, s1 = (1.0 if m0 >= 0.0 else -1.0), (1.0 if m1 >= 0.0 else -1.0)
    if abs(m0) >= abs(m1):
        at[0], at[1] = s0 * cell[unit], s1 * (corner - cell[unit])
    else:
        at[1], at[0] = s1 * cell[unit], s0 * (corner - cell[unit])
