"""Exact numbers and the floating-point numbers next to them: what is asked is decided without rounding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from krelax.elements import Elements

Floats = NDArray[np.float64]
# An end of an interval, and whether it is open; and the lower and the upper end for an entry, None where there is none.
End = tuple[Fraction, bool]
Ends = Callable[[int], tuple[End | None, End | None]]


class Limit(NamedTuple):
    """An exact number: the float64 nearest to it, the sign of its difference from that, and itself or its decimal."""

    near: float
    side: int
    exact: Fraction | str

    @classmethod
    def of(cls, exact: Fraction | str) -> Limit:
        """Of a fraction or a decimal that is less than the largest float64 in magnitude."""
        near = float(exact) + 0.0  # zero has no sign
        if isinstance(exact, str):
            decimal, other = Decimal(exact), Decimal(near)  # compared exactly, and fast
            return cls(near, (decimal > other) - (decimal < other), exact)
        return cls(near, (exact > near) - (exact < near), exact)

    @property
    def value(self) -> Fraction:
        """The number itself."""
        return Fraction(Decimal(self.exact)) if isinstance(self.exact, str) else self.exact


class Enclosure(NamedTuple):
    """The float64 numbers next to an exact one: ``down`` and ``up`` around it, and inside of four kinds of bounds:
    the smallest one in ``x >= v`` is ``up`` and in ``x > v`` it is ``above``, the largest one in ``x <= v`` is ``down``
    and in ``x < v`` it is ``below``."""

    down: Floats
    up: Floats
    below: Floats
    above: Floats


def enclosure(limits: Sequence[Limit]) -> Enclosure:
    """The float64 numbers around each of the limits, arrays of shape (n,)."""
    near = np.array([limit.near for limit in limits], dtype=np.float64)
    side = np.array([limit.side for limit in limits], dtype=np.int8)
    before, after = np.nextafter(near, -np.inf), np.nextafter(near, np.inf)
    down, up = np.where(side < 0, before, near), np.where(side > 0, after, near)
    return Enclosure(down, up, np.where(side == 0, before, down), np.where(side == 0, after, up))


class Numbers(NamedTuple):
    """The numbers of some element types in a box: those from `first` to `last`, arrays of a type that holds them."""

    first: NDArray[Any]
    last: NDArray[Any]
    elements: Elements

    @classmethod
    def of(cls, least: Floats, most: Floats, elements: Elements) -> Numbers:
        """Of the box that has the float64 numbers from `least` to `most`."""
        first, last = elements.rounded(least, "up"), elements.rounded(most, "down")
        largest = np.finfo(elements.holder).max
        with np.errstate(over="ignore"):
            sides = [side.astype(elements.holder) for side in (first, last)]
        return cls(np.asarray(np.maximum(sides[0], -largest)), np.asarray(np.minimum(sides[1], largest)), elements)

    @property
    def exist(self) -> bool:
        """Whether there is a number for every input."""
        return bool((self.first <= self.last).all())

    def nearest(self, x: NDArray[Any]) -> NDArray[Any] | None:
        """The point of them that is nearest to `x`, None if there is none at all."""
        if not self.exist:
            return None
        # rounding is monotone, so what lies between two numbers of a type is rounded to one between them
        inside = np.clip(np.asarray(x, np.float64), self.first.astype(np.float64), self.last.astype(np.float64))
        return self.elements.rounded(inside, "nearest").astype(self.elements.holder)


def within(x: NDArray[Any], centre: NDArray[Any], eps: Fraction, p: int) -> bool:
    """Whether `x` lies within `eps` of `centre` in the norm of p = 1 or 2, decided exactly.

    Floating point decides where it is far from a tie, and rational numbers elsewhere.
    """
    steps = x.astype(np.float64).flatten() - centre.astype(np.float64).flatten()
    scale = float(np.abs(steps).max(initial=0.0))
    if scale == 0 or not np.isfinite(scale):
        return scale == 0
    norm, radius = scale * float(np.linalg.norm(steps / scale, ord=p)), float(eps)
    slack = (len(steps) + 16) * 2.0**-52
    if min(norm, radius) > _ORDINARY and not abs(norm - radius) <= slack * radius:
        return norm < radius
    exact = [abs(Fraction(a) - Fraction(b)) for a, b in zip(_numbers(x), _numbers(centre), strict=True)]
    return sum(exact) <= eps if p == 1 else sum(step * step for step in exact) <= eps * eps


# From here on relative errors are what the analysis of rounding says, far from what underflows.
_ORDINARY = 1e-280


def _numbers(x: NDArray[Any]) -> list[float]:
    numbers: list[float] = x.astype(np.float64).flatten().tolist()
    return numbers
