"""The most violated facet of the exact hull of k neurons at a point, without any list of facets.

The hull has thousands of facets at k = 4 and an objective needs a few of them. The facet is a target cut (see
`krelax.hull._gauge`), found by column generation: a linear program over a pool of points of the hull proposes a row,
the support function of the hull either confirms it or returns a point beyond it, which joins the pool.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from krelax.hull._gauge import facets
from krelax.hull.jit import spread
from krelax.hull.pieces import Pieces
from krelax.hull.polytope import Array, Polytope
from krelax.hull.rows import Rows
from krelax.hull.support import Maximum, support

# Where the inside point lies between the mean of the pool and (z*, a(z*)), the point of the hull under the one to be
# cut off. Near the latter facets cut deeper where it matters; at 1 the inside point would be on the boundary.
NEARNESS = 0.8
ROUNDS = 60  # of column generation; each row is sound whenever it stops
TOLERANCE = 1e-9


class Pool(Protocol):
    """Points of the hull of each group: `z` `(G, V, k)` and `a` `(G, V, m)`; padding repeats points."""

    @property
    def z(self) -> Array: ...

    @property
    def a(self) -> Array: ...


class Hull(Protocol):
    """Convex supersets of the graphs {(z, a(z)) : z in P_g} of G groups, by their support functions."""

    @property
    def polytope(self) -> Polytope: ...

    @property
    def outputs(self) -> int:
        """Number of post-activations m."""
        ...

    def select(self, index: NDArray[np.bool_]) -> Hull:
        """Some of the groups."""
        ...

    def evaluate(self, z: Array) -> Array:
        """a(z) at points `(G, k)`: `(G, m)`, up to rounding."""
        ...

    def support(self, slope: Array, coeff: Array) -> Maximum:
        """As `krelax.hull.support.support`, of these groups."""
        ...


@dataclass(frozen=True, eq=False)
class Exact:
    """The exact hulls of k neurons with linear pieces."""

    polytope: Polytope
    pieces: Pieces

    @property
    def outputs(self) -> int:
        return self.pieces.outputs

    def select(self, index: NDArray[np.bool_]) -> Exact:
        return Exact(self.polytope.select(index), self.pieces)

    def evaluate(self, z: Array) -> Array:
        return self.pieces.evaluate(z)

    def support(self, slope: Array, coeff: Array) -> Maximum:
        return support(self.polytope, self.pieces, slope, coeff)


@dataclass(frozen=True, eq=False)
class _Task:
    """Hulls, the points x to be cut off, a point of the hull near each and its weight, and the pools.

    Points are `(G, n)` with n = k + m, weights `(G,)`, pools `(G, V, n)`.
    """

    hull: Hull
    x: Array
    near: Array
    weight: Array
    pool: Array

    def grown(self, index: NDArray[np.bool_], point: Array) -> _Task:
        """Some of the groups, with one more point each, `(G, n)`, in their pools."""
        pool = np.ascontiguousarray(np.concatenate([self.pool[index], point[index, None]], axis=1))
        return _Task(self.hull.select(index), self.x[index], self.near[index], self.weight[index], pool)


@dataclass(frozen=True, eq=False)
class _Proposal:
    """Rows w.x <= height with |w| = 1, and how much of a violation is noise: `(G, n)`, `(G,)`, `(G,)`."""

    w: Array
    height: Array
    noise: Array


def separate(polytope: Polytope, pieces: Pieces, z: Array, a: Array, points: Pool | None = None) -> Rows:
    """`separated` by the exact hulls of neurons with linear pieces."""
    return separated(Exact(polytope, pieces), z, a, points)


def separated(hull: Hull, z: Array, a: Array, points: Pool | None = None) -> Rows:
    """The facet of the hull of {(z, a(z)) : z in P_g} that the point (z*, a*) of group g violates most: one row each.

    `z` is `(G, k)` and `a` `(G, m)`. The row of a group has norm one, so a violation is a distance. "Most" is by the
    gauge with respect to a point inside the hull near (z*, a(z*)). A row is not valid where the point is in the hull,
    within 1e-9 of its size. Raises ValueError where shapes disagree.

    `points` are known points of the hull, and need be neither complete nor exact. All `vertices` make a cut several
    times cheaper, and are worth their own cost where a group is separated more than two (k = 2) to eight times (k = 4);
    `starting_points`, the default, are worth keeping from one call to the next.

    Sound: offsets are rigorous support values, so no (z, a(z)) with z in P_g is cut off, whatever rounding did to the
    row. Complete up to rounding: a point farther outside than the tolerance is cut off. If the hull is flat and the
    point outside its affine hull, the row is an equation of the hull, up to a tilt of 1e-6. For an empty P_g every row
    is sound, and may be returned.
    """
    known = started(hull) if points is None else points
    task = _task(hull, np.concatenate([z, a], axis=1, dtype=np.float64), known)
    w, offset, noise = np.empty_like(task.x), np.empty(len(task.x)), np.empty(len(task.x))
    x, still = task.x, np.arange(len(task.x))
    for _ in range(ROUNDS):
        proposal = _propose(task)
        best = _maximum(task.hull, proposal.w)
        w[still], offset[still], noise[still] = proposal.w, best.value[:, 0], proposal.noise
        vertex = np.concatenate([best.z[:, 0], best.a[:, 0]], axis=1)
        beyond = _dots(proposal.w, vertex) > proposal.height + proposal.noise
        if not beyond.any():
            break
        still, task = still[beyond], task.grown(beyond, vertex)
    valid = np.isfinite(offset) & (_dots(w, x) - offset > noise)
    k = hull.polytope.k
    return Rows(w[:, None, :k], w[:, None, k:], offset[:, None], valid[:, None])


def _dots(u: Array, v: Array) -> Array:
    """Scalar products of the rows of two arrays."""
    return np.asarray(np.einsum("gn,gn->g", u, v))


def starting_points(polytope: Polytope, pieces: Pieces) -> Maximum:
    """A small pool, `(G, 2k + m, ...)`: maximisers of each pre-activation and its negative, and of -a_j for each j."""
    return started(Exact(polytope, pieces))


def started(hull: Hull) -> Maximum:
    """The same of any hulls."""
    k, m = hull.polytope.k, hull.outputs
    slope = np.concatenate([np.eye(k), -np.eye(k), np.zeros((m, k))])
    coeff = np.concatenate([np.zeros((2 * k, m)), np.eye(m)])
    return hull.support(slope[None], coeff[None])


def _task(hull: Hull, x: Array, known: Pool) -> _Task:
    """Where z* is not in P there is no point of the hull below x: its weight is zero."""
    polytope = hull.polytope
    if x.shape != (polytope.groups, polytope.k + hull.outputs):
        expected = f"{polytope.groups} points of {polytope.k} + {hull.outputs} coordinates"
        raise ValueError(f"{expected} expected, not {x.shape}")
    z = x[:, : polytope.k]
    slack = TOLERANCE * np.abs(polytope.bounds)
    inside = (z @ polytope.rows.T <= polytope.bounds + slack).all(axis=1)
    near = np.concatenate([z, hull.evaluate(z)], axis=1)
    pool = np.ascontiguousarray(np.concatenate([known.z, known.a], axis=2, dtype=np.float64))
    return _Task(hull, x, near, np.where(inside, NEARNESS, 0.0), pool)


def _propose(task: _Task) -> _Proposal:
    """The facets of the hulls of the pools between each x and the inside of its pool."""
    w, centre, scale = np.zeros_like(task.x), np.zeros_like(task.x), np.ones_like(task.x)
    pivots = np.zeros(len(w), dtype=np.int64)

    def run(start: int, stop: int) -> None:
        facets(start, stop, task.pool, task.x, task.near, task.weight, w, centre, scale, pivots)

    spread(run, len(w))
    norm = np.sqrt(_dots(w, w))
    usable = np.isfinite(norm) & (norm > 0.0)
    norm = np.where(usable, norm, 1.0)
    w = np.where(usable[:, None], w / norm[:, None], 0.0)
    return _Proposal(w, _dots(w, centre) + 1.0 / norm, TOLERANCE * _dots(np.abs(w), scale))


def _maximum(hull: Hull, w: Array) -> Maximum:
    """Support values of the rows w, `(G, n)`, and where they are attained."""
    k = hull.polytope.k
    return hull.support(w[:, None, :k], -w[:, None, k:])
