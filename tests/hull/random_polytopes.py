"""Random batches of small polytopes, most of them unpleasant: degenerate, flat, nearly empty, of any size."""

from __future__ import annotations

import numpy as np

from krelax.hull.polytope import Array, Polytope


def _points(random: np.random.Generator, rows: Array, count: int) -> Array:
    """Bounds of random points: tight, and degenerate where a point attains many bounds."""
    k = rows.shape[1]
    points = random.normal(size=(count, 2 * k, k)) + random.normal(size=(count, 1, k)) * 0.5
    return (points @ rows.T).max(1)


def _zonotope(random: np.random.Generator, rows: Array, count: int) -> Array:
    """Bounds of the pre-activations of a random layer over a box."""
    k = rows.shape[1]
    generators, centre = random.normal(size=(count, 2 * k, k)), random.normal(size=(count, k))
    return centre @ rows.T + np.abs(generators @ rows.T).sum(1)


def _integer(random: np.random.Generator, rows: Array, count: int) -> Array:
    """Small integer bounds, not tight: many redundant rows, ties everywhere, a few empty."""
    return random.integers(0, 4, size=(count, len(rows))) - (random.random((count, 1)) < 0.2).astype(float)


def _touching(random: np.random.Generator, rows: Array, count: int) -> Array:
    """Bounds of integer points with zeros: faces that touch the coordinate planes, cones at the origin."""
    k = rows.shape[1]
    points = random.integers(-2, 3, size=(count, k + 2, k)).astype(float)
    return (points @ rows.T).max(1)


def _nearly_empty(random: np.random.Generator, rows: Array, count: int) -> Array:
    """Slices {|r.z - t| <= tiny} through a point polytope, the tiny number of either sign or zero."""
    k, bounds = rows.shape[1], _points(random, rows, count)
    opposite = {tuple(row): j for j, row in enumerate(rows.tolist())}
    width = random.choice([1e-9, 1e-12, 1e-14, 1e-15, 0.0, -1e-15, -1e-13, -1e-10], size=count)
    for g in range(count):
        j = random.integers(len(rows))
        if np.count_nonzero(rows[j]) > k - 1 and random.random() < 0.5:
            continue
        i = opposite[tuple((-rows[j]).tolist())]
        bounds[g, i] = -bounds[g, j] + width[g] * max(1.0, abs(bounds[g, j]))
    return bounds


def _zero_width(random: np.random.Generator, rows: Array, count: int) -> Array:
    """Points and zonotopes with some neurons fixed, some of them at zero."""
    k = rows.shape[1]
    points = random.normal(size=(count, 2 * k, k))
    fixed = random.random((count, 1, k)) < 0.5
    value = random.normal(size=(count, 1, k)) * (random.random((count, 1, k)) < 0.5)
    return (np.where(fixed, value, points) @ rows.T).max(1)


def _stable(random: np.random.Generator, rows: Array, count: int) -> Array:
    """Point polytopes that some coordinate planes miss."""
    k = rows.shape[1]
    shift = 5.0 * random.integers(-1, 2, size=(count, 1, k))
    return ((random.normal(size=(count, 2 * k, k)) + shift) @ rows.T).max(1)


def _scaled(random: np.random.Generator, rows: Array, count: int) -> Array:
    """Any of the above, from 1e-12 to 1e12 in size."""
    kinds = [_points, _integer, _touching, _nearly_empty, _zero_width]
    parts = [kind(random, rows, count // len(kinds) + 1) for kind in kinds]
    return np.concatenate(parts)[:count] * 10.0 ** random.integers(-12, 13, size=(count, 1))


FAMILIES = (_points, _zonotope, _integer, _touching, _nearly_empty, _zero_width, _stable, _scaled)


def random_polytopes(k: int, rows: Array, count: int, seed: int) -> Polytope:
    """`count` polytopes with the given rows `(m, k)`, the families in turn. Rows come with their negatives."""
    random = np.random.default_rng((seed, k))
    each = -(-count // len(FAMILIES))
    bounds = np.stack([family(random, rows, each) for family in FAMILIES], axis=1)
    return Polytope(rows, bounds.reshape(-1, len(rows))[:count])


def random_directions(random: np.random.Generator, groups: int, k: int, outputs: int) -> tuple[Array, Array]:
    """Slopes `(groups, 1, k)` and coefficients `(groups, 1, outputs)`; a third are small integers."""
    both = random.normal(size=(groups, 1, k + outputs))
    integers = random.integers(-1, 2, size=both.shape).astype(float)
    both = np.where(random.random((groups, 1, 1)) < 1 / 3, integers, both)
    return both[..., :k], both[..., k:]
