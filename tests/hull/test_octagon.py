"""The 13 points of an octagon against published vertices, and against exact enumeration with no tolerance at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.marks import at_night_after
from torch import Tensor

from krelax.hull.octagon import ROUNDING, ROWS, lift, points, tighten
from krelax.hull.scan import scan

DATA = Path(os.environ.get("KRELAX_BENCHMARKS", Path(__file__).parents[3] / "shared" / "benchmarks")) / "hull"
LINES = (*ROWS, (1, 0), (0, 1))  # what vertices of the pieces lie on: the faces and the axes
PAIRS = [(i, j) for j in range(10) for i in range(j) if LINES[i][0] * LINES[j][1] != LINES[i][1] * LINES[j][0]]
DTYPES = (torch.float32, torch.float64)


def exact_vertices(bounds: list[float]) -> list[tuple[Fraction, Fraction]]:
    """All vertices of the pieces of the octagon, by intersecting every two lines."""
    c = [*map(Fraction, bounds), Fraction(0), Fraction(0)]
    found = []
    for i, j in PAIRS:
        (p, q), (r, s) = LINES[i], LINES[j]
        d = p * s - q * r
        z = ((c[i] * s - q * c[j]) / d, (p * c[j] - r * c[i]) / d)
        if all(a * z[0] + b * z[1] <= bound for (a, b), bound in zip(ROWS, c, strict=False)):
            found.append(z)
    return found


def exact_support(vertices: list[tuple[Fraction, Fraction]], slope: list[float], coeff: list[float]) -> Fraction:
    s, c = [*map(Fraction, slope)], [*map(Fraction, coeff)]
    return max(sum((s[i] * z[i] - c[i] * max(z[i], Fraction(0)) for i in range(2)), Fraction(0)) for z in vertices)


def _around(rng: np.random.Generator, cloud: np.ndarray) -> np.ndarray:
    """The octagons around point clouds ``(n, points, 2)``, some bounds loosened."""
    bounds = (cloud @ np.array(ROWS).T).max(1)
    loose = rng.random(bounds.shape) < rng.choice([0.0, 0.3, 0.8], size=(len(bounds), 1))
    return bounds + loose * rng.random(bounds.shape) * 3


def _general(rng: np.random.Generator, n: int) -> np.ndarray:
    return _around(rng, rng.normal(size=(n, 5, 2)) + rng.normal(size=(n, 1, 2)) * rng.choice([0, 1, 3], size=(n, 1, 1)))


def _integer(rng: np.random.Generator, n: int) -> np.ndarray:
    return _around(rng, rng.integers(-3, 4, size=(n, 3, 2)).astype(float)).round()


def _segment(rng: np.random.Generator, n: int) -> np.ndarray:
    """Segments along rows, many through the origin or an axis, and single points (both ends the same)."""
    start = rng.integers(-2, 3, size=(n, 1, 2)) * rng.choice([0.0, 1.0, 0.1], size=(n, 1, 1))
    step = np.array(ROWS)[rng.integers(0, 8, size=n)][:, None] * rng.integers(0, 4, size=(n, 1, 1)) * 0.1
    return _around(rng, np.concatenate([start, start + step], 1))


def _touching(rng: np.random.Generator, n: int) -> np.ndarray:
    """The origin on the boundary or off it by next to nothing: bounds of zero and of 1e-13."""
    bounds = _around(rng, rng.normal(size=(n, 4, 2)))
    bounds = np.maximum(bounds, 0)
    near = rng.random(bounds.shape) < 0.25
    return np.where(near, rng.choice([0.0, 1e-13, 1e-20, 1e-7], size=bounds.shape), bounds)


def _narrow(rng: np.random.Generator, n: int) -> np.ndarray:
    """Neurons of no or next to no width, stable ones and ones that barely cross zero."""
    width = rng.choice([0.0, 1e-13, 1e-6, 1.0], size=(n, 1, 2))
    return _around(rng, rng.normal(size=(n, 4, 2)) * width + rng.choice([0.0, 0.0, 0.5, -1e-13], size=(n, 1, 2)))


def _anisotropic(rng: np.random.Generator, n: int) -> np.ndarray:
    """Members of very different magnitudes."""
    scale = 10.0 ** rng.integers(-7, 8, size=(n, 1, 2))
    bounds = (rng.normal(size=(n, 5, 2)) * scale @ np.array(ROWS).T).max(1)
    loose = rng.random(bounds.shape) < 0.4
    return bounds + loose * rng.random(bounds.shape) * np.abs(bounds)


FAMILIES: tuple[Callable[[np.random.Generator, int], np.ndarray], ...] = (
    *(_general, _integer, _segment, _touching, _narrow, _anisotropic),
)


def octagons(family: Callable[[np.random.Generator, int], np.ndarray], n: int, seed: int = 0) -> Tensor:
    """Bounds ``(n, 8)`` in float64, a third of them scaled by 1e-12 and 1e12 each."""
    rng = np.random.default_rng(seed)
    bounds = family(rng, n) * rng.choice([1e-12, 1.0, 1e12], size=(n, 1))
    return torch.from_numpy(bounds)


def queries(n: int, count: int, seed: int = 1) -> Tensor:
    """Slopes and coefficients ``(n, count, 4)``, integers (ties), and random ones with coordinates of all sizes."""
    generator = torch.Generator().manual_seed(seed)
    smooth = torch.randn(n, count, 4, generator=generator, dtype=torch.float64)
    spread = smooth * 10.0 ** torch.randint(-6, 7, (n, count, 4), generator=generator)
    integer = torch.randint(-2, 3, (n, count, 4), generator=generator).double()
    kind = torch.randint(0, 3, (n, count, 1), generator=generator)
    return torch.where(kind == 0, smooth, torch.where(kind == 1, spread, integer))


def support(points: Tensor, slope: Tensor, coeff: Tensor) -> tuple[Tensor, Tensor]:
    """Values ``(..., Q)`` and maximisers ``(..., Q, 2)`` of ``slope . z - coeff . act(z)`` over points or a lift."""
    lifted = points if points.shape[-1] == 4 else lift(points)
    direction = torch.cat([slope, coeff], -1).mT.expand(*lifted.shape[:-2], -1, -1)
    value, index = scan(lifted.reshape(1, -1, *lifted.shape[-2:]), direction.reshape(1, -1, *direction.shape[-2:]))
    value, index = (t.reshape(*lifted.shape[:-2], -1) for t in (value, index))
    return value, lifted[..., :2].gather(-2, index.unsqueeze(-1).expand(*index.shape, 2))


def charge(points: Tensor, slope: Tensor, coeff: Tensor) -> Tensor:
    """What rounding may have taken from a support value, ``(..., Q)``: in tight bounds, points and products."""
    magnitude = points[..., :2].abs().amax(-2).unsqueeze(-2)
    return ROUNDING * torch.finfo(points.dtype).eps * (magnitude * (slope.abs() + coeff.abs())).sum(-1)


def check_support(bounds: Tensor, query: Tensor) -> int:
    """Exact <= computed + charge, and computed <= exact + the charge for the larger magnitude; returns how many."""
    corners = points(tighten(bounds))
    slope, coeff = query.split(2, -1)
    value, _ = support(corners, slope, coeff)
    above = value + charge(corners, slope, coeff)
    assert torch.isfinite(above).all()
    checked = 0
    for g, given in enumerate(bounds.tolist()):
        vertices = exact_vertices(given)
        slack = Fraction(ROUNDING * torch.finfo(bounds.dtype).eps) * Fraction(corners[g].abs().max().item())
        for q, weights in enumerate(
            query[g].tolist() if vertices else ()
        ):  # rounding to the dtype may empty an octagon
            exact = exact_support(vertices, weights[:2], weights[2:])
            assert Fraction(above[g, q].item()) >= exact
            assert Fraction(value[g, q].item()) <= exact + slack * sum(abs(Fraction(w)) for w in weights)
            checked += 1
    return checked


@pytest.mark.parametrize("count", at_night_after(1, (30, 1000)))
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_charged_support_is_an_upper_bound_and_no_worse_than_proven(family, dtype, count) -> None:
    """In rational arithmetic, without tolerance."""
    bounds, query = octagons(family, count).to(dtype), queries(count, 4).to(dtype)
    assert check_support(bounds, query) > count


@pytest.mark.parametrize("family", FAMILIES)
def test_tight_bounds_are_attained(family) -> None:
    """One round of tightening is exact: each bound is the maximum of its row, up to rounding of the tight bounds."""
    bounds = octagons(family, 40, seed=2)
    for given, tight in zip(bounds.tolist(), tighten(bounds).tolist(), strict=True):
        vertices = exact_vertices(given)
        size = max((max(abs(x), abs(y)) for x, y in vertices), default=0)
        for (a, b), bound in zip(ROWS, tight, strict=True):
            exact = max((a * x + b * y for x, y in vertices), default=Fraction(bound))
            assert abs(Fraction(bound) - exact) <= Fraction(4 * 2.0**-52) * size


@pytest.mark.parametrize("family", ["wralu", "zono"])
def test_support_equals_the_maximum_over_published_vertices(family: str) -> None:
    """On the benchmark groups, whose vertices come from rational arithmetic."""
    if not (DATA / f"ref_{family}_k2.npz").exists():
        pytest.skip("needs the hull benchmarks: set KRELAX_BENCHMARKS")
    groups, reference = np.load(DATA / f"{family}_k2.npz"), np.load(DATA / f"ref_{family}_k2.npz")
    assert groups["A"].tolist() == [list(row) for row in ROWS]
    directions = torch.from_numpy(np.load(DATA / "directions_k2.npz")["D"])
    corners = points(tighten(torch.from_numpy(groups["B"])))
    value, _ = support(corners, directions[:, :2], -directions[:, 2:])
    for g, (first, last) in enumerate(zip(reference["off"], reference["off"][1:], strict=False)):
        vertices = torch.from_numpy(reference["V"][first:last])
        expected = (directions @ torch.cat([vertices, vertices.clamp(min=0)], -1).T).amax(-1)
        torch.testing.assert_close(value[g], expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))


def test_two_rotated_neurons() -> None:
    """z1 = u + v, z2 = u - v on the unit box: triangles give a1 + a2 <= 3, the pair gives 2."""
    corners = points(tighten(torch.full((8,), 2.0)))
    value, z = support(corners, torch.zeros(1, 2), -torch.ones(1, 2))
    assert value.item() == 2
    assert z.clamp(min=0).sum().item() == 2


def test_a_maximum_through_a_pass_through_member() -> None:
    """max(x1, x2) = x2 + ReLU(x1 - x2) is at most 1 on the unit square, with z = (x2, x1 - x2)."""
    x = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    z = torch.stack([x[:, 1], x[:, 0] - x[:, 1]], -1)
    corners = points(tighten((z @ torch.tensor(ROWS, dtype=z.dtype).T).amax(0)))
    lifted = lift(corners, torch.tensor([1.0, 0.0]))
    assert support(lifted, torch.zeros(1, 2), -torch.ones(1, 2))[0].item() == 1


@pytest.mark.parametrize("slope", [0.0, 0.1, -1.0, 1.0])
def test_leaky_units_are_sound_and_attained(slope: float) -> None:
    """Values at the maximisers are the supports, and no point of a fine grid exceeds them."""
    bounds = octagons(_general, 20)
    corners, query = points(tighten(bounds)), queries(20, 10)
    lifted = lift(corners, torch.tensor([slope, 0.0], dtype=torch.float64))
    value, z = support(lifted, query[..., :2], query[..., 2:])
    at = (torch.cat([z, lift(z, torch.tensor([slope, 0.0]))[..., 2:]], -1) * query).sum(-1)
    torch.testing.assert_close(at, value)
    mixed = torch.rand(200, 13, dtype=torch.float64).softmax(-1) @ corners
    inner = (lift(mixed, torch.tensor([slope, 0.0])) @ query.mT).amax(-2)
    assert (inner <= value + charge(lifted, query[..., :2], query[..., 2:])).all()


def test_inconsistent_bounds_give_finite_points_nearby() -> None:
    """An octagon emptied by rounding: its points are those of the consistent one, moved by as little."""
    consistent = octagons(_segment, 200, seed=3)
    moved = consistent - 1e-9 * consistent.abs().amax(-1, keepdim=True)
    distance = (points(tighten(moved)) - points(tighten(consistent))).abs().amax((-2, -1))
    assert (distance <= 1e-8 * consistent.abs().amax(-1)).all()


def test_leading_axes() -> None:
    """Points of (image, group) are those of each group alone; no group has none."""
    bounds = octagons(_general, 6)
    corners = points(tighten(bounds.reshape(2, 3, 8)))
    assert torch.equal(corners.flatten(0, 1), torch.stack([points(tighten(b)) for b in bounds]))
    assert points(tighten(bounds[:0])).shape == (0, 13, 2)
