"""What regions prove of linear forms, in rational arithmetic: no minimum is above an attained value, at any scale."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from math import inf, isqrt

import numpy as np
import pytest
import torch
from tests.marks import at_night_after
from torch import Tensor

from krelax.bounds.backward import least
from krelax.bounds.instance import Instance
from krelax.errors import InputError
from krelax.network.graph import Builder
from krelax.network.linear import Dense
from krelax.problem.region import Ball, Box, Region, ball, euclidean, middle

SMALLEST, LARGEST = 5e-324, 1.7976931348623157e308
SCALES = (1e-320, 1e-300, 1e-170, 1e-20, 1.0, 1e20, 1e154, 1e170, 1e300)


def proven(region: Region, row: Tensor) -> float:
    """The proven minimum of `<row, x>`."""
    network = Builder((row.numel(),)).build(0)
    return float(least(network, region, row[None, None], torch.zeros(1, 1, dtype=torch.float64)))


def exact(row: Tensor, x: list[Fraction]) -> Fraction:
    return sum((Fraction(w) * v for w, v in zip(row.tolist(), x, strict=True)), Fraction(0))


def in_ball(region: Ball, row: Tensor) -> list[Fraction]:
    """The point of the ball at which the row is smallest, a little inside."""
    form = [Fraction(w) for w in row.tolist()]
    if region.p == 1:
        direction = [w if abs(w) == max(map(abs, form)) else Fraction(0) for w in form]
        length = sum(map(abs, direction))
    else:
        square = sum(w * w for w in form)
        shift = 2000 + square.denominator.bit_length()
        direction, length = form, Fraction(isqrt((square.numerator << 2 * shift) // square.denominator) + 1, 1 << shift)
    centre = [Fraction(c) for c in region.centre.flatten().tolist()]
    return [c - Fraction(region.eps) * d / length for c, d in zip(centre, direction, strict=True)]


PAIRS = list(product(enumerate(SCALES), repeat=2))
# every pair of sizes always, in one of the norms
SIZED = [(("l2", "l1")[(i + j + k) % 2], scale, size) for k in range(2) for (i, scale), (j, size) in PAIRS]


@pytest.mark.parametrize(("norm", "scale", "size"), at_night_after(len(PAIRS), SIZED))
def test_balls_reach_as_far_as_they_do(norm: str, scale: float, size: float) -> None:
    """Squares of a form's entries may underflow or overflow; its length must not."""
    rng = np.random.default_rng(0)
    for count in (1, 2, 5, 40):
        row = torch.from_numpy(rng.normal(size=count) * scale)
        centre = torch.from_numpy(rng.normal(size=(1, count)) * rng.choice([0.0, size]))
        region = ball(centre, size, norm, None)
        assert isinstance(region, Ball)
        lowest, found = exact(row, in_ball(region, row)), proven(region, row)
        assert found == -inf or Fraction(found) <= lowest
        if min(scale, size) > 1e-200 and 1e-280 < scale * size < 1e280:
            assert float(lowest - Fraction(found)) <= 1e-12 * float(abs(lowest))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(
    "faces",
    [
        (-LARGEST, LARGEST),
        (LARGEST / 2, LARGEST),
        (-1e30, 1e30),
        (SMALLEST, 3 * SMALLEST),
        (-SMALLEST, 0.0),
        (1.0, 1.0 + 2.0**-52),
        (3 * SMALLEST, 3 * SMALLEST),
        (1e-310, 1e-309),
    ],
)
def test_boxes_reach_their_corners(scale: float, faces: tuple[float, float]) -> None:
    row = torch.tensor([scale, -scale, scale / 3], dtype=torch.float64)
    lower, upper = (torch.full((1, 3), face, dtype=torch.float64) for face in faces)
    found = proven(Box(lower, upper), row)
    low, high = map(Fraction, faces)
    lowest = sum((Fraction(w) * (low if w > 0 else high) for w in row.tolist()), Fraction(0))
    assert found == -inf or Fraction(found) <= lowest
    if scale * high < 1e280 and high < 1e280:
        assert found > -inf


def test_rounding_of_long_forms_is_paid_for() -> None:
    """Forms whose terms cancel, over balls and boxes that are nearly points."""
    rng = np.random.default_rng(1)
    for count, norm in ((300, "l2"), (300, "l1"), (300, "linf"), (3, "l2")):
        half = rng.normal(size=count) * 1e8
        row = torch.from_numpy(np.concatenate([half, -half * (1 + 2.0**-52)]))
        region = ball(torch.ones(1, 2 * count, dtype=torch.float64), 1e-18, norm, None)
        value = exact(row, [Fraction(1)] * (2 * count))
        assert Fraction(proven(region, row)) <= value


