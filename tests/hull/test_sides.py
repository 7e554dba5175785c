"""Supports of parts of a group's graph, some members on a known side of zero: upper bounds in exact arithmetic."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import pytest
import torch
from tests.hull.oracles import exact
from tests.hull.random_polytopes import random_directions, random_polytopes
from tests.hull.test_octagon import FAMILIES, exact_vertices, octagons, queries
from tests.hull.test_support import assert_plain_python_prints_the_same
from tests.marks import at_night_after
from torch import Tensor

from krelax.activations.joint import Joint
from krelax.hull import scan as module
from krelax.hull.octagon import ROUNDING, ROWS, points, tighten
from krelax.hull.pieces import Pieces
from krelax.hull.polytope import Array, Polytope, octahedral_rows, pair_rows
from krelax.hull.scan import scan
from krelax.hull.support import support

Family = Callable[[np.random.Generator, int], np.ndarray]
SIDES = list(itertools.product((-1, 0, 1), repeat=2))
UNIT = Fraction(ROUNDING) * Fraction(2.0**-52)
LEAKY = (0.01, 1.0)  # and a pass-through
# What is added against underflow, many orders of magnitude below any number here.
UNDERFLOW = 1e-250


def grazing(rng: np.random.Generator, n: int) -> np.ndarray:
    """Vertices on an axis or next to it, and tight bounds with more digits than fit."""
    cloud = rng.normal(size=(n, 4, 2)) * rng.choice([1.0, 1e-3], size=(n, 1, 2)) + rng.normal(size=(n, 1, 2))
    cloud[:, 0, 1] = 0.0
    bounds = (cloud @ np.array(ROWS).T).max(1)
    bounds[:, [1, 6]] += rng.random((n, 2))  # the unit bounds of z1 follow from others
    which = (np.arange(n), rng.integers(0, 8, size=n))
    bounds[which] = np.nextafter(bounds[which], rng.choice([-np.inf, np.inf], size=n))
    return bounds


def agrees(z: Sequence[Fraction], sides: Sequence[int]) -> bool:
    return all(x * side >= 0 for x, side in zip(z, sides, strict=True))


def check_pair(joint: Joint, g: int, found: Sequence[float], weights: list[float]) -> int:
    """Values for all `SIDES` of one group: none below the exact maximum less the charge, nor far above it."""
    given, reach = joint.bounds[0, g].tolist(), [*map(Fraction, joint.magnitude[0, g].tolist())]
    s, c = ([*map(Fraction, x)] for x in (weights[:2], weights[2:]))
    charge = UNIT * sum((abs(s[i]) + abs(c[i])) * reach[i] for i in range(2))
    slack = UNIT * sum(abs(x) for x in (*s, *c)) * max(reach)
    values = []
    for z in exact_vertices(given):
        a = [max(x, Fraction(t) * x) for x, t in zip(z, joint.negative_slopes, strict=True)]
        values.append((sum(s[i] * z[i] - c[i] * a[i] for i in range(2)), z))
    feasible = 0
    for value, sides in zip(map(Fraction, found), SIDES, strict=True):
        true = max((value for value, z in values if agrees(z, sides)), default=None)
        assert true is None or true - charge <= value <= true + slack
        feasible += true is not None
    return feasible


@pytest.mark.parametrize("slopes", [(0.0, 0.0), LEAKY], ids=["relu", "leaky and pass-through"])
@pytest.mark.parametrize("family", [*FAMILIES, grazing])
def test_pairs_are_bounded_from_above(family: Family, slopes: tuple[float, float]) -> None:
    """In rational arithmetic, without tolerance, by those of the 13 computed points that count."""
    groups, count = 30, 2
    joint = Joint(torch.tensor(ROWS).double(), octagons(family, groups, seed=3)[None], slopes)
    query = queries(groups, count, seed=4)
    slope, coeff = query.repeat_interleave(len(SIDES), 1).mT[None].split(2, 2)
    sides = torch.tensor(SIDES * count, dtype=torch.int8).T.expand(1, groups, 2, -1)
    value = joint.support(slope, coeff, sides).value[0].unflatten(1, (count, -1)).tolist()
    feasible = sum(check_pair(joint, g, value[g][q], query[g, q].tolist()) for g in range(groups) for q in range(count))
    assert feasible > 150


@pytest.mark.parametrize("family", [*FAMILIES, grazing])
def test_no_computed_vertex_is_beyond_an_axis(family: Family) -> None:
    """The lemma behind it: signs of the points are those of exact vertices of exactly tightened bounds, or zero."""
    bounds = octagons(family, 100, seed=5)
    found = points(tighten(bounds))[:, :8].tolist()
    for given, vertices in zip(bounds.tolist(), found, strict=True):
        if not exact_vertices(given):
            continue
        mm, mz, mp, zm, zp, pm, pz, pp = exactly_tight([*map(Fraction, given)])
        z1 = [pz, pp - zp, zp - mp, -mz, -mz, zm - mm, pm - zm, pz]
        z2 = [pp - pz, zp, zp, mp - mz, mz - mm, -zm, -zm, pz - pm]
        for z, true in zip(vertices, zip(z1, z2, strict=True), strict=True):
            assert all(x * y >= 0 for x, y in zip(map(Fraction, z), true, strict=True))


def exactly_tight(c: list[Fraction]) -> list[Fraction]:
    """`tighten` without rounding."""
    mm, mz, mp, zm, zp, pm, pz, pp = c
    left, right = min(mz, (mm + mp) / 2, mm + zp, mp + zm), min(pz, (pm + pp) / 2, pm + zp, pp + zm)
    down, up = min(zm, (mm + pm) / 2, mm + pz, pm + mz), min(zp, (mp + pp) / 2, mp + pz, pp + mz)
    diagonals = min(mm, left + down), min(mp, left + up), min(pm, right + down), min(pp, right + up)
    return [diagonals[0], left, diagonals[1], down, up, diagonals[2], right, diagonals[3]]


def random_sides(random: np.random.Generator, *shape: int) -> np.ndarray:
    return random.integers(-1, 2, size=shape).astype(np.int8)


def cut(polytope: Polytope, sides: np.ndarray, g: int) -> tuple[Array, Array]:
    """Rows and bounds of group g with a row for every side."""
    known = np.flatnonzero(sides)
    rows = -sides[known, None] * np.eye(polytope.k)[known]
    return np.concatenate([polytope.rows, rows]), np.concatenate([polytope.bounds[g], np.zeros(len(known))])


@pytest.mark.parametrize("times", at_night_after(1, (1, 25)))
@pytest.mark.parametrize(
    ("rows", "pieces", "count"),
    [
        (octahedral_rows(2), Pieces.relu(2), 32),
        (octahedral_rows(3), Pieces.relu(3), 32),
        (pair_rows(4), Pieces.relu(4), 16),
        (octahedral_rows(3), Pieces.coordinatewise([-1.0, 0.01, 2.0], [1.0, 1.0, -0.7]), 16),
        (octahedral_rows(3), Pieces.coordinatewise([0.0, 0.0, 1.0], [1.0, 1.0, 1.0]), 16),
        (octahedral_rows(3), Pieces.maximum(3), 16),
    ],
    ids=["2", "3", "4", "other slopes", "pass-through", "maximum"],
)
def test_more_neurons_are_bounded_from_above(rows: Array, pieces: Pieces, count: int, times: int) -> None:
    """In rational arithmetic, without tolerance; within 1e-12 where every member has a kink."""
    count *= times
    polytope, random = random_polytopes(pieces.k, rows, count, seed=6), np.random.default_rng(7)
    slope, coeff = random_directions(random, count, pieces.k, pieces.outputs)
    sides = random_sides(random, count, 1, pieces.k)
    whole = support(polytope, pieces, slope, coeff).value[:, 0]
    value = support(polytope, pieces, slope, coeff, sides=sides).value[:, 0]
    reach = np.maximum(abs(polytope.lower), abs(polytope.upper)).max(1)
    size = 2 * reach * (abs(slope).sum((1, 2)) + 2 * abs(coeff).sum((1, 2)))
    assert (value <= whole + 1e-14 * size + UNDERFLOW).all()
    kinked = len(pieces.maps) == 2**pieces.k
    feasible = 0
    for g in range(count):
        given = *(x.tolist() for x in cut(polytope, sides[g, 0], g)), pieces.rows.tolist(), pieces.maps.tolist()
        true = exact.support(*given, slope[g, 0].tolist(), coeff[g, 0].tolist())  # type: ignore[call-arg]
        assert true is None or true <= Fraction(value[g])
        assert true is None or not kinked or float(Fraction(value[g]) - true) <= 1e-12 * size[g] + UNDERFLOW
        feasible += true is not None
    assert feasible > count / 3


@pytest.mark.parametrize("k", [2, 3])
def test_sides_of_an_infeasible_leaf_change_nothing(k: int) -> None:
    """All z are positive, so nothing is left where one is negative."""
    rows, random = octahedral_rows(k), np.random.default_rng(8)
    bounds = ((random.normal(size=(20, 6, k)) + 9.0) @ rows.T).max(1)
    joint = Joint(torch.from_numpy(rows), torch.from_numpy(bounds)[None], (0.0,) * k)
    slope, coeff = torch.from_numpy(random.normal(size=(2, 1, 20, k, 5)))
    sides = torch.full(slope.shape, -1, dtype=torch.int8)
    for dtype in (torch.float32, torch.float64):
        asked = slope.to(dtype), coeff.to(dtype)
        assert torch.equal(joint.to(dtype).support(*asked, sides).value, joint.to(dtype).support(*asked).value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("k", [2, 3])
def test_no_side_known_is_no_restriction(k: int, dtype: torch.dtype) -> None:
    polytope, random = random_polytopes(k, octahedral_rows(k), 80, seed=9), np.random.default_rng(10)
    joint = Joint(torch.from_numpy(polytope.rows), torch.from_numpy(polytope.bounds)[None], (0.0,) * k).to(dtype)
    slope, coeff = torch.from_numpy(random.normal(size=(2, 1, 80, k, 5))).to(dtype)
    whole, part = joint.support(slope, coeff), joint.support(slope, coeff, slope.new_zeros(slope.shape).to(torch.int8))
    for name in ("value", "z", "a"):
        assert torch.equal(getattr(whole, name), getattr(part, name))


@pytest.mark.parametrize("slopes", [(0.0, 0.0, 0.0), (0.0, 0.1, 1.0)], ids=["relu", "leaky and pass-through"])
def test_proposals_are_near_what_is_proven(slopes: tuple[float, float, float]) -> None:
    """Vertices on an axis are computed as such, and count for both sides; a pass-through member has none there."""
    random = np.random.default_rng(11)
    rows, corners = octahedral_rows(3), random.normal(size=(40, 6, 3))
    corners[:, 0] = random.normal(size=(40, 3)) * random.integers(0, 2, size=(40, 3))
    joint = Joint(torch.from_numpy(rows), torch.from_numpy((corners @ rows.T).max(1))[None], slopes)
    slope, coeff = torch.from_numpy(random.normal(size=(2, 1, 40, 3, 27)))
    sides = torch.tensor(list(itertools.product((-1, 0, 1), repeat=3)), dtype=torch.int8).T.expand(1, 40, 3, -1)
    proven = joint.support(slope, coeff, sides)
    single = joint.to(torch.float32)
    proposed = single.support(slope.float(), coeff.float(), sides)
    torch.testing.assert_close(proposed.value, proven.value.float(), rtol=1e-4, atol=1e-4)


def part(points: Tensor, direction: Tensor, sides: Tensor) -> Tensor:
    """The largest product of the points that count, by one look at each."""
    value = (points @ direction).amax(2)
    for g, q in itertools.product(range(points.shape[1]), range(direction.shape[3])):
        k = sides.shape[2]
        counts = [(z[:k] * sides[0, g, :, q] >= 0).all().item() for z in points[0, g]]
        if any(counts):
            value[0, g, q] = (points[0, g] @ direction[0, g, :, q])[torch.tensor(counts)].max()
    return value


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("compiled", [True, False])
def test_only_points_on_the_sides_count(dtype: torch.dtype, compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMPILED", compiled and module.COMPILED)  # type: ignore[attr-defined]
    generator = torch.Generator().manual_seed(0)
    cloud = torch.randint(-1, 2, (1, 7, 6, 4), generator=generator) * torch.rand(1, 7, 6, 4, generator=generator)
    direction = torch.randn(1, 7, 20, 4, generator=generator, dtype=dtype).mT  # not contiguous
    sides = torch.randint(-1, 2, (1, 7, 20, 2), generator=generator, dtype=torch.int8).mT
    value, index = scan(cloud.to(dtype), direction, sides)
    expected = part(cloud.to(dtype), direction, sides)
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    products = cloud.to(dtype) @ direction
    torch.testing.assert_close(products.gather(2, index.unsqueeze(2))[:, :, 0], value, rtol=1e-5, atol=1e-6)
    assert (expected < products.amax(2)).any()


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("side", [-1, 0, 1])
@pytest.mark.parametrize("at", range(3))
def test_one_product_that_is_not_a_number_leaves_no_value(
    at: int, side: int, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "COMPILED", compiled and module.COMPILED)  # type: ignore[attr-defined]
    cloud = torch.full((1, 1, 3, 2), -1.0 if side < 0 else 1.0)
    cloud[0, 0, at] = torch.tensor([torch.inf, -torch.inf])
    sides = torch.full((1, 1, 1, 4), side, dtype=torch.int8)
    assert scan(cloud, torch.ones(1, 1, 2, 4), sides)[0].isnan().all()


WITHOUT_NUMBA = """
import numpy as np
from tests.hull.random_polytopes import random_directions, random_polytopes
from krelax.hull.pieces import Pieces
from krelax.hull.polytope import octahedral_rows
from krelax.hull.support import support
polytope, random = random_polytopes(3, octahedral_rows(3), 16, seed=13), np.random.default_rng(14)
sides = random.integers(-1, 2, size=(16, 1, 3)).astype(np.int8)
found = support(polytope, Pieces.relu(3), *random_directions(random, 16, 3, 3), sides=sides)
print(repr([x.tolist() for x in (found.value, found.z)]))
"""


def test_plain_python_computes_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("numba")
    assert_plain_python_prints_the_same(WITHOUT_NUMBA, capsys)


def test_sides_of_another_shape_are_refused() -> None:
    polytope, zero = random_polytopes(3, octahedral_rows(3), 8, seed=15), np.zeros((8, 2, 3))
    with pytest.raises(ValueError, match="sides are"):
        support(polytope, Pieces.relu(3), zero, zero, sides=np.zeros((8, 1, 3), dtype=np.int8))
    with pytest.raises(RuntimeError, match="expanded size"):
        scan(torch.ones(1, 1, 3, 4), torch.ones(1, 1, 4, 5), torch.zeros(1, 1, 2, 4, dtype=torch.int8))
