"""Support functions of the exact hull of k neurons, as rigorous upper bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from krelax.hull._simplex import (
    INVALID,
    OPTIMAL,
    TINY,
    TOLERANCE,
    Shared,
    Work,
    exponent,
    gamma,
    piece_bound,
    prepare,
    scale_group,
    workspace,
)
from krelax.hull.jit import kernel, spread
from krelax.hull.pieces import Pieces
from krelax.hull.polytope import Array, Polytope

# More pivots than any piece takes.
_UNLIMITED = 2**31
# In place of a row.
NO_ROW = 255
_NO_SIDES = np.zeros((0, 0, 0), dtype=np.int8)
_SMALLEST_NORMAL, _LARGEST = 2.0**-1022, 2.0**1023 * (2.0 - 2.0**-52)


@dataclass(frozen=True, eq=False)
class Maximum:
    """Support values and where they are attained.

    `value` is `(G, D)`, a rigorous upper bound; `z` `(G, D, k)` and `a` `(G, D, m)` are a maximiser up to rounding.
    """

    value: Array
    z: Array
    a: Array


def support(
    polytope: Polytope,
    pieces: Pieces,
    slope: Array,
    coeff: Array,
    pivots: int | None = None,
    sides: NDArray[np.int8] | None = None,
) -> Maximum:
    """Upper bounds of max slope.z - coeff.a over the graph {(z, a(z)) : z in P_g}, for D directions in each group.

    `slope` is `(G, D, k)` and `coeff` `(G, D, m)`; the first axis of either may be 1 for the same in all groups.

    Sound: `value` is at least the maximum in real arithmetic over the polytopes that the float64 numbers describe.
    Exact: within 1e-12 of it, relative to max |slope|.|z| + |coeff|.|a| over the box, for rows with small integers.
    `pivots` caps the simplex pivots of each piece: then `value` is what weak duality gives after so many, still
    sound, and `z` the corner reached, which may lie outside the polytope. With `pivots=0` it is the box bound.

    With `sides`, `(G, D, k)`, over the part of the graph where `sides[g, d, i] * z_i >= 0`: pieces beyond a coordinate
    plane are left out. Exact for `Pieces.coordinatewise` if every coordinate with a side has a kink, else a larger set.
    Where what is left is empty, the maximum over all pieces.

    An empty polytope gets some finite value below every value in its box. `value` is never NaN; it is infinite where
    the direction or the box of the group is not finite, or the maximum overflows.

    Method: for every piece a dual simplex method in k variables from the best corner of the box, pieces in order of
    their box bounds, each left as soon as its dual value shows that it cannot win.

    Raises ValueError where shapes disagree.
    """
    slope, coeff = (np.ascontiguousarray(x, dtype=np.float64) for x in (slope, coeff))
    known = _NO_SIDES if sides is None else np.ascontiguousarray(sides, dtype=np.int8)
    _check(polytope, pieces, slope, coeff, None if sides is None else known.shape)
    G, D = polytope.groups, slope.shape[1]
    value, z, a = np.zeros((G, D)), np.zeros((G, D, pieces.k)), np.zeros((G, D, pieces.outputs))
    shared = prepare(polytope, pieces)
    limit = _UNLIMITED if pivots is None else pivots

    def chunk(start: int, stop: int) -> None:
        work = workspace(shared)
        _supports(start, stop, shared, polytope.bounds, slope, coeff, known, limit, value, z, a, work)

    spread(chunk, G, minimum=max(1, 2000 // (max(D, 1) * pieces.count)))
    return Maximum(value, z, a)


def _check(
    polytope: Polytope, pieces: Pieces, slope: Array, coeff: Array, sides: tuple[int, ...] | None = None
) -> None:
    """Raise ValueError where the arguments do not belong together."""
    G, k, m = polytope.groups, polytope.k, pieces.outputs
    if pieces.k != k:
        raise ValueError(f"pieces of {pieces.k} pre-activations cannot split polytopes in {k}")
    for name, array, width in (("slope", slope, k), ("coeff", coeff, m)):
        if array.ndim != 3 or array.shape[0] not in {1, G} or array.shape[2] != width:
            raise ValueError(f"{name} is (G, D, {width}) or (1, D, {width}) with G = {G}, not {array.shape}")
    if slope.shape[1] != coeff.shape[1]:
        raise ValueError(f"slope and coeff disagree on the number of directions: {slope.shape[1]}, {coeff.shape[1]}")
    if sides not in {None, (G, slope.shape[1], k)}:
        raise ValueError(f"sides are (G, D, k) = {(G, slope.shape[1], k)}, not {sides}")


@kernel
def _supports(
    start: int,
    stop: int,
    shared: Shared,
    bounds: Array,
    slope: Array,
    coeff: Array,
    sides: NDArray[np.int8],
    limit: int,
    value: Array,
    z: Array,
    a: Array,
    work: Work,
) -> None:
    """Fill `value`, `z` and `a` for groups start to stop, with at most `limit` pivots per piece."""
    for g in range(start, stop):
        scale = scale_group(shared, bounds[g], work)
        c, e = slope[min(g, slope.shape[0] - 1)], coeff[min(g, coeff.shape[0] - 1)]
        for d in range(value.shape[1]):
            shift = _scale_direction(shared, c[d], e[d], work) if scale != INVALID else INVALID
            if shift == INVALID:
                value[g, d] = math.inf
                continue
            if sides.shape[0] > 0:
                best, piece = _over_side(shared, work, sides[g, d], limit, z[g, d])
            else:
                best, piece = _over_pieces(shared, work, _boxes(shared, work), limit, z[g, d])
            value[g, d] = _unscaled(best, scale + shift) if shift != -INVALID else 0.0
            _place(shared, work, piece, scale, z[g, d], a[g, d])


def bases(polytope: Polytope, pieces: Pieces, slope: Array, coeff: Array) -> NDArray[np.uint8]:
    """Rows that bound every piece well enough for the support function, `(G, D, 2**k, k + 1)`: what a proof needs.

    Arguments as for `support`, with pieces that tell all signs of k coordinates apart; pieces are numbered in binary,
    bit i (of value 2**i) saying that coordinate i is at least zero. A number below m is a row of the polytope, m + i
    the row of coordinate i's sign. Where the last one is not `NO_ROW`, it is the entering row of a dual ray: the piece
    is empty. Where the piece's box is bound enough, all are `NO_ROW`.

    Raises ValueError where shapes disagree, and for pieces of another kind.
    """
    slope, coeff = (np.ascontiguousarray(x, dtype=np.float64) for x in (slope, coeff))
    _check(polytope, pieces, slope, coeff)
    shared, k = prepare(polytope, pieces), pieces.k
    if pieces.count != 2**k or not shared.signs.all():
        raise ValueError("pieces that do not tell all signs apart")
    found = np.full((polytope.groups, slope.shape[1], 2**k, k + 1), NO_ROW, dtype=np.uint8)

    def chunk(start: int, stop: int) -> None:
        _bases(start, stop, shared, polytope.bounds, slope, coeff, _UNLIMITED, found, workspace(shared))

    spread(chunk, polytope.groups, minimum=max(1, 2000 // (max(slope.shape[1], 1) * pieces.count)))
    return found


@kernel
def _bases(
    start: int,
    stop: int,
    shared: Shared,
    bounds: Array,
    slope: Array,
    coeff: Array,
    limit: int,
    found: NDArray[np.uint8],
    work: Work,
) -> None:
    """Fill `found` for groups start to stop, with at most `limit` pivots per piece."""
    z = np.zeros(slope.shape[2])
    for g in range(start, stop):
        scale = scale_group(shared, bounds[g], work)
        c, e = slope[min(g, slope.shape[0] - 1)], coeff[min(g, coeff.shape[0] - 1)]
        for d in range(found.shape[1]):
            if scale == INVALID or abs(_scale_direction(shared, c[d], e[d], work)) == INVALID:
                continue
            best, _ = _over_pieces(shared, work, _boxes(shared, work), limit, z)
            _boxes(shared, work)
            for piece in range(work.box.shape[0]):
                if work.box[piece] > best:
                    piece_bound(shared, work, piece, best, limit)
                    _write_basis(shared, work, piece, bounds.shape[1], found[g, d])


@kernel
def _write_basis(shared: Shared, work: Work, piece: int, rows: int, found: NDArray[np.uint8]) -> None:
    """The rows of a basis, where the piece has its place."""
    k = shared.signs.shape[1]
    number = 0
    for i in range(k):
        number += 2**i if shared.signs[piece, i] > 0.0 else 0
    for j in range(k + 1):
        row = work.basis[j]
        for i in range(k):
            sign = shared.units[0 if shared.signs[piece, i] > 0.0 else 1, i]
            if row == sign and not work.bounds[row] < 0.0:
                row = rows + i
        found[number, j] = row if row >= 0 else NO_ROW


@kernel
def _scale_direction(shared: Shared, slope: Array, coeff: Array, work: Work) -> int:
    """Set `objective` and `size` of every piece, scaled; the exponent, INVALID if not finite, -INVALID if zero."""
    largest = 0.0
    finite = True
    for x in slope:
        largest = max(largest, abs(x))
        finite = finite and math.isfinite(x)
    for x in coeff:
        largest = max(largest, abs(x))
        finite = finite and math.isfinite(x)
    if not finite:
        return INVALID
    shift = exponent(largest)
    factor = math.ldexp(1.0, -shift)
    pieces, outputs, k = shared.maps.shape
    for p in range(pieces):
        for i in range(k):
            c = slope[i] * factor
            size = abs(c)
            for o in range(outputs):
                term = shared.maps[p, o, i] * (coeff[o] * factor)
                c -= term
                size += abs(term)
            work.objective[p, i], work.size[p, i] = c, size
    return shift if largest > 0.0 else -INVALID


@kernel
def _unscaled(value: float, exponent: int) -> float:
    """value * 2**exponent, rounded up where it underflows or overflows."""
    half = exponent // 2
    scaled = value * math.ldexp(1.0, half) * math.ldexp(1.0, exponent - half)
    if abs(scaled) < _SMALLEST_NORMAL:
        return _SMALLEST_NORMAL if value > 0.0 else 0.0
    return max(scaled, -_LARGEST)


@kernel
def _place(shared: Shared, work: Work, piece: int, scale: int, z: Array, a: Array) -> None:
    """Undo the scaling of the maximiser, and map it to the post-activations of its piece."""
    factor = math.ldexp(1.0, scale)
    for i in range(z.shape[0]):
        z[i] *= factor
    for o in range(a.shape[0]):
        a[o] = 0.0
        for i in range(z.shape[0]):
            a[o] += shared.maps[piece, o, i] * z[i]


@kernel
def _over_side(shared: Shared, work: Work, sides: NDArray[np.int8], limit: int, z: Array) -> tuple[float, int]:
    """As `_over_pieces` for the pieces that agree with the sides; for all of them if these are empty.

    A point with `sides_i * z_i > 0` for all sides is in no piece that disagrees, so the pieces that agree, which are
    closed, cover the points with `sides_i * z_i >= 0`.
    """
    magnitude = _boxes(shared, work)
    for i in range(sides.shape[0]):
        if sides[i] != 0:
            for p in range(work.box.shape[0]):
                if shared.signs[p, i] * sides[i] < 0.0:
                    work.box[p] = -math.inf
    best, piece = _over_pieces(shared, work, magnitude, limit, z)
    if best < -1.5 * magnitude:  # less than any value in the box: nothing is left
        return _over_pieces(shared, work, _boxes(shared, work), limit, z)
    return best, piece


@kernel
def _over_pieces(shared: Shared, work: Work, magnitude: float, limit: int, z: Array) -> tuple[float, int]:
    """The largest bound of a piece, and that piece; its corner is left in `z`.

    Pieces are visited by their box bounds, the most promising first, and left as soon as they cannot win: `result`
    is the largest rigorous bound so far, `attained` the largest value attained. `magnitude` is that of `_boxes`.
    """
    slack = TOLERANCE * magnitude
    # below every value attained in the box: what an empty polytope gets
    result = attained = highest = -2.0 * magnitude - TINY
    winner = _largest(work.box)
    for _ in range(work.box.shape[0]):
        piece = _largest(work.box)
        threshold = max(result, attained + slack)
        if work.box[piece] <= threshold:
            return max(result, work.box[piece]), winner
        work.box[piece] = -math.inf
        status, bound = piece_bound(shared, work, piece, threshold, limit)
        result = max(result, bound)
        if status == OPTIMAL:
            attained = max(attained, bound)
        if bound > highest and (status == OPTIMAL or bound > threshold):
            highest, winner = bound, piece
            for i in range(z.shape[0]):
                z[i] = work.z[i]
    return result, winner


@kernel
def _largest(x: Array) -> int:
    """Where the largest entry is."""
    largest = 0
    for i in range(1, x.shape[0]):
        if x[i] > x[largest]:
            largest = i
    return largest


@kernel
def _boxes(shared: Shared, work: Work) -> float:
    """Set the rigorous bound of every piece over its box, -inf if that is empty; the magnitude of the objective."""
    units, b = shared.units, work.bounds
    pieces, outputs, k = shared.maps.shape
    relative = gamma(k + outputs + 12)
    largest = 0.0
    for p in range(pieces):
        cap = shared.caps[p]
        total = magnitude = 0.0
        empty = False
        for i in range(k):
            upper = min(b[units[1, i]], cap[units[1, i]])
            lower = -min(b[units[0, i]], cap[units[0, i]])
            empty = empty or lower > upper
            c = work.objective[p, i]
            total += c * upper if c > 0.0 else c * lower
            magnitude += work.size[p, i] * work.reach[i]
        work.box[p] = -math.inf if empty else total + relative * magnitude + TINY
        largest = max(largest, magnitude)
    return largest
