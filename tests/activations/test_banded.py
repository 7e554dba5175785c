"""Pairs of curves over octagons: no value is below what the graph attains, in exact or high precision arithmetic."""

from __future__ import annotations

from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor

from krelax.activations import (
    ELU,
    GELU,
    Activation,
    Exp,
    Reciprocal,
    Sigmoid,
    Sign,
    SiLU,
    Sin,
    Softplus,
    Sqrt,
    Square,
    Tanh,
)
from krelax.activations.banded import Banded
from krelax.hull.octagon import ROWS
from krelax.hull.separate import separated

mpmath.mp.dps = 60
NORMALS = torch.tensor(ROWS, dtype=torch.float64)
GROUPS, DIRECTIONS, POINTS = 8, 12, 30


def _sign(z: mpmath.mpf) -> mpmath.mpf:
    return mpmath.mpf(int(mpmath.sign(z)))


# The activation, its values, and an interval in its domain.
CURVES = {
    "sigmoid": (Sigmoid(), lambda z: 1 / (1 + mpmath.exp(-z)), (-9.0, 9.0)),
    "tanh": (Tanh(), mpmath.tanh, (-4.0, 4.0)),
    "exp": (Exp(), mpmath.exp, (-6.0, 3.0)),
    "gelu": (GELU(), lambda z: z * mpmath.ncdf(z), (-4.0, 4.0)),
    "silu": (SiLU(), lambda z: z / (1 + mpmath.exp(-z)), (-8.0, 8.0)),
    "softplus": (Softplus(), lambda z: mpmath.log1p(mpmath.exp(z)), (-5.0, 5.0)),
    "elu": (ELU(0.7), lambda z: z if z > 0 else mpmath.mpf(0.7) * mpmath.expm1(z), (-3.0, 3.0)),
    "square": (Square(), lambda z: z * z, (-3.0, 5.0)),
    "sqrt": (Sqrt(), mpmath.sqrt, (0.0, 7.0)),
    "reciprocal": (Reciprocal(), lambda z: 1 / z, (0.125, 4.0)),
    "sin": (Sin(), mpmath.sin, (-7.0, 7.0)),
    "sign": (Sign(), _sign, (-2.0, 2.0)),
}


def octagons(rng: np.random.Generator, interval: tuple[float, float], scale: float = 1.0) -> Tensor:
    """Octagons `(groups, 8)` around zonotopes in a box, some of them thin, and one a point."""
    low, high = interval
    width = (high - low) * scale
    generators = rng.normal(size=(GROUPS, 2, 5)) * rng.choice([1.0, 0.02], size=(GROUPS, 1, 5))
    generators *= width / 2 * rng.uniform(0.1, 1, (GROUPS, 2, 1)) / abs(generators).sum(2, keepdims=True)
    generators[0] = 0
    radius = abs(generators).sum(2)
    centre = low + radius + rng.uniform(size=(GROUPS, 2)) * (high - low - 2 * radius)
    rows = NORMALS.numpy()
    bounds = abs(np.einsum("ri,gin->grn", rows, generators)).sum(2) + centre @ rows.T
    return torch.from_numpy(bounds).maximum(-torch.from_numpy(bounds).flip(1))


def inside(rng: np.random.Generator, octagon: list[float]) -> list[tuple[float, float]]:
    """Points of an octagon, on its boundary if possible; whether they are in it is exact."""
    low, high = (-octagon[1], -octagon[3]), (octagon[6], octagon[4])
    points = [tuple(rng.uniform(low, high)) for _ in range(POINTS)]
    for first, _ in list(points):
        ends = [min(octagon[4], octagon[7] - first, octagon[2] + first)]
        ends.append(max(-octagon[3], -octagon[0] - first, first - octagon[5]))
        points += [(first, end) for end in ends]
    points += [(a, b) for a in (low[0], high[0]) for b in (low[1], high[1])]
    bounds = [Fraction(b) for b in octagon]

    def belongs(point: tuple[float, float]) -> bool:
        z = [Fraction(float(t)) for t in point]
        return all(r[0] * z[0] + r[1] * z[1] <= b for r, b in zip(ROWS, bounds, strict=True))

    return [(float(a), float(b)) for a, b in points if belongs((a, b))]


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_no_point_of_the_graph_is_above_a_value(name: str, scale: float) -> None:
    op, exact, interval = CURVES[name]
    rng = np.random.default_rng(len(name))
    octagon = octagons(rng, interval, scale)
    slope, coeff = (torch.from_numpy(rng.normal(size=(1, GROUPS, 2, DIRECTIONS))) for _ in range(2))
    coeff[..., :2] = 0
    slope[..., 1:3] = 0
    found = Banded(op, NORMALS, octagon[None]).support(slope, coeff).value[0]
    tried = 0
    for g in range(GROUPS):
        forms = [[mpmath.mpf(v) for v in column] for column in torch.cat([slope[0, g], coeff[0, g]]).T.tolist()]
        for z in inside(rng, octagon[g].tolist()):
            tried += 1
            (t, u), (a, b) = zip(*[(mpmath.mpf(t), exact(mpmath.mpf(t))) for t in z], strict=True)
            for d, (c, e, f, h) in enumerate(forms):
                assert c * t + e * u - f * a - h * b <= found[g, d].item()
    assert tried > 10 * GROUPS