def test_lengths_are_right_at_every_scale() -> None:
    rng = np.random.default_rng(2)
    for scale in SCALES[1:]:
        row = torch.from_numpy(np.append(rng.normal(size=30), 0.0) * scale)
        square = sum(Fraction(v) ** 2 for v in row.tolist())
        length = Fraction(float(euclidean(row[None])))
        assert abs(length * length / square - 1) < Fraction(80, 2**53)
    assert euclidean(torch.zeros(2, 3, dtype=torch.float64)).tolist() == [[0.0], [0.0]]
    assert euclidean(torch.tensor([[inf, 1.0]], dtype=torch.float64)).tolist() == [[inf]]
    assert bool(euclidean(torch.tensor([[torch.nan, 1.0]], dtype=torch.float64)).isnan())


def test_a_middle_is_between_the_faces() -> None:
    ends = [-LARGEST, -1.0, -SMALLEST, 0.0, SMALLEST, 2 * SMALLEST, 3 * SMALLEST, 1.0, 1.0 + 2.0**-52, LARGEST]
    for i, low in enumerate(ends):
        for high in ends[i:]:
            found = float(middle(*(torch.tensor(v, dtype=torch.float64) for v in (low, high))))
            assert low <= found <= high
            if high - low == 2 * SMALLEST:
                assert low < found < high


@pytest.mark.parametrize("norm", ["l2", "l1", "linf"])
@pytest.mark.parametrize("eps", [0.0, SMALLEST, 1e-200, 0.3, 1e200])
def test_projected_points_and_minimisers_are_inside(norm: str, eps: float) -> None:
    """They propose only, but a point that is far outside is a wasted one, and what is not a number is none."""
    centre = torch.tensor([[0.5, 0.0, 1.0]], dtype=torch.float64)
    region = ball(centre, eps, norm, None)
    rng = np.random.default_rng(3)
    for scale in (1e-200, 1.0, 1e160):
        form = torch.from_numpy(rng.normal(size=(1, 4, 3)) * scale)
        for points in (region.minimiser(form), region.project(form)):
            step = (points - centre).flatten(1)
            assert bool(step.isfinite().all())
            assert float(step.abs().max()) <= eps * (1 + 1e-9) + 1e-15


def test_a_network_of_one_matrix_that_underflows_is_not_robust_in_a_ball() -> None:
    """A difference of 1e-170 x against 4e-171: it is negative at the edge of the ball."""
    from tests.bounds.problems import METHODS, bounded

    builder = Builder((2,))
    weight, bias = torch.tensor([[1e-170, 0.0], [0.0, 0.0]]).double(), torch.tensor([-4e-171, 0.0]).double()
    weight[0, 0], bias[0] = 1e-170, -4e-171
    network = builder.build(builder.add(Dense(weight, bias), 0))
    rows = torch.tensor([[[1.0, -1.0]]], dtype=torch.float64)
    region = ball(torch.full((1, 2), 0.5, dtype=torch.float64), 0.4, "l2", None)
    for method in METHODS:
        found = float(bounded(network, region, rows, torch.zeros(1, 1, dtype=torch.float64), method).value)
        assert Fraction(found) <= Fraction(1e-170) * Fraction(1, 10) - Fraction(4e-171)


@pytest.mark.parametrize("kind", [torch.float16, torch.float32, torch.int32, torch.uint8, torch.bool])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_balls_around_numbers_of_any_type_lose_nothing(kind: torch.dtype, norm: str) -> None:
    """Neither where the range, nor where eps, is no number of that type."""
    centre = torch.tensor([[0.0, 1.0, 1.0]]).to(kind)
    for eps in (1, 0.3, Fraction(8, 255), Fraction(1, 3)):
        for clip in (None, (-0.1, 1.1), (Fraction(-1, 3), Fraction(4, 3))):
            region = ball(centre, eps, norm, clip)
            low, high = (-inf, inf) if clip is None else map(Fraction, clip)
            for x, lower, upper in zip(*(t[0].tolist() for t in (centre, region.lower, region.upper)), strict=True):
                assert Fraction(lower) <= max(Fraction(x) - Fraction(eps), low)
                assert Fraction(upper) >= min(Fraction(x) + Fraction(eps), high)
            if norm != "linf":
                assert isinstance(region, Ball)
                assert Fraction(region.eps) >= Fraction(eps)


@pytest.mark.parametrize("value", [np.nan, inf, -inf])
def test_centres_and_faces_are_numbers(value: float) -> None:
    for clip in (None, (0.0, 1.0)):
        with pytest.raises(InputError, match="infinite or not a number"):
            ball(torch.tensor([[0.5, value]]), 0.1, clip=clip)
    with pytest.raises(InputError, match="outside the range"):
        ball(torch.tensor([[0.5]]), 0.1, clip=(np.nan, 1.0))
    with pytest.raises(InputError, match="not a number"):
        Box(torch.tensor([[0.0, np.nan]]), torch.ones(1, 2))
    with pytest.raises(InputError, match="tensor of real numbers"):
        ball(np.zeros((1, 2)), 0.1)


def test_regions_without_inputs_are_refused_in_one_line() -> None:
    with pytest.raises(InputError, match="without any input"):
        Instance.of(Builder((2,)).build(0), ball(torch.zeros(0, 2), 0.1))
