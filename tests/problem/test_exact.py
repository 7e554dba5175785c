"""Membership and rounding against rational numbers, with no tolerance."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from krelax.elements import FLOAT32, Elements
from krelax.problem.exact import Numbers, within

SINGLE = st.floats(width=32, allow_nan=False, allow_infinity=False)


def distance(x, centre, p) -> Fraction:
    return sum((abs(Fraction(float(a)) - Fraction(float(b))) ** p for a, b in zip(x, centre, strict=True)), Fraction(0))


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@settings(deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(0, 3), st.floats(-1e3, 1e3))
def test_the_numbers_of_a_type_in_a_box(dtype, low, width, x):
    """They are in it, their neighbours outside, and the nearest one is nearest."""
    high = low
    for _ in range(width):
        high = np.nextafter(high, np.inf)
    if not np.isfinite(high):
        return
    numbers = Numbers.of(np.array([low]), np.array([high]), Elements((np.dtype(dtype).name,)))
    first, last = numbers.first, numbers.last
    if not numbers.exist:
        near = np.array([low]).astype(dtype).astype(float)
        for value in (
            near,
            np.nextafter(near.astype(dtype), dtype(np.inf)),
            np.nextafter(near.astype(dtype), -dtype(np.inf)),
        ):
            assert not np.isfinite(value[0]) or not low <= float(value[0]) <= high
        assert numbers.nearest(np.array([x])) is None
        return
    assert low <= float(first[0]) <= float(last[0]) <= high
    assert not low <= float(np.nextafter(first[0], -dtype(np.inf)))
    assert not float(np.nextafter(last[0], dtype(np.inf))) <= high
    point = numbers.nearest(np.array([x]))
    assert point is not None
    assert point.dtype == dtype
    assert low <= float(point[0]) <= high


def test_boxes_beyond_the_range_of_a_type_hold_none_of_its_numbers():
    assert not Numbers.of(np.array([1e300]), np.array([1e301]), FLOAT32).exist
    whole = Numbers.of(np.array([-np.inf]), np.array([np.inf]), FLOAT32)
    assert whole.exist
    assert np.isfinite(whole.first).all()
    assert np.isfinite(whole.last).all()


@pytest.mark.parametrize("p", [1, 2])
@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(SINGLE, SINGLE), min_size=1, max_size=5), st.sampled_from([0, 1, -1]))
def test_the_edge_of_a_ball(p, pairs, side):
    """The radius is as near to the distance as fractions can be: on it, a hair above, a hair below."""
    x, centre = (np.array(column, np.float32) for column in zip(*pairs, strict=True))
    exact = distance(x, centre, p)
    hair = Fraction(1, 10**60)
    if p == 1:
        eps = max(exact + side * hair, Fraction(0))
        if float(eps) < 1e308:
            assert within(x, centre, eps, 1) is (exact <= eps)
        return
    # a fraction next to the root, from either side
    scale = 10**50
    root = Fraction(_root(exact * scale * scale) + (1 if side >= 0 else -1), scale)
    if 0 <= root < 10**300:
        assert within(x, centre, root, 2) is (exact <= root * root)


def _root(square: Fraction) -> int:
    from math import isqrt

    return isqrt(square.numerator // square.denominator)


@pytest.mark.parametrize(
    ("x", "eps", "inside"),
    [
        ([3.0, 4.0], Fraction(5), True),
        ([3.0, 4.0], Fraction(5) - Fraction(1, 10**30), False),
        ([1e-30, 0.0], Fraction(float(np.float32(1e-30))), True),
        ([1e-30, 1e-38], Fraction(float(np.float32(1e-30))), False),
        ([1.0, 1e-30], Fraction(1), False),
        ([0.0, 0.0], Fraction(0), True),
        ([1e-45, 0.0], Fraction(0), False),
    ],
)
def test_balls_where_squares_vanish(x, eps, inside):
    assert within(np.array(x, np.float32), np.zeros(2, np.float32), eps, 2) is inside
