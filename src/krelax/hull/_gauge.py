"""Kernels that find the facet of a hull of points between a point and the inside of the hull, by linear programming.

With p inside conv{v} and a point x, the gauge of x is the least t with x - p in t (conv{v} - p), so

    min sum_v mu_v   s.t.  sum_v mu_v (v - p) = x - p,  mu >= 0   =   max w.(x - p)   s.t.  w.(v - p) <= 1 for all v,

and an optimal w of the right-hand side, a vertex of the polar, is the facet through which the ray from p to x leaves
the hull: a target cut (Buchheim, Liers and Oswald, Local cuts revisited, 2008). Few rows (k + m) and many columns: the
revised primal simplex method with an explicit inverse. Nothing here needs to be exact: the caller proves every offset.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from krelax.hull.jit import kernel
from krelax.hull.polytope import Array

Index = NDArray[np.int64]

BIG = 1e6  # cost of an artificial column, in units of the hull: as if the hull were 1e-6 thick in every direction
TOLERANCE = 1e-9
_PIVOT = 1e-9  # smallest pivot; columns are of size one


@kernel
def cheapest(columns: Array, cost: Array, target: Array, limit: int, w: Array) -> int:
    """min cost.mu s.t. columns mu = target, mu >= 0; writes the multipliers w, the solution of the dual program
    max target.w s.t. w.columns <= cost, and returns the number of pivots, negative if stopped before the optimum.

    `columns` is `(n, V)`, scaled to size one, and cost nonnegative, so the dual is feasible and mu = 0 never unbounded.
    """
    n = len(target)
    inverse, level, price = np.zeros((n, n)), np.empty(n), np.full(n, BIG)
    artificial = np.ones(n, dtype=np.bool_)
    direction, reduced = np.empty(n), np.empty(len(cost))
    for i in range(n):
        inverse[i, i] = 1.0 if target[i] >= 0.0 else -1.0
        level[i] = abs(target[i])
    for pivot in range(limit):
        _multipliers(inverse, price, w)
        q = _entering(columns, cost, w, reduced)
        if q < 0:
            if not _release(level, price, artificial):
                return pivot
            continue
        for i in range(n):
            direction[i] = 0.0
            for j in range(n):
                direction[i] += inverse[i, j] * columns[j, q]
        r = _leaving(level, direction, price, artificial)
        if r < 0:
            return -pivot - 1
        _exchange(inverse, level, direction, r)
        price[r] = cost[q]
        artificial[r] = False
    return -limit - 1


@kernel
def _multipliers(inverse: Array, price: Array, w: Array) -> None:
    """w = price times the inverse of the basis."""
    n = len(w)
    w[:] = 0.0
    for i in range(n):
        for j in range(n):
            w[j] += price[i] * inverse[i, j]


@kernel
def _entering(columns: Array, cost: Array, w: Array, reduced: Array) -> int:
    """The column with the least reduced cost, or -1 if none is negative beyond rounding."""
    noise = 0.0
    for v in range(len(cost)):
        reduced[v] = cost[v]
    for i in range(len(w)):
        noise += abs(w[i])
        x = w[i]
        for v in range(len(cost)):
            reduced[v] -= x * columns[i, v]
    best, least = -1, -TOLERANCE - 1e-14 * noise
    for v in range(len(cost)):
        if reduced[v] < least:
            best, least = v, reduced[v]
    return best


@kernel
def _release(level: Array, price: Array, artificial: NDArray[np.bool_]) -> bool:
    """Free artificial columns that are used at level zero; whether there were any.

    They stand for directions orthogonal to all of the hull, or for ties: at no cost w has no component along them.
    """
    released = False
    for i in range(len(level)):
        if artificial[i] and price[i] > 0.0 and level[i] <= TOLERANCE:
            price[i] = 0.0
            released = True
    return released


@kernel
def _leaving(level: Array, direction: Array, price: Array, artificial: NDArray[np.bool_]) -> int:
    """Ratio test: the first basic column driven to zero, the largest pivot among equals; -1 if there is none."""
    best, least, size = -1, np.inf, 0.0
    for i in range(len(level)):
        x = direction[i]
        if artificial[i] and price[i] == 0.0 and abs(x) > _PIVOT:
            ratio, x = 0.0, abs(x)  # a free artificial column stays at zero, so it leaves first
        elif x > _PIVOT:
            ratio = level[i] / x
        else:
            continue
        if ratio < least - 1e-12 or (ratio <= least + 1e-12 and x > size):
            best, least, size = i, ratio, x
    return best


@kernel
def _exchange(inverse: Array, level: Array, direction: Array, r: int) -> None:
    """Inverse and levels of the basis after the column with this direction has replaced basis position r."""
    n = len(level)
    step = max(level[r] / direction[r], 0.0)
    for j in range(n):
        inverse[r, j] /= direction[r]
    for i in range(n):
        if i != r:
            level[i] = max(level[i] - step * direction[i], 0.0)
            for j in range(n):
                inverse[i, j] -= direction[i] * inverse[r, j]
    level[r] = step


@kernel
def facets(
    start: int,
    stop: int,
    points: Array,
    x: Array,
    near: Array,
    weight: Array,
    w: Array,
    centre: Array,
    scale: Array,
    pivots: Index,
) -> None:
    """For groups start..stop: the facet `w` of conv(points) between x and the inside point `centre`.

    `points` is `(G, V, n)`; x, near, w, centre, scale are `(G, n)`; weight and pivots `(G,)`. The inside point is
    (1 - weight) times the mean of the points plus weight times `near`. Written are w, in the units of x, the
    inside point, and the extent of the hull along each axis.
    """
    columns, cost = np.empty((points.shape[2], points.shape[1])), np.ones(points.shape[1])
    for g in range(start, stop):
        _centre(points[g], near[g], weight[g], centre[g])
        _columns(points[g], centre[g], scale[g], columns)
        target = (x[g] - centre[g]) / scale[g]
        pivots[g] = cheapest(columns, cost, target, 100 * len(target), w[g])
        for i in range(len(target)):
            w[g, i] /= scale[g, i]


@kernel
def _centre(points: Array, near: Array, weight: float, centre: Array) -> None:
    """A point in the relative interior of the hull of the points, nearer to `near` the larger the weight < 1."""
    centre[:] = 0.0
    for v in range(len(points)):
        for i in range(len(near)):
            centre[i] += points[v, i]
    for i in range(len(near)):
        centre[i] = (1.0 - weight) * centre[i] / len(points) + weight * near[i]


@kernel
def _columns(points: Array, centre: Array, scale: Array, columns: Array) -> None:
    """Write (points - centre) / scale, transposed, and the scale: the extent of the hull along each axis."""
    for i in range(len(centre)):
        scale[i] = 0.0
        for v in range(len(points)):
            columns[i, v] = points[v, i] - centre[i]
            scale[i] = max(scale[i], abs(columns[i, v]))
    _rescale(centre, scale)
    for i in range(len(centre)):
        reciprocal = 1.0 / scale[i]
        for v in range(len(points)):
            columns[i, v] *= reciprocal


@kernel
def _rescale(centre: Array, scale: Array) -> None:
    """Give axes along which the hull is flat, up to rounding, the scale of the largest axis.

    A hull that is a point has its distance from the origin, or 1, for a scale.
    """
    largest, distance = 0.0, 0.0
    for i in range(len(scale)):
        largest, distance = max(largest, scale[i]), max(distance, abs(centre[i]))
    noise = 1e-12 * max(largest, distance)
    if largest <= noise:
        largest = distance if distance > 0.0 else 1.0
    for i in range(len(scale)):
        if not scale[i] > noise:
            scale[i] = largest
