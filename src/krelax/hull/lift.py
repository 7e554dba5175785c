"""Lifted rows: near-facets of the hull of k neurons from the rows of P, one coordinate at a time.

The idea of WraLU (Ma et al., ReLU hull approximation, POPL 2024): start from a row b - r.z >= 0 of P and subtract, for
each coordinate in some order, the largest multiples of z_i^+ = max(z_i, 0) and z_i^- = max(-z_i, 0) that leave the left
side nonnegative. Both are linear in (z_i, a_i). The left side stays concave, because multiples are nonnegative; so its
minimum over P is at a vertex of P, and no other vertex of the pieces matters.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from krelax.hull.jit import kernel, spread
from krelax.hull.pieces import Pieces
from krelax.hull.polytope import Array, Polytope
from krelax.hull.rows import Rows, supporting
from krelax.hull.separate import Pool

Index = NDArray[np.int64]

# Relative to the size of P: coordinates and slacks below it are zeros spoilt by rounding.
TOLERANCE = 1e-9


class _Kinks(NamedTuple):
    """a_i = negative_i z_i for z_i <= 0 and positive_i z_i for z_i >= 0, and the coordinates where these differ."""

    negative: Array
    positive: Array
    where: Index


def orders(k: int, count: int = 2, seed: int = 0) -> Index:
    """Orders of lifting, `(count, k)`: the coordinates as they are, reversed, then random ones."""
    random = np.random.default_rng(seed)
    rest = [random.permutation(k) for _ in range(count - 2)]
    return np.stack([np.arange(k), np.arange(k)[::-1], *rest])[:count]


def lift(polytope: Polytope, pieces: Pieces, points: Pool, order: Index | None = None) -> Rows:
    """Rows of P lifted into the space of pre- and post-activations, in each of the given orders: `(G, r, ...)`.

    `pieces` must act on each coordinate by itself (ReLU, leaky ReLU, pass-through), else ValueError. `points` must have
    all vertices of P among them (see `krelax.hull.vertices`; other points of P do no harm), or the rows are worse.
    `order` is `(o, k)`, permutations, default `orders(k)`. Duplicates and rows that are rows of P are left out; the
    lower sides of the activations, a_i >= 0 and a_i >= z_i of ReLU, are not lifted rows: add them.

    Sound: offsets are rigorous support values. Not complete: see `separate` for the rest.
    """
    kinks = _kinks(pieces)
    order = orders(polytope.k) if order is None else np.asarray(order, dtype=np.int64)
    order = order[np.isin(order, kinks.where)].reshape(len(order), len(kinks.where))
    shape = (polytope.groups, len(order), len(polytope.rows), polytope.k)
    plus, minus = np.zeros(shape), np.zeros(shape)
    z = np.ascontiguousarray(points.z)

    def run(start: int, stop: int) -> None:
        _lift(start, stop, polytope.rows, polytope.bounds, z, order, plus, minus)

    spread(run, polytope.groups, minimum=32)
    return _rows(polytope, pieces, kinks, plus, minus)


def _kinks(pieces: Pieces) -> _Kinks:
    """The two slopes of every coordinate."""
    k = pieces.k
    if pieces.outputs != k or np.any(pieces.maps * (1.0 - np.eye(k))):
        raise ValueError("lifting needs an activation that acts on each coordinate by itself")
    positive, negative = (np.diag(pieces.evaluate(sign * np.eye(k))) * sign for sign in (1.0, -1.0))
    return _Kinks(negative, positive, np.flatnonzero(positive != negative))


def _rows(polytope: Polytope, pieces: Pieces, kinks: _Kinks, plus: Array, minus: Array) -> Rows:
    """The rows r.z + plus.z^+ + minus.z^- <= b in terms of z and a, with z^+ = (a - negative z) / (positive - negative)
    and z^- = z^+ - z.
    """
    kink = np.zeros(polytope.k)
    kink[kinks.where] = 1.0 / (kinks.positive - kinks.negative)[kinks.where]
    z = polytope.rows - plus * kinks.negative * kink - minus * kinks.positive * kink
    a = (plus + minus) * kink
    flat = (polytope.groups, -1, polytope.k)
    z, a, wanted = _compact(z.reshape(flat), a.reshape(flat), _new(polytope, plus, minus))
    return supporting(polytope, pieces, z, a, wanted)


def _new(polytope: Polytope, plus: Array, minus: Array) -> NDArray[np.bool_]:
    """Rows that are lifted at all, and not as an earlier order lifted the same row: `(G, o * m)`."""
    multiples = np.concatenate([plus, minus], axis=-1)
    new = (multiples > TOLERANCE).any(-1) & np.isfinite(polytope.bounds)[:, None]
    for later in range(1, multiples.shape[1]):
        difference = np.abs(multiples[:, :later] - multiples[:, later, None]).max(-1)
        new[:, later] &= (difference > TOLERANCE).all(axis=1)
    return new.reshape(polytope.groups, -1)


def _compact(z: Array, a: Array, wanted: NDArray[np.bool_]) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Wanted rows first, and no more columns than the group with most of them needs."""
    first = np.argsort(~wanted, axis=1, kind="stable")[:, : wanted.sum(axis=1).max(initial=0)]
    return (
        np.take_along_axis(z, first[:, :, None], axis=1),
        np.take_along_axis(a, first[:, :, None], axis=1),
        np.take_along_axis(wanted, first, axis=1),
    )


@kernel
def _lift(
    start: int, stop: int, rows: Array, bounds: Array, points: Array, order: Index, plus: Array, minus: Array
) -> None:
    """Multiples of z^+ and z^- for groups start..stop; `points` is `(G, V, k)`, `plus` and `minus` `(G, o, m, k)`."""
    m, k = rows.shape
    z, slack = np.empty((k, points.shape[1])), np.empty((m, points.shape[1]))
    left = np.empty(points.shape[1])
    for g in range(start, stop):
        count = _corners(rows, bounds[g], points[g], z, slack)
        for o in range(len(order)):
            for j in range(m):
                left[:count] = slack[j, :count]
                for i in order[o]:
                    plus[g, o, j, i] = _subtract(left[:count], z[i, :count], 1.0)
                    minus[g, o, j, i] = _subtract(left[:count], z[i, :count], -1.0)


@kernel
def _corners(rows: Array, bounds: Array, points: Array, z: Array, slack: Array) -> int:
    """Write the points where at least k rows of P are tight, transposed, and the slacks of all rows; how many.

    All vertices of P are among them, also the degenerate ones, and few of the other vertices of the pieces.
    """
    m, k = rows.shape
    size = np.abs(points).max()
    count = 0
    for v in range(len(points)):
        tight = 0
        for j in range(m):
            value = bounds[j]
            for i in range(k):
                value -= rows[j, i] * points[v, i]
            if value <= TOLERANCE * size:
                value = 0.0
                tight += 1
            slack[j, count] = value
        if tight >= k:
            for i in range(k):
                z[i, count] = points[v, i] if abs(points[v, i]) > TOLERANCE * size else 0.0
            count += 1
    return count


@kernel
def _subtract(left: Array, z: Array, sign: float) -> float:
    """The largest t with left - t max(sign z, 0) >= 0 at all points, subtracted from left; 0 where it is unbounded."""
    t = -1.0
    for v in range(len(z)):
        x = sign * z[v]
        if x > 0.0 and (t < 0.0 or left[v] < t * x):
            t = left[v] / x
    if t <= 0.0:
        return 0.0
    for v in range(len(z)):
        x = sign * z[v]
        if x > 0.0:
            left[v] = max(left[v] - t * x, 0.0)
    return t
