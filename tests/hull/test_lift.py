"""Lifted rows: sound in exact arithmetic, tight, and nearly the exact hull at once."""

from __future__ import annotations

import numpy as np
import pytest
from tests.hull.test_separate import (
    Points,
    Vertices,
    assert_sound,
    degenerate_polytopes,
    exact_vertices,
    float_vertices,
    maximiser,
    needs_data,
    sample,
    slow_without_numba,
)

from krelax.hull.lift import lift, orders
from krelax.hull.pieces import Pieces
from krelax.hull.polytope import Array, Polytope
from krelax.hull.rows import Rows

PIECES = {
    "relu2": Pieces.relu(2),
    "relu3": Pieces.relu(3),
    "pass-through": Pieces.coordinatewise([0.0, 1.0, 0.0], [1.0, 1.0, 1.0]),
    "leaky-absolute": Pieces.coordinatewise([0.25, -1.0], [1.0, 1.0]),
}


def nonempty(pieces: Pieces) -> tuple[Polytope, Vertices]:
    """The degenerate polytopes that have points, with their exact vertices."""
    polytope = degenerate_polytopes(pieces.k)
    vertices = [exact_vertices(polytope, pieces, g) for g in range(polytope.groups)]
    there = np.array([bool(points) for points in vertices])
    return polytope.select(there), [points for points in vertices if points]


@pytest.mark.parametrize("name", PIECES)
@pytest.mark.parametrize("complete", [True, False])
def test_rows_are_sound(name: str, complete: bool) -> None:
    """Also where vertices of P are missing."""
    pieces = PIECES[name]
    polytope, vertices = nonempty(pieces)
    pool = float_vertices(vertices, pieces.k)
    pool = pool if complete else Points(pool.z[:, ::2], pool.a[:, ::2])
    rows = lift(polytope, pieces, pool, orders(pieces.k, 3))
    assert rows.valid.any()
    assert_sound(rows, vertices)


@pytest.mark.parametrize("name", PIECES)
def test_rows_are_tight(name: str) -> None:
    """With all vertices known nothing is repaired: some vertex of the hull is on every row, up to rounding."""
    pieces = PIECES[name]
    polytope, vertices = nonempty(pieces)
    pool = float_vertices(vertices, pieces.k)
    rows = lift(polytope, pieces, pool)
    row = np.concatenate([rows.z, rows.a], axis=2)
    size = np.abs(row).sum(-1) * np.abs(polytope.bounds).max(axis=1)[:, None]
    touching = np.einsum("grn,gvn->grv", row, np.concatenate([pool.z, pool.a], axis=2)).max(axis=2)
    repaired = np.abs(polytope.bounds[:, None] - rows.offset[:, :, None]).min(axis=2)
    assert (np.abs(touching - rows.offset) <= 1e-9 * size)[rows.valid].all()
    assert (repaired <= 1e-9 * size)[rows.valid].all()


def test_the_triangle_is_a_lifted_row() -> None:
    """One neuron in [-1, 2]: the row z <= 2 lifts to -z/3 + a... <= 2/3, the upper side of the triangle, times 3."""
    polytope = Polytope(np.array([[-1.0], [1.0]]), np.array([[1.0, 2.0]]))
    z = np.array([[[-1.0], [0.0], [2.0]]])
    rows = lift(polytope, Pieces.relu(1), Points(z, np.maximum(z, 0.0)))
    for r in np.flatnonzero(rows.valid[0]):
        row = np.array([rows.z[0, r, 0], rows.a[0, r, 0], rows.offset[0, r]]) / rows.a[0, r, 0]
        np.testing.assert_allclose(row, [-2.0 / 3.0, 1.0, 2.0 / 3.0], atol=1e-12)


def test_two_neurons_of_the_primer() -> None:
    """z1 = u + v, z2 = u - v with u, v in [-1, 1]: a1 + a2 <= 2 is lifted from P, triangles allow 3."""
    polytope = Polytope(
        np.array([[1.0, 1], [1, -1], [-1, 1], [-1, -1], [1, 0], [-1, 0], [0, 1], [0, -1]]), np.full((1, 8), 2.0)
    )
    z = np.array([[[2.0, 0], [0, 2], [-2, 0], [0, -2], [0, 0]]])
    rows = lift(polytope, Pieces.relu(2), Points(z, np.maximum(z, 0.0)))
    matrix = np.concatenate([rows.z[0], rows.a[0]], axis=1)[rows.valid[0]]
    triangles = np.array([[0.0, 0, -1, 0], [0, 0, 0, -1], [1, 0, -1, 0], [0, 1, 0, -1]])
    left = np.concatenate([np.pad(polytope.rows, ((0, 0), (0, 2))), triangles, matrix])
    right = np.concatenate([polytope.bounds[0], np.zeros(4), rows.offset[0][rows.valid[0]]])
    inside = np.concatenate([z[0], np.maximum(z[0], 0.0)], axis=1).mean(axis=0)
    top = maximiser(left, right, np.array([0.0, 0.0, 1.0, 1.0]), inside)
    assert top[2] + top[3] == pytest.approx(2.0)


def test_no_row_is_there_twice() -> None:
    polytope, vertices = nonempty(PIECES["relu3"])
    rows = lift(polytope, PIECES["relu3"], float_vertices(vertices, 3), np.array([[0, 1, 2], [0, 1, 2]]))
    once = lift(polytope, PIECES["relu3"], float_vertices(vertices, 3), np.array([[0, 1, 2]]))
    np.testing.assert_array_equal(rows.valid, once.valid)


def test_only_coordinatewise_activations_are_lifted() -> None:
    polytope = degenerate_polytopes(3)
    with pytest.raises(ValueError, match="each coordinate by itself"):
        lift(polytope, Pieces.maximum(3), Points(np.zeros((1, 1, 3)), np.zeros((1, 1, 1))))


def gap(family: str, k: int, groups: int) -> float:
    """Mean share of the gap between triangles and hull that the lifted rows leave."""
    chosen = sample(family, k, groups, 40)
    rows = lift(chosen.polytope, chosen.pieces, chosen.pool)
    tops, shares = chosen.tops(), []
    for g in range(groups):
        inside = np.concatenate([chosen.pool.z[g], chosen.pool.a[g]], axis=1).mean(axis=0)
        left, right = with_rows(chosen.rows[g], chosen.bounds[g], rows, g)
        for c, top in zip(chosen.directions, tops[g], strict=True):
            first = c @ maximiser(chosen.rows[g], chosen.bounds[g], c, inside)
            if first > top + 1e-6 * (1.0 + abs(top)):
                shares.append((c @ maximiser(left, right, c, inside) - top) / (first - top))
    return float(np.mean(shares))


def with_rows(left: Array, right: Array, rows: Rows, g: int) -> tuple[Array, Array]:
    """An inequality system with the valid rows of one group added."""
    new = np.concatenate([rows.z[g], rows.a[g]], axis=1)[rows.valid[g]]
    return np.vstack([left, new]), np.concatenate([right, rows.offset[g][rows.valid[g]]])


@needs_data
@slow_without_numba
@pytest.mark.parametrize("family", ["wralu", "zono"])
@pytest.mark.parametrize(("k", "groups"), [(2, 40), (3, 20), (4, 10)])
def test_lifted_rows_leave_little(family: str, k: int, groups: int) -> None:
    assert gap(family, k, groups) <= 0.04
