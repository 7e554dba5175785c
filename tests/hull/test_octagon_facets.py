"""The facets of two-neuron hulls against qhull's, and against exact support values with no tolerance."""

from __future__ import annotations

import os
from fractions import Fraction
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from scipy.spatial import ConvexHull
from torch import Tensor

from krelax.hull.octagon import ROWS, points, support, tighten
from krelax.hull.octagon_facets import Facets, facets

DATA = Path(os.environ.get("KRELAX_BENCHMARKS", Path(__file__).parents[3] / "shared" / "benchmarks")) / "hull"
Vertices = list[tuple[Fraction, Fraction]]


def around(cloud: np.ndarray) -> Tensor:
    """Bounds of the octagons around point clouds ``(n, points, 2)``."""
    return torch.from_numpy((cloud @ np.array(ROWS).T).max(1))


def exact_vertices(bounds: list[float]) -> Vertices:
    """All vertices of the pieces: the feasible intersections of two lines among faces and axes."""
    lines = [(Fraction(a), Fraction(b), Fraction(c)) for (a, b), c in zip(ROWS, bounds, strict=True)]
    found = []
    for (p, q, e), (r, s, f) in product([*lines, (Fraction(1), Fraction(0), Fraction(0))], [*lines, (0, 1, 0)]):
        d = p * s - q * r
        if d:
            z = ((e * s - q * f) / d, (p * f - r * e) / d)
            if all(a * z[0] + b * z[1] <= c for a, b, c in lines):
                found.append(z)
    return found


def assert_sound(bounds: Tensor, rows: Facets) -> None:
    """Every valid row holds at every exact vertex, in rational arithmetic."""
    for g, given in enumerate(bounds.tolist()):
        vertices = set(exact_vertices(given))
        for z, a, offset in zip(rows.z[g].tolist(), rows.a[g].tolist(), rows.offset[g].tolist(), strict=True):
            (p, q), (r, s), c = map(Fraction, z), map(Fraction, a), Fraction(offset)
            assert all(p * x + q * y + r * max(x, 0) + s * max(y, 0) <= c for x, y in vertices)


def equations(rows: Facets, group: int) -> np.ndarray:
    fields = (rows.z, rows.a, -rows.offset.unsqueeze(-1))
    return torch.cat([field[group][rows.valid[group]] for field in fields], -1).double().numpy()


def qhull(vertices: np.ndarray) -> np.ndarray:
    """The distinct facets of a hull, ``(F, 5)``, largest coefficient one; simplices of a facet merged."""
    lifted = np.unique(np.concatenate([vertices, np.maximum(vertices, 0)], 1).round(13), axis=0)
    found = ConvexHull(lifted).equations
    found /= np.abs(found[:, :4]).max(1, keepdims=True)
    distinct: list[np.ndarray] = []
    for row in found:
        if all(np.abs(row - other).max() > 1e-7 for other in distinct):
            distinct.append(row)
    return np.array(distinct)


def assert_same(rows: np.ndarray, expected: np.ndarray) -> None:
    distance = np.abs(rows[:, None] - expected[None]).max(-1)
    assert len(rows) == len(expected)
    assert distance.min(1).max() < 1e-7
    assert distance.min(0).max() < 1e-7


@pytest.fixture(params=["wralu", "zono"])
def benchmark(request) -> tuple[Tensor, list[np.ndarray]]:
    """Bounds ``(100, 8)`` and the exact vertices of each group."""
    path = DATA / f"{request.param}_k2.npz"
    if not path.exists():
        pytest.skip(f"needs {path}: set KRELAX_BENCHMARKS")
    reference = np.load(DATA / f"ref_{request.param}_k2.npz")
    return torch.from_numpy(np.load(path)["B"]), np.split(reference["V"], reference["off"][1:-1])


def test_facets_are_those_of_qhull(benchmark) -> None:
    bounds, vertices = benchmark
    rows = facets(bounds)
    for group, exact in enumerate(vertices):
        assert_same(equations(rows, group), qhull(exact))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_benchmark_facets_are_sound(benchmark, dtype) -> None:
    bounds = benchmark[0].to(dtype)
    assert_sound(bounds, facets(bounds))


def test_facets_of_random_octagons_are_those_of_qhull() -> None:
    """Octagons with the origin in and out, of few and many vertices."""
    rng = np.random.default_rng(0)
    cloud = np.concatenate([rng.normal(size=(100, 4, 2)), rng.integers(-3, 4, size=(100, 4, 2)).astype(float)])
    bounds = around(cloud)
    rows = facets(bounds)
    assert_sound(bounds, rows)
    compared = 0
    for group, given in enumerate(bounds.tolist()):
        vertices = np.array(exact_vertices(given), dtype=float)
        solid = np.concatenate([vertices, np.maximum(vertices, 0)], 1)
        if np.linalg.matrix_rank(solid - solid[0], tol=1e-9) == 4:
            assert_same(equations(rows, group), qhull(vertices))
            compared += 1
    assert compared > 100


FLAT = {
    "stable active": [[1, -1], [2, 2], [1.5, -2]],
    "stable inactive": [[-1, -1], [-2, 2], [-1.5, -2]],
    "both stable": [[1, -1], [2, -2], [1, -3]],
    "segment across both axes": [[-1, 2], [2, -1]],
    "segment through the origin": [[-1, -1], [2, 2]],
    "segment along an axis": [[-1, 0], [2, 0]],
    "zero width": [[0.5, -1], [0.5, 2]],
    "point": [[0.5, -1]],
    "origin": [[0, 0]],
}


@pytest.mark.parametrize("name", FLAT)
def test_hulls_of_lower_dimension_are_described_exactly(name: str) -> None:
    """Over the rows, a linear program in any direction finds the support of the hull."""
    bounds = around(np.array([FLAT[name]], dtype=float))
    rows = facets(bounds)
    assert_sound(bounds, rows)
    system = equations(rows, 0)
    corners = points(tighten(bounds))[0]
    for direction in torch.randn(10, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64):
        expected = support(corners, direction[None, :2], -direction[None, 2:]).value.item()
        found = linprog(-direction.numpy(), system[:, :4], -system[:, 4], bounds=(None, None))
        assert -found.fun == pytest.approx(expected, abs=1e-6)


def test_narrow_and_scaled_groups_are_sound() -> None:
    """Widths down to 1e-13, magnitudes of 1e±12: rows may be missing, but none cuts the hull."""
    rng = np.random.default_rng(1)
    width = rng.choice([0.0, 1e-13, 1e-9, 1e-5, 1.0], size=(150, 1, 2))
    cloud = rng.normal(size=(150, 4, 2)) * width + rng.choice([0.0, 0.0, 1e-9, 0.5], size=(150, 1, 2))
    bounds = around(cloud * rng.choice([1e-12, 1.0, 1e12], size=(150, 1, 1)))
    rows = facets(bounds)
    assert torch.isfinite(rows.offset).all()
    assert_sound(bounds, rows)


def test_shapes() -> None:
    bounds = around(np.random.default_rng(2).normal(size=(6, 4, 2)))
    rows, flat = facets(bounds.reshape(2, 3, 8)), facets(bounds)
    assert rows.z.shape == (*rows.offset.shape, 2) == (2, 3, flat.valid.shape[1], 2)
    assert torch.equal(rows.offset.flatten(0, 1), flat.offset)
    assert facets(torch.empty(0, 8)).valid.shape[0] == 0
