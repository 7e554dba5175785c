"""Separated rows: sound in exact arithmetic for any group and pool, facets where the point is outside, none inside."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import ConvexHull
from tests.hull.oracles import exact
from tests.hull.random_polytopes import random_polytopes

from krelax.hull._gauge import cheapest
from krelax.hull.jit import COMPILED
from krelax.hull.pieces import Pieces
from krelax.hull.polytope import Array, Polytope, octahedral_rows
from krelax.hull.rows import Rows, violation
from krelax.hull.separate import separate
from krelax.hull.support import support

DATA = Path(os.environ.get("KRELAX_BENCHMARKS", Path(__file__).parents[3] / "shared" / "benchmarks")) / "hull"
slow_without_numba = pytest.mark.skipif(not COMPILED, reason="hundreds of linear programs are slow without numba")
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no benchmark data in {DATA}")

Vertices = list[list[tuple[Fraction, ...]]]
Groups = tuple[Polytope, Pieces, Vertices]

PIECES = {
    "relu2": Pieces.relu(2),
    "relu3": Pieces.relu(3),
    "pass-through": Pieces.coordinatewise([0.0, 1.0, 0.0], [1.0, 1.0, 1.0]),
    "leaky-absolute": Pieces.coordinatewise([0.25, -1.0], [1.0, 1.0]),
    "maximum": Pieces.maximum(3),
}


@dataclass(frozen=True)
class Points:
    """Points of hulls, `(G, V, k)` and `(G, V, m)`."""

    z: Array
    a: Array


def degenerate_polytopes(k: int) -> Polytope:
    """Around the origin, cut through it, away from it, flat, a point, tiny, huge; small integers make many ties."""
    random = np.random.default_rng(k)
    rows = octahedral_rows(k)
    norms = np.abs(rows).sum(axis=1)
    around = random.integers(1, 4, (6, len(rows))) * 1.0
    through = np.where(random.random((3, len(rows))) < 0.4, 0.0, norms)
    centre = random.integers(-3, 4, (4, k)) @ rows.T
    away = centre + random.integers(0, 3, centre.shape)
    flat = np.where(np.abs(rows @ np.ones(k)) == norms * 1.0, 0.0, norms)[None]
    segment = np.maximum(rows @ np.arange(1.0, k + 1.0), -(rows @ np.arange(2.0, k + 2.0)))[None]
    bounds = np.concatenate([around, through, away, flat, segment, centre[:1] * 1.0, 1e-7 * around[:1], 1e7 * away[:1]])
    return Polytope(rows, bounds)


def exact_vertices(polytope: Polytope, pieces: Pieces, g: int) -> list[tuple[Fraction, ...]]:
    """All vertices (z, a) of the pieces of one group, as fractions."""
    points = []
    for cuts, maps in zip(pieces.rows.tolist(), pieces.maps.tolist(), strict=True):
        for z in exact.vertices(polytope.rows.tolist(), polytope.bounds[g].tolist(), cuts):
            points.append((*z, *(dot(line, z) for line in maps)))
    return points


def dot(x: Sequence[float], y: Sequence[Fraction]) -> Fraction:
    """The exact scalar product."""
    return sum((Fraction(a) * b for a, b in zip(x, y, strict=True)), Fraction(0))


def float_vertices(vertices: Vertices, k: int) -> Points:
    """All vertices as a pool, padded with copies of the first."""
    longest = max(map(len, vertices))
    padded = [points + points[:1] * (longest - len(points)) for points in vertices]
    array = np.array([[[float(x) for x in point] for point in points] for points in padded])
    return Points(array[:, :, :k], array[:, :, k:])


def assert_sound(rows: Rows, vertices: Vertices) -> None:
    """No vertex of any group is beyond any row, in exact arithmetic."""
    for g, points in enumerate(vertices):
        for r in np.flatnonzero(rows.valid[g]):
            row = rows.z[g, r].tolist() + rows.a[g, r].tolist()
            assert max(dot(row, point) for point in points) <= Fraction(float(rows.offset[g, r]))


@pytest.fixture(params=PIECES, scope="module")
def groups(request: pytest.FixtureRequest) -> Groups:
    """The nonempty degenerate polytopes, with all exact vertices."""
    pieces = PIECES[request.param]
    polytope = degenerate_polytopes(pieces.k)
    vertices = [exact_vertices(polytope, pieces, g) for g in range(polytope.groups)]
    there = np.array([bool(points) for points in vertices])
    return polytope.select(there), pieces, [points for points in vertices if points]


def around(pool: Points, seed: int) -> tuple[Array, Array]:
    """For each group a point near its hull: a vertex pushed by about the size of the hull."""
    random = np.random.default_rng(seed)
    joint = np.concatenate([pool.z, pool.a], axis=2)
    push = random.normal(size=joint[:, 0].shape) * np.ptp(joint, axis=1).max(axis=1, initial=1e-9)[:, None]
    x = joint[:, 0] + np.where(random.random(push.shape) < 0.5, push, 0.0)
    return x[:, : pool.z.shape[2]], x[:, pool.z.shape[2] :]


@pytest.mark.parametrize("given", ["vertices", "nothing", "garbage"])
def test_rows_are_sound(groups: Groups, given: str) -> None:
    polytope, pieces, vertices = groups
    everything = float_vertices(vertices, pieces.k)
    noise = np.random.default_rng(0).normal(size=everything.z.shape), np.full(everything.a.shape, np.nan)
    pool = {"vertices": everything, "nothing": None, "garbage": Points(*noise)}[given]
    for seed in range(4):
        assert_sound(separate(polytope, pieces, *around(everything, seed), pool), vertices)


@pytest.mark.parametrize(("k", "count"), [(2, 240), (3, 80)])
def test_rows_are_sound_on_random_polytopes(k: int, count: int) -> None:
    """From 1e-12 to 1e12 in size, nearly empty, flat and empty ones among them."""
    polytope, pieces = random_polytopes(k, octahedral_rows(k), count, 5), Pieces.relu(k)
    x = np.random.default_rng(k).uniform(-1.0, 1.0, (count, 2 * k)) * np.abs(polytope.bounds).max(axis=1, keepdims=True)
    rows = separate(polytope, pieces, x[:, :k], x[:, k:])
    assert rows.valid.mean() > 0.9
    for g in np.flatnonzero(rows.valid[:, 0]):
        parts = polytope.rows, polytope.bounds[g], pieces.rows, pieces.maps, rows.z[g, 0], -rows.a[g, 0]
        most = exact.support(*(part.tolist() for part in parts))
        assert most is None or most <= Fraction(float(rows.offset[g, 0]))


@pytest.mark.parametrize("given", ["vertices", "nothing"])
def test_points_inside_get_no_row(groups: Groups, given: str) -> None:
    polytope, pieces, vertices = groups
    pool = float_vertices(vertices, pieces.k)
    for seed in range(4):
        weights = np.random.default_rng(seed).dirichlet(np.full(pool.z.shape[1], 0.1), size=polytope.groups)
        inside = [np.einsum("gv,gvn->gn", weights, part) for part in (pool.z, pool.a)]
        rows = separate(polytope, pieces, *inside, pool if given == "vertices" else None)  # type: ignore[call-arg]
        assert not rows.valid.any()


@pytest.mark.parametrize("given", ["vertices", "nothing"])
def test_points_outside_are_cut_off(groups: Groups, given: str) -> None:
    """Points a millionth of the size of the hull beyond it in a random direction, and beside flat hulls."""
    polytope, pieces, vertices = groups
    pool = float_vertices(vertices, pieces.k)
    random = np.random.default_rng(1)
    slope, coeff = random.normal(size=(1, 8, pieces.k)), random.normal(size=(1, 8, pieces.outputs))
    top = support(polytope, pieces, slope, coeff)
    size = np.maximum(np.abs(polytope.bounds).max(axis=1), 1.0)[:, None]
    for d in range(slope.shape[1]):
        z, a = top.z[:, d] + 1e-6 * size * slope[0, d], top.a[:, d] - 1e-6 * size * coeff[0, d]
        rows = separate(polytope, pieces, z, a, pool if given == "vertices" else None)
        assert rows.valid.all()
        assert (violation(rows, z, a) > 0.0).all()


def test_rows_of_pairs_are_facets_of_qhull() -> None:
    """Whatever the point outside: the most violated inequality of an exact hull is one of its facets."""
    random = np.random.default_rng(3)
    rows, pieces = octahedral_rows(2), Pieces.relu(2)
    polytope = Polytope(rows, (random.normal(size=(40, 4, 2)) @ rows.T).max(axis=1))
    compared = 0
    for g in range(polytope.groups):
        hull = np.array(exact_vertices(polytope, pieces, g), dtype=float)
        if np.linalg.matrix_rank(hull - hull[0], tol=1e-3) < hull.shape[1]:
            continue
        known = normed(ConvexHull(hull).equations * np.append(np.ones(4), -1.0))
        x = random.normal(size=(4, 4)) * 2.0 * np.ptp(hull, axis=0) + hull.mean(axis=0)
        found = separate(polytope.select([g] * 4), pieces, x[:, :2], x[:, 2:])
        for row in normed(np.concatenate([found.z, found.a, found.offset[:, :, None]], axis=2)[found.valid]):
            assert np.abs(known - row).max(axis=1).min() <= 1e-6
            compared += 1
    assert compared > 60


def normed(rows: Array) -> Array:
    """Inequalities whose largest coefficient, the offset aside, is one in size."""
    return rows / np.abs(rows[:, :-1]).max(axis=1, keepdims=True)


def test_empty_polytopes_do_no_harm() -> None:
    rows = octahedral_rows(2)
    polytope = Polytope(rows, np.stack([np.ones(8), -np.ones(8), np.ones(8)]))
    pieces = Pieces.relu(2)
    result = separate(polytope, pieces, np.zeros((3, 2)), np.full((3, 2), 0.9))
    alone = separate(polytope.select(slice(0, 1)), pieces, np.zeros((1, 2)), np.full((1, 2), 0.9))
    assert result.valid[[0, 2]].all()
    for one, three in ((alone.z, result.z), (alone.a, result.a), (alone.offset, result.offset)):
        np.testing.assert_allclose(np.concatenate([one, one]), three[[0, 2]], atol=1e-12)


def test_arguments_that_do_not_fit() -> None:
    polytope = Polytope(octahedral_rows(2), np.ones((3, 8)))
    with pytest.raises(ValueError, match=r"3 points of 2 \+ 2 coordinates"):
        separate(polytope, Pieces.relu(2), np.zeros((3, 2)), np.zeros((3, 1)))
    nothing = separate(polytope.select(slice(0, 0)), Pieces.relu(2), np.zeros((0, 2)), np.zeros((0, 2)))
    assert nothing.offset.shape == (0, 1)


def test_the_linear_program_of_a_facet() -> None:
    """max c.z over {z : rows z <= bounds} is the dual of the program that `cheapest` solves."""
    polytope = degenerate_polytopes(3)
    random = np.random.default_rng(2)
    for g in range(6):
        c = random.integers(-3, 4, 3) * 1.0
        z = maximiser(polytope.rows, polytope.bounds[g], c, np.zeros(3))
        expected = exact.maximum(polytope.rows.tolist(), polytope.bounds[g].tolist(), c.tolist())
        assert expected is not None
        assert c @ z == pytest.approx(float(expected), abs=1e-9)


def maximiser(rows: Array, bounds: Array, objective: Array, inside: Array) -> Array:
    """A maximiser of objective.x over {x : rows x <= bounds}, which has the point `inside`."""
    norms = np.linalg.norm(rows, axis=1)
    x = np.empty(len(objective))
    slack = np.maximum(bounds - rows @ inside, 0.0)
    assert cheapest(np.ascontiguousarray((rows / norms[:, None]).T), slack / norms, objective, 5000, x) >= 0
    return x + inside


@dataclass(frozen=True)
class Sample:
    """Benchmark groups, their vertices as a pool, directions, and the rows of P and the triangles of each group."""

    polytope: Polytope
    pieces: Pieces
    pool: Points
    directions: Array
    rows: list[Array]
    bounds: list[Array]

    def tops(self) -> Array:
        """Exact maximum of every direction over the hull of every group, `(G, D)`."""
        k = self.pieces.k
        at_vertices = self.pool.z @ self.directions[:, :k].T + self.pool.a @ self.directions[:, k:].T
        return np.asarray(at_vertices.max(axis=1))


def sample(family: str, k: int, groups: int, directions: int) -> Sample:
    """Some groups of a benchmark family."""
    data, reference = np.load(DATA / f"{family}_k{k}.npz"), np.load(DATA / f"ref_{family}_k{k}.npz")
    off = reference["off"][: groups + 1]
    longest = np.diff(off).max()
    index = np.minimum(off[:-1, None] + np.arange(longest), off[1:, None] - 1)  # padded with the last vertex
    z = reference["V"][index]
    parts = [relaxation(data["A"], data["B"][g], data["lb"][g], data["ub"][g]) for g in range(groups)]
    chosen = np.load(DATA / f"directions_k{k}.npz")["D"][:directions]
    polytope = Polytope(data["A"], data["B"][:groups])
    return Sample(polytope, Pieces.relu(k), Points(z, np.maximum(z, 0.0)), chosen, *map(list, zip(*parts, strict=True)))


def relaxation(rows: Array, bounds: Array, lower: Array, upper: Array) -> tuple[Array, Array]:
    """P and the triangles of its neurons in terms of (z, a)."""
    k = len(lower)
    one, none, slope = np.eye(k), np.zeros((k, k)), upper / (upper - lower)
    left = np.concatenate([rows, none, one, -np.diag(slope)])
    right = np.concatenate([0.0 * rows, -one, -one, one])
    return np.hstack([left, right]), np.concatenate([bounds, np.zeros(2 * k), -slope * lower])


def cut(chosen: Sample, cuts: int) -> tuple[Array, Array, Array]:
    """For all groups and directions the maximum over P and the triangles, with that many cuts, and over the hull."""
    G, D, k = chosen.polytope.groups, len(chosen.directions), chosen.pieces.k
    polytope = chosen.polytope.select(np.repeat(np.arange(G), D))
    pool = Points(np.repeat(chosen.pool.z, D, axis=0), np.repeat(chosen.pool.a, D, axis=0))
    inside = np.concatenate([pool.z, pool.a], axis=2).mean(axis=1)
    objective = np.tile(chosen.directions, (G, 1))
    rows, bounds = ([part[g] for g in range(G) for _ in range(D)] for part in (chosen.rows, chosen.bounds))
    x = np.stack([maximiser(*problem) for problem in zip(rows, bounds, objective, inside, strict=True)])
    triangles = (x * objective).sum(axis=1)
    for _ in range(cuts):
        new = separate(polytope, chosen.pieces, x[:, :k], x[:, k:], pool)
        for i in np.flatnonzero(new.valid):
            rows[i] = np.vstack([rows[i], np.concatenate([new.z[i, 0], new.a[i, 0]])])
            bounds[i] = np.append(bounds[i], new.offset[i, 0])
            x[i] = maximiser(rows[i], bounds[i], objective[i], inside[i])
        if not new.valid.any():
            break
    return triangles, (x * objective).sum(axis=1), chosen.tops().ravel()


@needs_data
@slow_without_numba
@pytest.mark.parametrize("family", ["wralu", "zono"])
@pytest.mark.parametrize("k", [2, 3, 4])
def test_cuts_reach_the_exact_hull(family: str, k: int) -> None:
    _, last, top = cut(sample(family, k, 4, 10), 40)
    np.testing.assert_allclose(last, top, atol=1e-7)


@needs_data
@slow_without_numba
@pytest.mark.parametrize("family", ["wralu", "zono"])
@pytest.mark.parametrize(("k", "groups", "allowed"), [(2, 100, 0.001), (3, 40, 0.006), (4, 20, 0.02)])
def test_three_cuts_leave_little(family: str, k: int, groups: int, allowed: float) -> None:
    """Of the gap between the triangles and the exact hull, in the mean over directions where there is one."""
    first, last, top = cut(sample(family, k, groups, 40), 3)
    matters = first > top + 1e-6 * (1.0 + np.abs(top))
    assert ((last - top)[matters] / (first - top)[matters]).mean() <= allowed
