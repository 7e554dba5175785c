"""Exact numbers of the checker: what their operators give, with floats among them, and where they end."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from krelax.certificate.errors import TooLarge
from krelax.certificate.kernel import arithmetic
from krelax.certificate.kernel.arithmetic import Exact, Fixed

A, B = np.array([0.1, -3.5, 0.0, 1e-300]), np.array([0.7, 1e16, -2.25, 1e280])
OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "sum": lambda a, b: a + b,
    "difference": lambda a, b: a - b,
    "product": lambda a, b: a * b,
}


def exactly(x: Fixed) -> list[Fraction]:
    return [Fraction(int(n)) * Fraction(2) ** x.exponent for n in x.ints]


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("floats", ["none", "first", "second"])
def test_operators_are_exact_with_floats_on_either_side(name: str, floats: str) -> None:
    a, b = A if floats == "first" else Fixed.of(A), B if floats == "second" else Fixed.of(B)
    wanted = [OPERATORS[name](Fraction(x), Fraction(y)) for x, y in zip(A.tolist(), B.tolist(), strict=True)]
    assert exactly(OPERATORS[name](a, b)) == wanted


def test_numbers_beyond_float64_have_no_nearest_float() -> None:
    huge = Fixed(np.array([1 << 2000], object), 0)
    with pytest.raises(TooLarge, match="beyond float64"):
        Exact().floats(huge)
    assert Exact().floats(Fixed(huge.ints, -2000)).tolist() == [1.0]


def test_sums_of_too_many_products_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Digits of their sums would not be exact."""
    ar, one = Exact(), Exact().number(np.ones((2, 2)))
    assert ar.floats(ar.product(lambda x, y: x @ y, one, one, 2)).tolist() == [[2.0, 2.0], [2.0, 2.0]]
    monkeypatch.setattr(arithmetic, "_MOST_TERMS", 1)
    with pytest.raises(TooLarge, match="sums of 2 products"):
        ar.product(lambda x, y: x @ y, one, one, 2)
