"""Vertices are a proposal: still, none is missing on the benchmarks, and every one is a point of the graph."""

from __future__ import annotations

import numpy as np
import pytest
from tests.hull.oracles import exact
from tests.hull.random_polytopes import random_directions, random_polytopes

from krelax.hull.pieces import Pieces
from krelax.hull.polytope import Polytope, octahedral_rows, pair_rows
from krelax.hull.support import support
from krelax.hull.vertices import vertices


def distances(u, v):
    """From every point of u to the nearest of v, in the maximum norm."""
    return abs(u[:, None] - v[None]).max(-1).min(1)


@pytest.mark.parametrize("k", [2, 3, 4])
@pytest.mark.parametrize("family", ["zono", "wralu"])
def test_no_vertex_of_the_benchmarks_is_missing(hull_data, family, k):
    data, known = hull_data(f"{family}_k{k}"), hull_data(f"ref_{family}_k{k}")
    polytope = Polytope(data["A"], data["B"])
    found = vertices(polytope, Pieces.relu(k))
    assert np.array_equal(found.a, np.maximum(found.z, 0))
    for g in range(0, 100, 1 if k < 4 else 4):
        reference = known["V"][known["off"][g] : known["off"][g + 1]]
        size = abs(reference).max()
        assert distances(reference, found.z[g]).max() <= 1e-9 * size
        assert distances(found.z[g], reference).max() <= 1e-9 * size
        assert found.count[g] <= 1.1 * len(reference)


@pytest.mark.parametrize(("k", "rows"), [(2, octahedral_rows), (3, octahedral_rows), (3, pair_rows), (4, pair_rows)])
@pytest.mark.parametrize("activation", [Pieces.relu, Pieces.maximum])
def test_vertices_attain_the_support(k, rows, activation):
    polytope, pieces = random_polytopes(k, rows(k), 160, seed=20), activation(k)
    slope, coeff = random_directions(np.random.default_rng(21), 160, k, pieces.outputs)
    points, bound = vertices(polytope, pieces), support(polytope, pieces, slope, coeff).value[:, 0]
    attained = ((points.z * slope).sum(-1) - (points.a * coeff).sum(-1)).max(1)
    size = abs(polytope.bounds).max(1) + 1e-300
    some = points.count > 0
    assert (attained >= bound - 1e-9 * size)[some].all()
    assert some.sum() >= 140
    np.testing.assert_allclose(points.a, pieces.evaluate(points.z), atol=1e-8 * size.max())


def test_vertices_of_unpleasant_polytopes_against_exact_arithmetic():
    polytope, pieces = random_polytopes(2, octahedral_rows(2), 60, seed=22), Pieces.relu(2)
    found = vertices(polytope, pieces)
    for g in range(60):
        corners = [exact.vertices(polytope.rows.tolist(), polytope.bounds[g].tolist(), c.tolist()) for c in pieces.rows]
        true = np.array([[float(x) for x in z] for piece in corners for z in piece]).reshape(-1, 2)
        size = abs(polytope.bounds[g]).max() + 1e-300
        if len(true):
            assert distances(true, found.z[g, : found.count[g]]).max() <= 1e-9 * size


def test_points_that_are_not_there_repeat_the_first():
    rows = octahedral_rows(2)
    polytope = Polytope(rows, np.stack([np.ones(8), rows @ [0.5, 0.25], -np.ones(8)]))
    found = vertices(polytope, Pieces.relu(2))
    assert found.count.tolist() == [5, 1, 0]
    assert (found.z[1] == found.z[1, 0]).all()
    assert (found.z[2] == 0).all()


def test_a_box_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="finite box"):
        vertices(Polytope(octahedral_rows(1), np.array([[np.inf, 1.0]])), Pieces.relu(1))
