"""The ground truth of the other tests, tested itself: known values, and two methods that agree."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from tests.hull.oracles import exact
from tests.hull.random_polytopes import random_directions, random_polytopes

from krelax.hull.pieces import Pieces
from krelax.hull.polytope import octahedral_rows, pair_rows

OCTAGON = octahedral_rows(2).tolist()


def image(maps, z):
    return [sum(Fraction(m) * x for m, x in zip(row, z, strict=True)) for row in maps]


def over_vertices(rows, bounds, pieces, slope, coeff):
    """The maximum over the vertices of all pieces; None if there are none."""
    return max(
        (
            sum(Fraction(s) * x for s, x in zip(slope, z, strict=True))
            - sum(Fraction(c) * x for c, x in zip(coeff, image(maps, z), strict=True))
            for cuts, maps in zip(pieces.rows.tolist(), pieces.maps.tolist(), strict=True)
            for z in exact.vertices(rows, bounds, cuts)
        ),
        default=None,
    )


def test_vertices_of_a_square_cut_by_its_diagonals():
    square = exact.vertices([[1, 0], [-1, 0], [0, 1], [0, -1], [1, 1]], [1, 1, 1, 1, 1])
    assert sorted(square) == [(-1, -1), (-1, 1), (0, 1), (1, -1), (1, 0)]
    half = Fraction(1, 2)
    diamond_below = exact.vertices(OCTAGON, [1] * 8, [[-1, 1], [1, 1]])
    assert sorted(diamond_below) == [(-half, -half), (0, -1), (0, 0), (half, -half)]


def test_vertices_of_flat_and_empty_polytopes():
    box = [[1, 0], [-1, 0], [0, 1], [0, -1]]
    assert sorted(exact.vertices(box, [0.5, -0.5, 2, 0])) == [(Fraction(1, 2), 0), (Fraction(1, 2), 2)]
    assert exact.vertices(box, [1, -1, 2, -2]) == [(1, 2)]
    assert exact.vertices(box, [0, -1, 2, 0]) == []
    assert exact.maximum(box, [0, -1, 2, 0], [1, 1]) is None


def test_numbers_are_taken_exactly():
    box = [[1, 0], [-1, 0], [0, 3], [0, -1]]
    assert exact.maximum(box, [0.1, 0, 1, 0], [Fraction(1, 3), 1]) == Fraction(0.1) / 3 + Fraction(1, 3)


def test_infinite_bounds_are_no_bounds():
    assert exact.maximum(OCTAGON, [1 if sum(map(abs, row)) == 1 else float("inf") for row in OCTAGON], [1, 2]) == 3


@pytest.mark.parametrize(("k", "rows", "count"), [(2, octahedral_rows, 24), (3, octahedral_rows, 8), (4, pair_rows, 1)])
def test_simplex_and_vertices_agree(k, rows, count):
    polytope, pieces = random_polytopes(k, rows(k), count, seed=1), Pieces.relu(k)
    slope, coeff = random_directions(np.random.default_rng(1), count, k, k)
    for g in range(count):
        arguments = polytope.rows.tolist(), polytope.bounds[g].tolist()
        direction = slope[g, 0].tolist(), coeff[g, 0].tolist()
        value = exact.support(*arguments, pieces.rows.tolist(), pieces.maps.tolist(), *direction)
        assert value == over_vertices(*arguments, pieces, *direction)
