"""Sums of squares of inputs as what they say of single ones, and as balls."""

from __future__ import annotations

from fractions import Fraction
from random import Random

from krelax.problem.quadrics import Quadric, root_above
from krelax.problem.query import Halfspace, Monomial

TERMS: list[Monomial] = [(0,), (2,), (0, 0), (2, 2), (0, 2), (1,), (1, 1)]


def read(coefficients: dict[int, int | Fraction], constant: int | Fraction, strict: bool = False) -> Quadric | None:
    exact = {i: Fraction(factor) for i, factor in coefficients.items()}
    return Quadric.of(Halfspace(exact, Fraction(constant), strict), lambda term: TERMS[term])


def test_squares_are_completed() -> None:
    """x^2 - 2 x + 2 y^2 + 8 y + 5 = (x - 1)^2 + 2 (y + 2)^2 - 4."""
    quadric = read({2: 1, 0: -2, 3: 2, 1: 8}, 5)
    assert quadric is not None
    assert (quadric.centre, quadric.level) == ({0: 1, 1: -2}, 4)
    assert quadric.radius is None
    assert 2 <= quadric.reach(0) < 2 + Fraction(1, 2**50)
    assert quadric.reach(1) ** 2 >= 2
    ball = read({2: 3, 3: 3}, -12)
    assert ball is not None
    assert ball.radius is not None
    assert 2 <= ball.radius < 2 + Fraction(1, 2**50)


def test_other_conditions_are_none() -> None:
    """A factor that is negative, an input without a square, a product of two inputs, an output."""
    for coefficients in ({2: -1}, {2: 1, 1: 1}, {2: 1, 4: 1}, {2: 1, 5: 1}, {6: 1}, {0: 1}, {2: 0, 0: 1}):
        assert read(coefficients, -1) is None


def test_what_nothing_satisfies_is_empty() -> None:
    empty = [quadric.empty for constant, strict in ((1, False), (0, False), (0, True), (-1, True))
             if (quadric := read({2: 1}, constant, strict)) is not None]  # fmt: skip
    assert empty == [True, False, True, False]


def test_one_input_twice_is_added() -> None:
    terms = {0: (0, 0), 1: (0, 0), 2: (0,)}
    halfspace = Halfspace({0: Fraction(1), 1: Fraction(1), 2: Fraction(-4)}, Fraction(0))
    quadric = Quadric.of(halfspace, terms.get)
    assert quadric is not None
    assert (quadric.factors, quadric.centre, quadric.level) == ({0: 2}, {0: 1}, 2)


def test_roots_are_just_above() -> None:
    random = Random(0)
    for _ in range(300):
        number = Fraction(random.randrange(1, 10**30), random.randrange(1, 10**30)) * Fraction(2) ** random.randrange(
            -99, 99
        )
        root = root_above(number)
        assert root**2 >= number
        assert (root * (1 - Fraction(1, 2**52))) ** 2 < number
    assert root_above(Fraction(0)) == 0
