"""Conditions on inputs that say how far these may be from a point: sums of squares, as `sum a_i x_i^2 + b_i x_i <= c`.

Completed to `sum a_i (x_i - v_i)^2 <= s` such a condition bounds every input it has, and where all `a_i` are the same
it is a ball in the Euclidean norm.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

from krelax.problem.query import Halfspace, Monomial


@dataclass(frozen=True)
class Quadric:
    """`sum factors[i] (x_i - centre[i])^2 <= level`, less where `strict`; all factors are positive."""

    factors: dict[int, Fraction]
    centre: dict[int, Fraction]
    level: Fraction
    strict: bool

    @classmethod
    def of(cls, halfspace: Halfspace, monomial: Callable[[int], Monomial | None]) -> Self | None:
        """A half-space of terms with these monomials (None: of something else than inputs); None if it is no such
        condition."""
        sums = defaultdict[int, Fraction](Fraction), defaultdict[int, Fraction](Fraction)
        for term, factor in halfspace.coefficients.items():
            codes = monomial(term)
            if codes is None or len(codes) > 2 or any(code % 2 or code != codes[0] for code in codes):
                return None
            sums[2 - len(codes)][codes[0] // 2] += factor
        squares, linear = ({i: a for i, a in part.items() if a} for part in sums)
        if not squares or any(a < 0 for a in squares.values()) or not linear.keys() <= squares.keys():
            return None
        centre = {i: -linear.get(i, Fraction(0)) / (2 * a) for i, a in squares.items()}
        level = sum((a * centre[i] ** 2 for i, a in squares.items()), -halfspace.constant)
        return cls(squares, centre, level, halfspace.strict)

    @property
    def empty(self) -> bool:
        """Whether nothing satisfies it."""
        return self.level < 0 or (self.strict and self.level == 0)

    def reach(self, i: int) -> Fraction:
        """How far an input may be from its centre, at most, rounded up."""
        return root_above(self.level / self.factors[i])

    @property
    def radius(self) -> Fraction | None:
        """That of the ball, rounded up; None if it is none."""
        factors = set(self.factors.values())
        return root_above(self.level / factors.pop()) if len(factors) == 1 else None


def root_above(number: Fraction) -> Fraction:
    """A square root, rounded up to about as many digits as float64 has."""
    if number <= 0:
        return Fraction(0)
    # a fraction p / q is p q / q^2, and shifted so far that the root of an integer has 64 bits at least
    product, shift = number.numerator * number.denominator, 0
    while (product << (2 * shift)).bit_length() < 128:
        shift += 32
    root = math.isqrt(product << (2 * shift))
    return Fraction(root + 1, number.denominator << shift)