def dense(op: Activation, octagon: Tensor, slope: Tensor, coeff: Tensor) -> Tensor:
    """The maximum over many points of the graph, `(directions,)`."""
    low, high = -octagon[[1, 3]], octagon[[6, 4]]
    share = torch.linspace(0, 1, 201, dtype=torch.float64)
    z = low + torch.cartesian_prod(share, share) * (high - low)
    first = torch.lerp(low[0], high[0], share)
    edges = [torch.stack([first, r[1] * (b - r[0] * first)], 1) for r, b in zip(ROWS, octagon, strict=True) if all(r)]
    z = torch.cat([z, *edges])
    z = z[(z @ NORMALS.T <= octagon + 1e-12).all(1)]
    return (z @ slope - op.forward(z) @ coeff).amax(0)


@pytest.mark.parametrize("name", ["sigmoid", "exp", "gelu", "square"])
def test_values_are_near_what_the_graph_attains(name: str) -> None:
    """Where one by one the members pay fifty times as much too much."""
    op, _, interval = CURVES[name]
    rng = np.random.default_rng(7)
    octagon = octagons(rng, interval)
    slope, coeff = (torch.from_numpy(rng.normal(size=(1, GROUPS, 2, DIRECTIONS))) for _ in range(2))
    pairs = Banded(op, NORMALS, octagon[None])
    best = torch.stack([dense(op, octagon[g], slope[0, g], coeff[0, g]) for g in range(GROUPS)])
    excess = (pairs.support(slope, coeff).value[0] - best).clamp(min=0)
    alone = pairs._alone(slope, coeff)[0] - best
    assert excess.sum() < alone.sum() / 50


def test_proposals_say_where_their_value_is_attained() -> None:
    rng = np.random.default_rng(3)
    pairs = Banded(Sigmoid(), NORMALS, octagons(rng, (-4.0, 4.0))[None])
    slope, coeff = (torch.from_numpy(rng.normal(size=(1, GROUPS, 2, DIRECTIONS))).float() for _ in range(2))
    found = pairs.to(torch.float32).support(slope, coeff)
    attained = (slope * found.z - coeff * found.a).sum(2)
    assert torch.allclose(found.value, attained, atol=1e-5)
    assert (pairs.support(slope.double(), coeff.double()).value <= found.value.double() + 1e-5).all()


def test_points_off_the_graph_are_cut_off_and_none_of_the_graph() -> None:
    rng = np.random.default_rng(5)
    octagon = octagons(rng, (-4.0, 4.0))[1:]
    hull = Banded(Sigmoid(), NORMALS, octagon[None]).hull()
    centre = hull.support(np.eye(2)[None], np.zeros((1, 2, 2))).z.mean(1)
    rows = separated(hull, centre, hull.evaluate(centre) + 0.3)
    violated = np.einsum("gi,gi->g", rows.z[:, 0], centre) + np.einsum(
        "gi,gi->g", rows.a[:, 0], hull.evaluate(centre) + 0.3
    )
    assert rows.valid.all()
    assert (violated > rows.offset[:, 0]).all()
    for g in range(len(octagon)):
        slope, coeff = (torch.from_numpy(t[g, 0])[:, None] for t in (rows.z, -rows.a))
        assert dense(Sigmoid(), octagon[g], slope, coeff)[0] <= rows.offset[g, 0]


def test_what_is_not_finite_has_no_value() -> None:
    pairs = Banded(Exp(), NORMALS, torch.ones(1, 1, 8).double())
    slope = torch.tensor([[[[torch.inf, 0.0, torch.nan]], [[1.0, 0.0, 1.0]]]]).double().reshape(1, 1, 2, 3)
    value = pairs.support(slope, torch.ones(1, 1, 2, 3).double()).value[0, 0]
    assert not value[0].isfinite()
    assert value[1].isfinite()
    assert not value[2].isfinite()


@pytest.mark.parametrize("op", [Reciprocal(), Sqrt(), Exp()])
def test_where_nothing_is_known_only_what_is_not_asked_has_a_value(op: Activation) -> None:
    """Outside of the domain, or beyond overflow: infinite, and never no number."""
    pairs = Banded(op, NORMALS, torch.tensor([[[1.0, -1.0, 1e3, 1.0, 1e3, 1e3, 1e3, 2e3]]]).double().flip(2))
    slope = torch.tensor([[0.0, 1.0, 1.0], [0.0, 1.0, -1.0]]).double()[None, None]
    coeff = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]).double()[None, None]
    value = pairs.support(slope, coeff).value[0, 0]
    assert not value.isnan().any()
    assert 0 <= value[0] < 1e-290
